"""The suite that every sync strategy has to pass, built-in or not.

.. code-block:: python

    class TestMine(StrategyTests):
        def make_strategy(self) -> Strategy:
            return Mine(patience=3)

Every test shows one of the five promises, or its cost. A strategy that never writes sets ``writes = False``. The suite
then tests that it never writes.

A database is stored in one of two formats, and a strategy has to work with both. Set ``format = "pages"`` in a second
class to test it with the other one.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ClassVar
from uuid import uuid4

import pytest
from pony.orm import CommitException, PrimaryKey, Required, db_session, select

from temaki.errors import (
    CommitUnknownError,
    ConflictError,
    CorruptDatabaseError,
    NotFoundError,
    ReadOnlyError,
    StoreUnavailableError,
)
from temaki.orm.cause import cause_of
from temaki.orm.database import Database
from temaki.store import Store
from temaki.stores.memory import MemoryStore
from temaki.strategy import Strategy
from temaki.testing.counting import CountingStore
from temaki.testing.faulty import Fault, FaultyStore
from temaki.testing.threads import in_parallel

KEY = "app.sqlite"
RETRIES = 50


class Client:
    """A client that acts as one process: its own database and working copy, on a shared store.

    Args:
        store: The bucket.
        strategy: The strategy of the client.
        options: More arguments for ``bind_s3``.
    """

    def __init__(self, store: Store, strategy: Strategy, **options: Any) -> None:
        self.db = Database()

        class Counter(self.db.Entity):  # type: ignore[name-defined,misc]
            id = PrimaryKey(int)
            value = Required(int)

        self.Counter: Any = Counter
        # One URL has one working copy per process. So each client has a URL of its own.
        self.db.bind_s3(f"memory://client-{uuid4().hex}/{KEY}", store=store, strategy=strategy, **options)

    def map(self, *, create_tables: bool = False) -> Client:
        """Generate the mapping."""
        self.db.generate_mapping(create_tables=create_tables)
        return self

    def value(self) -> int:
        """Read the counter in a session of its own."""
        with db_session:
            value: int = self.Counter[1].value
            return value

    def increment(self, *, retry: int = RETRIES, before_commit: Callable[[], object] = lambda: None) -> int:
        """Add one in a session that is retried. Returns the committed value."""

        @db_session(retry=retry)  # type: ignore[untyped-decorator]
        def once() -> int:
            counter = self.Counter[1]
            counter.value += 1
            new: int = counter.value
            before_commit()
            return new

        return int(once())


class _Swapping(Strategy):
    """The simplest strategy that writes: the other client in a strategy's tests uses it."""

    def pull(self, session: Any) -> None:
        session.revalidate()


class StrategyTests(ABC):
    """The suite. Subclass it, define ``make_strategy``, and run it with pytest.

    Attributes:
        refusal: The error that refuses a session that would overwrite a newer value. Under a strategy that calls
            ``Session.follow`` it is Pony's ``OptimisticCheckError``.
        format: The format in which the database is stored: ``"file"`` or ``"pages"``.
        rounds: How often a writer commits in the tests in which several write at once. Fewer rounds make the tests
            quicker on a store whose contended uploads take long.
        patience: The ``timeout`` of the client under test, in seconds. The tests make requests fail until it is over,
            so it should be short. There are always two attempts.
    """

    refusal: ClassVar[type[Exception]] = ConflictError
    format: ClassVar[str] = "file"
    rounds: int = 15
    patience: float = 0.01

    @abstractmethod
    def make_strategy(self) -> Strategy:
        """Make a new instance of the strategy. Every client of a test gets its own."""

    @pytest.fixture
    def bucket(self) -> Store:
        """An empty bucket in memory. Override the fixture to test on another store."""
        return MemoryStore("strategy-tests")

    @pytest.fixture
    def other(self, bucket: Store) -> Client:
        """Another client, which has created the database with a counter at 0."""
        other = Client(bucket, _Swapping(), format=self.format).map(create_tables=True)
        with db_session:
            other.Counter(id=1, value=0)
        return other

    @pytest.fixture
    def store(self, bucket: Store) -> FaultyStore:
        """A wrapper around the bucket, which a test can make fail."""
        return FaultyStore(bucket)

    @pytest.fixture
    def counting(self, store: FaultyStore) -> CountingStore:
        """A wrapper around the faulty store that counts requests."""
        return CountingStore(store)

    @pytest.fixture
    def client(self, other: Client, counting: CountingStore) -> Client:
        """A client that uses the strategy."""
        assert other
        return Client(counting, self.make_strategy(), timeout=self.patience).map()

    @pytest.fixture
    def writer(self, client: Client) -> Client:
        """A client whose strategy writes; the test is skipped for other strategies."""
        if not client.db.provider.engine.writes:
            pytest.skip("the strategy never writes")
        return client

    @pytest.fixture
    def reader(self, client: Client) -> Client:
        """A client whose strategy never writes; the test is skipped for other strategies."""
        if client.db.provider.engine.writes:
            pytest.skip("the strategy writes")
        return client

    # -- every strategy -------------------------------------------------------------------------------------------

    def test_starts_from_the_current_version(self, client: Client, other: Client) -> None:
        """A session sees what any other process has stored before it began."""
        for expected in range(1, 4):
            other.increment()
            assert client.value() == expected

    def test_unchanged_session_uploads_nothing(self, client: Client, counting: CountingStore) -> None:
        """No kind of read costs an upload."""
        assert client.value() == 0
        with db_session(immediate=True):
            assert select(c.value for c in client.Counter).first() == 0
        with db_session:
            assert client.db.execute("select value from Counter").fetchone() == (0,)
        assert counting.count("put", key=KEY) == 0

    def test_untouched_session_and_binding_make_no_request(self, bucket: Store, other: Client) -> None:
        """Only the first use of the database makes a request."""
        counting = CountingStore(bucket)
        client = Client(counting, self.make_strategy())
        with db_session:
            pass
        assert (counting.calls, client.db.provider is not None, other is not None) == ([], True, True)

    def test_complete_database_is_not_written_at_start(self, other: Client, bucket: Store) -> None:
        """``generate_mapping(create_tables=True)`` on a complete database writes nothing: GET permission is enough."""
        assert other
        counting = CountingStore(bucket)
        client = Client(counting, self.make_strategy()).map(create_tables=True)
        assert client.value() == 0
        assert counting.count("put", key=KEY) == 0

    def test_failed_request_is_not_an_empty_database(self, client: Client, store: FaultyStore) -> None:
        """A session that cannot find out the current version fails. The next one works."""
        store.fail_next("get", *[Fault.REFUSED] * 1000)
        with pytest.raises(StoreUnavailableError):
            client.value()
        store.stop()
        assert client.value() == 0

    def test_deleted_object_is_not_an_empty_database(self, client: Client, bucket: Store) -> None:
        """A database whose object was deleted is an error, and stays one."""
        assert client.value() == 0
        bucket.delete(KEY)
        for _ in range(2):
            with pytest.raises(NotFoundError, match="is gone"):
                client.value()

    def test_garbage_is_refused_and_kept(self, client: Client, other: Client, bucket: Store) -> None:
        """An object that is no database raises and is not overwritten. After its repair, sessions work."""
        good = bucket.get(KEY)
        assert good is not None
        with good:
            bytes_, metadata = good.read(good.length), good.info.metadata
        bucket.put(KEY, b"garbage" * 1000)
        with pytest.raises(CorruptDatabaseError):
            client.value()
        assert bucket.head(KEY).size == len(b"garbage" * 1000)
        bucket.put(KEY, bytes_, metadata=metadata)
        other.increment()
        assert client.value() == 1

    def test_sessions_in_many_threads_see_current_values(self, client: Client, other: Client) -> None:
        """Threads share a working copy. Each session sees at least what was stored before it began."""
        seen: list[int] = []
        for expected in range(1, 4):
            other.increment()
            in_parallel([lambda: seen.append(client.value())] * 4)
            assert seen[-4:] == [expected] * 4

    # -- strategies that write ------------------------------------------------------------------------------------

    def test_commit_is_visible_to_the_next_session_anywhere(self, writer: Client, other: Client) -> None:
        """An acknowledged commit is the version from which every later session starts."""
        for expected in range(1, 4):
            assert writer.increment() == expected
            assert other.value() == expected

    def test_one_commit_is_one_upload(self, writer: Client, counting: CountingStore) -> None:
        """A session uploads the database once, however many rows it changes."""
        with db_session:
            for number in range(2, 100):
                writer.Counter(id=number, value=number)
        assert counting.count("put", "ok", key=KEY) == 1

    def test_no_update_is_lost_between_processes(self, writer: Client, other: Client) -> None:
        """The counter ends at exactly the number of increments that returned."""

        def increments(client: Client) -> Callable[[], list[int]]:
            return lambda: [client.increment() for _ in range(self.rounds)]

        in_parallel([increments(writer), increments(other)])
        assert writer.value() == other.value() == 2 * self.rounds

    def test_no_update_is_lost_between_threads(self, writer: Client) -> None:
        """The counter ends at exactly the number of increments of all threads."""
        rounds = (self.rounds + 1) // 2
        in_parallel([lambda: [writer.increment() for _ in range(rounds)]] * 4)
        assert writer.value() == 4 * rounds

    def test_stale_writer_is_refused(self, writer: Client, other: Client) -> None:
        """Without a retry, a session that read an old version does not store anything."""
        with pytest.raises((CommitException, self.refusal)) as caught:
            writer.increment(retry=0, before_commit=lambda: in_parallel([other.increment]))
        assert isinstance(cause_of(caught.value), self.refusal)
        assert writer.value() == other.value() == 1

    def test_refused_commit_leaves_no_trace(self, writer: Client, store: FaultyStore) -> None:
        """After a failed upload, the value is the old one, and the function can run again."""
        store.fail_next("put", *[Fault.REFUSED] * 1000, key=KEY)
        with pytest.raises(CommitException) as caught:
            writer.increment(retry=0)
        assert isinstance(cause_of(caught.value), StoreUnavailableError)
        store.stop()
        assert writer.value() == 0
        assert writer.increment() == 1

    def test_lost_reply_counts_once(self, writer: Client, other: Client, store: FaultyStore) -> None:
        """An upload whose answer was lost counts once, and is not reported as a conflict."""
        store.fail_next("put", Fault.LOST_REPLY, key=KEY)
        assert writer.increment(retry=0) == 1
        assert writer.value() == other.value() == 1

    def test_unknown_commit_is_not_repeated(self, writer: Client, store: FaultyStore) -> None:
        """``retry`` never runs a function again if its commit may have landed."""
        runs = []
        store.fail_next("put", *[Fault.LOST_REPLY] * 1000, key=KEY)
        store.fail_next("head", *[Fault.FAIL_BEFORE] * 1000, key=KEY)
        with pytest.raises(CommitUnknownError):
            writer.increment(retry=5, before_commit=lambda: runs.append(1))
        assert len(runs) == 1
        store.stop()
        assert writer.value() == 1

    def test_nobody_reads_what_is_not_accepted(self, writer: Client, bucket: Store) -> None:
        """A reader in another thread sees the old value until the upload is accepted, and after a refusal."""
        gate = _Gate(bucket)
        client = Client(gate, self.make_strategy(), timeout=self.patience).map()
        seen: list[int] = []
        for accepted in (True, False, True):
            before = client.value()
            gate.close(accept=accepted)
            writing = threading.Thread(target=_swallow, args=(lambda: client.increment(retry=0),))
            writing.start()
            gate.wait_for_upload()
            reading = threading.Thread(target=lambda: seen.append(client.value()))
            reading.start()
            gate.open()
            writing.join()
            reading.join()
            assert seen.pop() in ({before, before + 1} if accepted else {before})
            assert client.value() == before + accepted
        assert writer.value() == 2

    def test_rolled_back_session_stores_nothing(self, writer: Client, counting: CountingStore) -> None:
        """An exception in a session undoes it, without a request to the store."""
        with pytest.raises(ZeroDivisionError), db_session:
            writer.Counter[1].value = 1 // 0
        assert counting.count("put", key=KEY) == 0
        assert writer.value() == 0

    # -- strategies that never write ------------------------------------------------------------------------------

    def test_write_is_refused(self, reader: Client, counting: CountingStore) -> None:
        """A write raises that the strategy never writes, and the session can run again."""
        for _ in range(2):
            with pytest.raises(ReadOnlyError), db_session:
                reader.Counter[1].value = 1
        with pytest.raises(ReadOnlyError), db_session:
            reader.db.execute("update Counter set value = 2")
        assert counting.count("put") == counting.count("delete") == 0
        assert reader.value() == 0

    def test_needs_nothing_but_get(self, reader: Client, counting: CountingStore) -> None:
        """GET permission is enough."""
        assert reader.value() == 0
        assert {call.verb for call in counting.calls} == {"get"}


class _Gate:
    """A store that holds uploads back until a test lets them through, or refuses them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._accept = True
        self._arrived, self._may_go = threading.Event(), threading.Event()
        self._may_go.set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def close(self, *, accept: bool) -> None:
        self._accept = accept
        self._arrived.clear()
        self._may_go.clear()

    def open(self) -> None:
        self._may_go.set()

    def wait_for_upload(self) -> None:
        assert self._arrived.wait(30)

    def put(self, key: str, *args: Any, **kwargs: Any) -> str:
        if key == KEY:
            self._arrived.set()
            assert self._may_go.wait(30)
            if not self._accept:
                raise StoreUnavailableError("refused by the test", url=key, ambiguous=False)
        return self._store.put(key, *args, **kwargs)


def _swallow(call: Callable[[], object]) -> None:
    with suppress(CommitException):  # the test looks at what is stored
        call()
