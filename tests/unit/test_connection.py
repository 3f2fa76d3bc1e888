"""`replica.connection` on plain files: what raw SQL is refused, how it is explained, what stays as in SQLite."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from temaki.errors import CorruptDatabaseError, ReadOnlyError, StatementRefusedError, WorkingCopyError
from temaki.replica.connection import Connection

URL = "s3://bucket/app.sqlite"


def open_live(path: Path, *, writable: bool = True) -> Connection:
    """A guarded connection, as the pool makes one."""
    connection = sqlite3.connect(path, isolation_level=None, factory=Connection)
    connection.settle_in(URL, os.path.realpath(path.parent), writable=writable)
    return connection


def begin(connection: Connection) -> None:
    """What temaki does where Pony begins to write."""
    connection.end_transaction()
    connection.allow_writes()
    with connection.trusted():
        connection.cursor().execute("BEGIN IMMEDIATE TRANSACTION")


def run(connection: sqlite3.Connection, sql: str, parameters: tuple[object, ...] = ()) -> sqlite3.Cursor:
    """As Pony runs its statements, and its users theirs in ``db.execute``."""
    return connection.cursor().execute(sql, parameters)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A working copy with one table of one row."""
    path = tmp_path / "copy" / "1.sqlite"
    path.parent.mkdir()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL").close()
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, x TEXT NOT NULL)")
        connection.execute("INSERT INTO t VALUES (1, 'one')")
    return path


@pytest.fixture
def live(path: Path) -> Iterator[Connection]:
    """A connection to it that reads."""
    with closing(open_live(path)) as connection:
        connection.pin()
        yield connection


@pytest.fixture
def writing(path: Path) -> Iterator[Connection]:
    """A connection to it inside temaki's write transaction."""
    with closing(open_live(path)) as connection:
        begin(connection)
        yield connection


def rows(path: Path) -> list[tuple[str]]:
    """What is committed, as another connection sees it."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT x FROM t ORDER BY id").fetchall()


class TestTransactionStatements:
    """Whoever ends or begins a transaction behind temaki's back changes what is never uploaded."""

    @pytest.mark.parametrize("state", ["live", "writing"])
    @pytest.mark.parametrize(
        "sql",
        ["BEGIN", "begin immediate transaction", "COMMIT", "END", "commit transaction", "ROLLBACK", "/* */ BEGIN"],
    )
    def test_are_refused(self, sql: str, state: str, request: pytest.FixtureRequest) -> None:
        """In any session; the error names the database and what to use, and the transaction goes on."""
        connection: Connection = request.getfixturevalue(state)
        with pytest.raises(StatementRefusedError, match=r"Refused on s3://bucket/app\.sqlite.*db_session, commit\(\)"):
            run(connection, sql)
        assert connection.in_transaction
        assert run(connection, "SELECT x FROM t").fetchall() == [("one",)]

    def test_savepoints_are_allowed(self, writing: Connection, path: Path) -> None:
        """Within the transaction they undo what they should, and nothing gets out."""
        run(writing, "SAVEPOINT here")
        run(writing, "UPDATE t SET x = 'two'")
        run(writing, "ROLLBACK TO here")
        run(writing, "INSERT INTO t VALUES (2, 'kept')")
        run(writing, "RELEASE here")
        assert rows(path) == [("one",)]
        writing.commit_locally()
        assert rows(path) == [("one",), ("kept",)]

    @pytest.mark.parametrize("name", ["commit", "rollback"])
    def test_methods_are_refused_in_a_transaction(self, writing: Connection, name: str, path: Path) -> None:
        """``connection.commit()`` would commit without the upload; outside of transactions it has nothing to do."""
        run(writing, "UPDATE t SET x = 'two'")
        with pytest.raises(StatementRefusedError, match=rf"{name}\(\) .*{URL}.* call {name}\(\) of pony\.orm"):
            getattr(writing, name)()
        assert rows(path) == [("one",)]
        writing.end_transaction()
        getattr(writing, name)()

    def test_leaving_a_with_block_commits_nothing(self, writing: Connection, path: Path) -> None:
        """``with connection:`` is Python's own way to commit: it is explained, and the transaction goes on."""
        explained = rf"end of `with connection:` commits.*{URL}.*call commit"
        with pytest.raises(StatementRefusedError, match=explained), writing:
            run(writing, "UPDATE t SET x = 'two'")
        assert rows(path) == [("one",)]
        assert run(writing, "SELECT x FROM t").fetchall() == [("two",)]

    @pytest.mark.parametrize("sql", ["CREATE TABLE u (x)", "PRAGMA user_version = 7", "ALTER TABLE t ADD COLUMN y"])
    def test_a_with_block_counts_what_total_changes_does_not(self, writing: Connection, sql: str) -> None:
        """A table that was made is a change that a commit would have to store."""
        with pytest.raises(StatementRefusedError, match="end of `with connection:`"), writing:
            run(writing, sql)

    @pytest.mark.parametrize("state", ["live", "writing"])
    def test_a_with_block_that_changes_nothing_is_allowed(self, state: str, request: pytest.FixtureRequest) -> None:
        """There is nothing to commit; and the session's transaction goes on after it."""
        connection: Connection = request.getfixturevalue(state)
        with connection as same:
            assert run(connection, "SELECT x FROM t").fetchall() == [("one",)]
            run(connection, "PRAGMA table_info(t)")
        assert same is connection
        assert connection.in_transaction

    def test_a_with_block_that_fails_undoes_the_transaction(self, writing: Connection, path: Path) -> None:
        """As with plain SQLite. Whoever catches the exception cannot store what was undone."""
        with pytest.raises(ZeroDivisionError), writing:  # noqa: PT012
            run(writing, "UPDATE t SET x = 'two'")
            raise ZeroDivisionError
        assert run(writing, "SELECT x FROM t").fetchall() == [("one",)]
        with pytest.raises(StatementRefusedError, match="cannot go on"):
            run(writing, "UPDATE t SET x = 'three'")
        with pytest.raises(StatementRefusedError, match="cannot go on"):
            writing.commit_locally()
        assert rows(path) == [("one",)]

    def test_setting_the_isolation_level_commits_nothing(self, writing: Connection, path: Path) -> None:
        """Setting it to None is another of Python's ways to commit: explained. Outside of transactions it is none."""
        run(writing, "UPDATE t SET x = 'two'")
        with pytest.raises(StatementRefusedError, match=rf"isolation_level = None commits.*{URL}.*call commit"):
            writing.isolation_level = None
        assert rows(path) == [("one",)]
        writing.end_transaction()
        writing.isolation_level = None
        assert writing.isolation_level is None

    def test_setting_the_isolation_level_keeps_the_snapshot(self, live: Connection, path: Path) -> None:
        """In a session that reads there is nothing to commit, and its snapshot stays."""
        live.isolation_level = None
        with closing(sqlite3.connect(path)) as other, other:
            other.execute("INSERT INTO t VALUES (2, 'two')")
        assert run(live, "SELECT x FROM t").fetchall() == [("one",)]

    def test_pythons_own_executescript_commits_nothing(self, writing: Connection, path: Path) -> None:
        """A cursor of another class brings Python's executescript, which commits first."""
        run(writing, "UPDATE t SET x = 'two'")
        with pytest.raises(sqlite3.DatabaseError, match="not authorized"):
            writing.cursor(sqlite3.Cursor).executescript("SELECT 1")
        assert rows(path) == [("one",)]

    def test_cached_statement_has_no_verdict_of_its_own(self, path: Path) -> None:
        """A statement that was prepared while temaki ran it is refused to others, with the very same text."""
        with closing(open_live(path)) as connection:
            for _ in range(2):
                begin(connection)
                run(connection, "INSERT INTO t (x) VALUES ('more')")
                connection.commit_locally()
                connection.pin()
                connection.end_transaction()
            connection.pin()
            connection.end_transaction()
            for sql in ("BEGIN IMMEDIATE TRANSACTION", "BEGIN", "COMMIT", "ROLLBACK", "PRAGMA query_only = OFF"):
                with pytest.raises(StatementRefusedError):
                    run(connection, sql)
            assert not connection.in_transaction
            with pytest.raises(StatementRefusedError, match="outside temaki's transaction"):
                run(connection, "INSERT INTO t (x) VALUES ('smuggled')")


class TestPragmas:
    """How the file is journalled is temaki's affair. Everything else is the user's."""

    @pytest.mark.parametrize("name", ["locking_mode", "query_only"])
    def test_asking_is_allowed_and_setting_is_not(self, live: Connection, name: str) -> None:
        """With ``=``, in brackets, with the schema's name, in capitals."""
        before = run(live, f"PRAGMA {name}").fetchone()
        for sql in (f"{name} = 1", f"{name}(1)", f"main.{name} = EXCLUSIVE", f"{name.upper()} = 0"):
            with pytest.raises(StatementRefusedError, match=rf"{URL}: PRAGMA {name} cannot be changed: \w+"):
                run(live, f"PRAGMA {sql}")
        assert run(live, f"PRAGMA {name}").fetchone() == before

    @pytest.mark.parametrize("state", ["live", "writing"])
    @pytest.mark.parametrize(
        ("sql", "answer"),
        [
            ("journal_mode = WAL", [("wal",)]),
            ("journal_mode = DELETE", [("wal",)]),
            ("main.journal_mode(MEMORY)", [("wal",)]),
            ("JOURNAL_MODE = off", [("wal",)]),
            ("synchronous = NORMAL", []),
            ("synchronous = FULL", []),
            ("wal_autocheckpoint = 0", [(0,)]),
            ("wal_autocheckpoint = 1000", [(0,)]),
        ],
    )
    def test_what_cannot_matter_is_answered_and_not_done(
        self, sql: str, answer: list[Any], state: str, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
    ) -> None:
        """SQLite answers in this way where it cannot comply. The log says so once."""
        connection: Connection = request.getfixturevalue(state)
        asked = ("journal_mode", "synchronous", "wal_autocheckpoint")
        before = [run(connection, f"PRAGMA {name}").fetchone() for name in asked]
        assert before == [("wal",), (0,), (0,)]
        with caplog.at_level(logging.INFO):
            for _ in range(2):
                assert run(connection, f"PRAGMA {sql}").fetchall() == answer
        assert [run(connection, f"PRAGMA {name}").fetchone() for name in asked] == before
        assert [URL in line and "changes nothing here" in line for line in caplog.messages] == [True]
        assert connection.in_transaction

    @pytest.mark.parametrize("sql", ["locking_mode = NORMAL", "busy_timeout = 5000"])
    def test_what_temaki_does_anyway_is_allowed(self, live: Connection, sql: str) -> None:
        """Other applications' settings that change nothing here."""
        run(live, f"PRAGMA {sql}")

    def test_an_attached_file_is_journalled_as_its_owner_likes(self, live: Connection, tmp_path: Path) -> None:
        """The rules are about the working copy."""
        sqlite3.connect(tmp_path / "other.sqlite").close()
        live.end_transaction()
        run(live, f"ATTACH '{tmp_path / 'other.sqlite'}' AS other")
        assert run(live, "PRAGMA other.journal_mode = MEMORY").fetchall() == [("memory",)]
        run(live, "PRAGMA other.synchronous = FULL")
        assert run(live, "PRAGMA other.synchronous").fetchone() == (2,)
        assert run(live, "PRAGMA main.journal_mode").fetchone() == ("wal",)

    @pytest.mark.parametrize("sql", ["PRAGMA query_only = OFF", "PRAGMA wal_checkpoint", "COMMIT", "DELETE FROM t"])
    def test_refusals_are_errors_of_sqlites_too(self, live: Connection, sql: str) -> None:
        """``except sqlite3.Error`` catches them. Code that expects an OperationalError, as of a column that is there
        already, must not take a refusal for it.
        """
        with pytest.raises(sqlite3.Error) as caught:
            live.execute(sql)
        assert isinstance(caught.value, StatementRefusedError)
        assert not isinstance(caught.value, sqlite3.OperationalError)

    @pytest.mark.parametrize("sql", ["PRAGMA wal_checkpoint", "PRAGMA wal_checkpoint(TRUNCATE)"])
    def test_checkpoint_is_refused(self, live: Connection, sql: str, path: Path) -> None:
        """It would put into the main file what no store has accepted."""
        live.end_transaction()
        before = path.read_bytes()
        with pytest.raises(StatementRefusedError, match="temaki checkpoints after each acknowledged commit"):
            run(live, sql)
        assert path.read_bytes() == before

    def test_others_work(self, live: Connection) -> None:
        """Also those that change the connection."""
        run(live, "PRAGMA cache_size = 123")
        assert run(live, "PRAGMA cache_size").fetchone() == (123,)
        assert run(live, "PRAGMA table_info(t)").fetchall()[0][1] == "id"
        assert run(live, "PRAGMA integrity_check").fetchone() == ("ok",)

    def test_user_version_that_is_there_already_is_no_write(self, live: Connection, writing: Connection) -> None:
        """SQLite would write the page, and temaki upload it."""
        run(writing, "PRAGMA user_version = 7")
        writing.commit_locally()
        live.end_transaction()
        for sql in ("PRAGMA user_version = 7", "pragma main.user_version(7);", "PRAGMA application_id=0"):
            assert run(live, sql).fetchall() == []
        for sql in ("PRAGMA user_version = 8", "PRAGMA user_version = 7; DELETE FROM t"):
            with pytest.raises((StatementRefusedError, sqlite3.Warning, sqlite3.ProgrammingError)):
                run(live, sql)
        assert run(live, "PRAGMA user_version").fetchone() == (7,)

    def test_user_version_is_a_write(self, live: Connection, writing: Connection) -> None:
        """A pragma that writes to the file needs the write transaction, and works there."""
        with pytest.raises(StatementRefusedError, match="outside temaki's transaction"):
            run(live, "PRAGMA user_version = 7")
        run(writing, "PRAGMA user_version = 7")
        writing.commit_locally()
        assert run(writing, "PRAGMA user_version").fetchone() == (7,)


class TestAttach:
    """Another file may be attached; the working copy itself may not, under whatever name."""

    @pytest.mark.parametrize(
        "kind", ["path", "relative", "symlink", "symlinked folder", "uri", "uri with mode", "sibling"]
    )
    def test_working_copy_is_refused(
        self, live: Connection, path: Path, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What is written there would never be stored."""
        monkeypatch.chdir(tmp_path)
        (tmp_path / "link.sqlite").symlink_to(path)
        (tmp_path / "folder").symlink_to(path.parent)
        name = {
            "path": str(path),
            "relative": "copy/../copy/1.sqlite",
            "symlink": "link.sqlite",
            "symlinked folder": "folder/1.sqlite",
            "uri": f"file:{path}",
            "uri with mode": f"file://{path}?mode=rw",
            "sibling": f"{path.parent}/2.sqlite",
        }[kind]
        with pytest.raises(StatementRefusedError, match=rf"{URL}: ATTACH of temaki's own working copy.*`main`"):
            run(live, f"ATTACH '{name}' AS other")
        assert len(run(live, "PRAGMA database_list").fetchall()) == 1

    @pytest.mark.parametrize("authority", ["", "localhost"])
    def test_percent_encoded_uri_is_refused_where_uris_count(
        self, live: Connection, path: Path, authority: str
    ) -> None:
        """Where SQLite was built to take URIs everywhere, an encoded one does not get around the rule."""
        encoded = f"file://{authority}{path}".replace("copy", "c%6fpy")
        try:
            run(live, f"ATTACH '{encoded}' AS other")
        except (StatementRefusedError, sqlite3.OperationalError):
            return
        attached = [row[2] for row in run(live, "PRAGMA database_list")]
        assert not any(os.path.realpath(name) == os.path.realpath(path) for name in attached[1:])

    def test_bound_name_is_refused(self, live: Connection, tmp_path: Path) -> None:
        """The authorizer cannot see it; the message says to write it out."""
        with pytest.raises(StatementRefusedError, match="ATTACH needs its file name as a literal"):
            run(live, "ATTACH ? AS other", (str(tmp_path / "other.sqlite"),))

    @pytest.mark.parametrize("state", ["live", "writing"])
    def test_other_file_is_allowed(self, state: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
        """Its rows can be read, and in a write transaction copied."""
        connection: Connection = request.getfixturevalue(state)
        with closing(sqlite3.connect(tmp_path / "other.sqlite")) as other:
            other.executescript("CREATE TABLE o (x); INSERT INTO o VALUES ('theirs');")
        run(connection, f"ATTACH '{tmp_path / 'other.sqlite'}' AS other")
        assert run(connection, "SELECT x FROM other.o").fetchall() == [("theirs",)]
        if state == "writing":
            run(connection, "INSERT INTO t SELECT 2, x FROM other.o")
            connection.commit_locally()
            assert run(connection, "SELECT count(*) FROM t").fetchone() == (2,)

    @pytest.mark.parametrize("name", ["", ":memory:"])
    def test_private_databases_are_allowed(self, live: Connection, name: str) -> None:
        """Temporary ones and those in memory are no files of anyone's."""
        run(live, f"ATTACH '{name}' AS scratch")
        assert run(live, "SELECT count(*) FROM scratch.sqlite_master").fetchone() == (0,)


class TestWrites:
    """Nothing is written that temaki would not upload, and errors that are the user's stay SQLite's."""

    @pytest.mark.parametrize(
        "sql", ["INSERT INTO t VALUES (9, 'x')", "CREATE TABLE u (x)", "DELETE FROM t", "DROP TABLE t"]
    )
    def test_write_outside_a_transaction_is_refused(self, live: Connection, sql: str, path: Path) -> None:
        """The error names the database and the way to write."""
        with pytest.raises(StatementRefusedError, match=rf"A write to {URL} outside .* Write inside a db_session"):
            run(live, sql)
        with pytest.raises(StatementRefusedError):
            live.cursor().executemany("INSERT INTO t VALUES (?, 'x')", [(10,), (11,)])
        live.end_transaction()
        with pytest.raises(StatementRefusedError):
            run(live, sql)
        assert rows(path) == [("one",)]

    def test_write_of_a_reader_is_refused(self, path: Path) -> None:
        """A connection whose strategy never writes says so, and names one that does."""
        with closing(open_live(path, writable=False)) as connection:
            with pytest.raises(
                ReadOnlyError, match=rf'{URL} is bound with a strategy that never writes.*strategy="etag'
            ):
                run(connection, "INSERT INTO t VALUES (9, 'x')")
            assert rows(path) == [("one",)]

    def test_temporary_tables_are_the_sessions_own(self, writing: Connection) -> None:
        """They work in a write transaction."""
        run(writing, "CREATE TEMP TABLE scratch AS SELECT * FROM t")
        assert run(writing, "SELECT count(*) FROM scratch").fetchone() == (1,)

    @pytest.mark.parametrize(
        ("sql", "error", "message"),
        [
            ("INSERT INTO t VALUES (1, 'again')", sqlite3.IntegrityError, r"UNIQUE constraint failed: t\.id"),
            ("INSERT INTO t VALUES (2, NULL)", sqlite3.IntegrityError, r"NOT NULL constraint failed: t\.x"),
            ("SELEKT 1", sqlite3.OperationalError, "syntax error"),
            ("SELECT * FROM missing", sqlite3.OperationalError, "no such table: missing"),
            ("SELECT 1; SELECT 2", (sqlite3.Warning, sqlite3.ProgrammingError), "one statement at a time"),
        ],
    )
    def test_users_own_errors_are_sqlites(
        self, writing: Connection, sql: str, error: type[Exception], message: str
    ) -> None:
        """Constraints, syntax and missing tables are not temaki's to rephrase."""
        with pytest.raises(error, match=message):
            run(writing, sql)
        assert writing.in_transaction

    def test_damage_names_the_database(self, live: Connection, path: Path) -> None:
        """Pages that SQLite cannot make sense of are an error that says what was not overwritten."""
        live.close()
        data = bytearray(path.read_bytes())
        data[4096:] = b"\xff" * (len(data) - 4096)
        path.write_bytes(data)
        with (
            closing(open_live(path)) as connection,
            pytest.raises(CorruptDatabaseError, match=rf"{URL} is damaged.*recover"),
        ):
            run(connection, "SELECT * FROM t").fetchall()

    def test_vanished_folder_names_the_working_copy(self, path: Path) -> None:
        """Where temaki's own statement finds that the file cannot be opened, the error names folder and remedy."""
        path.with_name("1.sqlite-wal").mkdir()
        with pytest.raises(WorkingCopyError, match="set cache_dir") as caught:
            open_live(path).pin()
        assert URL in str(caught.value)
        assert caught.value.path == os.path.realpath(path.parent)
