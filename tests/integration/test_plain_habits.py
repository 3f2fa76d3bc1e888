"""What applications written for plain Pony on SQLite do with their connections, threads and errors."""

# ruff: noqa: PT012 - what a session raises, it raises at its end: the block is all of it

from __future__ import annotations

import gc
import pickle
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pony import orm
from pony.orm import Required, commit, db_session, flush, select

import temaki
from temaki import CorruptDatabaseError, NotFoundError, StatementRefusedError
from temaki.stores.memory import MemoryStore
from temaki.strategy import Strategy
from temaki.testing.strategies import Client
from temaki_strategies import AlwaysDownload, EtagCached, LeaseLocked, ReadOnly
from tests.threads import PATIENCE, in_thread


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


class TestFunctions:
    """What a thread registers on its connection is there in its later sessions, whatever version they are on."""

    @staticmethod
    def register(client: Client, factor: int = 2) -> None:
        """A function, an aggregate, a window function and a collation."""

        class Total:
            def __init__(self) -> None:
                self.total = 0

            def step(self, value: int) -> None:
                self.total += value

            def inverse(self, value: int) -> None:
                self.total -= value

            def value(self) -> int:
                return self.total * factor

            finalize = value

        with db_session:
            connection = client.db.get_connection()
            connection.create_function("times", 1, lambda x: x * factor, deterministic=True)
            connection.create_aggregate("total_times", 1, Total)
            connection.create_window_function("window_times", 1, Total)
            connection.create_collation("backwards", lambda a, b: (a < b) - (a > b))

    @staticmethod
    def use(client: Client) -> list[Any]:
        """All of them."""
        with db_session:
            return [
                client.db.select("select times(21)")[0],
                client.db.select("select total_times(3)")[0],
                client.db.select("select window_times(4) over ()")[0],
                client.db.select("select 'a' < 'b' collate backwards")[0],
            ]

    def test_in_a_later_version(self, bucket: MemoryStore, client: Client) -> None:
        """Another process has stored one, so that the thread has got another connection."""
        self.register(client)
        assert self.use(client) == [42, 6, 8, 0]
        assert Client(bucket, EtagCached()).map().increment() == 1
        assert client.value() == 1
        assert self.use(client) == [42, 6, 8, 0]

    def test_the_last_one_counts(self, bucket: MemoryStore, client: Client) -> None:
        """Under the same name; also against one that a handler registers on each connection."""
        client.db.on_connect(lambda _db, connection: connection.create_function("times", 1, lambda x: -x))
        self.register(client, factor=2)
        self.register(client, factor=3)
        assert Client(bucket, EtagCached()).map().increment() == 1
        assert self.use(client) == [63, 9, 12, 0]

    def test_one_that_was_removed(self, bucket: MemoryStore, client: Client) -> None:
        """Stays away."""
        self.register(client)
        with db_session:
            client.db.get_connection().create_window_function("window_times", 1, None)
            client.db.get_connection().create_collation("backwards", None)
        assert Client(bucket, EtagCached()).map().increment() == 1
        for sql in ("select window_times(4) over ()", "select 'a' < 'b' collate backwards"):
            with pytest.raises(orm.OperationalError, match="no such"), db_session:
                client.db.select(sql)

    def test_in_sessions_that_interleave(self, client: Client) -> None:
        """Two sessions of one thread have two connections; with plain SQLite they would share one."""

        @db_session
        def reads() -> Any:
            yield client.Counter[1].value

        @db_session
        def registers() -> Any:
            client.db.get_connection().create_function("times", 1, lambda x: x * 2)
            commit()
            yield

        first, second = reads(), registers()
        next(first)
        next(second)
        first.close()  # whose connection the thread keeps
        second.close()
        with db_session:
            assert client.db.select("select times(21)")[0] == 42

    def test_another_thread_has_its_own(self, client: Client) -> None:
        """As with plain SQLite."""
        self.register(client)
        with pytest.raises(orm.OperationalError, match="no such function"):
            in_thread(lambda: self.use(client))

    def test_a_connection_that_was_closed_takes_them_along(self, client: Client) -> None:
        """``db.disconnect()`` is the end of them, as with plain SQLite."""
        self.register(client)
        client.db.disconnect()
        with pytest.raises(orm.OperationalError, match="no such function"):
            self.use(client)


class TestDeadThreads:
    """A thread that ends within a session that writes keeps nobody waiting."""

    @pytest.mark.parametrize("strategy", [AlwaysDownload, EtagCached, lambda: LeaseLocked(ttl=60, acquire_timeout=61)])
    def test_the_next_writer_writes(
        self, bucket: MemoryStore, client: Client, strategy: Callable[[], Strategy], caplog: pytest.LogCaptureFixture
    ) -> None:
        """In this process and in another one; what the dead thread had not committed is nowhere."""
        here, elsewhere = (Client(bucket, strategy()).map() for _ in range(2))

        def dies() -> None:
            db_session.__enter__()
            here.Counter(id=2, value=5)
            flush()

        gc.collect()
        gc.disable()  # nobody else may let go of it
        try:
            for _ in range(3):  # numbers of threads are used again, sooner or later
                thread = threading.Thread(target=dies, name="careless", daemon=True)
                thread.start()
                thread.join(PATIENCE)
                before = here.value()
                assert in_thread(here.increment) == before + 1
                assert elsewhere.increment() == before + 2
        finally:
            gc.enable()
        with db_session:
            assert select(counter.id for counter in client.Counter)[:] == [1]
        ended = [line for line in caplog.messages if "has ended within a db_session" in line]
        assert len(ended) == 3
        assert "careless" in ended[0]

    def test_threads_that_end_their_sessions_are_not_mentioned(
        self, client: Client, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Nor those that only read."""

        def reads() -> None:
            db_session.__enter__()
            assert client.Counter[1].value == 0

        in_thread(reads)
        in_thread(client.increment)
        assert client.increment() == 2
        assert not [line for line in caplog.messages if "has ended" in line]


class TestErrors:
    """Errors that such an application expects."""

    def test_check_tables_on_an_empty_bucket(self, bucket: MemoryStore) -> None:
        """Pony's error about a missing table, and temaki's about a missing database: it is both."""
        client = Client(bucket, EtagCached())
        client.db.generate_mapping(check_tables=False)
        with pytest.raises(orm.DatabaseError) as caught:
            client.db.check_tables()
        error = caught.value
        assert isinstance(error, NotFoundError)
        assert isinstance(error, orm.OperationalError)
        assert str(error).startswith("There is no database at memory://")
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), again.url) == (type(error), str(error), error.url)
        with db_session:
            client.db.execute("CREATE TABLE Counter (id INTEGER PRIMARY KEY, value INTEGER NOT NULL)")
        client.db.check_tables()

    def test_a_file_that_mkstemp_made(self, tmp_path: Path) -> None:
        """An empty file is an error that names its likely cause; it is not taken for a new database."""
        (tmp_path / "app.sqlite").touch()
        db: Any = temaki.Database()

        class User(db.Entity):
            name = Required(str)

        db.bind_s3(f"file://{tmp_path}/app.sqlite")
        with pytest.raises(CorruptDatabaseError, match=r"it is empty.*tempfile\.mkstemp\(\).*tempfile\.mkdtemp\(\)"):
            db.generate_mapping(create_tables=True)
        assert (tmp_path / "app.sqlite").read_bytes() == b""

    def test_refused_statements_are_caught_as_sqlites(self, client: Client) -> None:
        """On the connection itself by ``except sqlite3.Error``; through Pony they arrive as they are."""
        with db_session:
            with pytest.raises(sqlite3.Error):
                client.db.get_connection().execute("COMMIT")
            with pytest.raises(StatementRefusedError) as caught:
                client.db.execute("COMMIT")
            assert not isinstance(caught.value, orm.DatabaseError)
        error = pickle.loads(pickle.dumps(caught.value))
        assert (type(error), str(error), error.url) == (StatementRefusedError, str(caught.value), caught.value.url)


class TestPrivateTables:
    """TEMP tables, and databases in memory, are the connection's own."""

    @pytest.mark.parametrize("strategy", [EtagCached, ReadOnly])
    @pytest.mark.parametrize(
        "sql", ["CREATE TEMP TABLE scratch (x)", "ATTACH ':memory:' AS m; CREATE TABLE m.scratch (x)"]
    )
    def test_of_a_handler(
        self, bucket: MemoryStore, client: Client, sql: str, strategy: Callable[[], Strategy]
    ) -> None:
        """They are there in each session of the connection, also where the strategy never writes; nothing is stored."""
        etag = bucket.head("app.sqlite").etag
        other = Client(bucket, strategy())
        other.db.on_connect(lambda _db, connection: connection.executescript(sql))
        other.map()
        for count in (1, 2):
            with db_session:
                other.db.execute("INSERT INTO scratch VALUES (1)")
                assert other.db.get("SELECT count(*) FROM scratch") == count
        assert bucket.head("app.sqlite").etag == etag

    def test_of_a_session_are_rolled_back_with_it(self, client: Client) -> None:
        """In a write transaction they are part of it, as with plain SQLite."""
        with db_session:
            client.db.execute("CREATE TEMP TABLE scratch (x)")
        with pytest.raises(ZeroDivisionError), db_session:
            client.db.execute("INSERT INTO scratch VALUES (1)")
            raise ZeroDivisionError
        with db_session:
            assert client.db.get("SELECT count(*) FROM scratch") == 0


class TestBlocks:
    """``with connection:`` and ``isolation_level`` on ``db.get_connection()``."""

    def test_a_block_that_reads(self, client: Client) -> None:
        """Is allowed, and the session goes on in its transaction."""
        with db_session:
            with client.db.get_connection() as connection:
                assert connection.execute("SELECT value FROM Counter").fetchone() == (0,)
            client.Counter[1].value = 5
        assert client.value() == 5

    def test_a_block_that_writes(self, client: Client) -> None:
        """Is explained, as ``connection.commit()`` is."""
        explained = pytest.raises(StatementRefusedError, match=r"call commit\(\) of pony\.orm")
        with explained, db_session, client.db.get_connection() as connection:
            connection.execute("UPDATE Counter SET value = 5")
        assert client.value() == 0

    def test_a_block_that_fails(self, client: Client) -> None:
        """Undoes the session, also where its exception is caught: plain SQLite would have rolled back."""
        with pytest.raises(StatementRefusedError, match="cannot go on"), db_session:
            connection = client.db.get_connection()
            with pytest.raises(ZeroDivisionError), connection:
                connection.execute("UPDATE Counter SET value = 5")
                raise ZeroDivisionError
            client.Counter[1].value += 1
        assert client.value() == 0

    def test_isolation_level(self, client: Client) -> None:
        """Setting it to None means to commit each statement by itself: explained."""
        with pytest.raises(StatementRefusedError, match=r"isolation_level = None commits"), db_session:
            client.db.get_connection().isolation_level = None
        assert client.increment() == 1
