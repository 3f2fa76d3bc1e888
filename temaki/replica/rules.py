"""What statements may do on a connection to the working copy: what is refused, what is ignored, and why.

SQLite asks its authorizer about each action of a statement, when it prepares the statement. Most actions are allowed
without a look. The guarded ones could end temaki's transaction, or change how the file is journalled.

Outside of temaki's write transaction the connection is read-only. Only what is private to the connection may be written
there: TEMP tables, and databases in memory. :class:`Private` tells them from everything else.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

# https://www.sqlite.org/c3ref/c_alter_table.html; the sqlite3 module has names for them only in part.
_DELETE, _INSERT, _PRAGMA, _READ, _SELECT, _TRANSACTION, _UPDATE = 9, 18, 19, 20, 21, 22, 23
_ATTACH, _ALTER_TABLE, _REINDEX, _ANALYZE, _CREATE_VTABLE, _DROP_VTABLE, _FUNCTION, _RECURSIVE = (
    24,
    26,
    27,
    28,
    29,
    30,
    31,
    33,
)
_CREATE_TEMP_TRIGGER = 5
_CREATES: Final = frozenset(range(1, 9))
_DROPS: Final = frozenset(range(10, 18))

GUARDED: Final = frozenset({_PRAGMA, _TRANSACTION, _ATTACH})
"""Action codes of the authorizer that :func:`judge` is asked about."""

_SCHEMA_CHANGES: Final = _CREATES | _DROPS | {_ALTER_TABLE, _CREATE_VTABLE, _DROP_VTABLE}
_WRITING_PRAGMAS: Final = frozenset(
    {"application_id", "default_cache_size", "incremental_vacuum", "optimize", "schema_version", "user_version"}
)

_ROWS: Final = frozenset({_INSERT, _UPDATE, _DELETE})
_WRITES: Final = _CREATES | _DROPS | _ROWS | {_REINDEX, _ANALYZE, _CREATE_VTABLE, _DROP_VTABLE}
_READS: Final = frozenset({_READ, _SELECT, _FUNCTION, _RECURSIVE})


@dataclass(frozen=True, slots=True)
class Refused:
    """A statement that is an error.

    Attributes:
        reason: Why, and what to do instead.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class Ignored:
    """A pragma that is answered, and not run: it asks for what temaki does anyway, or for what cannot matter here.

    Attributes:
        pragma: The pragma with its value.
        reason: Why it changes nothing.
        answer: The statement to run instead.
    """

    pragma: str
    reason: str
    answer: str


_IGNORED: Final = {
    "journal_mode": ("temaki journals the working copy, always as a WAL", "PRAGMA journal_mode"),
    "synchronous": ("what is acknowledged is in the store, not on this disk", "SELECT NULL LIMIT 0"),
    "wal_autocheckpoint": ("temaki checkpoints after each acknowledged commit", "PRAGMA wal_autocheckpoint"),
}
"""Pragmas that are ignored, with why, and what answers them. SQLite answers in the same way where it cannot comply."""

_REFUSED: Final = {
    "locking_mode": 'the working copy is shared by temaki\'s own connections; strategy="lease-locked" keeps other '
    "writers out",
    "query_only": "write inside a db_session; temaki opens the working copy for writing there",
    "wal_checkpoint": "temaki checkpoints after each acknowledged commit; leave it out",
}
"""Pragmas that are refused, and why. All but ``wal_checkpoint`` only with a value: asking is harmless."""

_OF_ONE_FILE: Final = frozenset({"journal_mode", "synchronous", "locking_mode", "wal_checkpoint"})
"""Pragmas that, with the name of an attached database before them, are about that one alone."""


def judge(
    action: int, first: str | None, second: str | None, schema: str | None, *, folder: str
) -> Refused | Ignored | None:
    """Whether a guarded action is refused or ignored; None if it is allowed.

    Args:
        action: The authorizer's code of the action.
        first: The authorizer's first argument for it.
        second: The authorizer's second argument for it.
        schema: The name of the database that the statement gives.
        folder: The working copy's folder; nothing in it may be attached.
    """
    if action == _TRANSACTION:
        return Refused(
            f"{first} would bypass the upload: leave it out, and use db_session, commit() and rollback() of pony.orm"
        )
    if action == _PRAGMA:
        return _judge_pragma((first or "").lower(), second, schema)
    if first is None:
        return Refused(
            "ATTACH needs its file name as a literal, so that temaki can see that it is not the working copy"
        )
    if first and os.path.realpath(_path_of(first)).startswith(folder + os.sep):
        return Refused("ATTACH of temaki's own working copy: what is written there is never stored; query it as `main`")
    return None


def _judge_pragma(name: str, value: str | None, schema: str | None) -> Refused | Ignored | None:
    if name in _OF_ONE_FILE and schema not in {None, "main"}:
        return None
    if name in _IGNORED and value is not None:
        reason, answer = _IGNORED[name]
        return Ignored(f"PRAGMA {name} = {value}", reason, answer)
    if name in _REFUSED and (value is not None or name == "wal_checkpoint"):
        if name == "locking_mode" and (value or "").upper() == "NORMAL":
            return None
        return Refused(f"PRAGMA {name} cannot be changed: {_REFUSED[name]}")
    return None


def judge_foreign_keys(action: int, first: str | None, second: str | None, *, enforced: bool) -> Refused | bool | None:
    """What ``PRAGMA foreign_keys = …`` asks for in a transaction, where SQLite ignores it.

    Args:
        action: As for :func:`judge`.
        first: As for :func:`judge`.
        second: As for :func:`judge`.
        enforced: Whether foreign keys are enforced in the transaction.

    Returns:
        Whether they are to be enforced after the transaction; None if the action is another one.
    """
    if action != _PRAGMA or second is None or (first or "").lower() != "foreign_keys":
        return None
    wanted = second.lower() in {"1", "on", "true", "yes"}
    if enforced and not wanted:  # a DROP TABLE would delete the rows that refer to it
        return Refused(
            "PRAGMA foreign_keys cannot be switched off after the first write of an on_connect handler: all that "
            "handlers write is one transaction. Switch it off before"
        )
    return wanted


_NUMBER_SET: Final = re.compile(
    r"\s*PRAGMA\s+(?:main\s*\.\s*)?(user_version|application_id)\s*[=(]\s*([-+]?\d+)\s*\)?\s*;?\s*", re.IGNORECASE
)


def number_set(sql: str) -> tuple[str, int] | None:
    """The name and the value of a ``PRAGMA user_version = N`` or ``application_id``; None for another statement."""
    match = _NUMBER_SET.fullmatch(sql)
    return None if match is None else (match[1], int(match[2]))


def changes_unseen(action: int, first: str | None, second: str | None, schema: str | None) -> bool:
    """Whether an action may change the stored database without being counted by ``total_changes``."""
    if action == _PRAGMA:
        name = (first or "").lower()
        return name in _WRITING_PRAGMAS and (second is not None or not name.endswith(("_id", "_version", "_size")))
    return action in _SCHEMA_CHANGES and schema != "temp"


class Private:
    """The authorizer of one statement that may write only to what is private to the connection.

    Args:
        schemas: The names of the databases that are: TEMP, and those that are attached and have no file.
    """

    def __init__(self, schemas: Iterable[str]) -> None:
        self._schemas = frozenset(schemas)
        self._declares = False

    def allows(self, action: int, first: str | None, schema: str | None) -> bool:
        """The verdict on one action. What is not known to be harmless is not allowed."""
        if action in _READS:
            return True
        if action == _ALTER_TABLE:
            return first in self._schemas
        if action not in _WRITES and action != _PRAGMA:
            return False
        if schema in self._schemas:
            # Such statements report to the authorizer that they write to the schema of `main`, and do not.
            self._declares = self._declares or action in {_CREATE_TEMP_TRIGGER, _CREATE_VTABLE}
            return True
        return self._declares and action in {_INSERT, _UPDATE} and (first, schema) == ("sqlite_master", "main")


def _path_of(name: str) -> str:
    """The file that ATTACH would open; see "URI Filenames", https://www.sqlite.org/uri.html section 3."""
    if not name.startswith("file:"):
        return name
    from urllib.parse import unquote

    rest = name.removeprefix("file:").partition("#")[0].partition("?")[0]
    if rest.startswith("//"):
        rest = "/" + rest[2:].partition("/")[2]
    return unquote(rest)
