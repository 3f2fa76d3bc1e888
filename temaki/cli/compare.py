"""What differs between two SQLite files, counted by SQLite itself: neither is read into memory."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from temaki.cli.local import interruptible, read_only
from temaki.cli.look import quoted, table_names
from temaki.cli.results import TableDifference
from temaki.errors import CorruptDatabaseError

_ROWIDS = ("rowid", "_rowid_", "oid")


def compare(old: Path, new: Path) -> list[TableDifference]:
    """The tables that differ, by name.

    Rows are told apart by primary key; where a table has none, or another one than before, by rowid, which VACUUM may
    change. Values are compared bit by bit: ``1`` and ``1.0`` differ, and so do ``a`` and ``A``, whatever the column's
    collation.

    Raises:
        CorruptDatabaseError: SQLite cannot read one of them.
    """
    try:
        with closing(read_only(new)) as connection, interruptible(connection):
            connection.execute("ATTACH ? AS old", (f"{old.absolute().as_uri()}?mode=ro",)).close()
            before, after = set(table_names(connection, "old")), set(table_names(connection))
            found = [_compared(connection, name, before, after) for name in sorted(before | after)]
    except sqlite3.Error as error:
        raise CorruptDatabaseError(f"The versions cannot be compared: {error}.", url="") from error
    return [one for one in found if one is not None]


def _compared(connection: sqlite3.Connection, name: str, before: set[str], after: set[str]) -> TableDifference | None:
    if name not in before:
        rows = _count(connection, f"main.{quoted(name)}")
        return TableDifference(name=name, state="added", added=rows, changed=0, removed=0, columns=[])
    if name not in after:
        rows = _count(connection, f"old.{quoted(name)}")
        return TableDifference(name=name, state="removed", added=0, changed=0, removed=rows, columns=[])
    left, right = _Columns.of(connection, "old", name), _Columns.of(connection, "main", name)
    columns = [f"-{one}" for one in left.names if one not in right.names]
    columns += [f"+{one}" for one in right.names if one not in left.names]
    common = [one for one in right.names if one in left.names]
    key = left.key if left.key and left.key == right.key else None
    there = f"old.{quoted(name)} AS o"
    here = f"main.{quoted(name)} AS n"
    same = " AND ".join(_same_key(column) for column in key) if key else f"n.{right.rowid} = o.{left.rowid}"
    differing = " OR ".join(_differs(column) for column in common) or "0"
    added = _count(connection, f"{here} WHERE NOT EXISTS (SELECT 1 FROM {there} WHERE {same})")
    removed = _count(connection, f"{there} WHERE NOT EXISTS (SELECT 1 FROM {here} WHERE {same})")
    changed = _count(connection, f"{here} JOIN {there} ON {same} WHERE {differing}")
    if not (added or removed or changed or columns):
        return None
    return TableDifference(name=name, state="changed", added=added, changed=changed, removed=removed, columns=columns)


@dataclass(frozen=True)
class _Columns:
    """A table's columns, its primary key in order, and a name for its rowid that is no column's."""

    names: list[str]
    key: list[str]
    rowid: str

    @classmethod
    def of(cls, connection: sqlite3.Connection, schema: str, table: str) -> _Columns:
        rows = connection.execute(
            "SELECT name, pk FROM pragma_table_info(?, ?) ORDER BY cid", (table, schema)
        ).fetchall()
        names = [name for name, _ in rows]
        key = [name for place, name in sorted((place, name) for name, place in rows if place)]
        taken = {name.lower() for name in names}
        return cls(names, key, next((one for one in _ROWIDS if one not in taken), _ROWIDS[0]))


def _same_key(column: str) -> str:
    return f"n.{quoted(column)} IS o.{quoted(column)}"


def _differs(column: str) -> str:
    here, there = f"n.{quoted(column)}", f"o.{quoted(column)}"
    return f"({here} COLLATE BINARY IS NOT {there} OR typeof({here}) <> typeof({there}))"


def _count(connection: sqlite3.Connection, source: str) -> int:
    found: int = connection.execute(f"SELECT count(*) FROM {source}").fetchone()[0]
    return found
