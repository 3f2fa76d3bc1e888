"""Comparing two SQLite files. SQLite itself counts the differences: no file is read into memory."""

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
    """Return the tables that differ, sorted by name.

    Rows are identified by primary key. If a table has no primary key, or another one than before, rows are identified
    by rowid, which VACUUM may change. Values are compared bit by bit: ``1`` and ``1.0`` differ, and so do ``a`` and
    ``A``, whatever the column's collation.

    Args:
        old: The older file.
        new: The newer file.

    Raises:
        CorruptDatabaseError: SQLite cannot read one of the files.
    """
    try:
        with closing(read_only(new)) as connection, interruptible(connection):
            connection.execute("ATTACH ? AS old", (f"{old.absolute().as_uri()}?mode=ro",)).close()
            before, after = set(table_names(connection, "old")), set(table_names(connection))
            tables = [_compared(connection, name, before, after) for name in sorted(before | after)]
    except sqlite3.Error as error:
        raise CorruptDatabaseError(
            f"The versions cannot be compared: {error}. Take other versions, or check them with temaki verify.", url=""
        ) from error
    return [table for table in tables if table is not None]


def _compared(connection: sqlite3.Connection, name: str, before: set[str], after: set[str]) -> TableDifference | None:
    if name not in before:
        rows = _count(connection, f"main.{quoted(name)}")
        return TableDifference(name=name, state="added", added=rows, changed=0, removed=0, columns=[])
    if name not in after:
        rows = _count(connection, f"old.{quoted(name)}")
        return TableDifference(name=name, state="removed", added=0, changed=0, removed=rows, columns=[])
    left, right = _Columns.of(connection, "old", name), _Columns.of(connection, "main", name)
    columns = [f"-{column}" for column in left.names if column not in right.names]
    columns += [f"+{column}" for column in right.names if column not in left.names]
    common = [column for column in right.names if column in left.names]
    key = left.key if left.key and left.key == right.key else None
    old = f"old.{quoted(name)} AS o"
    new = f"main.{quoted(name)} AS n"
    same = " AND ".join(_same_key(column) for column in key) if key else f"n.{right.rowid} = o.{left.rowid}"
    differing = " OR ".join(_differs(column) for column in common) or "0"
    added = _count(connection, f"{new} WHERE NOT EXISTS (SELECT 1 FROM {old} WHERE {same})")
    removed = _count(connection, f"{old} WHERE NOT EXISTS (SELECT 1 FROM {new} WHERE {same})")
    changed = _count(connection, f"{new} JOIN {old} ON {same} WHERE {differing}")
    if not (added or removed or changed or columns):
        return None
    return TableDifference(name=name, state="changed", added=added, changed=changed, removed=removed, columns=columns)


@dataclass(frozen=True)
class _Columns:
    """The columns of a table.

    Attributes:
        names: The names of the columns.
        key: The columns of the primary key, in its order.
        rowid: A name for the rowid that no column has.
    """

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
        return cls(names, key, next((rowid for rowid in _ROWIDS if rowid not in taken), _ROWIDS[0]))


def _same_key(column: str) -> str:
    return f"n.{quoted(column)} IS o.{quoted(column)}"


def _differs(column: str) -> str:
    new, old = f"n.{quoted(column)}", f"o.{quoted(column)}"
    return f"({new} COLLATE BINARY IS NOT {old} OR typeof({new}) <> typeof({old}))"


def _count(connection: sqlite3.Connection, source: str) -> int:
    count: int = connection.execute(f"SELECT count(*) FROM {source}").fetchone()[0]
    return count
