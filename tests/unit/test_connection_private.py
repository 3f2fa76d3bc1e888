"""What is private to a connection (TEMP tables, databases in memory) may be written, and is no way around the rules."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from temaki.errors import StatementRefusedError
from temaki.replica.connection import Connection

URL = "s3://bucket/app.sqlite"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A working copy with one table of one row."""
    path = tmp_path / "copy" / "1.sqlite"
    path.parent.mkdir()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL").close()
        connection.execute("CREATE TABLE t (x)")
        connection.execute("INSERT INTO t VALUES (1)")
    return path


@pytest.fixture
def free(path: Path) -> Iterator[Connection]:
    """A guarded connection outside of any transaction, as ``on_connect`` handlers get it."""
    with closing(sqlite3.connect(path, isolation_level=None, factory=Connection)) as connection:
        connection.settle_in(URL, os.path.realpath(path.parent), writable=True)
        yield connection


@pytest.fixture
def reading(free: Connection) -> Connection:
    """One with a session's snapshot."""
    free.pin()
    return free


def rows(path: Path) -> list[tuple[int]]:
    """What is committed, as another connection sees it."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT x FROM t").fetchall()


def is_guarded(connection: Connection) -> bool:
    """Whether writes are forbidden as before."""
    with pytest.raises(StatementRefusedError, match="outside temaki's transaction"):
        connection.execute("DELETE FROM t")
    return bool(connection.execute("PRAGMA query_only").fetchone()[0])


PRIVATE = [
    ["CREATE TEMP TABLE s (x)"],
    ["CREATE TABLE temp.s (x)"],
    ["CREATE TEMP TABLE s AS SELECT x FROM t"],
    ["ATTACH ':memory:' AS m", "CREATE TABLE m.s (x UNIQUE)", "CREATE INDEX m.i ON s (x)", "ALTER TABLE m.s ADD y"],
    ["ATTACH '' AS m", "CREATE TABLE m.s (x)", "PRAGMA m.user_version = 4", "ANALYZE m"],
    [
        "CREATE TEMP TABLE s (x)",
        "ALTER TABLE s RENAME TO r",
        "CREATE INDEX temp.i ON r (x)",
        "ALTER TABLE r RENAME TO s",
    ],
    ["CREATE VIRTUAL TABLE temp.s USING fts5(x)"],
    [
        "CREATE TEMP TABLE r (x)",
        "CREATE TEMP VIEW v AS SELECT * FROM t",
        "DROP VIEW v",
        "DROP TABLE r",
        "CREATE TEMP TABLE s (x)",
    ],
]


class TestAllowed:
    """Nobody else sees it, and no page of it is stored."""

    @pytest.mark.parametrize("state", ["free", "reading"])
    @pytest.mark.parametrize("statements", PRIVATE, ids=lambda statements: statements[0])
    def test_tables(self, statements: list[str], state: str, path: Path, request: pytest.FixtureRequest) -> None:
        """Made, filled and read outside of write transactions; the working copy stays byte for byte what it was."""
        connection: Connection = request.getfixturevalue(state)
        before = path.read_bytes(), Path(f"{path}-wal").read_bytes()
        for sql in statements:
            connection.execute(sql)
        connection.execute("DELETE FROM s")
        connection.execute("INSERT INTO s (x) VALUES (?)", (7,))
        connection.executemany("INSERT INTO s (x) VALUES (?)", ((x,) for x in (8, 9, 10)))
        if not statements[0].startswith("CREATE VIRTUAL"):  # where SQLite has no RETURNING
            assert connection.execute("UPDATE s SET x = x + 1 WHERE x = 10 RETURNING x").fetchall() == [(11,)]
            connection.execute("UPDATE s SET x = x - 1 WHERE x = 11")
        connection.executescript("INSERT INTO s (x) VALUES (12); DELETE FROM s WHERE x = 8;")
        assert sorted(int(x) for (x,) in connection.execute("SELECT x FROM s")) == [7, 9, 10, 12]
        assert is_guarded(connection)
        assert (path.read_bytes(), Path(f"{path}-wal").read_bytes()) == before

    def test_they_outlive_a_session_that_reads(self, reading: Connection) -> None:
        """With plain SQLite such a session is in no transaction."""
        reading.execute("CREATE TEMP TABLE s AS SELECT x FROM t")
        reading.end_transaction()
        reading.pin()
        assert reading.execute("SELECT x FROM s").fetchall() == [(1,)]

    def test_trigger_of_the_connections_own(self, free: Connection, path: Path) -> None:
        """A TEMP trigger on a stored table may be made; it runs where that table is written."""
        free.execute("CREATE TEMP TABLE log (x)")
        free.execute("CREATE TEMP TRIGGER watch AFTER INSERT ON t BEGIN INSERT INTO log VALUES (new.x); END")
        free.allow_writes()
        with free.trusted():
            free.execute("BEGIN IMMEDIATE")
        free.execute("INSERT INTO t VALUES (2)")
        free.commit_locally()
        assert free.execute("SELECT x FROM log").fetchall() == [(2,)]
        assert rows(path) == [(1,), (2,)]

    def test_errors_are_sqlites(self, reading: Connection) -> None:
        """A constraint of a private table is the user's own."""
        reading.execute("CREATE TEMP TABLE s (x UNIQUE)")
        reading.execute("INSERT INTO s VALUES (1)")
        with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
            reading.execute("INSERT INTO s VALUES (1)")
        assert reading.in_transaction
        assert is_guarded(reading)


VIEW = "CREATE TEMP VIEW v AS SELECT x FROM t"


class TestNoWayAround:
    """What would write to the working copy is refused, however it comes."""

    @pytest.mark.parametrize(
        ("prepare", "sql"),
        [
            (
                "CREATE TEMP TRIGGER w AFTER INSERT ON s BEGIN INSERT INTO t VALUES (new.x); END",
                "INSERT INTO s VALUES (2)",
            ),
            ("CREATE TEMP TRIGGER w AFTER INSERT ON s BEGIN DELETE FROM t; END", "INSERT INTO s VALUES (2)"),
            (
                f"{VIEW}; CREATE TEMP TRIGGER w INSTEAD OF INSERT ON v BEGIN INSERT INTO t VALUES (new.x); END",
                "INSERT INTO v VALUES (2)",
            ),
            ("", "INSERT INTO t SELECT x FROM s"),
            ("", "REPLACE INTO main.t VALUES (3)"),
            ("", "WITH a AS (SELECT 4 AS x) INSERT INTO t SELECT x FROM a RETURNING x"),
            ("", "CREATE TABLE u AS SELECT x FROM s"),
            ("", "ALTER TABLE t ADD COLUMN temp"),
            ("", "ALTER TABLE t RENAME TO temp_t"),
            ("", "CREATE TRIGGER w AFTER INSERT ON t BEGIN SELECT 1; END"),
            ("", "CREATE INDEX i ON t (x)"),
            ("", "CREATE VIRTUAL TABLE f USING fts5(x)"),
            ("", "DROP TABLE t"),
            ("", "ANALYZE"),
            ("", "VACUUM"),
            ("", "PRAGMA user_version = 3"),
            ("PRAGMA writable_schema = ON", "UPDATE sqlite_master SET sql = sql || ' '"),
        ],
    )
    def test_statement(self, free: Connection, path: Path, prepare: str, sql: str) -> None:
        """Also through triggers and views of the connection's own."""
        free.execute("CREATE TEMP TABLE s (x)")
        free.executescript(prepare)
        before = path.read_bytes(), Path(f"{path}-wal").read_bytes()
        for _ in range(2):
            with pytest.raises(StatementRefusedError, match=r"outside temaki's transaction|bypass the upload"):
                free.execute(sql)
        assert (path.read_bytes(), Path(f"{path}-wal").read_bytes()) == before
        assert is_guarded(free)

    def test_name_that_was_private_before(self, free: Connection, tmp_path: Path) -> None:
        """The verdict is on the database that has the name now."""
        sqlite3.connect(tmp_path / "other.sqlite").close()
        free.execute("ATTACH ':memory:' AS m")
        free.execute("CREATE TABLE m.s (x)")
        free.execute("INSERT INTO m.s VALUES (1)")
        free.execute("DETACH m")
        free.execute(f"ATTACH '{tmp_path / 'other.sqlite'}' AS m")
        with pytest.raises(StatementRefusedError):
            free.execute("CREATE TABLE m.s (x)")

    def test_function_that_writes_within_a_private_write(self, free: Connection, path: Path) -> None:
        """Its statement may be one that a write transaction has prepared."""
        sql = "INSERT INTO t VALUES (99)"
        free.allow_writes()
        with free.trusted():
            free.execute("BEGIN IMMEDIATE")
        free.execute(sql)
        free.end_transaction()
        refused = []

        def smuggles() -> int:
            try:
                free.execute(sql)
            except sqlite3.Error as error:
                refused.append(error)
            return 1

        free.create_function("smuggles", 0, smuggles)
        free.execute("CREATE TEMP TABLE s (x)")
        free.execute("INSERT INTO s VALUES (smuggles())")
        assert len(refused) == 1
        assert rows(path) == [(1,)]
        assert is_guarded(free)

    def test_private_writes_are_prepared_under_a_text_of_their_own(self, free: Connection) -> None:
        """So no verdict of theirs is cached for anybody else's statement, and none of anybody else's for theirs."""
        free.execute("CREATE TEMP TABLE s (x)")
        texts: list[str] = []
        free.set_trace_callback(texts.append)
        free.execute("INSERT INTO s VALUES (1)")
        free.set_trace_callback(None)
        assert [text.startswith("/* ") for text in texts if text.endswith("INSERT INTO s VALUES (1)")] == [False, True]

    def test_statement_prepared_as_private_is_no_pass(self, free: Connection, path: Path) -> None:
        """A TEMP table hides a stored one of the same name, until it is dropped."""
        free.execute("CREATE TEMP TABLE t (x)")
        for _ in range(2):
            free.execute("INSERT INTO t VALUES (5)")
        free.execute("DROP TABLE temp.t")
        with pytest.raises(StatementRefusedError):
            free.execute("INSERT INTO t VALUES (5)")
        assert rows(path) == [(1,)]

    def test_snapshot_is_not_lost_in_silence(self, reading: Connection, path: Path) -> None:
        """INSERT OR ROLLBACK ends the session's snapshot: nothing may be read on that connection any more."""
        reading.execute("CREATE TEMP TABLE s (x UNIQUE)")
        reading.execute("INSERT INTO s VALUES (1)")
        with closing(sqlite3.connect(path)) as other, other:
            other.execute("INSERT INTO t VALUES (2)")
        with suppress(sqlite3.Error):
            reading.execute("INSERT OR ROLLBACK INTO s VALUES (1)")
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            reading.execute("SELECT x FROM t")
