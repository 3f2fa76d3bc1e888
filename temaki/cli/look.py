"""``status`` and ``verify``: look at what is stored, and change nothing."""

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
    quick: Annotated[bool, typer.Option("--quick", help="Do not download: leave the tables out.")] = False,
    as_json: AsJson = False,
) -> None:
    """What is stored: version, size, age, tables, and who holds the lease.

    Example: temaki status s3://my-bucket/app.sqlite
    """
    with terminal(as_json=as_json) as out:
        out.show(look(Target(url), out, quick=quick))


def look(target: Target, out: Terminal, *, quick: bool) -> Status:
    """What :func:`status` shows.

    Raises:
        NotFoundError: There is no database.
        CorruptDatabaseError: There is something else.
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
        same = info if info.etag == version.etag else None
        return Status(
            url=target.url,
            version=as_stored(version, same),
            age=None if same is None else same.age,
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
    """Each table of a database with the number of its rows; virtual tables and SQLite's own are left out.

    Raises:
        CorruptDatabaseError: SQLite cannot read it.
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
            f"{url} cannot be read as a database: {error}. Look closer with: temaki verify {url}", url=url
        ) from error


def table_names(connection: sqlite3.Connection, schema: str = "main") -> list[str]:
    """The ordinary tables, sorted."""
    statement = (
        f"SELECT name FROM {quoted(schema)}.sqlite_master WHERE type = 'table' "
        "AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND sql NOT LIKE 'CREATE VIRTUAL%' ORDER BY name"
    )
    return [name for (name,) in connection.execute(statement)]


def quoted(name: str) -> str:
    """An identifier for SQL."""
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
    """What :func:`verify` shows.

    Raises:
        NotFoundError: There is nothing to check.
        CorruptDatabaseError: It is no database, or not all of one.
        StoreError: A request failed.
    """
    with scratch() as folder, showing_progress(target.store, out.notes) as store:
        copy = target.fetch(folder, remote=target.remote_on(store))
        found = problems(copy.path)
        return Verified(url=target.url, version=as_stored(copy.version), sound=not found, problems=found)
