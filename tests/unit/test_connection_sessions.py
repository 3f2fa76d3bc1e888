"""`temaki.replica.connection` as users meet it: in Pony's sessions, where a refusal must leave everything as it was."""

# ruff: noqa: PT012 - what a session raises, it raises at its end: the block is all of it

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from pony.orm import (
    CommitException,
    IntegrityError,
    OperationalError,
    TransactionIntegrityError,
    commit,
    db_session,
    rollback,
    select,
)

from temaki import ReadOnlyError, StatementRefusedError
from temaki.stores.memory import MemoryStore
from temaki.testing.strategies import KEY, Client
from temaki_strategies import EtagCached, ReadOnly
from tests.threads import in_thread


@pytest.fixture
def bucket() -> MemoryStore:
    """An empty bucket."""
    return MemoryStore()


@pytest.fixture
def client(bucket: MemoryStore) -> Client:
    """A process with a counter at 0."""
    client = Client(bucket, EtagCached()).map(create_tables=True)
    with db_session:
        client.Counter(id=1, value=0)
    return client


REFUSED = [
    "COMMIT",
    "ROLLBACK",
    "PRAGMA locking_mode = EXCLUSIVE",
    "PRAGMA wal_checkpoint",
    "PRAGMA query_only = OFF",
]


@pytest.mark.parametrize("sql", REFUSED)
def test_refusal_reaches_the_user_as_it_is(client: Client, bucket: MemoryStore, sql: str) -> None:
    """Through ``db.execute``, with the URL, not as an error of SQLite's; nothing of the session is stored."""
    before = bucket.head(KEY)
    with pytest.raises(StatementRefusedError) as caught, db_session:
        client.Counter[1].value = 5
        client.db.execute(sql)
    assert client.db.provider.engine.url in str(caught.value)
    assert (client.value(), bucket.head(KEY).etag) == (0, before.etag)


def test_refusal_can_be_caught_and_the_session_goes_on(client: Client) -> None:
    """It harms nothing: what the session does besides is stored."""
    with db_session:
        client.Counter[1].value = 5
        for sql in REFUSED:
            with pytest.raises(StatementRefusedError):
                client.db.execute(sql)
    assert client.value() == 5


def test_raw_connection_commits_and_rolls_back_nothing(client: Client, bucket: MemoryStore) -> None:
    """``get_connection().commit()`` is refused with what to call instead; Pony's own calls work."""
    etag = bucket.head(KEY).etag
    with db_session:
        raw = client.db.get_connection()
        raw.execute("UPDATE Counter SET value = 7")
        for name in ("commit", "rollback"):
            with pytest.raises(StatementRefusedError, match=rf"call {name}\(\) of pony\.orm"):
                getattr(raw, name)()
        assert bucket.head(KEY).etag == etag
        commit()
        assert bucket.head(KEY).etag != etag
        client.db.execute("UPDATE Counter SET value = 8")
        rollback()
    assert client.value() == 7


def test_script_is_part_of_the_session(client: Client, bucket: MemoryStore) -> None:
    """``executescript`` is undone with the session, and stored with it."""
    etag = bucket.head(KEY).etag
    script = "UPDATE Counter SET value = 7; CREATE TABLE more (x); INSERT INTO more VALUES (';');"
    with pytest.raises(ZeroDivisionError), db_session:
        client.db.get_connection().executescript(script)
        raise ZeroDivisionError
    assert (client.value(), bucket.head(KEY).etag) == (0, etag)
    with db_session:
        client.db.get_connection().executescript(script)
    assert client.value() == 7
    with db_session:
        assert client.db.execute("SELECT x FROM more").fetchall() == [(";",)]


def test_savepoint_is_the_users_own(client: Client) -> None:
    """Part of a session can be undone with raw SQL."""
    with db_session:
        client.Counter[1].value = 1
        client.db.execute("SAVEPOINT here")
        client.db.execute("UPDATE Counter SET value = 99")
        client.db.execute("ROLLBACK TO here")
    assert client.value() == 1


def test_attach_in_a_session(client: Client, tmp_path: Path) -> None:
    """The live file is refused by each of its names, also a bound one; another file is welcome."""
    with db_session:
        live = next(row[2] for row in client.db.get_connection().execute("PRAGMA database_list"))
        (tmp_path / "link").symlink_to(live)
        for name in (live, f"file:{live}?cache=shared", str(tmp_path / "link")):
            with pytest.raises(StatementRefusedError, match="query it as `main`"):
                client.db.execute(f"ATTACH '{name}' AS other")
        with pytest.raises(StatementRefusedError, match="as a literal"):
            client.db.get_connection().execute("ATTACH ? AS other", (live,))
    with closing(sqlite3.connect(tmp_path / "other.sqlite")) as other, other:
        other.execute("CREATE TABLE o (x)")
        other.execute("INSERT INTO o VALUES (42)")
    with db_session:
        client.db.execute(f"ATTACH '{tmp_path / 'other.sqlite'}' AS theirs")
        client.db.execute("UPDATE Counter SET value = (SELECT x FROM theirs.o)")
    assert client.value() == 42


def test_attached_files_share_the_fate_of_the_session(client: Client, tmp_path: Path) -> None:
    """A file that a handler attaches to each connection can be read by every session."""
    with closing(sqlite3.connect(tmp_path / "other.sqlite")) as other, other:
        other.execute("CREATE TABLE o (x)")

    @client.db.on_connect(provider="sqlite")  # type: ignore[untyped-decorator, unused-ignore]
    def attach(_db: Any, connection: Any) -> None:
        connection.execute(f"ATTACH '{tmp_path / 'other.sqlite'}' AS theirs")

    def reads() -> int:
        with db_session:
            assert select(c for c in client.Counter).count() == 1
            found: int = client.db.select("select count(*) from theirs.o")[0]
            return found

    assert in_thread(reads) == 0


class TestBackup:
    """``Connection.backup`` in a session."""

    def test_in_a_write_transaction_is_refused(self, client: Client) -> None:
        """It would wait for ever; the session goes on."""
        with db_session, closing(sqlite3.connect(":memory:")) as target:
            raw = client.db.get_connection()
            raw.execute("UPDATE Counter SET value = 3")
            with pytest.raises(StatementRefusedError, match="waits for ever"):
                raw.backup(target)
        assert client.value() == 3

    def test_in_a_session_that_only_reads_works(self, client: Client, bucket: MemoryStore) -> None:
        """It copies the session's snapshot."""
        reader = Client(bucket, ReadOnly()).map()
        with db_session, closing(sqlite3.connect(":memory:")) as target:
            raw = reader.db.get_connection()
            in_thread(client.increment)
            raw.backup(target)
            assert target.execute("SELECT value FROM Counter").fetchone() == (0,)


class TestHandlers:
    """``@db.on_connect`` runs outside any transaction of temaki's."""

    def test_settings_of_the_connection_work(self, client: Client) -> None:
        """Pragmas, functions and collations of the handler are there in the session."""

        @client.db.on_connect  # type: ignore[untyped-decorator, unused-ignore]
        def handler(_db: Any, connection: Any) -> None:
            connection.execute("PRAGMA cache_size = 321")
            connection.create_function("twice", 1, lambda x: 2 * x)

        def reads() -> list[Any]:
            with db_session:
                return [
                    *client.db.select("select twice(value + 4) from Counter"),
                    *client.db.execute("PRAGMA cache_size"),
                ]

        assert in_thread(reads) == [8, (321,)]


class TestHalfReadCursors:
    """A cursor that was not read to its end pins nothing beyond its session."""

    @pytest.mark.parametrize("how", ["db.execute", "get_connection", "shortcut"])
    @pytest.mark.parametrize("kind", ["reads", "writes", "fails"])
    def test_next_session_is_current(self, client: Client, how: str, kind: str) -> None:
        """The thread's next session sees what another thread has committed since, in the same generation."""
        with db_session:
            for number in range(2, 500):
                client.Counter(id=number, value=0)
        kept = []
        with suppress(ZeroDivisionError), db_session:
            if how == "db.execute":
                cursor = client.db.execute("SELECT id FROM Counter")
            elif how == "get_connection":
                cursor = client.db.get_connection().cursor().execute("SELECT id FROM Counter")
            else:
                cursor = client.db.get_connection().execute("SELECT id FROM Counter")
            assert cursor.fetchone()
            kept.append(cursor)
            if kind == "writes":
                client.Counter[1].value += 1
            elif kind == "fails":
                raise ZeroDivisionError
        expected = in_thread(client.increment)
        assert client.value() == expected == 1 + (kind == "writes")
        if kind == "fails":
            with pytest.raises(StatementRefusedError, match="it was rolled back"):
                kept[0].fetchone()
        else:
            assert len(kept[0].fetchall()) == 498

    def test_a_loop_goes_on_over_its_commits(self, client: Client) -> None:
        """Each step of a loop over ``db.execute`` may commit, as with plain SQLite."""
        with db_session:
            for number in (2, 3):
                client.Counter(id=number, value=0)
        seen = []
        with db_session:
            for (number,) in client.db.execute("SELECT id FROM Counter ORDER BY id"):
                client.Counter[number].value = 10 + number
                commit()
                seen.append(number)
        assert seen == [1, 2, 3]
        with db_session:
            assert set(select(counter.value for counter in client.Counter)) == {11, 12, 13}

    def test_no_lock_is_held_while_rows_are_kept(self, client: Client) -> None:
        """Functions of the user's may run then, and take as long as they like: other sessions begin meanwhile."""
        replica = client.db.provider.engine.shared.replica
        with db_session:
            client.Counter(id=2, value=0)
        held = []
        with db_session:
            client.db.get_connection().create_function("looks", 0, lambda: held.append(replica.committing._is_owned()))
            cursor = client.db.execute("SELECT looks() FROM Counter")
            commit()
        assert len(cursor.fetchall()) == 2
        assert held == [False, False]

    def test_a_refused_commit_takes_no_rows_for_stored(self, bucket: MemoryStore, client: Client) -> None:
        """The rows that are kept are those that the session had read; the next session reads what is stored."""
        other = Client(bucket, EtagCached()).map()
        with pytest.raises(CommitException), db_session:
            client.db.execute("UPDATE Counter SET value = 5")
            cursor = client.db.execute("SELECT value FROM Counter")
            in_thread(other.increment)
        assert client.value() == 1
        assert cursor.fetchall() == [(5,)]


class TestPonysOwn:
    """Errors of the user's SQL stay what Pony makes of them."""

    def test_constraint(self, client: Client) -> None:
        """``IntegrityError``, from raw SQL and from a flush."""
        with pytest.raises(IntegrityError, match="UNIQUE"), db_session:
            client.db.execute("INSERT INTO Counter VALUES (1, 1)")
        with pytest.raises(TransactionIntegrityError, match="UNIQUE"), db_session:
            client.Counter(id=1, value=1)
        assert client.value() == 0

    @pytest.mark.parametrize("sql", ["SELEKT 1", "SELECT nothing FROM Counter", "SELECT * FROM nowhere"])
    def test_syntax(self, client: Client, sql: str) -> None:
        """``OperationalError``, and the thread's next session works."""
        with pytest.raises(OperationalError), db_session:
            client.db.execute(sql)
        assert client.value() == 0

    def test_read_only_write_is_not_one_of_them(self, bucket: MemoryStore, client: Client) -> None:
        """A write where the strategy never writes is temaki's to explain."""
        assert client.value() == 0
        reader = Client(bucket, ReadOnly()).map()
        with pytest.raises(ReadOnlyError, match="strategy that never writes"), db_session:
            reader.db.execute("UPDATE Counter SET value = 1")
