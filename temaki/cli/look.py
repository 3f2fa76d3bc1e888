"""``status`` and ``verify``: look at the stored version, and change nothing."""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from temaki.cli.local import interruptible, problems, read_only, scratch
from temaki.cli.options import AsJson, Url
from temaki.cli.progress import showing_progress
from temaki.cli.results import Base, FullPull, PagesLayout, Pieces, Status, TableRows, Verified
from temaki.cli.target import Target, as_stored
from temaki.cli.terminal import FOUND, Terminal, terminal
from temaki.errors import CorruptDatabaseError
from temaki.remote.transfer import read_exactly
from temaki.replica.header import DATABASE_HEADER, read_header

if TYPE_CHECKING:
    from temaki.formats.format import Cost, Layout
    from temaki.version import Version


def status(
    url: Url = None,
    *,
    quick: Annotated[bool, typer.Option("--quick", help="Leave the tables out, without a download.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what is stored: version, size, age, format, tables, and who holds the lease.

    Example: temaki status s3://my-bucket/app.sqlite
    """
    with terminal(as_json=as_json) as out:
        out.show(look(Target(url), out, quick=quick))


def look(target: Target, out: Terminal, *, quick: bool) -> Status:
    """Return what :func:`status` shows.

    Args:
        target: The database.
        out: The terminal, for the progress of the download.
        quick: Whether to leave the tables out, without a download.

    Raises:
        NotFoundError: There is no database.
        CorruptDatabaseError: The object is no database.
        StoreError: A request failed.
    """
    with scratch() as folder:
        tables = None
        if quick:
            version, layout = target.look()
            info = target.info()
            page_size = _page_size(target) if layout is None else layout.page_size
        else:
            with showing_progress(target.store, out.notes) as store:
                copy = target.fetch(folder, remote=target.remote_on(store))
            version, layout, info = copy.version, copy.layout, target.info()
            page_size = read_header(_head_of(copy.path)).page_size
            tables = count_rows(copy.path, target.url)
        matching = info if info.etag == version.etag else None  # None: another version was stored in between
        return Status(
            url=target.url,
            version=as_stored(version, matching),
            format="file" if layout is None else "pages",
            layout=None if layout is None else _as_layout(layout, version),
            age=None if matching is None else matching.age,
            pages=version.size // page_size,
            page_size=page_size,
            adopted=version.is_adopted,
            lineage=list(version.lineage),
            lease=target.lease(),
            tables=tables,
        )


def _head_of(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(DATABASE_HEADER)


def _page_size(target: Target) -> int:
    """The page size of a database that is one file, by a GET of its header."""

    def first_bytes() -> bytes:
        download = target.store.get(target.key, byte_range=(0, DATABASE_HEADER))
        assert download is not None, "an unconditional GET has a body"
        with download:
            return read_exactly(download, download.length)

    return read_header(target.repeat(first_bytes)).page_size


def _as_layout(layout: Layout, version: Version) -> PagesLayout:
    claimed = None
    if layout.claimed is not None:
        with suppress(ValueError, OverflowError, OSError):  # the number can be anything
            claimed = datetime.fromtimestamp(layout.claimed, UTC)
    return PagesLayout(
        base=Base(sequence=layout.base_sequence, size=layout.base_size),
        segments=Pieces(number=layout.segments, size=layout.segments_size),
        tail=Pieces(number=layout.tail_pages, size=layout.tail_size),
        since=layout.since,
        condemned=layout.condemned,
        claimed=claimed,
        full_pull=_as_cost(layout.full_pull, version),
        compacted=_as_cost(layout.compacted, version),
    )


def _as_cost(cost: Cost, version: Version) -> FullPull:
    return FullPull(requests=cost.requests, size=cost.size, ratio=round(cost.size / version.size, 3))


def count_rows(path: Path, url: str) -> list[TableRows]:
    """Return each table of a database with the number of its rows, without virtual tables and SQLite's own.

    Args:
        path: The file.
        url: The database's URL, for messages.

    Raises:
        CorruptDatabaseError: SQLite cannot read the file.
    """
    try:
        with closing(read_only(path)) as connection, interruptible(connection):
            names = table_names(connection)
            return [
                TableRows(name=name, rows=connection.execute(f"SELECT count(*) FROM {quoted(name)}").fetchone()[0])
                for name in names
            ]
    except sqlite3.Error as error:
        raise CorruptDatabaseError(
            f"{url} cannot be read as a database: {error}. See all problems with: temaki verify {url}", url=url
        ) from error


def table_names(connection: sqlite3.Connection, schema: str = "main") -> list[str]:
    """Return the names of the ordinary tables, sorted."""
    statement = (
        f"SELECT name FROM {quoted(schema)}.sqlite_master WHERE type = 'table' "
        "AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND sql NOT LIKE 'CREATE VIRTUAL%' ORDER BY name"
    )
    return [name for (name,) in connection.execute(statement)]


def quoted(name: str) -> str:
    """Return a quoted identifier for SQL."""
    return '"' + name.replace('"', '""') + '"'


def verify(url: Url = None, *, as_json: AsJson = False) -> None:
    """Check the stored version with SQLite's integrity_check and foreign_key_check.

    Exits with 1 if it is not sound.

    Example: temaki verify s3://my-bucket/app.sqlite
    """
    with terminal(as_json=as_json) as out:
        result = inspect(Target(url), out)
        out.show(result)
        if not result.sound:
            raise typer.Exit(FOUND)


def inspect(target: Target, out: Terminal) -> Verified:
    """Return what :func:`verify` shows.

    Raises:
        NotFoundError: There is no database.
        CorruptDatabaseError: The object is no database, or only a part of one.
        StoreError: A request failed.
    """
    with scratch() as folder, showing_progress(target.store, out.notes) as store:
        copy = target.fetch(folder, remote=target.remote_on(store))
        defects = problems(copy.path)
        return Verified(url=target.url, version=as_stored(copy.version), sound=not defects, problems=defects)
