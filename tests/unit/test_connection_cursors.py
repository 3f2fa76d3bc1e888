"""`temaki.replica.connection`, its cursors: scripts that stay in the transaction, and snapshots that end with it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from temaki.errors import StatementRefusedError, TemakiError
from temaki.replica.connection import Connection
from temaki.replica.cursor import MOST_KEPT

URL = "s3://bucket/app.sqlite"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A working copy with one table of three rows."""
    path = tmp_path / "copy" / "1.sqlite"
    path.parent.mkdir()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL").close()
        connection.execute("CREATE TABLE t (x)")
        connection.execute("INSERT INTO t VALUES (1), (2), (3)")
    return path


@pytest.fixture
def live(path: Path) -> Iterator[Connection]:
    """A guarded connection, as the pool makes one; no transaction yet."""
    with closing(sqlite3.connect(path, isolation_level=None, factory=Connection)) as connection:
        connection.settle_in(URL, os.path.realpath(path.parent), writable=True)
        yield connection


@pytest.fixture
def writing(live: Connection) -> Connection:
    """The same, inside temaki's write transaction."""
    live.allow_writes()
    with live.trusted():
        live.cursor().execute("BEGIN IMMEDIATE TRANSACTION")
    return live


def count(path: Path) -> int:
    """How many rows another connection sees."""
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("SELECT count(*) FROM t").fetchone()[0])


class TestScripts:
    """Python's own executescript commits before it starts; this one runs in the transaction that is open."""

    def test_stays_in_the_transaction(self, writing: Connection, path: Path) -> None:
        """Nothing is committed before, between or after its statements: a rollback undoes all of it."""
        writing.cursor().execute("INSERT INTO t VALUES (4)")
        writing.executescript("INSERT INTO t VALUES (5); CREATE TABLE u (y); INSERT INTO u VALUES (1);")
        assert writing.in_transaction
        assert count(path) == 3
        assert writing.cursor().execute("SELECT count(*) FROM t, u").fetchone() == (5,)
        writing.end_transaction()
        assert count(path) == 3
        assert writing.cursor().execute("SELECT count(*) FROM sqlite_master").fetchone() == (1,)

    @pytest.mark.parametrize(
        ("script", "expected"),
        [
            ("INSERT INTO t VALUES ('a;b'); INSERT INTO t VALUES ('c'';''d')", ["a;b", "c';'d"]),
            (
                'CREATE TABLE "u;v" ("w;" TEXT); INSERT INTO t SELECT \'none\' WHERE NOT EXISTS (SELECT 1 FROM "u;v")',
                ["none"],
            ),
            ("-- a; comment\nINSERT INTO t VALUES ('x') /* ; another; */; -- and; one more", ["x"]),
            ("INSERT INTO t VALUES ('last') -- without a semicolon", ["last"]),
            (" ; ;; INSERT INTO t VALUES ('x');;\n; ", ["x"]),
            ("INSERT INTO t VALUES ('x'); /* never closed", ["x"]),
            ("", []),
            (" -- nothing at all", []),
            ("SELECT x FROM t; INSERT INTO t VALUES ('after a select')", ["after a select"]),
            ("EXPLAIN SELECT 1; INSERT INTO t VALUES ('x')", ["x"]),
        ],
    )
    def test_statements_are_told_apart(self, writing: Connection, script: str, expected: list[str]) -> None:
        """By SQLite's own rules for where one ends."""
        writing.executescript(script)
        assert [x for (x,) in writing.cursor().execute("SELECT x FROM t WHERE rowid > 3")] == expected

    @pytest.mark.parametrize("kind", ["TRIGGER", "TEMP TRIGGER", "TRIGGER IF NOT EXISTS"])
    def test_trigger_is_one_statement(self, writing: Connection, kind: str) -> None:
        """The semicolons between BEGIN and END do not end it."""
        writing.executescript(f"""
            CREATE TABLE log (what);
            CREATE {kind} watch AFTER INSERT ON t
            BEGIN
                INSERT INTO log VALUES (CASE WHEN new.x > 0 THEN 'more;' ELSE 'less;' END);
                INSERT INTO log VALUES ('end;');
            END;
            INSERT INTO t VALUES (10);
        """)
        assert writing.cursor().execute("SELECT what FROM log").fetchall() == [("more;",), ("end;",)]

    @pytest.mark.parametrize(
        "script", ["INSERT INTO t VALUES ('never", "INSERT INTO t (", "CREATE TRIGGER a AFTER INSERT"]
    )
    def test_junk_at_the_end_is_sqlites_error(self, writing: Connection, script: str) -> None:
        """What came before it is done, and can be rolled back."""
        with pytest.raises(sqlite3.OperationalError):
            writing.executescript(f"INSERT INTO t VALUES (4); {script}")
        assert writing.cursor().execute("SELECT count(*) FROM t").fetchone() == (4,)
        assert writing.in_transaction

    def test_dump_with_its_own_transaction_is_refused(self, writing: Connection, path: Path) -> None:
        """``.dump`` writes BEGIN and COMMIT around its statements: the message says what to use instead."""
        with pytest.raises(StatementRefusedError, match="use db_session"):
            writing.executescript("BEGIN TRANSACTION; INSERT INTO t VALUES (4); COMMIT;")
        assert count(path) == 3

    def test_cursors_script_is_the_same(self, writing: Connection, path: Path) -> None:
        """Through a cursor as through the connection."""
        writing.cursor().executescript("INSERT INTO t VALUES (4); INSERT INTO t VALUES (5);")
        assert (count(path), writing.in_transaction) == (3, True)

    def test_writes_of_a_reading_session_are_refused(self, live: Connection, path: Path) -> None:
        """A script is no way around the rules."""
        live.pin()
        with pytest.raises(StatementRefusedError, match="outside temaki's transaction"):
            live.executescript("SELECT 1; DELETE FROM t;")
        assert count(path) == 3


def by_cursor(connection: Connection) -> sqlite3.Cursor:
    """As Pony does, and ``db.execute``."""
    cursor: sqlite3.Cursor = connection.cursor()
    return cursor.execute("SELECT x FROM t")


def by_connection(connection: Connection) -> sqlite3.Cursor:
    """The sqlite3 module's shortcut."""
    return connection.execute("SELECT x FROM t")


def by_foreign_cursor(connection: Connection) -> sqlite3.Cursor:
    """A cursor of the user's own class."""
    cursor: sqlite3.Cursor = connection.cursor(sqlite3.Cursor)
    return cursor.execute("SELECT x FROM t")


HalfReads = pytest.mark.parametrize("half_read", [by_cursor, by_connection, by_foreign_cursor])


class TestSnapshots:
    """A half-read cursor holds its snapshot, and would hand it to the thread's next session."""

    @HalfReads
    def test_ends_with_a_session_that_reads(
        self, live: Connection, path: Path, half_read: Callable[[Connection], sqlite3.Cursor]
    ) -> None:
        """The next snapshot of the connection is a new one. The old cursor goes on with what it has not given yet."""
        live.pin()
        cursor = half_read(live)
        assert cursor.fetchone() == (1,)
        live.end_transaction(keep=True)
        with closing(sqlite3.connect(path)) as other, other:
            other.execute("INSERT INTO t VALUES (4)")
        live.pin()
        assert live.cursor().execute("SELECT count(*) FROM t").fetchone() == (4,)
        if half_read is by_foreign_cursor:
            with pytest.raises(sqlite3.ProgrammingError, match="closed cursor"):
                cursor.fetchone()
        else:
            assert cursor.fetchall() == [(2,), (3,)]

    @HalfReads
    def test_ends_with_a_commit(
        self, writing: Connection, path: Path, half_read: Callable[[Connection], sqlite3.Cursor]
    ) -> None:
        """So nothing keeps the checkpoint that follows it from being complete."""
        writing.cursor().execute("INSERT INTO t VALUES (4)")
        cursor = half_read(writing)
        assert cursor.fetchone() == (1,)
        writing.commit_locally()
        with closing(sqlite3.connect(path)) as other, other:
            other.execute("INSERT INTO t VALUES (5)")
            other.commit()
            busy, frames, copied = other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        assert (busy, frames) == (0, copied)
        writing.pin()
        assert writing.cursor().execute("SELECT count(*) FROM t").fetchone() == (5,)

    def test_ends_with_an_open_blob(self, live: Connection, path: Path) -> None:
        """A blob handle is a cursor in all but name."""
        with closing(sqlite3.connect(path)) as other, other:
            other.execute("INSERT INTO t VALUES (zeroblob(9000))")
        live.pin()
        blob = live.blobopen("t", "x", 4, readonly=True)
        assert blob.read(1) == b"\0"
        live.end_transaction()
        with closing(sqlite3.connect(path)) as other, other:
            other.execute("INSERT INTO t VALUES (5)")
        live.pin()
        assert live.cursor().execute("SELECT count(*) FROM t").fetchone() == (5,)

    def test_dump_that_was_not_finished_holds_nothing(self, live: Connection, path: Path) -> None:
        """``iterdump`` reads through a cursor of its own making."""
        live.pin()
        dump = live.iterdump()
        assert next(dump) == "BEGIN TRANSACTION;"
        assert "CREATE TABLE" in next(dump)
        live.end_transaction()
        with closing(sqlite3.connect(path)) as other, other:
            other.execute("INSERT INTO t VALUES (4)")
        live.pin()
        assert live.cursor().execute("SELECT count(*) FROM t").fetchone() == (4,)


class TestRowsThatAreLeft:
    """With plain SQLite a cursor can be read after a commit. Here it goes on with rows that were read before."""

    def test_by_every_way_to_read(self, writing: Connection) -> None:
        """One by one, some, all, in a loop; and then there are no more."""
        cursors = [writing.execute("SELECT x FROM t") for _ in range(4)]
        for cursor in cursors:
            assert cursor.fetchone() == (1,)
        writing.commit_locally()
        assert [cursors[0].fetchone() for _ in range(3)] == [(2,), (3,), None]
        assert [cursors[1].fetchmany(), cursors[1].fetchmany(5), cursors[1].fetchmany(5)] == [[(2,)], [(3,)], []]
        assert [cursors[2].fetchall(), cursors[2].fetchall()] == [[(2,), (3,)], []]
        assert list(cursors[3]) == [(2,), (3,)]

    def test_a_cursor_that_was_read_or_never_used(self, writing: Connection) -> None:
        """Has no more rows, and that is no error."""
        read, unused = writing.execute("SELECT x FROM t"), writing.cursor()
        assert len(read.fetchall()) == 3
        writing.commit_locally()
        assert [read.fetchone(), unused.fetchone(), unused.fetchall()] == [None, None, []]

    def test_a_cursor_that_its_user_closed(self, writing: Connection) -> None:
        """Stays closed, in SQLite's own words."""
        cursor = writing.execute("SELECT x FROM t")
        cursor.close()
        writing.commit_locally()
        with pytest.raises(sqlite3.ProgrammingError, match="closed cursor"):
            cursor.fetchone()

    @pytest.mark.parametrize("left", [MOST_KEPT, MOST_KEPT + 1])
    def test_a_limit_keeps_it_from_reading_a_whole_table(self, writing: Connection, left: int) -> None:
        """Never fewer rows than there are: where not all are kept, none is, and the error says what to do."""
        cursor = writing.execute(
            "WITH RECURSIVE n(x) AS (SELECT 0 UNION ALL SELECT x + 1 FROM n WHERE x < ?) SELECT x FROM n", (left,)
        )
        assert cursor.fetchone() == (0,)
        writing.commit_locally()
        if left == MOST_KEPT:
            assert len(cursor.fetchall()) == left
            return
        for read in (cursor.fetchone, cursor.fetchmany, cursor.fetchall, lambda: next(cursor)):
            with pytest.raises(StatementRefusedError, match=rf"{URL} is over: more than {MOST_KEPT} .*fetchall\(\)"):
                read()

    def test_rows_of_a_rollback_are_not_kept(self, writing: Connection) -> None:
        """They may show what was undone."""
        cursor = writing.execute("INSERT INTO t VALUES (4) RETURNING x")
        writing.end_transaction()
        with pytest.raises(StatementRefusedError, match="it was rolled back"):
            cursor.fetchone()

    def test_a_failure_among_them_comes_when_they_are_read(self, writing: Connection, path: Path) -> None:
        """The commit stands."""

        def fails(x: int) -> int:
            if x > 1:
                raise ZeroDivisionError
            return x

        writing.create_function("fails", 1, fails)
        writing.execute("INSERT INTO t VALUES (4)")
        cursor = writing.execute("SELECT fails(x) FROM t")
        writing.commit_locally()
        assert count(path) == 4
        with pytest.raises(sqlite3.OperationalError, match="user-defined function"):
            cursor.fetchone()

    def test_another_statement_needs_another_cursor(self, writing: Connection) -> None:
        """It would read outside of the session's snapshot."""
        cursor = writing.execute("SELECT x FROM t")
        writing.commit_locally()
        for run in (cursor.execute, cursor.executescript, lambda sql: cursor.executemany(sql, [])):
            with pytest.raises(StatementRefusedError, match="Take a new cursor for each transaction"):
                run("SELECT 1")


class TestShortcuts:
    """``connection.execute`` and ``executemany`` follow the rules of ``cursor().execute``, and explain as well."""

    @pytest.mark.parametrize("sql", ["COMMIT", "PRAGMA query_only = OFF", "DELETE FROM t"])
    def test_refusals_are_explained(self, live: Connection, sql: str) -> None:
        """The same error with the same words."""
        live.pin()
        with pytest.raises(StatementRefusedError) as by_cursor:
            live.cursor().execute(sql)
        with pytest.raises(TemakiError) as by_connection:
            live.execute(sql)
        assert str(by_connection.value) == str(by_cursor.value)

    def test_executemany_is_explained(self, live: Connection) -> None:
        """Also with many rows."""
        live.pin()
        with pytest.raises(StatementRefusedError, match="outside temaki's transaction"):
            live.executemany("INSERT INTO t VALUES (?)", [(4,), (5,)])


class TestBackup:
    """SQLite's online copy."""

    def test_copies_the_snapshot_of_a_session_that_reads(self, live: Connection, path: Path) -> None:
        """What the session sees, and not what was committed since."""
        live.pin()
        with closing(sqlite3.connect(path)) as other, other:
            other.execute("INSERT INTO t VALUES (4)")
        with closing(sqlite3.connect(":memory:")) as target:
            live.backup(target)
            assert target.execute("SELECT count(*) FROM t").fetchone() == (3,)

    def test_in_a_write_transaction_is_refused(self, writing: Connection) -> None:
        """SQLite would wait for itself for ever."""
        with (
            closing(sqlite3.connect(":memory:")) as target,
            pytest.raises(
                StatementRefusedError, match=rf"backup\(\) inside a write transaction.*{URL}.*strategy=\"read-only\""
            ),
        ):
            writing.backup(target)
