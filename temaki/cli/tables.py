"""Results as text and tables, as they are printed without ``--json``."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import singledispatch
from typing import Any, Final

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from temaki.cli import results
from temaki.engine.hint import about_pages

_UNITS: Final = ("bytes", "KiB", "MiB", "GiB", "TiB")
_STEP: Final = 1024
_SHORT: Final = 12  # characters of a commit's id: enough to be unique, and few enough to type
_LINEAGE: Final = 5  # commits
_SENTENCE: Final = 80  # characters: a longer sentence is wrapped in its column, also on a wide terminal or in a pipe
_STATES: Final = {"ok": "green", "warning": "yellow", "failed": "bold red", "skipped": "dim"}


def size(count: int) -> str:
    """Return a number of bytes as text, in a readable unit."""
    if count < _STEP:
        return f"{count} bytes"
    value, unit = float(count), 0
    while value >= _STEP and unit < len(_UNITS) - 1:
        value, unit = value / _STEP, unit + 1
    return f"{value:.1f} {_UNITS[unit]}"


def duration(seconds: float) -> str:
    """Return a number of seconds as text, in the two largest units."""
    left = int(seconds)
    parts: list[str] = []
    for name, unit in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        if left >= unit or (name == "s" and not parts):
            parts.append(f"{left // unit} {name}")
            left %= unit
    return " ".join(parts[:2])


def moment(when: datetime | None) -> str:
    """Return a point in time as text, in UTC; empty for None."""
    return "" if when is None else f"{when.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def short(commit: str) -> str:
    """Return the beginning of a commit's id, long enough to be unique."""
    return commit[:_SHORT] if not commit.startswith("adopted-") else commit[: _SHORT + 8]


def _many(count: int, noun: str) -> str:
    """``1 object``, or ``2 objects``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _facts(rows: list[tuple[str, str]]) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, Text(value))
    return table


def _grid(*columns: str, right: tuple[str, ...] = ()) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left", overflow="fold")
    return table


@singledispatch
def shown(result: object) -> Iterator[RenderableType]:
    """Yield the texts and tables to print for a result."""
    raise NotImplementedError(type(result))


@shown.register
def _(result: results.Status) -> Iterator[RenderableType]:
    version, lease = result.version, result.lease
    rows = [
        ("database", result.url),
        ("version", f"{version.sequence}" + (" (written by another tool)" if result.adopted else "")),
        ("commit", version.commit),
        ("size", f"{size(version.size)} ({result.pages} pages of {result.page_size} bytes)"),
        ("stored", f"{moment(version.modified)} UTC" if version.modified else "the store does not say"),
        ("age", "the store does not say" if result.age is None else duration(result.age)),
        ("format", _format_line(result)),
        *([] if result.layout is None else _layout_rows(result.layout)),
        ("lease", _lease_line(lease)),
        ("lineage", _lineage(result.lineage)),
    ]
    yield _facts(rows)
    if result.tables is not None:
        table = _grid("table", "rows", right=("rows",))
        for counted in result.tables:
            table.add_row(Text(counted.name), f"{counted.rows:,}")
        yield table


def _format_line(result: results.Status) -> str:
    found = about_pages(result.version.size, 0) if result.format == "file" else None
    return result.format if found is None else f"file (a small commit {found}: temaki convert {result.url} --to pages)"


def _layout_rows(layout: results.PagesLayout) -> list[tuple[str, str]]:
    base, segments, tail = layout.base, layout.segments, layout.tail
    pull, compacted = layout.full_pull, layout.compacted
    rows = [
        ("base", f"{size(base.size)}, of version {base.sequence}"),
        ("segments", f"{segments.number:,} ({size(segments.size)}); versions from {layout.since} on can catch up"),
        ("tail", f"{_many(tail.number, 'page')} ({size(tail.size)})"),
        ("condemned", f"{_many(layout.condemned, 'object')} to be deleted" if layout.condemned else "nothing"),
        ("full pull", f"{_cost(pull)}; {_cost(compacted)} after temaki compact"),
    ]
    if layout.claimed is not None:
        rows.append(("fold", f"a process has been writing a new base since {moment(layout.claimed)} UTC"))
    return rows


def _cost(pull: results.FullPull) -> str:
    return f"{_many(pull.requests, 'request')}, {size(pull.size)} ({pull.ratio:.2f} times the database)"


def _lineage(commits: list[str]) -> str:
    newest = [short(commit) for commit in commits[:_LINEAGE]]
    return " < ".join([*newest, "…"] if len(commits) > _LINEAGE else newest)


def _lease_line(lease: results.LeaseState) -> str:
    if not lease.generation:
        return "never taken"
    if not lease.held:
        return f"free (generation {lease.generation}, last {lease.holder})"
    return f"held by {lease.holder} ({lease.purpose}) since {moment(lease.since)} UTC, generation {lease.generation}"


@shown.register
def _(result: results.Pulled) -> Iterator[RenderableType]:
    yield Text(f"{result.path}: {_line(result.version)} of {result.url}")


@shown.register
def _(result: results.Pushed) -> Iterator[RenderableType]:
    replaced = "" if result.replaced is None else f", in place of {_line(result.replaced)}"
    yield Text(f"{result.url}: {_line(result.version)}{replaced}")


@shown.register
def _(result: results.Copied) -> Iterator[RenderableType]:
    yield Text(
        f"{result.url}: {_line(result.version)}, a copy of {result.source} (commit {short(result.original.commit)})"
    )
    who = "by the store itself" if result.within_store else "through this machine"
    yield _facts(
        [
            ("format", result.format),
            ("copied", f"{size(result.copied)} in {_many(result.objects, 'object')}, {who}"),
            ("requests", f"{result.requests:,}, {size(result.bytes_up)} up, {size(result.bytes_down)} down"),
        ]
    )


@shown.register
def _(result: results.Converted) -> Iterator[RenderableType]:
    if result.replaced is None:
        yield Text(f"{result.url}: {_line(result.version)}: already in the format {result.format}.")
        return
    now, before = _line(result.version), _line(result.replaced)
    yield Text(f"{result.url}: {now}, in the format {result.format}, in place of {before}")
    if result.format == "file":
        folder = f"{result.url}.pages/"
        yield Text(
            f"The objects in {folder} stay: older versions that the bucket keeps refer to them. If you need none of "
            "those, remove the objects; but not after a conversion back to pages."
        )


@shown.register
def _(result: results.Compacted) -> Iterator[RenderableType]:
    if result.format == "file":
        yield Text(f"{result.url}: {_line(result.version)}: in one file, so there is nothing to compact.")
        return
    yield Text(
        f"{result.url}: {_line(result.version)}" + (" (nothing is changed by --dry-run)" if result.dry_run else "")
    )
    yield _facts(
        [
            ("folded", "a new base" if result.folded else "no new base"),
            ("merged", _many(result.merged, "segment")),
            ("uploaded", size(result.uploaded)),
            ("condemned", f"{_many(result.condemned, 'object')}, by this run"),
            ("deleted", f"{_many(result.deleted, 'object')}, {size(result.freed)}"),
            ("to be deleted", f"{size(result.waiting)}, by a run in an hour or later"),
            ("full pull", f"{size(result.pull_before)} before, {size(result.pull_after)} after"),
        ]
    )
    if result.busy:
        yield Text("Another process is compacting it, or was faster. Run this again later.")


def _line(version: results.StoredVersion) -> str:
    return f"version {version.sequence}, commit {short(version.commit)}, {size(version.size)}"


@shown.register
def _(result: results.Verified) -> Iterator[RenderableType]:
    verdict = "sound" if result.sound else f"NOT sound: {len(result.problems)} found"
    yield Text(f"{result.url}: {_line(result.version)}: {verdict}")
    for problem in result.problems:
        yield Text(f"  {problem}")


@shown.register
def _(result: results.History) -> Iterator[RenderableType]:
    table = _grid("version", "commit", "size", "stored (UTC)", "version id", "", right=("version", "size"))
    for version in result.versions:
        table.add_row(
            f"{version.sequence}",
            short(version.commit),
            size(version.size),
            moment(version.modified),
            Text(version.version_id or ""),
            "current" if version.current else "",
        )
    yield table
    if result.deleted:
        yield Text("The object is deleted now; restore brings one of these versions back.")
    if result.unreadable:
        yield Text(f"No database that temaki can use: {', '.join(result.unreadable)}")
    if result.truncated:
        yield Text("The bucket has older versions: see --limit.")


@shown.register
def _(result: results.Difference) -> Iterator[RenderableType]:
    yield Text(f"- {_line(result.old)}\n+ {_line(result.new)}")
    if not result.tables:
        yield Text("No table differs.")
        return
    table = _grid("table", "added", "changed", "removed", "", right=("added", "changed", "removed"))
    for change in result.tables:
        note = " ".join([*([f"table {change.state}"] if change.state != "changed" else []), *change.columns])
        table.add_row(Text(change.name), f"{change.added:,}", f"{change.changed:,}", f"{change.removed:,}", Text(note))
    yield table


@shown.register
def _(result: results.LeaseResult) -> Iterator[RenderableType]:
    if result.evicted is not None:
        yield Text(f"{result.evicted} was evicted; the lease is free, in generation {result.lease.generation}.")
        return
    lease = result.lease
    rows = [("database", result.url), ("lease", _lease_line(lease))]
    if lease.ttl is not None:
        rows.append(("ttl", f"{lease.ttl:g} s"))
    yield _facts(rows)


@shown.register
def _(result: results.ShellResult) -> Iterator[RenderableType]:
    for statement in result.statements:
        if statement.columns:
            yield rows_table(statement)
    if result.published is not None:
        yield Text(f"stored as {_line(result.published)}")


def rows_table(result: results.StatementResult) -> Table:
    """Return a table of the rows of one statement."""
    table = _grid(*result.columns)
    for row in result.rows:
        table.add_row(*(Text("NULL", style="dim") if value is None else Text(_cell(value)) for value in row))
    return table


def _cell(value: Any) -> str:
    return f"x'{value.hex()}'" if isinstance(value, bytes) else str(value)


@shown.register
def _(result: results.Diagnosis) -> Iterator[RenderableType]:
    yield _facts([("database", result.url), ("strategy", result.strategy)])
    table = _grid("check", "", "found")
    table.columns[-1].max_width = _SENTENCE
    for finding in result.findings:
        text = Text(finding.found)
        if finding.advice:
            text.append(f"\n→ {finding.advice}", style="bold")
        table.add_row(finding.check, Text(finding.state, style=_STATES[finding.state]), text)
    yield table
    if result.latencies:
        latencies = _grid("latency", "p50", "p95", "requests", right=("p50", "p95", "requests"))
        for each in result.latencies:
            latencies.add_row(each.request, f"{each.p50:.1f} ms", f"{each.p95:.1f} ms", f"{each.requests}")
        yield latencies
    yield Text("This configuration works." if result.works else "This configuration does not work.")


@shown.register
def _(result: results.Bench) -> Iterator[RenderableType]:
    yield _facts(
        [
            ("database", result.url),
            ("strategy", result.strategy),
            ("format", result.format),
            ("size", size(result.size)),
        ]
    )
    table = _grid(
        "session", "requests", "up", "down", "p50", "p95", "$ / 1000", right=("up", "down", "p50", "p95", "$ / 1000")
    )
    for cost in result.sessions:
        requests = ", ".join(f"{count:g} {verb.upper()}" for verb, count in cost.requests.items()) or "none"
        table.add_row(
            cost.session,
            requests,
            size(cost.bytes_up),
            size(cost.bytes_down),
            f"{cost.p50:.1f} ms",
            f"{cost.p95:.1f} ms",
            f"{cost.dollars_per_1000:.5f}",
        )
    yield table
    prices = ", ".join(f"{verb.upper()} {price:g}" for verb, price in result.prices.items())
    yield Text(
        f"Dollars per 1000 requests (S3 Standard, us-east-1, list prices, without traffic and storage): {prices}."
    )
