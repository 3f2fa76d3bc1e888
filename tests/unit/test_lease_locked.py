"""`temaki_strategies.LeaseLocked`: what a session under it does, request by request. The store is a MemoryStore."""

from __future__ import annotations

from typing import Any

import pytest
from pony.orm import CommitException, PrimaryKey, Required, db_session

from temaki.config.options import ENVIRONMENT, Option
from temaki.config.settings import make_strategy
from temaki.engine.pull import Puller
from temaki.errors import ConfigurationError, ConflictError, LeaseLostError, LeaseRecordError
from temaki.lease.lease import Lease
from temaki.lease.record import LeaseRecord
from temaki.orm.cause import cause_of
from temaki.orm.database import Database
from temaki.stores.memory import MemoryStore
from temaki.testing.clock import ManualClock
from temaki.testing.counting import CountingStore
from temaki.testing.strategies import KEY, Client
from temaki.version import LEASE_KEY
from temaki_strategies import EtagCached, LeaseLocked
from tests.leases import operator
from tests.threads import in_thread

LEASE = KEY + ".lease"


class Writer(Client):
    """A process under the strategy, with a lease on a clock of its own, and its requests counted."""

    def __init__(self, bucket: MemoryStore, **options: Any) -> None:
        self.counting = CountingStore(bucket)
        self.clock = ManualClock()
        self.strategy = LeaseLocked(**options)
        super().__init__(self.counting, self.strategy)
        self.db.provider.engine.shared.lease._clock = self.clock
        self.map()
        self.value()  # so that the working copy is there
        self.counting.reset()

    @property
    def lease(self) -> Lease:
        """The process's part in it, once it has been used."""
        _, lease = self.db.provider.engine.shared.lease._made
        assert isinstance(lease, Lease)
        return lease

    def stored(self) -> LeaseRecord:
        """The lease's record."""
        record = operator(self.lease).inspect()
        assert record is not None
        return record

    def add(self, amount: int = 1) -> None:
        """In a session that says from its start that it will write."""
        with db_session(immediate=True):
            self.Counter[1].value += amount

    def requests(self) -> list[str]:
        """What was asked since the last time."""
        made = [f"{call.verb} {'lease' if call.key == LEASE else 'db'}" for call in self.counting.calls]
        self.counting.reset()
        return made


@pytest.fixture
def bucket() -> MemoryStore:
    """With a counter at 0, which a writer without a lease has stored."""
    bucket = MemoryStore("lease-locked")
    client = Client(bucket, EtagCached()).map(create_tables=True)
    with db_session:
        client.Counter(id=1, value=0)
    return bucket


@pytest.fixture
def writer(bucket: MemoryStore) -> Writer:
    """One that holds on to nothing."""
    return Writer(bucket)


@pytest.fixture
def other(bucket: MemoryStore) -> Writer:
    """Another one."""
    return Writer(bucket)


def stored_generation(bucket: MemoryStore) -> str | None:
    """What the database object says."""
    return bucket.head(KEY).metadata.get(LEASE_KEY)


# -- options --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ttl": 0.5}, "ttl must be a number of seconds, 1 or more; got 0.5"),
        ({"ttl": float("nan")}, "ttl must be a number"),
        ({"ttl": float("inf")}, "ttl must be a number"),
        (
            {"ttl": 30.0, "acquire_timeout": 30.0},
            r"acquire_timeout must be a number of seconds, more than ttl \(30\); got 30.0",
        ),
        ({"acquire_timeout": 10.0}, "acquire_timeout must be a number"),
        ({"acquire_timeout": float("inf")}, "acquire_timeout must be a number"),
        ({"acquire_timeout": float("nan")}, "acquire_timeout must be a number"),
        ({"hold": -0.1}, "hold must be a number of seconds, 0 or more; got -0.1"),
        ({"hold": float("nan")}, "hold must be a number"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    """Refused with what they may be; by name, with where the value came from."""
    with pytest.raises(ValueError, match=message):
        LeaseLocked(**options)
    raw = {name: Option(name, str(value), ENVIRONMENT) for name, value in options.items()}
    with pytest.raises(ConfigurationError, match=message) as caught:
        make_strategy(LeaseLocked, raw)
    assert f"TEMAKI_{next(iter(options)).upper()}" in str(caught.value)


def test_waits_longer_than_a_dead_holder_lasts() -> None:
    """A ``ttl`` alone is enough: who waits does so for 30 seconds, or twice the ``ttl``."""
    assert [LeaseLocked(ttl=ttl).acquire_timeout for ttl in (1, 10, 15, 30, 60)] == [30, 30, 30, 60, 120]


def test_options_from_the_environment() -> None:
    """Text becomes seconds, and what is not given has its default."""
    raw = {"ttl": Option("ttl", "3", ENVIRONMENT), "hold": Option("hold", "0.5", ENVIRONMENT)}
    made = make_strategy(LeaseLocked, raw)
    assert (made.ttl, made.acquire_timeout, made.hold) == (3.0, 30.0, 0.5)


# -- what it costs --------------------------------------------------------------------------------------------------


def test_immediate_takes_it_before_the_first_read(writer: Writer) -> None:
    """Take, revalidate, swap, give back: five requests, in this order."""
    writer.add()
    assert writer.requests() == ["get lease", "put lease", "get db", "put db", "put lease"]
    assert not writer.stored().held


def test_with_hold_the_next_commit_asks_nothing_of_the_lease(bucket: MemoryStore) -> None:
    """A warm worker pays for the database alone."""
    writer = Writer(bucket, hold=20.0)
    writer.add()
    assert writer.requests() == ["get lease", "put lease", "get db", "put db"]
    writer.add()
    assert writer.requests() == ["get db", "put db"]
    writer.lease.close()
    assert writer.value() == 2


def test_readers_take_no_lease(writer: Writer) -> None:
    """A session that only reads makes one conditional request."""
    assert writer.value() == 0
    assert writer.requests() == ["get db"]


def test_immediate_sessions_do_not_conflict(writer: Writer, other: Writer) -> None:
    """In turns, without a retry: each sees what the one before has stored."""
    for _ in range(3):
        writer.add()
        other.add()
    assert writer.value() == other.value() == 6


# -- reading first --------------------------------------------------------------------------------------------------


def test_read_then_write_is_refused_if_stale_and_keeps_the_lease(writer: Writer, other: Writer) -> None:
    """At its first write, before it works in vain; the retry need not wait for the lease again."""

    @db_session
    def too_late() -> None:
        counter = writer.Counter[1]
        assert counter.value == 0
        in_thread(other.add)
        counter.value = 5
        writer.db.flush()

    with pytest.raises(ConflictError):
        too_late()
    assert writer.stored().held
    assert "put db" not in writer.requests()
    assert writer.increment(retry=0) == 2
    made = writer.requests()
    assert "get lease" not in made
    assert made[-1] == "put lease", "and then it is given back"
    assert other.value() == 2


def test_the_retry_has_the_lease_however_long_it_pulls(
    writer: Writer, other: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a process with a slow way to the store would be too late again and again, while others go on committing."""
    runs: list[int] = []
    revalidate = Puller.revalidate

    def slowly(puller: Puller, **more: Any) -> None:
        revalidate(puller, **more)
        if runs:  # the retry's: beyond what the lease was kept for
            writer.clock.advance(writer.strategy.ttl / 10)
            writer.lease.tick()

    @db_session(retry=1)
    def increment() -> None:
        counter = writer.Counter[1]
        runs.append(counter.value)
        if len(runs) == 1:
            in_thread(other.add)
            monkeypatch.setattr(Puller, "revalidate", slowly)
        counter.value += 1

    increment()
    assert runs == [0, 1]
    made = writer.requests()
    assert (made.count("get lease"), made.count("put lease")) == (1, 2), "taken once, and given back once"
    assert not writer.stored().held
    assert writer.value() == 2


def test_a_reader_after_a_refusal_does_not_wait_for_the_lease(writer: Writer, other: Writer) -> None:
    """The thread's next session may be no retry; what was kept is over by then, and others have the lease."""

    @db_session
    def too_late() -> None:
        counter = writer.Counter[1]
        in_thread(other.add)
        counter.value += 1

    with pytest.raises((CommitException, ConflictError)):
        too_late()
    writer.clock.advance(writer.strategy.ttl / 10)
    writer.lease.tick()
    writer.requests()
    assert writer.value() == 1
    assert writer.requests() == ["get db"]


def test_read_then_write_of_what_is_current(writer: Writer) -> None:
    """It takes the lease at its first write, and asks once more whether what it read is current."""
    assert writer.increment(retry=0) == 1
    assert writer.requests() == ["get db", "get lease", "put lease", "get db", "put db", "put lease"]


# -- the fence ------------------------------------------------------------------------------------------------------


def test_commits_carry_the_generation(writer: Writer, other: Writer, bucket: MemoryStore) -> None:
    """In the object's metadata, growing with each taking; writers that take no lease hand it on."""
    assert stored_generation(bucket) is None
    writer.add()
    assert stored_generation(bucket) == "1"
    other.add()
    assert stored_generation(bucket) == "2"
    Client(bucket, EtagCached()).map().increment()
    assert stored_generation(bucket) == "2"
    writer.add()
    assert stored_generation(bucket) == "3"


def store_under(bucket: MemoryStore, generation: str) -> str:
    """Have the stored version made under that generation of the lease; its new ETag."""
    download = bucket.get(KEY)
    assert download is not None
    metadata = {**download.info.metadata, LEASE_KEY: generation}
    # Equal contents, equal ETag: only a working copy that is made after this sees the new metadata.
    return bucket.put(KEY, download.read(download.length), metadata=metadata)


def test_a_smaller_generation_than_the_stored_one_is_refused(
    writer: Writer, bucket: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever this process believes: nothing is stored."""
    writer.add()
    etag = store_under(bucket, "99")
    late = Writer(bucket)
    monkeypatch.setattr(Lease, "outgrow", lambda _, user, generation, stored: generation)
    with pytest.raises(CommitException) as caught:
        late.add()
    assert isinstance(cause_of(caught.value), LeaseLostError)
    assert "generation 99" in str(cause_of(caught.value))
    assert (bucket.head(KEY).etag, late.value()) == (etag, 1)


def test_a_lease_that_begins_anew_outgrows_what_is_stored(writer: Writer, bucket: MemoryStore) -> None:
    """A record that was moved away, or a database that was copied: the generation goes on above the stored one."""
    writer.add()
    store_under(bucket, "99")
    late = Writer(bucket)
    late.add()
    assert (stored_generation(bucket), late.stored().generation, late.value()) == ("100", 100, 2)
    store_under(bucket, "200")
    later = Writer(bucket)
    later.increment(retry=0)  # takes it at its first write
    assert (stored_generation(bucket), later.stored().generation) == ("201", 201)
    assert not later.stored().held


def test_a_lease_lost_in_mid_transaction(writer: Writer, other: Writer) -> None:
    """The process froze and was outwaited: its commit is refused, nothing of it is visible, and the retry works."""
    other.add()

    @db_session(immediate=True)
    def set_to_50() -> None:
        writer.Counter[1].value = 50
        writer.clock.skew(3600)
        operator(other.lease).break_(other.stored())

    with pytest.raises(CommitException) as caught:
        set_to_50()
    lost = cause_of(caught.value)
    assert isinstance(lost, LeaseLostError)
    assert (lost.should_retry, "put db" in writer.requests()) == (True, False)
    assert writer.value() == other.value() == 1
    writer.add()
    assert other.value() == 2


def test_retry_after_a_lost_lease(writer: Writer, other: Writer) -> None:
    """``@db_session(retry=N)`` runs the function again by itself."""
    other.add()
    runs: list[int] = []

    @db_session(retry=2, immediate=True)
    def once() -> None:
        runs.append(writer.Counter[1].value)
        writer.Counter[1].value += 1
        if len(runs) == 1:
            writer.clock.skew(3600)
            operator(other.lease).break_(other.stored())

    once()
    assert runs == [1, 1]
    assert other.value() == 2


# -- sharing, and what is not a lease -------------------------------------------------------------------------------


def test_two_databases_on_one_url_share_it(bucket: MemoryStore) -> None:
    """One process has one lease per database; with other options that cannot work, and says so."""

    def bind(**options: Any) -> Any:
        db = Database()

        class Counter(db.Entity):  # type: ignore[name-defined]
            id = PrimaryKey(int)
            value = Required(int)

        db.bind_s3(f"memory://shared-lease/{KEY}", store=bucket, strategy=LeaseLocked(**options))
        db.generate_mapping()
        return Counter

    one, two, three = bind(), bind(), bind(hold=1.0)

    @db_session(immediate=True)
    def add(counter: Any) -> None:
        counter[1].value += 1

    add(one)
    add(two)
    with pytest.raises(ConfigurationError, match="already locked by this process with other options"):
        add(three)
    assert stored_generation(bucket) == "2"
    with db_session:
        assert one[1].value == 2


def test_a_foreign_record_stops_writers_and_is_kept(writer: Writer, bucket: MemoryStore) -> None:
    """Nothing is stored, and reading goes on."""
    bucket.put(LEASE, b"somebody else's")
    before = bucket.head(KEY).etag
    with pytest.raises(LeaseRecordError):
        writer.add()
    with pytest.raises(LeaseRecordError):
        writer.increment(retry=0)
    assert {made for made in writer.requests() if made.startswith("put")} == set()
    assert (bucket.head(KEY).etag, bucket.head(LEASE).size, writer.value()) == (before, 15, 0)
