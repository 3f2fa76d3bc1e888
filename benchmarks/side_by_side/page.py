"""docs/benchmarks/index.md and its plots, made of results.json: ``python -m benchmarks.side_by_side.page``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.side_by_side.plots import bars, lines
from benchmarks.side_by_side.targets import MB, OWN, Results, targets

FOLDER = Path(__file__).parents[2] / "docs" / "benchmarks"
WORKLOADS = {
    "read": "Unchanged read session",
    "read-after": "Read session after someone else's commit",
    "commit": "One-row commit",
    "commit-100": "Transaction that changes a hundred rows",
    "first": "First start: a new process, from its first import to its first row",
}
# S3 Standard, us-east-1, list prices in dollars for each request. DELETE is free; transfer within the region, too.
PRICES = {"PUT": 5e-6, "POST": 5e-6, "LIST": 5e-6, "GET": 4e-7, "HEAD": 4e-7, "DELETE": 0.0}
REMARKS = Path(__file__).parent / "remarks.md"
METHOD = (Path(__file__).parent / "method.md").read_text(encoding="utf-8")


def write(folder: Path = FOLDER) -> None:
    """Make the page and the plots of the results that are in the folder."""
    for name, text in generate(json.loads((folder / "results.json").read_text(encoding="utf-8"))).items():
        (folder / name).write_text(text, encoding="utf-8")


def generate(results: dict[str, Any]) -> dict[str, str]:
    """The files, by name."""
    found = Results(results)
    plots = _plots(found)
    parts = [
        "# Measured side by side",
        "<!-- Made by `make bench` of results.json, which has all figures; changes belong into the generator. -->",
        _summary(results),
        "## Targets",
        _table(
            ("what", "at most, or at least", "measured", ""),
            [
                (target.what, target.aim, target.measured, "met" if target.met else "**missed**")
                for target in targets(found)
            ],
        ),
        METHOD.strip(),
        _remarks(results),
        "## One session, 1 MB, round trip 20 ms",
        "Requests and bytes are per session; dollars for a million sessions, requests only; peak is resident memory.",
        *_images(plots, "read.svg", "commit.svg"),
        *_sessions(found),
        "## By round trip, 1 MB",
        "Median in ms.",
        *_images(plots, "round-trips.svg"),
        *_by(found, ("read", "commit"), [(1, rtt) for rtt in (0, 5, 20, 50)], lambda _, rtt: f"{rtt:g} ms"),
        "## By size",
        "Median in ms. 0.1 to 10 MB at 20 ms, 100 MB at 0 and 50 ms, 300 MB at 0 ms.",
        *_images(plots, "sizes.svg"),
        *_by(
            found,
            ("read", "read-after", "commit"),
            [(0.1, 20), (1, 20), (10, 20), (100, 0), (100, 50), (300, 0)],
            lambda size, rtt: f"{size:g} MB, {rtt:g} ms",
        ),
        "Peak memory of a read after someone else's commit, MB:",
        _memory(found),
        *_contests(found, plots),
        "## The systems",
        _systems(results),
    ]
    return {"index.md": "\n\n".join(part for part in parts if part) + "\n", **plots}


def _summary(results: dict[str, Any]) -> str:
    machine, quick = results["machine"], "**A quick trial, not for comparison.** " if results["quick"] else ""
    kind = f"{machine['cores']} cores ({machine['cpu']}), {machine['memory_gib']} GiB, Linux {machine['kernel']}"
    return (
        f"{quick}One run of `make bench` on {results['date']}, {results['seconds'] / 60:.0f} minutes: {kind}, load "
        f"{machine['load_before']:g} before it began; seed of the data {results['seed']}. {_memory_note(machine)}"
        "Requests are counted exactly, and so are bytes. Times are good for ratios within this run only."
    )


def _memory_note(machine: dict[str, Any]) -> str:
    if machine.get("gives_memory_back"):
        return "The machine gives free memory back to its host: figures of large databases are worse for it. "
    return ""


def _remarks(results: dict[str, Any]) -> str:
    """What was written about this very run, by hand; nothing for any other."""
    run, _, text = REMARKS.read_text(encoding="utf-8").partition("\n")
    return text.strip() if run == f"run of {results['date']}, {results['seconds']} s" else ""


def _sessions(found: Results) -> list[str]:
    head = ("system", "requests", "up", "down", "p50 ms", "p95 ms", "CPU ms", "peak MB", "$ per million", "")
    parts = []
    for workload, title in WORKLOADS.items():
        rows = []
        for system in found.all["systems"]:
            cell = found.cell(system, 1, 20, workload)
            if cell is None:
                continue
            remark = "**stale**: does not see it" if cell.get("stale") else "**not stored**" if cell.get("lost") else ""
            rows.append((
                system, _requests(cell["requests"]), _bytes(cell["bytes_up"]), _bytes(cell["bytes_down"]),
                f"{cell['p50'] * 1000:.1f}", f"{cell['p95'] * 1000:.1f}", f"{cell['cpu'] * 1000:.1f}",
                f"{cell['peak'] / MB:.0f}", _dollars(cell["requests"]), remark,
            ))  # fmt: skip
        if rows:
            parts += [f"### {title}", _table(head, rows)]
    return parts


def _by(found: Results, workloads: Sequence[str], places: Sequence[tuple[float, float]], label: Any) -> list[str]:
    parts = []
    for workload in workloads:
        rows = []
        for system in found.all["systems"]:
            cells = [found.cell(system, *place, workload) for place in places]
            if any(cells):
                rows.append((system, *[_ms(cell) for cell in cells]))
        if rows:
            parts += [
                f"### {WORKLOADS[workload].split(':')[0]}",
                _table(("system", *[label(*p) for p in places]), rows),
            ]
    return [part.replace("### ", f"### {_suffix(places)}: ", 1) for part in parts]


def _suffix(places: Sequence[tuple[float, float]]) -> str:
    return "By round trip" if len({size for size, _ in places}) == 1 else "By size"


def _memory(found: Results) -> str:
    places = [(1, 20), (10, 20), (100, 0), (300, 0)]
    rows = []
    for system in found.all["systems"]:
        cells = [found.cell(system, *place, "read-after") for place in places]
        if any(cells):
            rows.append((system, *[f"{cell['peak'] / MB:.0f}" if cell else "-" for cell in cells]))
    return _table(("system", *[f"{size:g} MB" for size, _ in places]), rows) if rows else ""


def _contests(found: Results, plots: dict[str, str]) -> list[str]:
    about = found.all["contest"]
    place = f"{about['size'] / MB:g} MB, round trip {about['rtt'] * 1000:g} ms, {about['seconds']:g} s"
    writers = [
        (
            contest["system"],
            f"{contest['commits'] / contest['elapsed']:.1f}",
            str(contest["commits"]),
            f"**{contest['lost']}**" if contest["lost"] else "0",
            f"{contest['fewest']} to {contest['most']}",
            _requests(contest["requests"], contest["commits"]),
            _bytes(contest["bytes_up"] / max(1, contest["commits"])),
            _errors(contest),
        )
        if "error" not in contest
        else (contest["system"], *["-"] * 6, contest["error"])
        for contest in found.contests("writers")
    ]
    readers = [
        (
            contest["system"],
            f"{contest['reads'] / contest['elapsed']:.0f}",
            f"{contest['commits'] / contest['elapsed']:.1f}",
            f"**{contest['stale']}** of {contest['reads']}" if contest["stale"] else "0",
            f"**{contest['lost']}** of {contest['commits']}" if contest["lost"] else "0",
            _errors(contest),
        )
        if "error" not in contest
        else (contest["system"], *["-"] * 4, contest["error"])
        for contest in found.contests("readers")
    ]
    head = ("system", "acknowledged/s", "acknowledged", "lost", "by one process", "requests each", "up each", "errors")
    return [
        "## Eight writers, one counter",
        f"Eight processes add one to a counter; {place}. Lost: acknowledged, and not in what is stored at the end.",
        *_images(plots, "writers.svg"),
        _table(head, writers),
        "## One writer, eight readers",
        f"Nine processes; {place}. A read is stale if it began after a commit was acknowledged and did not see it.",
        _table(("system", "reads/s", "commits/s", "stale reads", "commits lost", "errors"), readers),
    ]


def _systems(results: dict[str, Any]) -> str:
    rows = []
    for name, about in results["systems"].items():
        versions = ", ".join(f"{package} {version}" for package, version in about.get("versions", {}).items())
        own = [cell for cell in results["cells"] if cell["system"] == name and "error" in cell]
        failed = sorted({f"{cell['workload']}: {cell['error']}" for cell in own})
        missing = [f"**Not run: {about['missing']}.**"] if "missing" in about else []
        said = " ".join([*missing, about["note"], about["why_not"], *failed])
        rows.append((name, versions or "-", said.replace("|", "\\|").strip() or "As its README says."))
    return _table(("system", "versions", "how it is used, and what it is not asked to do"), rows)


def _plots(found: Results) -> dict[str, str]:
    systems = list(found.all["systems"])
    plots: dict[str, str] = {}
    for workload, title in (("read", "An unchanged read session"), ("commit", "A one-row commit")):
        rows, labels = [], {}
        for system in systems:
            cell = found.cell(system, 1, 20, workload)
            if cell is not None:
                rows.append((system, cell["p50"] * 1000, 0.0))
                after = found.cell(system, 1, 20, "read-after") or {}
                labels[system] = f"{cell['p50'] * 1000:.1f}" + (", stale" if after.get("stale") else "")
        if rows:
            plots[f"{workload}.svg"] = bars(
                f"{title}: 1 MB, round trip 20 ms", rows, labels=labels, legend="median, ms"
            )
    shown = [name for name in systems if name not in {"temaki read-only", "temaki lease-locked hold=0.5"}]
    series = _series(found, shown, "commit", [(1, rtt) for rtt in (0, 5, 20, 50)], by_size=False)
    if series:
        plots["round-trips.svg"] = lines(
            "A one-row commit, 1 MB, by round trip", series, x="round trip, ms", y="median, ms", log=False
        )
    series = _series(found, shown, "read-after", [(0.1, 20), (1, 20), (10, 20), (100, 50)], by_size=True)
    if series:
        plots["sizes.svg"] = lines(
            "A read after someone else's commit, by size", series, x="MB (to 10: 20 ms; 100: 50 ms)", y="median, ms"
        )
    contests = [contest for contest in found.contests("writers") if "error" not in contest]
    if contests:
        plots["writers.svg"] = bars(
            "Eight writers, one counter: updates acknowledged per second",
            [
                (
                    contest["system"],
                    (contest["commits"] - contest["lost"]) / contest["elapsed"],
                    contest["lost"] / contest["elapsed"],
                )
                for contest in contests
                if contest["system"] != "local SQLite"
            ],
            labels={contest["system"]: f"{contest['lost']} of {contest['commits']} lost" for contest in contests},
            legend="stored, and (orange) lost",
        )
    return plots


def _series(
    found: Results, systems: Sequence[str], workload: str, places: Sequence[tuple[float, float]], *, by_size: bool
) -> dict[str, list[tuple[float, float]]]:
    series: dict[str, list[tuple[float, float]]] = {}
    for system in systems:
        cells = [(place, found.cell(system, *place, workload)) for place in places]
        line = [
            (float(place[0] if by_size else place[1]), cell["p50"] * 1000)
            for place, cell in cells
            if cell is not None and not (workload == "read-after" and cell.get("stale"))
        ]
        if len(line) > 1:
            series[system] = line
    return dict(sorted(series.items(), key=lambda item: (item[0] != OWN, -item[1][-1][1])))


def _images(plots: dict[str, str], *names: str) -> list[str]:
    return [f"![{name.removesuffix('.svg').replace('-', ' ')}]({name})" for name in names if name in plots]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    sides = [":--", *["--:"] * (len(head) - 1)] if len(head) > 4 else [":--"] * len(head)
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, sides, *rows))


def _requests(requests: dict[str, float], sessions: float = 1) -> str:
    shares = {kind: count / max(1, sessions) for kind, count in requests.items()}
    return ", ".join(f"{share:.3g} {kind}" for kind, share in shares.items() if share) or "none"


def _dollars(requests: dict[str, float]) -> str:
    return f"{1e6 * sum(PRICES[kind] * count for kind, count in requests.items()):.2f}"


def _bytes(count: float) -> str:
    return f"{count:,.0f}"


def _ms(cell: dict[str, Any] | None) -> str:
    if cell is None:
        return "-"
    return f"{cell['p50'] * 1000:,.1f}" + (" (stale)" if cell.get("stale") else "")


def _errors(contest: dict[str, Any]) -> str:
    return ", ".join(f"{count} {name}" for name, count in contest["errors"].items())


if __name__ == "__main__":
    write()
