"""``temaki diff`` counts what differs, by primary key and bit by bit."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from temaki.cli.compare import compare
from temaki.cli.results import TableDifference
from temaki.errors import CorruptDatabaseError


def _made(path: Path, script: str) -> Path:
    with closing(sqlite3.connect(path)) as database:
        database.executescript(script)
    return path


def _compared(folder: Path, old: str, new: str) -> dict[str, TableDifference]:
    found = compare(_made(folder / "old.sqlite", old), _made(folder / "new.sqlite", new))
    return {one.name: one for one in found}


@pytest.mark.parametrize(
    ("table", "old", "new", "counts"),
    [
        ("(id INTEGER PRIMARY KEY, v)", "(1, 'a'), (2, 'b')", "(2, 'c'), (3, 'd')", (1, 1, 1)),
        ("(a, b, v, PRIMARY KEY (b, a)) WITHOUT ROWID", "(1, 1, 0), (1, 2, 0)", "(1, 1, 0), (2, 1, 0)", (1, 0, 1)),
        ("(v)", "('x'), ('y')", "('x'), ('z'), ('x')", (1, 1, 0)),
        ("(id INTEGER PRIMARY KEY, v COLLATE NOCASE)", "(1, 'a')", "(1, 'A')", (0, 1, 0)),
        ("(id INTEGER PRIMARY KEY, v)", "(1, 1), (2, NULL), (3, NULL)", "(1, 1.0), (2, 0), (3, NULL)", (0, 2, 0)),
        ("(rowid TEXT, oid TEXT)", "('x', 'y')", "('x', 'z')", (0, 1, 0)),
        ('("odd ""name" PRIMARY KEY, "select")', "('x', 1)", "('x', 2)", (0, 1, 0)),
    ],
)
def test_rows_are_counted(tmp_path: Path, table: str, old: str, new: str, counts: tuple[int, int, int]) -> None:
    """Added, changed and removed: with composite keys, without keys, whatever collation, type or name."""
    found = _compared(
        tmp_path, *(f'CREATE TABLE "t ""1" {table}; INSERT INTO "t ""1" VALUES {rows}' for rows in (old, new))
    )
    one = found['t "1']
    assert (one.added, one.changed, one.removed) == counts


def test_tables_and_columns_come_and_go(tmp_path: Path) -> None:
    """A table of one version alone, and columns of one version alone; what is the same is not listed."""
    found = _compared(
        tmp_path,
        "CREATE TABLE gone (a); INSERT INTO gone VALUES (1), (2); CREATE TABLE same (a); INSERT INTO same VALUES (1);"
        "CREATE TABLE t (id INTEGER PRIMARY KEY, a, b); INSERT INTO t VALUES (1, 1, 1)",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, a, c); INSERT INTO t VALUES (1, 1, 9); CREATE TABLE same (a);"
        "INSERT INTO same VALUES (1); CREATE TABLE come (a);",
    )
    assert {name: one.state for name, one in found.items()} == {"come": "added", "gone": "removed", "t": "changed"}
    assert found["gone"].removed == 2
    assert (found["t"].columns, found["t"].changed) == (["-b", "+c"], 0)


def test_what_is_no_database_cannot_be_compared(tmp_path: Path) -> None:
    """It is an error of temaki's."""
    (tmp_path / "text").write_text("text" * 100)
    with pytest.raises(CorruptDatabaseError, match="cannot be compared"):
        compare(tmp_path / "text", _made(tmp_path / "new.sqlite", "CREATE TABLE t (a)"))
