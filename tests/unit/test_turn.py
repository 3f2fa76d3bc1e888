"""Turns: how a session that is refused again and again is let through."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from temaki.errors import AccessDeniedError, StoreUnavailableError
from temaki.lease.lease import Lease
from temaki.lease.record import SUFFIX, LeaseObject
from temaki.lease.turn import BUSY, LONGEST, LOOK, PURPOSE, RECENT, SETTLE, TTL, Turns
from temaki.observe.reporter import Reporter
from temaki.remote.retry import RetryPolicy
from temaki.stores.memory import MemoryStore
from temaki.testing.clock import ManualClock
from temaki.testing.counting import CountingStore
from tests.hooked import HookedStore, failing
from tests.leases import operator

KEY = "app.sqlite"


class _Clock(ManualClock):
    """Runs a test's own code while somebody waits."""

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile: Callable[[], object] = lambda: None

    def sleep(self, seconds: float) -> None:
        """Let time pass, and others run."""
        super().sleep(seconds)
        self.meanwhile()


class _User:
    """Something to use a lease for."""


@pytest.fixture
def clock() -> _Clock:
    """Stands still, but for the waits of whoever is tested."""
    return _Clock()


@pytest.fixture
def bucket() -> MemoryStore:
    """Where the lease is."""
    return MemoryStore()


@pytest.fixture
def store(bucket: MemoryStore) -> CountingStore:
    """The writer's way to the bucket."""
    return CountingStore(bucket)


def turns(store: object, clock: ManualClock) -> Turns:
    """Those of a process."""
    return Turns(store, KEY, url="memory://b/" + KEY, clock=clock, rng=random.Random(1), reporter=Reporter("u"))  # type: ignore[arg-type]


@pytest.fixture
def writer(store: CountingStore, clock: _Clock) -> Turns:
    """A process that has just become a busy writer."""
    writer = turns(store, clock)
    busy(writer)
    return writer


def busy(writer: Turns) -> None:
    """It stores as many versions as make a busy writer."""
    for _ in range(BUSY):
        writer.stored()


def lease(bucket: MemoryStore, clock: ManualClock, purpose: str = PURPOSE) -> Lease:
    """Another process's."""
    record = LeaseObject(bucket, KEY + SUFFIX, RetryPolicy(clock, random.Random(2), timeout=1))
    return Lease(
        record, url="u", clock=clock, rng=random.Random(3), ttl=TTL, acquire_timeout=9, purpose=purpose, heartbeat=False
    )


def looks(store: CountingStore) -> int:
    """Requests so far."""
    return sum(call.verb == "get" for call in store.calls)


class TestLooking:
    """A writer spends a request on others only where it may be in their way."""

    def test_quiet_writer_never_looks(self, store: CountingStore, clock: _Clock) -> None:
        """A version now and then costs no request."""
        quiet = turns(store, clock)
        for _ in range(50):
            assert not quiet.give_way()
            quiet.stored()
            clock.advance(RECENT / (BUSY - 1) + 0.1)
        assert not store.calls

    def test_busy_writer_looks_seldom(self, store: CountingStore, clock: _Clock) -> None:
        """At most once in so many versions, and once in so many seconds."""
        writer = turns(store, clock)
        for _ in range(1000):
            writer.give_way()
            writer.stored()
            clock.advance(0.01)
        assert 10 / LOOK - 3 <= looks(store) <= 10 / LOOK
        before = looks(store)
        for _ in range(100):
            writer.give_way()
            writer.stored()
            clock.advance(0.9)
        assert looks(store) - before <= 100 / BUSY

    def test_refused_writer_looks(self, store: CountingStore, clock: _Clock) -> None:
        """Where it has met another writer, contention is known."""
        writer = turns(store, clock)
        writer.refused()
        writer.give_way()
        writer.give_way()
        assert looks(store) == 1

    def test_denied(self, bucket: MemoryStore, clock: _Clock) -> None:
        """A process that may not read the lease does not ask again."""
        hooked = HookedStore(bucket, KEY + SUFFIX)
        hooked.before["get"] = [failing(AccessDeniedError("no", url=KEY))]
        store = CountingStore(hooked)
        writer = turns(store, clock)
        for _ in range(3):
            busy(writer)
            assert not writer.give_way()
            clock.advance(LOOK)
        assert looks(store) == 1

    def test_unavailable(self, bucket: MemoryStore, clock: _Clock) -> None:
        """What cannot be found out keeps nobody from writing."""
        hooked = HookedStore(bucket, KEY + SUFFIX)
        hooked.before["get"] = [failing(StoreUnavailableError("no", url=KEY))] * 100
        writer = turns(hooked, clock)
        busy(writer)
        assert not writer.give_way()


class TestGivingWay:
    """A busy writer waits for a turn to end, and for nothing else."""

    def test_until_it_is_over(self, bucket: MemoryStore, writer: Turns, clock: _Clock) -> None:
        """It goes on when the turn is given back, and not before."""
        slow, user = lease(bucket, clock), _User()
        slow.acquire(user)
        over = clock.monotonic() + 2

        def meanwhile() -> None:
            if clock.monotonic() >= over:
                slow.release(user)

        clock.meanwhile = meanwhile
        assert writer.give_way()
        assert over <= clock.monotonic() < over + 0.2

    def test_dead_holder(self, bucket: MemoryStore, writer: Turns, clock: _Clock) -> None:
        """A turn that nobody renews is over after its ttl, and is not waited for again."""
        user = _User()
        lease(bucket, clock).acquire(user)
        begun = clock.monotonic()
        assert writer.give_way()
        assert begun + TTL <= clock.monotonic() < begun + TTL + 0.2
        busy(writer)
        before = clock.monotonic()
        assert not writer.give_way()
        assert clock.monotonic() == before

    def test_turn_that_does_not_end(self, bucket: MemoryStore, writer: Turns, clock: _Clock) -> None:
        """However often it is renewed, the writer waits no longer than a few seconds."""
        slow, user = lease(bucket, clock), _User()
        generation = slow.acquire(user)
        clock.meanwhile = lambda: slow.renew(generation)
        begun = clock.monotonic()
        assert writer.give_way()
        assert begun + LONGEST <= clock.monotonic() < begun + LONGEST + 0.2

    def test_lease_of_lease_locked(self, bucket: MemoryStore, writer: Turns, clock: _Clock) -> None:
        """A lease that writers hold to write is no turn: other strategies do not wait for it."""
        user = _User()
        lease(bucket, clock, purpose="write").acquire(user)
        assert not writer.give_way()
        assert not clock.slept

    def test_threads_of_one_process(self, bucket: MemoryStore, store: CountingStore, clock: _Clock) -> None:
        """While one of them watches a turn, the others wait without a request of their own."""
        writer = turns(store, clock)
        busy(writer)
        slow, user = lease(bucket, clock), _User()
        slow.acquire(user)
        waited = []

        def second_thread() -> None:
            clock.meanwhile = lambda: None
            before = looks(store)
            clock.meanwhile = lambda: setattr(writer, "_waiting", False)  # as the first one does at the end
            waited.append(writer.give_way())
            assert looks(store) == before
            slow.release(user)
            writer._waiting = True

        clock.meanwhile = second_thread
        assert writer.give_way()
        assert waited == [True]

    def test_fork(self, bucket: MemoryStore, writer: Turns, clock: _Clock) -> None:
        """A child is no busy writer yet, and waits for no thread of its parent's."""
        user = _User()
        lease(bucket, clock).acquire(user)
        writer._waiting = True
        writer.reset_after_fork()
        assert not writer.give_way()


class TestTaking:
    """Who was refused too often is let through."""

    def test_others_notice_first(self, bucket: MemoryStore, clock: _Clock) -> None:
        """The session begins when every busy writer has had time to look."""
        assert SETTLE > LOOK
        user = _User()
        taken = turns(bucket, clock).take(user, 60)
        assert taken is not None
        assert clock.slept == [SETTLE]
        record = operator(lease(bucket, clock)).inspect()
        assert record is not None
        assert (record.held, record.purpose) == (True, PURPOSE)
        taken.release(user)
        record = operator(lease(bucket, clock)).inspect()
        assert record is not None
        assert not record.held

    def test_one_after_the_other(self, bucket: MemoryStore, clock: _Clock) -> None:
        """The second one waits, no longer than it is willing to; then it goes on without a turn."""
        user = _User()
        lease(bucket, clock).acquire(user)
        begun = clock.monotonic()
        assert turns(bucket, clock).take(_User(), 2) is None
        assert begun < clock.monotonic() <= begun + 3

    def test_denied(self, bucket: MemoryStore, clock: _Clock) -> None:
        """A process that may not write the lease goes on as without it."""
        hooked = HookedStore(bucket, KEY + SUFFIX)
        hooked.before["put"] = [failing(AccessDeniedError("no", url=KEY))]
        assert turns(hooked, clock).take(_User(), 60) is None
