"""What an error of SQLite's means to somebody whose database is a working copy of an object in a store."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from temaki.errors import (
    CorruptDatabaseError,
    ReadOnlyError,
    StatementRefusedError,
    SyncError,
    TemakiError,
    WorkingCopyError,
)

_FILE_ERRORS: Final = frozenset(
    {
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_NOTADB,
    }
)
"""Primary result codes (https://www.sqlite.org/rescode.html) that are about files, and not about the statement."""


@dataclass(frozen=True, slots=True)
class Place:
    """The database and its working copy, as far as the message of an error needs them.

    Attributes:
        url: The database's URL.
        folder: The folder of its working copy.
        writable: Whether sessions may write at all.
        is_intact: Tells whether the working copy's files are as temaki left them.
    """

    url: str
    folder: str
    writable: bool
    is_intact: Callable[[], bool]


def explain(
    error: sqlite3.DatabaseError,
    sql: str,
    place: Place,
    *,
    refusal: str | None,
    query_only: bool,
    ended_by: BaseException | None,
) -> TemakiError | None:
    """What temaki knows about an error of SQLite's; None if it is the user's own.

    Args:
        error: SQLite's own.
        sql: The statement that it is about.
        place: Where.
        refusal: The reason for which the authorizer has refused the statement, if it has.
        query_only: Whether writes are forbidden now.
        ended_by: The error with which SQLite has ended the transaction by itself, if it has.
    """
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_AUTH and refusal is not None:
        return StatementRefusedError(f"Refused on {place.url}: {refusal}.", url=place.url)
    if code == sqlite3.SQLITE_READONLY and query_only:
        return _refused_write(place, ended_by=ended_by)
    if code in _FILE_ERRORS and not _is_attach(sql):
        return _file_error(place, error, code)
    return None


def _is_attach(sql: str) -> bool:
    """Whether a statement attaches a file, which is the application's own business."""
    return sql.lstrip()[:6].upper() == "ATTACH"


def rolled_back(url: str, ended_by: BaseException) -> StatementRefusedError:
    """The error for whoever goes on in a transaction that an error has ended."""
    return StatementRefusedError(
        f"The transaction was rolled back because of {str(ended_by) or repr(ended_by)!r}. Nothing of it is stored in "
        f"{url}, and it cannot go on: let such an error end its db_session, and begin another one.",
        url=url,
    )


def _refused_write(place: Place, *, ended_by: BaseException | None) -> SyncError:
    """The error for a write while writes are forbidden.

    Args:
        place: Where.
        ended_by: The error with which SQLite has ended the transaction by itself, if it has.
    """
    if ended_by is not None:
        return rolled_back(place.url, ended_by)
    if not place.writable:
        return ReadOnlyError(
            f"{place.url} is bound with a strategy that never writes. "
            'Bind it with another one, for example strategy="etag-cached", to change it.',
            url=place.url,
        )
    return StatementRefusedError(
        f"A write to {place.url} outside temaki's transaction would never be stored. Write inside a db_session, "
        "through entities, db.execute() or db.get_connection().",
        url=place.url,
    )


def _file_error(place: Place, error: Exception, code: int) -> SyncError:
    """The error for one of :data:`_FILE_ERRORS`.

    Args:
        place: Where.
        error: SQLite's own.
        code: Its primary result code.
    """
    said = f"SQLite says {str(error)!r}"
    if code == sqlite3.SQLITE_FULL:
        return WorkingCopyError(
            f"There is no space left for the working copy of {place.url} in {place.folder}, or for SQLite's temporary "
            f"files: {said}. Nothing was stored. Free some space; or set cache_dir (and SQLITE_TMPDIR, for temporary "
            "files) to a folder on another disk.",
            url=place.url,
            path=place.folder,
        )
    if not place.is_intact():
        return WorkingCopyError(
            f"The working copy of {place.url} in {place.folder} was removed or damaged by something else on this "
            f"machine: {said}. Nothing was stored; the next session starts from the stored version. Keep "
            "other programs away from the folder, or set cache_dir to another one.",
            url=place.url,
            path=place.folder,
            should_retry=True,
        )
    if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        return CorruptDatabaseError(
            f"{place.url} is damaged: {said}. Nothing was overwritten; restore an earlier "
            "version of the object, or repair a copy of it with `sqlite3 copy.sqlite .recover`.",
            url=place.url,
        )
    return WorkingCopyError(
        f"The working copy of {place.url} in {place.folder}, or a temporary file of SQLite's, cannot be used: {said}. "
        "Check the disk, its permissions and the limit of open files (ulimit -n); or set cache_dir and SQLITE_TMPDIR.",
        url=place.url,
        path=place.folder,
    )
