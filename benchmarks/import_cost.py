"""What starting costs: importing temaki and binding an object, against importing Pony and binding a SQLite file.

Each start is a fresh interpreter, measured from its first line to the end of the binding; the variants take turns. What
has been imported by then is looked up as well: the heavy libraries may only come with the first request, or not at all.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks._common import Targets, median, ms, table

TARGET = 1.5
HEAVY = ("boto3", "botocore", "tenacity", "msgspec")

_BEGIN = "import time; begin = time.perf_counter()\n"
_END = """
took = time.perf_counter() - begin
import json, sys
print(json.dumps([took, len(sys.modules), [name for name in %r if name in sys.modules]]))
""" % (HEAVY,)  # noqa: UP031 - there are braces of other kinds in it

VARIANTS = {
    "pony.orm + a SQLite file": "from pony.orm import Database\nDatabase().bind('sqlite', {file!r}, create_db=True)",
    "temaki + s3://": "from temaki import Database\nDatabase().bind_s3('s3://bucket/app.sqlite')",
    "temaki + file://": "from temaki import Database\nDatabase().bind_s3({url!r})",
    "temaki, by environment": "from temaki import Database\nDatabase().bind_s3()",
}


def main() -> None:
    """Start all variants in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25)
    rounds = parser.parse_args().rounds
    # Compiled files must be written and read, as on any machine in earnest; settings must be nobody's.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TEMAKI_")}
    inherited.pop("PYTHONDONTWRITEBYTECODE", None)
    environment = {**inherited, "TEMAKI_URL": "s3://bucket/app.sqlite"}
    measured: dict[str, list[tuple[float, int, list[str]]]] = {name: [] for name in VARIANTS}
    with tempfile.TemporaryDirectory(prefix="temaki-bench-") as name:
        folder = Path(name)
        facts = {"file": str(folder / "plain.sqlite"), "url": f"{folder.as_uri()}/app.sqlite"}
        for number, code in enumerate(VARIANTS.values()):
            # A file: in code from the command line Pony would take itself for interactive.
            (folder / f"{number}.py").write_text(_BEGIN + code.format(**facts) + _END)
        for _ in range(rounds + 1):
            for number, variant in enumerate(VARIANTS):
                command = [sys.executable, str(folder / f"{number}.py")]
                done = subprocess.run(command, env=environment, cwd=folder, stdout=subprocess.PIPE, check=True)
                measured[variant].append(tuple(json.loads(done.stdout)))

    plain, *ours = VARIANTS
    medians = {variant: median(took for took, *_ in starts[1:]) for variant, starts in measured.items()}
    print(f"  Medians of {rounds} fresh interpreters each, in turns.\n")
    table(
        ("import and bind", "median", "fastest", "ratio", "modules"),
        [
            [
                variant,
                ms(medians[variant]),
                ms(min(took for took, *_ in starts[1:])),
                f"{medians[variant] / medians[plain]:.2f}",
                str(starts[-1][1]),
            ]
            for variant, starts in measured.items()
        ],
    )
    targets = Targets()
    for variant in ours:
        ratio = medians[variant] / medians[plain]
        targets.add(f"{variant}, ratio to Pony alone", f"{TARGET:.2f}", f"{ratio:.2f}", met=ratio <= TARGET)
        heavy = measured[variant][-1][2]
        targets.add(f"{variant}, of {', '.join(HEAVY)}", "none", ", ".join(heavy) or "none", met=not heavy)
    targets.show()


if __name__ == "__main__":
    main()
