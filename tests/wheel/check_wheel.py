"""Tries an installed temaki: run by ``make wheel`` in an empty environment, away from the sources.

No pytest here: only what the wheel and its dependencies bring.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from importlib.metadata import entry_points, version
from importlib.util import find_spec
from pathlib import Path

STRATEGIES = {"always-download", "etag-cached", "read-only"}

# Both processes define the same entity; the mode says who writes and who reads.
APPLICATION = """
import sys
from pony.orm import PrimaryKey, Required, db_session
from temaki import Database

url, mode = sys.argv[1:]
db = Database()

class Role(db.Entity):
    id = PrimaryKey(int)
    label = Required(str)

db.bind_s3(url)
db.generate_mapping(create_tables=True)

@db_session(retry=3)
def write():
    Role(id=1, label="admin")

@db_session
def read():
    print(Role[1].label)

write() if mode == "write" else read()
"""


def check(holds: object, what: str) -> None:
    """Say what was found, and stop at the first thing that does not hold."""
    print(f"{'ok  ' if holds else 'FAIL'} {what}", flush=True)
    if not holds:
        sys.exit(1)


def check_installation() -> None:
    """The packages come from site-packages, with their types, their version and their entry points."""
    import temaki
    import temaki_strategies

    for package in (temaki, temaki_strategies):
        folder = Path(str(package.__file__)).resolve().parent
        check("site-packages" in folder.parts, f"{package.__name__} is imported from site-packages")
        check(folder.is_relative_to(Path(sys.prefix).resolve()), f"{package.__name__} belongs to this environment")
        check((folder / "py.typed").is_file(), f"{package.__name__} has py.typed")
    check(temaki.__version__ == version("temaki"), f"__version__ is the distribution's: {temaki.__version__}")

    found = {point.name: point for point in entry_points(group="temaki.strategies")}
    check(set(found) >= STRATEGIES, f"entry points: {', '.join(sorted(found))}")
    for name, point in sorted(found.items()):
        check(isinstance(point.load(), type), f"{name} is a class: {point.value}")


def check_application(folder: Path) -> None:
    """One process writes into a folder that serves as bucket, another one reads it back."""
    bucket = folder / "bucket"
    bucket.mkdir()
    script = folder / "application.py"
    script.write_text(APPLICATION, encoding="utf-8")
    url = f"{bucket.as_uri()}/app.sqlite"
    for mode, expected in (("write", ""), ("read", "admin")):
        run = subprocess.run(
            [sys.executable, str(script), url, mode],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        sys.stderr.write(run.stderr)
        check(run.returncode == 0, f"a process that {mode}s ends well")
        check(run.stdout.strip() == expected, f"a process that {mode}s prints {expected!r}")


def check_plugin() -> None:
    """Pytest would find the plugin, in a package that does not import temaki."""
    found = {point.name: point.value for point in entry_points(group="pytest11")}
    check(found.get("temaki") == "temaki_pytest", "the pytest plugin is registered")
    check(find_spec("temaki_pytest") is not None, "and there")


def check_command() -> None:
    """The command is there; without its extra it says how to install that."""
    command = Path(sys.executable).with_name("temaki")
    run = subprocess.run([command, "status"], capture_output=True, text=True, timeout=120, check=False)
    check(run.returncode == 2, "the temaki command without its extra ends with 2")
    check("pip install 'temaki[cli]'" in run.stderr, "and says how to install it")


def main() -> None:
    """All checks, in a temporary folder."""
    check_installation()
    check_command()
    check_plugin()
    with tempfile.TemporaryDirectory(prefix="temaki-wheel-") as folder:
        check_application(Path(folder))
    print("the wheel works", flush=True)


if __name__ == "__main__":
    main()
