"""`LeaseLocked(isolation="pony")`: a session that has read goes on in the current version at its first write.

The first part runs each case on plain Pony with SQLite, too: what is served there is served here, with the same errors.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from pony.orm import (
    CommitException,
    OptimisticCheckError,
    Optional,
    PrimaryKey,
    Required,
    TransactionIntegrityError,
    commit,
    db_session,
    select,
)
from pony.orm import Database as PlainDatabase

from temaki import Database, cause_of
from temaki.config.options import ENVIRONMENT, Option
from temaki.config.settings import make_strategy
from temaki.errors import ConfigurationError, ConflictError
from temaki.process.fork import process
from temaki.stores.memory import MemoryStore
from temaki.strategy import Strategy
from temaki.testing.clock import ManualClock
from temaki.testing.counting import CountingStore
from temaki_strategies import EtagCached, LeaseLocked
from tests.leases import operator
from tests.threads import in_thread

KEY = "app.sqlite"
LEASE = f"{KEY}.lease"


class Application:
    """One process of an application that knows nothing of temaki, but for its ``bind``."""

    def __init__(self, db: Any) -> None:
        self.db = db

        class Account(db.Entity):
            id = PrimaryKey(int)
            balance = Required(int)
            note = Optional(str, unique=True, nullable=True)

        self.Account: Any = Account

    def state(self) -> dict[int, int]:
        """All balances, in a session of its own."""
        with db_session:
            return dict(select((a.id, a.balance) for a in self.Account))

    def set(self, number: int, balance: int) -> None:
        """Write, in a session that is not retried."""
        with db_session:
            self.Account[number].balance = balance

    def note(self, number: int, text: str) -> None:
        """The same, for the other column."""
        with db_session:
            self.Account[number].note = text

    def remove(self, number: int) -> None:
        """Delete a row."""
        with db_session:
            self.Account[number].delete()


class Worker(Application):
    """The same on temaki: in a working copy of its own, on a clock of its own, with its requests counted."""

    def __init__(self, bucket: MemoryStore, strategy: Strategy | None = None) -> None:
        self.counting, self.clock = CountingStore(bucket), ManualClock()
        super().__init__(Database())
        strategy = strategy or LeaseLocked(isolation="pony")
        self.db.bind_s3(f"memory://worker-{id(self)}/{KEY}", store=self.counting, strategy=strategy)
        self.db.provider.engine.shared.lease._clock = self.clock
        self.db.generate_mapping(create_tables=True)
        self.state()
        self.counting.reset()

    def requests(self) -> list[str]:
        """What was asked since the last time."""
        made = [f"{call.verb} {'lease' if call.key == LEASE else 'db'}" for call in self.counting.calls]
        self.counting.reset()
        return made

    @property
    def lease_is_held(self) -> bool:
        """Whether the record says so."""
        record = operator(self.db.provider.engine.shared.lease._made[1]).inspect()
        return record is not None and record.held


Pair = tuple[Application, Application]


def _fill(first: Application) -> None:
    with db_session:
        for number in (1, 2):
            first.Account(id=number, balance=100)


def _plain(tmp_path: Path) -> Pair:
    pair = Application(PlainDatabase()), Application(PlainDatabase())
    for one in pair:
        one.db.bind("sqlite", str(tmp_path / "plain.sqlite"), create_db=True)
        one.db.generate_mapping(create_tables=True)
    return pair


@pytest.fixture
def bucket() -> MemoryStore:
    """An empty bucket."""
    return MemoryStore("isolation")


@pytest.fixture(params=["plain", "pony"])
def pair(request: pytest.FixtureRequest, tmp_path: Path, bucket: MemoryStore) -> Iterator[Pair]:
    """Two processes of the application on one database, in which there are two accounts with 100 each."""
    mine, other = _plain(tmp_path) if request.param == "plain" else (Worker(bucket), Worker(bucket))
    _fill(mine)
    other.state()
    yield mine, other
    for one in (mine, other):
        one.db.disconnect()


@pytest.fixture
def workers(bucket: MemoryStore) -> tuple[Worker, Worker]:
    """Two processes under the strategy."""
    mine, other = Worker(bucket), Worker(bucket)
    _fill(mine)
    other.state()
    for one in (mine, other):
        one.counting.reset()
    return mine, other


@pytest.fixture
def mine(workers: tuple[Worker, Worker]) -> Worker:
    """The one whose session is overtaken."""
    return workers[0]


@pytest.fixture
def other(workers: tuple[Worker, Worker]) -> Worker:
    """The one that overtakes it."""
    return workers[1]


# -- as on plain SQLite: no line of the sessions is changed, and none is retried ------------------------------------


class TestAsPlainPony:
    """The same session, with the same outcome, on plain Pony with SQLite and under the strategy."""

    def test_another_row_was_stored(self, pair: Pair) -> None:
        """Both commits are kept."""
        mine, other = pair
        with db_session:
            account = mine.Account[1]
            assert account.balance == 100
            in_thread(lambda: other.set(2, 7))
            account.balance += 1
        assert mine.state() == other.state() == {1: 101, 2: 7}

    def test_the_same_row_was_stored(self, pair: Pair) -> None:
        """Pony's own optimistic check refuses it, with Pony's own error; the other's commit is kept."""
        mine, other = pair

        @db_session
        def work() -> None:
            account = mine.Account[1]
            assert account.balance == 100
            in_thread(lambda: other.set(1, 7))
            account.balance += 1

        with pytest.raises(OptimisticCheckError, match="updated outside of current transaction"):
            work()
        assert mine.state() == other.state() == {1: 7, 2: 100}

    def test_another_column_of_the_row_was_stored(self, pair: Pair) -> None:
        """Pony checks the columns that the session has looked at; both commits are kept."""
        mine, other = pair
        with db_session:
            account = mine.Account[1]
            assert account.balance == 100
            in_thread(lambda: other.note(1, "seen"))
            account.balance += 1
        with db_session:
            account = other.Account[1]
            assert (account.balance, account.note) == (101, "seen")

    @pytest.mark.parametrize("how", ["update", "delete"])
    def test_the_row_was_deleted(self, pair: Pair, how: str) -> None:
        """An update finds no row, which Pony reports; a delete finds nothing left to do."""
        mine, other = pair

        def work() -> None:
            account = mine.Account[1]
            assert account.balance == 100
            in_thread(lambda: other.remove(1))
            if how == "update":
                account.balance += 1
            else:
                account.delete()

        with pytest.raises(OptimisticCheckError) if how == "update" else nullcontext(), db_session:
            work()
        assert mine.state() == other.state() == {2: 100}

    def test_a_unique_value_was_taken(self, pair: Pair) -> None:
        """SQLite's constraint decides, in the current version."""
        mine, other = pair

        @db_session
        def work() -> None:
            if mine.Account.get(note="mine") is None:
                in_thread(lambda: other.note(1, "mine"))
                mine.Account(id=3, balance=0, note="mine")

        with pytest.raises(TransactionIntegrityError, match="UNIQUE"):
            work()
        assert mine.state() == {1: 100, 2: 100}

    def test_objects_that_are_not_flushed(self, pair: Pair) -> None:
        """What the session has made and loaded so far goes on with it; a second flush finds it as usual."""
        mine, other = pair
        with db_session:
            account = mine.Account[1]
            assert account.balance == 100
            third = mine.Account(id=3, balance=3)
            in_thread(lambda: other.set(2, 7))
            assert select(a.id for a in mine.Account).count() == 3  # flushes
            assert (mine.Account[1] is account, mine.Account[3] is third) == (True, True)
            account.balance = third.balance = 4
        assert mine.state() == other.state() == {1: 4, 2: 7, 3: 4}

    def test_two_transactions_in_one_session(self, pair: Pair) -> None:
        """The first one moves it; the second one begins in what the first one has stored."""
        mine, other = pair
        with db_session:
            account = mine.Account[1]
            assert account.balance == 100
            in_thread(lambda: other.set(2, 7))
            account.balance += 1
            commit()
            account.balance += 1
            commit()
            assert mine.Account[2].balance == 7
        assert mine.state() == other.state() == {1: 102, 2: 7}

    def test_what_is_read_after_the_first_write(self, pair: Pair) -> None:
        """It is the current version; an object that was loaded before has the values that it was loaded with."""
        mine, other = pair
        with db_session:
            seen = mine.Account[1]
            assert seen.balance == 100
            in_thread(lambda: other.set(1, 7))
            mine.Account[2].balance = 50
            mine.db.flush()
            assert seen.balance == 100
            assert mine.db.select("balance from Account where id = 1") == [7]

    def test_get_connection(self, pair: Pair) -> None:
        """Pony's way to the raw connection begins to write, too."""
        mine, other = pair
        with db_session:
            assert mine.db.select("balance from Account where id = 1") == [100]
            in_thread(lambda: other.set(2, 7))
            mine.db.get_connection().execute("update Account set balance = balance + 1")
        assert mine.state() == other.state() == {1: 101, 2: 8}


class TestPermitted:
    """What Pony on SQLite does not notice, and so neither does this; isolation="snapshot" refuses each of these."""

    @staticmethod
    def write_skew(mine: Application, other: Application) -> None:
        """Two sessions see that one account is in credit, and each empties another one."""
        with db_session:
            if mine.Account[1].balance + mine.Account[2].balance >= 200:
                in_thread(lambda: other.set(2, -100))
                mine.Account[1].balance = -100

    @staticmethod
    def raw_update(mine: Application, other: Application) -> None:
        """A value that a raw select has read is the base of a raw update."""
        with db_session:
            (balance,) = mine.db.select("balance from Account where id = 1")  # noqa: RUF059 - the update names it
            in_thread(lambda: other.set(1, 7))
            mine.db.execute("update Account set balance = $(balance + 1) where id = 1")

    @staticmethod
    def absence(mine: Application, other: Application) -> None:
        """There was no such row when the session looked."""

        def add(one: Application, number: int) -> None:
            if not one.Account.select(lambda a: a.balance == 5).exists():
                if one is mine:
                    in_thread(db_session(lambda: add(other, 4)))
                one.Account(id=number, balance=5)

        with db_session:
            add(mine, 3)

    CASES = (
        (write_skew, {1: -100, 2: -100}, {1: 100, 2: -100}),
        (raw_update, {1: 101, 2: 100}, {1: 7, 2: 100}),
        (absence, {1: 100, 2: 100, 3: 5, 4: 5}, {1: 100, 2: 100, 4: 5}),
    )

    @pytest.mark.parametrize(("case", "permitted", "_"), CASES)
    def test_permitted(
        self, pair: Pair, case: Callable[..., None], permitted: dict[int, int], _: dict[int, int]
    ) -> None:
        """Both sessions succeed, on plain Pony and here."""
        mine, other = pair
        case(mine, other)
        assert mine.state() == other.state() == permitted

    @pytest.mark.parametrize(("case", "_", "kept"), CASES)
    def test_refused_by_snapshot(
        self, bucket: MemoryStore, case: Callable[..., None], _: dict[int, int], kept: dict[int, int]
    ) -> None:
        """The default: the second session is refused, and the first one's commit is kept."""
        mine, other = Worker(bucket, LeaseLocked()), Worker(bucket, LeaseLocked())
        _fill(mine)
        other.state()
        with pytest.raises((ConflictError, CommitException)) as caught:
            case(mine, other)
        assert isinstance(cause_of(caught.value), ConflictError)
        assert mine.state() == other.state() == kept


# -- what it costs, and what it leaves ------------------------------------------------------------------------------


def _overtaken(mine: Worker, other: Worker) -> None:
    with db_session:
        account = mine.Account[1]
        assert account.balance == 100
        in_thread(lambda: other.set(2, 7))
        account.balance += 1


def test_requests(mine: Worker, other: Worker) -> None:
    """The lease once; the newer version; one look more when it connects anew; the upload; and the lease back."""
    _overtaken(mine, other)
    assert mine.requests() == ["get db", "get lease", "put lease", "get db", "get db", "put db", "put lease"]
    assert not mine.lease_is_held


def test_requests_of_a_session_that_nobody_overtakes(mine: Worker) -> None:
    """As under isolation="snapshot"."""
    mine.set(1, 5)
    assert mine.requests() == ["get db", "get lease", "put lease", "get db", "put db", "put lease"]


def test_readers_are_unaffected(mine: Worker, other: Worker) -> None:
    """A session that only reads keeps its snapshot, and makes one request."""
    with db_session:
        assert mine.db.select("balance from Account where id = 1") == [100]
        in_thread(lambda: other.set(1, 7))
        assert mine.db.select("balance from Account where id = 1") == [100]
    assert mine.requests() == ["get db"]
    mine.state()
    assert mine.requests() == ["get db"]


def test_a_reader_after_a_move_has_no_part_in_the_lease(mine: Worker, other: Worker) -> None:
    """The move was no refusal: the thread's next session is not its retry."""
    _overtaken(mine, other)
    lease = mine.db.provider.engine.shared.lease._made[1]
    in_another_thread = threading.Lock()  # anything that can be referred to
    lease.acquire(in_another_thread)
    with db_session:
        assert mine.Account[2].balance == 7
        assert mine.db._get_cache().connection.session.state is None
    lease.release(in_another_thread)


def test_every_upload_replaces_what_it_was_built_on(mine: Worker, other: Worker) -> None:
    """The moved session's upload names the version that it moved to."""
    before = mine.db.sync.snapshot().sequence
    _overtaken(mine, other)
    assert mine.db.sync.snapshot().sequence == before + 2
    assert [call.outcome for call in mine.counting.calls if call.verb == "put" and call.key == KEY] == ["ok"]


def test_on_connect_runs_again(bucket: MemoryStore) -> None:
    """The session goes on with another connection: what the handlers set holds for it, too."""
    mine, other = Worker(bucket), Worker(bucket)
    _fill(mine)
    other.state()
    runs: list[int] = []

    @mine.db.on_connect(provider="sqlite")
    def set_up(db: Any, connection: Any) -> None:
        runs.append(1)
        connection.create_function("twice", 1, lambda value: 2 * value)

    mine.db.disconnect()  # the idle connection was made before there was a handler
    with db_session:
        assert mine.db.select("twice(balance) from Account where id = 1") == [200]
        in_thread(lambda: other.set(2, 7))
        before = len(runs)
        mine.db.execute("update Account set balance = twice(balance) where id = 2")
        assert len(runs) == before + 1
    assert mine.state() == {1: 100, 2: 14}


def test_events(mine: Worker, other: Worker) -> None:
    """A move is no conflict: nothing was refused, and one version is stored."""
    before = mine.db.sync.snapshot()
    _overtaken(mine, other)
    after = mine.db.sync.snapshot()
    assert after.commits - before.commits == 1
    assert after.conflicts - before.conflicts == 0


# -- what goes wrong ------------------------------------------------------------------------------------------------


def test_a_writer_under_another_strategy_in_between(mine: Worker, bucket: MemoryStore) -> None:
    """It takes no lease, so it may come first after the move: the compare-and-swap refuses this one, honestly."""
    stranger = Worker(bucket, EtagCached())

    @db_session
    def work() -> None:
        account = mine.Account[1]
        assert account.balance == 100
        in_thread(lambda: stranger.set(2, 6))
        account.balance += 1
        mine.db.flush()  # it has moved
        in_thread(lambda: stranger.set(2, 7))

    with pytest.raises(CommitException) as caught:
        work()
    assert isinstance(cause_of(caught.value), ConflictError)
    assert mine.state() == stranger.state() == {1: 100, 2: 7}
    assert not mine.lease_is_held


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_interrupt_in_the_move(bucket: MemoryStore, interrupt: type[BaseException]) -> None:
    """Between the old connection and the new one: nothing is stored, the lease is given back, the next one works."""
    mine, other = Worker(bucket), Worker(bucket)
    _fill(mine)
    other.state()
    armed: list[int] = []

    @mine.db.on_connect(provider="sqlite")
    def stop(db: Any, connection: Any) -> None:
        if armed:
            armed.clear()
            raise interrupt

    @db_session
    def work() -> None:
        account = mine.Account[1]
        assert account.balance == 100
        in_thread(lambda: other.set(2, 7))
        armed.append(1)
        account.balance += 1
        mine.db.flush()

    with pytest.raises(interrupt):
        work()
    assert not mine.lease_is_held
    other.set(2, 8)
    mine.set(1, 5)
    assert mine.state() == other.state() == {1: 5, 2: 8}


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_fork_in_the_move(bucket: MemoryStore) -> None:
    """A child that is forked in there has no part in the session; the parent goes on as if there were none."""
    mine, other = Worker(bucket), Worker(bucket)
    _fill(mine)
    other.state()
    parent = process()
    children: list[int] = []
    reader, writer = os.pipe()
    armed: list[int] = []

    @mine.db.on_connect(provider="sqlite")
    def fork(db: Any, connection: Any) -> None:
        if armed:
            armed.clear()
            pid = os.fork()
            if pid:
                children.append(pid)

    try:
        with db_session:
            account = mine.Account[1]
            assert account.balance == 100
            in_thread(lambda: other.set(2, 7))
            armed.append(1)
            account.balance += 1
            mine.db.flush()
    except BaseException as error:
        if process() == parent:
            raise
        os.write(writer, type(cause_of(error)).__name__.encode())
    finally:
        if process() != parent:
            os._exit(0)
    os.close(writer)
    os.waitpid(children[0], 0)
    assert os.read(reader, 100) == b"ConflictError"
    os.close(reader)
    assert mine.state() == other.state() == {1: 101, 2: 7}
    assert not mine.lease_is_held


def test_option_by_name() -> None:
    """From the environment; what is neither is refused with what it may be."""
    made = make_strategy(LeaseLocked, {"isolation": Option("isolation", "pony", ENVIRONMENT)})
    assert (made.isolation, LeaseLocked().isolation) == ("pony", "snapshot")
    with pytest.raises(ConfigurationError, match='ISOLATION: expected "snapshot" or "pony"; got'):
        make_strategy(LeaseLocked, {"isolation": Option("isolation", "serializable", ENVIRONMENT)})
    with pytest.raises(ValueError, match='isolation must be "snapshot" or "pony"; got 1'):
        LeaseLocked(isolation=1)  # type: ignore[arg-type]
