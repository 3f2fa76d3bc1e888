"""``@db.on_connect`` handlers that write: what they write is stored before the session that needs it begins."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Any

import pytest
from pony.orm import db_session, select

from temaki import AccessDeniedError, ConflictError, ReadOnlyError, StatementRefusedError
from temaki.stores.memory import MemoryStore
from temaki.strategy import Strategy
from temaki.testing.counting import CountingStore
from temaki.testing.strategies import KEY, Client
from temaki.testing.threads import in_parallel
from temaki_strategies import AlwaysDownload, EtagCached, LeaseLocked, ReadOnly
from tests.hooked import HookedStore, failing
from tests.threads import in_thread

Handler = Callable[[Any], object]
Writing = pytest.mark.parametrize("strategy", [AlwaysDownload, EtagCached, LeaseLocked])


@pytest.fixture
def bucket() -> MemoryStore:
    """A bucket with the database of an old release: a counter at 0."""
    bucket = MemoryStore()
    client = Client(bucket, EtagCached()).map(create_tables=True)
    with db_session:
        client.Counter(id=1, value=0)
    return bucket


def process(bucket: Any, *handlers: Handler, strategy: Callable[[], Strategy] = EtagCached) -> Client:
    """Another process, whose application has these handlers."""
    client = Client(bucket, strategy())
    for handler in handlers:
        client.db.on_connect(provider="sqlite")(lambda _db, connection, handler=handler: handler(connection))
    client.db.generate_mapping(check_tables=False)  # the first session is the test's
    return client


def stored(bucket: MemoryStore, sql: str) -> list[Any]:
    """What the object in the bucket holds."""
    download = bucket.get(KEY)
    assert download is not None
    with closing(sqlite3.connect(":memory:")) as connection, download:
        connection.deserialize(download.read(1 << 30))
        return connection.execute(sql).fetchall()


def columns(bucket: MemoryStore) -> list[str]:
    """The stored table's."""
    return [row[1] for row in stored(bucket, "PRAGMA table_info(Counter)")]


def add_column(connection: Any) -> None:
    """Look, and alter the table if the column is missing."""
    if "note" not in [row[1] for row in connection.execute("PRAGMA table_info(Counter)")]:
        connection.execute("ALTER TABLE Counter ADD COLUMN note TEXT")


def by_version(connection: Any) -> None:
    """The same, by ``user_version``."""
    if connection.execute("PRAGMA user_version").fetchone()[0] < 1:
        connection.executescript("ALTER TABLE Counter ADD COLUMN note TEXT; PRAGMA user_version = 1;")


def or_fail(connection: Any) -> None:
    """The same, by trying."""
    with suppress(sqlite3.OperationalError):
        connection.execute("ALTER TABLE Counter ADD COLUMN note TEXT")
    connection.execute("PRAGMA user_version = 1")


def in_a_block(connection: Any) -> None:
    """The same, in Python's own words for a transaction."""
    with connection:
        add_column(connection)
    connection.commit()
    connection.rollback()


def whatever_happens(connection: Any) -> None:
    """The same, by a handler that catches everything."""
    with suppress(Exception):
        add_column(connection)


MIGRATIONS = [add_column, by_version, or_fail, in_a_block, whatever_happens]


class TestMigration:
    """It is stored before the session that needs it begins."""

    @Writing
    @pytest.mark.parametrize("migrate", MIGRATIONS)
    def test_is_stored_once(self, bucket: MemoryStore, migrate: Handler, strategy: Callable[[], Strategy]) -> None:
        """By the first connection of the first process. No later one uploads anything."""
        counting = CountingStore(bucket)
        first = process(counting, migrate, strategy=strategy)
        with db_session:
            assert first.db.execute("SELECT note FROM Counter").fetchall() == [(None,)]
        assert columns(bucket) == ["id", "value", "note"]
        assert (first.value(), in_thread(first.value)) == (0, 0)
        second = process(counting, migrate, strategy=strategy)
        assert (second.value(), in_thread(second.value)) == (0, 0)
        assert counting.count("put", key=KEY) == 1
        assert first.increment() == 1
        assert second.increment() == 2

    @pytest.mark.parametrize("kind", [{"immediate": True}, {"ddl": True}], ids=str)
    @pytest.mark.parametrize("migrate", MIGRATIONS)
    def test_is_there_for_a_session_of_any_kind(
        self, bucket: MemoryStore, migrate: Handler, kind: dict[str, bool]
    ) -> None:
        """One that writes from its start, and one that makes tables."""
        client = process(bucket, migrate)

        @db_session(**kind)
        def once() -> None:
            client.db.execute("UPDATE Counter SET note = 'new'")

        once()
        assert stored(bucket, "SELECT note FROM Counter") == [("new",)]

    def test_first_start_on_an_empty_bucket(self) -> None:
        """The handler's own table is the first version, and generate_mapping goes on from it."""
        bucket = MemoryStore()
        client = Client(bucket, EtagCached())
        client.db.on_connect(lambda _db, connection: connection.execute("CREATE TABLE IF NOT EXISTS own (x)"))
        client.map(create_tables=True)
        assert {name for (name,) in stored(bucket, "SELECT name FROM sqlite_master")} >= {"own", "Counter"}

    def test_a_handler_that_writes_every_time(self, bucket: MemoryStore) -> None:
        """What it writes is stored for each new connection, as with plain SQLite; sessions of two processes go on."""
        with db_session:
            process(bucket).db.execute("CREATE TABLE log (x)")

        def log(connection: Any) -> None:
            connection.execute("INSERT INTO log VALUES (1)")

        first, second = process(bucket, log), process(bucket, log)
        assert [client.increment() for client in (first, second, first, second)] == [1, 2, 3, 4]
        assert stored(bucket, "SELECT count(*) >= 2 FROM log") == [(1,)]

    def test_writes_that_change_nothing_upload_nothing(self, bucket: MemoryStore) -> None:
        """``INSERT OR IGNORE`` is a write to SQLite, whatever comes of it; so is a ``user_version`` that is there."""

        def insert(connection: Any) -> None:
            connection.execute("INSERT OR IGNORE INTO Counter VALUES (1, 5)")
            connection.execute("PRAGMA user_version = 0")

        etag = bucket.head(KEY).etag
        client = process(bucket, insert)
        assert (client.value(), in_thread(client.value)) == (0, 0)
        assert bucket.head(KEY).etag == etag


class TestRaces:
    """Of several first starts one migrates, and the others find it done."""

    @Writing
    @pytest.mark.parametrize("migrate", MIGRATIONS)
    def test_another_process_is_faster(
        self, bucket: MemoryStore, migrate: Handler, strategy: Callable[[], Strategy]
    ) -> None:
        """Its migration is stored while this one's is on its way: this one is refused, and looks again."""
        raced = []

        def race() -> None:
            raced.append(True)
            in_thread(process(bucket, migrate).increment)

        store = HookedStore(bucket)
        store.before["put"] = [race]
        late = process(store, migrate, strategy=strategy)
        assert late.value() == 1
        assert raced
        assert columns(bucket) == ["id", "value", "note"]

    @pytest.mark.parametrize("catches", [False, True])
    def test_another_version_comes_before_its_first_write(self, bucket: MemoryStore, catches: bool) -> None:
        """What it has looked at is old: its first write is refused, caught or not, and it looks again."""
        refused: list[Exception] = []
        runs: list[bool] = []

        def migrate(connection: Any) -> None:
            runs.append(connection.begin_on_write is not None)
            found = connection.execute("SELECT value FROM Counter").fetchone()[0]
            if runs == [False, True]:  # the first one that may write
                assert in_thread(process(bucket).increment) == 1
                client.db.provider.engine.shared.puller.revalidate()
            if found < 5:
                try:
                    connection.execute("UPDATE Counter SET value = ?", (found + 5,))
                except ConflictError as error:
                    refused.append(error)
                    if not catches:
                        raise

        client = process(bucket, migrate)
        assert client.value() == 6
        assert len(refused) == 1

    def test_threads_at_once(self, bucket: MemoryStore) -> None:
        """One of them writes; what the others see is what it has stored."""
        client = process(bucket, add_column)
        in_parallel([client.increment for _ in range(6)])
        assert columns(bucket) == ["id", "value", "note"]
        assert client.value() == 6


class TestFailure:
    """A migration that fails leaves no trace."""

    def test_a_handler_that_raises(self, bucket: MemoryStore) -> None:
        """What it has written before is undone; the session fails with its error, and the next one works."""
        broken = [True]

        def migrate(connection: Any) -> None:
            add_column(connection)
            connection.execute("UPDATE Counter SET value = 99")
            if broken:
                raise ZeroDivisionError

        etag = bucket.head(KEY).etag
        client = process(bucket, migrate)
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                client.value()
        assert bucket.head(KEY).etag == etag
        assert Client(bucket, EtagCached()).map().increment() == 1
        broken.clear()
        assert client.value() == 99

    def test_an_upload_that_fails(self, bucket: MemoryStore) -> None:
        """Nobody reads the new column; the next session tries again."""
        store = HookedStore(bucket)
        store.before["put"] = [failing(AccessDeniedError("no", url=""))]
        client = process(store, add_column)
        with pytest.raises(AccessDeniedError):
            client.value()
        assert columns(bucket) == ["id", "value"]
        assert client.value() == 0
        assert columns(bucket) == ["id", "value", "note"]

    def test_no_writer_is_kept_waiting_by_it(self, bucket: MemoryStore) -> None:
        """The lock and the lease are given back."""

        def migrate(connection: Any) -> None:
            add_column(connection)
            raise ZeroDivisionError

        client = process(bucket, migrate, strategy=lambda: LeaseLocked(ttl=60, acquire_timeout=61))
        with pytest.raises(ZeroDivisionError):
            client.value()
        others = process(bucket, strategy=lambda: LeaseLocked(ttl=60, acquire_timeout=61))
        assert in_thread(others.increment) == 1

    def test_a_strategy_that_never_writes(self, bucket: MemoryStore) -> None:
        """Says so."""
        with pytest.raises(ReadOnlyError, match="strategy that never writes"):
            process(bucket, add_column, strategy=ReadOnly).value()

    @pytest.mark.parametrize("sql", ["BEGIN", "BEGIN; ALTER TABLE Counter ADD COLUMN note; COMMIT;"])
    def test_transactions_are_explained(self, bucket: MemoryStore, sql: str) -> None:
        """A handler has no need of its own."""
        with pytest.raises(StatementRefusedError, match="BEGIN would bypass the upload: leave it out"):
            process(bucket, lambda connection: connection.executescript(sql)).value()
        assert columns(bucket) == ["id", "value"]


class TestForeignKeys:
    """SQLite ignores ``PRAGMA foreign_keys`` in a transaction, where DROP TABLE deletes the rows that refer to it."""

    @pytest.fixture
    def related(self, bucket: MemoryStore) -> MemoryStore:
        """The same bucket, with rows that go with the counter."""
        with db_session(ddl=False):
            db = process(bucket).db
            db.execute("CREATE TABLE part (x INTEGER REFERENCES Counter (id) ON DELETE CASCADE)")
            db.execute("INSERT INTO part VALUES (1)")
        return bucket

    @staticmethod
    def rebuild(connection: Any) -> None:
        """SQLite's way to change what ALTER TABLE cannot."""
        connection.executescript("""
            CREATE TABLE new (id INTEGER PRIMARY KEY, value INTEGER NOT NULL, note TEXT);
            INSERT INTO new SELECT id, value, '' FROM Counter;
            DROP TABLE Counter;
            ALTER TABLE new RENAME TO Counter;
        """)

    def test_switched_off_before_the_first_write(self, related: MemoryStore) -> None:
        """They are off while the table is made anew, and on afterwards."""

        def migrate(connection: Any) -> None:
            if len(connection.execute("PRAGMA table_info(Counter)").fetchall()) == 2:
                connection.execute("PRAGMA foreign_keys = OFF")
                self.rebuild(connection)
                connection.execute("PRAGMA foreign_keys = ON")

        client = process(related, migrate)
        assert client.value() == 0
        assert stored(related, "SELECT x FROM part") == [(1,)]
        with db_session:
            assert client.db.execute("PRAGMA foreign_keys").fetchone() == (1,)

    def test_switched_off_too_late(self, related: MemoryStore) -> None:
        """It would be ignored, and rows deleted."""

        def migrate(connection: Any) -> None:
            connection.execute("UPDATE Counter SET value = 1")
            connection.execute("PRAGMA foreign_keys = OFF")
            self.rebuild(connection)

        etag = related.head(KEY).etag
        with pytest.raises(StatementRefusedError, match="Switch it off before"):
            process(related, migrate).value()
        assert (stored(related, "SELECT x FROM part"), related.head(KEY).etag) == ([(1,)], etag)


def test_what_a_handler_sets_is_there_after_it_has_written(bucket: MemoryStore) -> None:
    """The session gets the very connection on which the handler ran."""

    def prepare(connection: Any) -> None:
        connection.create_function("twice", 1, lambda x: 2 * x)
        add_column(connection)
        connection.execute("CREATE TEMP TABLE scratch (x)")

    client = process(bucket, prepare)
    with db_session:
        assert list(client.db.select("select twice(21)")) == [42]
        client.db.execute("INSERT INTO scratch VALUES (1)")
        assert select(counter.value for counter in client.Counter).first() == 0
