"""``status`` and ``verify``: look at the stored version, and change nothing."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from temaki.cli.local import interruptible, problems, read_only, scratch
from temaki.cli.options import AsJson, Url
from temaki.cli.progress import showing_progress
from temaki.cli.results import Status, TableRows, Verified
from temaki.cli.target import Target, as_stored
from temaki.cli.terminal import FOUND, Terminal, terminal
from temaki.errors import CorruptDatabaseError
from temaki.replica.header import DATABASE_HEADER, read_header


def status(
    url: Url = None,
    *,
    quick: Annotated[bool, typer.Option("--quick", help="Leave the tables out, without a download.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what is stored: version, size, age, tables, and who holds the lease.

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
            version, info = target.current(), target.info()
            header = target.repeat(lambda: _first_bytes(target))
        else:
            with showing_progress(target.store, out.notes) as store:
                copy = target.fetch(folder, remote=target.remote_on(store))
            version, info = copy.version, target.info()
            header = _head_of(copy.path)
            tables = count_rows(copy.path, target.url)
        page_size = read_header(header).page_size
        matching = info if info.etag == version.etag else None  # None: another version was stored in between
        return Status(
            url=target.url,
            version=as_stored(version, matching),
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


def _first_bytes(target: Target) -> bytes:
    download = target.store.get(target.key, byte_range=(0, DATABASE_HEADER))
    assert download is not None, "an unconditional GET has a body"
    data = b""
    with download:
        while len(data) < download.length:
            data += download.read(download.length - len(data))
    return data


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
