"""`temaki.lease.lease` and its parts: taking, keeping, losing, giving back. Time is a ManualClock's; nobody waits."""

from __future__ import annotations

import copy
import os
import pickle
import random
import re
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from temaki.errors import LeaseLostError, LeaseRecordError, LeaseTimeoutError, StoreUnavailableError
from temaki.lease.lease import Lease
from temaki.lease.owner import Owner
from temaki.lease.record import LeaseObject, LeaseRecord
from temaki.lease.waiting import SLOT, ahead
from temaki.remote.retry import RetryPolicy
from temaki.stores.directory import DirectoryStore
from temaki.stores.memory import MemoryStore
from temaki.testing.clock import ManualClock
from temaki.testing.counting import CountingStore
from temaki.testing.faulty import Fault, FaultyStore
from tests.leases import operator
from tests.threads import Background, until

KEY = "app.sqlite.lease"
TTL = 30.0


class User:
    """What a lease is taken for."""


class Host(Lease):
    """What a process has: its lease, and its own way to the store. All share one clock unless told otherwise."""

    def __init__(
        self, bucket: MemoryStore, clock: ManualClock, *, hold: float = 0, acquire_timeout: float = 60
    ) -> None:
        self.counting = CountingStore(bucket)
        self.faulty = FaultyStore(self.counting)
        self.clock = clock
        self.of: dict[int, list[object]] = {}
        rng = random.Random(1)
        record = LeaseObject(self.faulty, KEY, RetryPolicy(clock, rng, timeout=TTL / 3))
        super().__init__(
            record,
            url="memory://lease/app.sqlite",
            clock=clock,
            rng=rng,
            ttl=TTL,
            acquire_timeout=acquire_timeout,
            hold=hold,
            heartbeat=False,
        )

    def acquire(self, user: object = None) -> int:
        """As the lease's, for a user that lives on and is known by the generation that it got."""
        user = user or User()
        generation = super().acquire(user)
        self.of.setdefault(generation, []).append(user)
        return generation

    def release(self, user: object, *, keep: float = 0.0) -> None:
        """As the lease's; of a generation, its last user."""
        if isinstance(user, int):
            user = self.of[user].pop() if self.of.get(user) else User()
        super().release(user, keep=keep)

    def inspect(self) -> LeaseRecord | None:
        """As the operator's."""
        return operator(self).inspect()

    def break_(self, shown: LeaseRecord) -> LeaseRecord:
        """As the operator's."""
        return operator(self).break_(shown)

    def requests(self) -> list[str]:
        """What it has asked since the last time."""
        made = [call.verb for call in self.counting.calls]
        self.counting.reset()
        return list(made)

    def there(self) -> LeaseRecord:
        """The record in the store."""
        record = self.inspect()
        assert record is not None
        return record


@pytest.fixture
def clock() -> ManualClock:
    """The one of all."""
    return ManualClock()


@pytest.fixture
def bucket(clock: ManualClock) -> MemoryStore:
    """An empty one, whose dates are true."""
    return MemoryStore("lease", clock=clock)


@pytest.fixture
def one(bucket: MemoryStore, clock: ManualClock) -> Host:
    """A process."""
    return Host(bucket, clock)


@pytest.fixture
def two(bucket: MemoryStore, clock: ManualClock) -> Host:
    """Another one."""
    return Host(bucket, clock)


# -- taking it ----------------------------------------------------------------------------------------------------


def test_absent_and_free_ones_are_taken_at_once(one: Host, two: Host, clock: ManualClock) -> None:
    """A look and a write, no waiting; each time that it is taken its generation grows by one."""
    assert one.inspect() is None
    one.requests()
    assert one.acquire() == 1
    assert one.requests() == ["get", "put"]
    record = one.there()
    assert (record.held, record.generation, record.ttl, record.purpose) == (True, 1, TTL, "write")
    assert (record.owner.pid, record.since) == (os.getpid(), clock.time())
    one.release(1)
    assert (two.acquire(), two.requests(), clock.slept) == (2, ["get", "put"], [])


def test_waiting_for_a_holder_backs_off_and_names_it(one: Host, two: Host, clock: ManualClock) -> None:
    """With jitter; at the end the error says who holds it, and since when."""
    one.acquire()
    taken, started = clock.time(), clock.monotonic()
    renewed = two.faulty.get

    def look(key: str) -> object:
        one.tick()
        return renewed(key)

    two.faulty.get = look  # type: ignore[method-assign,assignment]
    with pytest.raises(LeaseTimeoutError, match=r"within 60 s: it is held by process \d+ on .* UTC") as e:
        two.acquire()
    assert (e.value.facts["holder"], e.value.facts["since"]) == (str(one.there().owner), taken)
    assert clock.monotonic() - started == pytest.approx(60)
    assert max(clock.slept) <= SLOT, "it is the next one"
    assert len(set(clock.slept)) > 50
    assert str(pickle.loads(pickle.dumps(e.value))) == str(e.value)
    one.check(1)


def test_a_holder_with_a_strange_clock_can_be_named(bucket: MemoryStore, two: Host) -> None:
    """A moment that is no date does not hide who holds the lease."""
    Host(bucket, ManualClock(1e15)).acquire()
    two._acquire_timeout = 1
    with pytest.raises(LeaseTimeoutError, match=r"it is held by process \d+ on .*\(write\)\. Nothing was changed"):
        two.acquire()


def test_expired_one_is_taken_over(one: Host, two: Host, clock: ManualClock) -> None:
    """Not before ttl seconds without a change; then in the next look."""
    one.acquire()
    started = clock.monotonic()
    assert two.acquire() == 2
    assert TTL <= clock.monotonic() - started <= TTL + SLOT


def test_a_waiter_that_comes_late_counts_by_the_stores_clock(one: Host, two: Host, clock: ManualClock) -> None:
    """The record's age in the store is not waited for again; less a second, that dates are off."""
    one.acquire()
    clock.advance(TTL - 5)
    started = clock.monotonic()
    two.acquire()
    assert 5 <= clock.monotonic() - started <= 5 + 1 + SLOT


def test_own_one_is_taken_again_at_once(one: Host, clock: ManualClock) -> None:
    """What this process wrote and gave up believing in (its answer was lost, say) keeps nobody waiting."""
    one.faulty.fail_next("put", *[Fault.LOST_REPLY] * 1000)
    one.faulty.fail_next("get", None, *[Fault.REFUSED] * 1000)
    with pytest.raises(StoreUnavailableError):
        one.acquire()
    one.faulty.stop()
    clock.slept.clear()
    assert (one.there().held, one.acquire(), clock.slept) == (True, 2, [])


def test_foreign_record_is_left_alone(one: Host, bucket: MemoryStore) -> None:
    """It is an error at once, not a lease that nobody renews."""
    bucket.put(KEY, b"{}")
    with pytest.raises(LeaseRecordError):
        one.acquire()
    assert one.counting.count("put") == 0


# -- keeping it ---------------------------------------------------------------------------------------------------


def test_renewed_every_third_of_its_ttl(one: Host, two: Host, clock: ManualClock) -> None:
    """By tick, which says when it wants to be called again; so it lasts as long as it is used."""
    one.acquire()
    one.requests()
    assert one.tick() == pytest.approx(TTL / 3)
    clock.advance(TTL / 3 - 0.1)
    one.tick()
    assert one.requests() == []
    for _ in range(10):
        clock.advance(TTL / 3)
        assert one.tick() == pytest.approx(TTL / 3)
        assert one.requests() == ["put"]
    one.check(1)
    assert (one.requests(), two.there().generation) == ([], 1)


def test_a_failed_renewal_is_no_loss(one: Host, clock: ManualClock) -> None:
    """It is tried again soon; the lease is believed in until its time is over, and asked for then."""
    one.acquire()
    clock.advance(TTL / 3)
    one.faulty.fail_next("put", *[Fault.FAIL_BEFORE] * 1000)
    assert one.tick() == pytest.approx(TTL / 10)
    one.check(1)
    clock.advance(TTL)
    with pytest.raises(StoreUnavailableError):
        one.check(1)
    one.faulty.stop()
    one.check(1)
    assert one.there().generation == 1


@pytest.mark.parametrize("fault", [Fault.LOST_REPLY, Fault.LATE_LANDING, Fault.CONFLICT_409])
def test_a_renewal_whose_answer_is_lost_is_no_loss(one: Host, clock: ManualClock, fault: Fault) -> None:
    """Nor is one that lands when it had been given up."""
    one.acquire()
    clock.advance(TTL / 3)
    one.faulty.fail_next("put", *[fault] * 8)
    one.faulty.fail_next("get", *[Fault.REFUSED] * 8)
    one.tick()
    one.faulty.stop()
    one.faulty.land_late()
    clock.advance(TTL)
    one.check(1)
    assert one.tick() == pytest.approx(TTL / 3)


def test_a_changed_record_is_a_loss(one: Host, two: Host, clock: ManualClock) -> None:
    """Renewal, check and release under the lost generation do nothing; the lease can be had again, at once if free."""
    one.acquire()
    clock.advance(TTL)
    assert two.acquire() == 2
    with pytest.raises(LeaseLostError, match="was lost: this process was silent for longer than its ttl of 30 s") as e:
        one.check(1)
    assert e.value.facts["generation"] == 1
    assert one.tick() is None
    one.release(1)
    assert one.there().owner == two.there().owner
    two.release(2)
    started = clock.monotonic()
    assert one.acquire() == 3
    assert clock.monotonic() == started


def test_users_of_a_lost_lease_are_not_waited_for(one: Host, two: Host, clock: ManualClock) -> None:
    """They have nothing to give back: the process takes the lease anew without waiting for them."""
    one.acquire()
    clock.advance(TTL)
    two.acquire()
    two.release(2)
    with pytest.raises(LeaseLostError):
        one.check(1)
    one._state.wait_for = lambda *_: pytest.fail("it waits for itself")  # type: ignore[method-assign]
    assert one.acquire() == 3
    one.release(1)
    one.check(3)
    assert len(one._users) == 1


def test_a_record_that_becomes_foreign_does_not_stop_the_heartbeat(
    one: Host, bucket: MemoryStore, clock: ManualClock
) -> None:
    """It may be mended; until then whoever is in doubt is told."""
    one.acquire()
    bucket.put(KEY, b"{}")
    clock.advance(TTL / 3)
    assert one.tick() == pytest.approx(TTL / 10)
    clock.advance(TTL)
    with pytest.raises(LeaseRecordError):
        one.check(1)


def test_check_asks_only_when_in_doubt(one: Host, clock: ManualClock) -> None:
    """Within ttl of the last write it costs nothing; after it, one write."""
    one.acquire()
    one.requests()
    clock.advance(TTL - 0.1)
    one.check(1)
    assert one.requests() == []
    clock.advance(0.1)
    one.check(1)
    assert one.requests() == ["put"]


@pytest.mark.parametrize(("advance", "skew", "asks"), [(0, TTL, True), (TTL, -3600, True), (1, -3600, False)])
def test_either_clock_ends_the_belief(
    one: Host, clock: ManualClock, advance: float, skew: float, *, asks: bool
) -> None:
    """A frozen machine whose monotonic clock stood still; a wall clock that was set back."""
    one.acquire()
    one.requests()
    clock.advance(advance)
    clock.skew(skew)
    one.check(1)
    assert one.requests() == (["put"] if asks else [])


# -- giving it back -------------------------------------------------------------------------------------------------


def test_release_leaves_a_free_record(one: Host) -> None:
    """Never none: the generation has to grow. Releasing again does nothing."""
    one.acquire()
    one.requests()
    one.release(1)
    one.release(1)
    assert one.requests() == ["put"]
    assert (one.there().held, one.there().generation) == (False, 1)


def test_a_release_that_fails_is_outwaited(one: Host, two: Host, clock: ManualClock) -> None:
    """It raises nothing, nobody believes in the lease any more, and it runs out by itself."""
    one.acquire()
    one.faulty.fail_next("put", *[Fault.FAIL_BEFORE] * 1000)
    one.release(1)
    with pytest.raises(LeaseLostError):
        one.check(1)
    assert two.acquire() == 2


def test_hold_keeps_it_between_uses(bucket: MemoryStore, clock: ManualClock) -> None:
    """From when it was taken: until then the next use needs no request; an idle one is not renewed, and given back."""
    one = Host(bucket, clock, hold=20)
    one.acquire()
    clock.advance(5)
    one.release(1)
    one.requests()
    assert (one.acquire(), one.requests()) == (1, [])
    one.release(1)
    assert one.tick() == pytest.approx(15)
    clock.advance(14)
    assert one.tick() == pytest.approx(1)
    assert one.requests() == []
    clock.advance(1)
    assert one.tick() is None
    assert one.requests() == ["put"]
    assert not one.there().held


def test_held_one_whose_time_is_over_is_taken_anew(bucket: MemoryStore, clock: ManualClock) -> None:
    """A process that was frozen in its hold does not trust what it held, and need not wait for itself."""
    one = Host(bucket, clock, hold=1000)
    one.acquire()
    one.release(1)
    clock.skew(TTL)
    one.requests()
    assert (one.acquire(), one.requests(), clock.slept) == (2, ["get", "put"], [])


def test_keep_holds_on_for_a_retry(one: Host, clock: ManualClock) -> None:
    """For so many seconds; then tick gives it back."""
    one.acquire()
    one.release(1, keep=3)
    one.requests()
    assert (one.acquire(), one.requests()) == (1, [])
    one.release(1, keep=3)
    clock.advance(3)
    assert one.tick() is None
    assert not one.there().held


# -- whose turn it is -----------------------------------------------------------------------------------------------


def hand_over(holder: Host, generation: int, to: Host) -> int:
    """Have one see that the other holds it, which gives it back then."""
    look = to.faulty.get

    def look_then_release(key: str) -> object:
        answer = look(key)
        to.faulty.get = look  # type: ignore[method-assign]
        holder.release(generation)
        return answer

    to.faulty.get = look_then_release  # type: ignore[method-assign,assignment]
    return to.acquire()


def seconds_to_take(host: Host, clock: ManualClock) -> float:
    """By the clock; it is given back at once."""
    started = clock.monotonic()
    host.release(host.acquire())
    return clock.monotonic() - started


def test_a_contended_lease_goes_to_the_least_recently_served(bucket: MemoryStore, clock: ManualClock) -> None:
    """Who has just had it leaves it to each of the others for a moment. Who never had it, or longest ago, takes it."""
    first, second, third = (Host(bucket, clock) for _ in range(3))
    first.acquire()
    assert hand_over(first, 1, second) == 2
    assert hand_over(second, 2, third) == 3
    third.release(3)
    served = third.there().served
    assert [ahead(served, host._waiter._name.among(served)) for host in (first, second, third)] == [0, 1, 2]
    assert third.there().is_contended
    assert seconds_to_take(first, clock) == 0
    assert first.there().is_contended, "for one more time, whoever takes it: others may still be waiting"
    assert seconds_to_take(Host(bucket, clock), clock) == 0
    assert not first.there().is_contended


def test_the_courtesy_to_those_who_do_not_want_it_ends(bucket: MemoryStore, clock: ManualClock) -> None:
    """They cost a process that is alone by now a moment twice, and then nothing."""
    one, two = Host(bucket, clock), Host(bucket, clock)
    one.acquire()
    two.release(hand_over(one, 1, two))
    taken = [seconds_to_take(two, clock) for _ in range(4)]
    assert taken[:2] == [pytest.approx(SLOT, abs=0.001)] * 2
    assert taken[2:] == [0, 0]


def test_a_courtesy_never_causes_a_timeout(bucket: MemoryStore, clock: ManualClock) -> None:
    """Whoever has no time left takes a free lease."""
    one, two = Host(bucket, clock), Host(bucket, clock)
    one.acquire()
    two.release(hand_over(one, 1, two))
    two._acquire_timeout = SLOT / 4
    assert seconds_to_take(two, clock) == pytest.approx(SLOT / 4)


def test_a_hold_that_is_over_leaves_a_moment_to_others(bucket: MemoryStore, clock: ManualClock) -> None:
    """Else a process that writes without a pause would give it back and retake it before anybody sees it free. An
    idle one does not wait: others have had that moment.
    """
    one = Host(bucket, clock, hold=10)
    one.acquire()
    clock.advance(10)
    one.release(1)
    started = clock.monotonic()
    assert one.acquire() == 2
    assert clock.monotonic() - started == pytest.approx(SLOT)
    clock.advance(10)
    one.release(2)
    clock.advance(SLOT)
    started = clock.monotonic()
    assert one.acquire() == 3
    assert clock.monotonic() == started


# -- threads, forks, ends -------------------------------------------------------------------------------------------


def test_threads_share_it_counted(one: Host) -> None:
    """Who joins needs no request; the last to release gives it back."""
    assert one.acquire() == 1
    one.requests()
    assert Background(one.acquire).result() == 1
    one.release(1)
    assert one.requests() == []
    one.check(1)
    one.release(1)
    assert one.requests() == ["put"]


def test_newcomers_wait_when_the_process_has_had_it_for_long(one: Host, clock: ManualClock) -> None:
    """Threads that keep joining each other would keep other processes out: after two seconds, it is given back."""
    one.acquire()
    clock.advance(2)
    waiting = threading.Event()
    wait_for = one._state.wait_for

    def watched(*args: object) -> bool:
        waiting.set()
        return wait_for(*args)  # type: ignore[arg-type]

    one._state.wait_for = watched  # type: ignore[method-assign,assignment]
    newcomer = Background(one.acquire)
    until(waiting.is_set)
    one.release(1)
    assert newcomer.result() == 2


def test_a_user_that_is_gone_uses_it_no_more(one: Host, clock: ManualClock) -> None:
    """A session that an interrupt tore off before it could release does not have it renewed for ever."""
    user = User()
    assert Lease.acquire(one, user) == 1
    clock.advance(TTL / 3)
    assert one.tick() is not None
    del user
    clock.advance(TTL / 3)
    assert one.tick() is None
    assert not one.there().held


def test_a_forked_child_holds_nothing(one: Host, two: Host) -> None:
    """It is another process: with its own token, and nothing to give back or to check."""
    one.acquire()
    owner = one.there().owner
    one.reset_after_fork()
    one.requests()
    with pytest.raises(LeaseLostError):
        one.check(1)
    one.release(1)
    one.close()
    assert one.requests() == []
    assert two.there().held
    two.break_(two.there())
    one.acquire()
    assert one.there().owner.token != owner.token


def test_outgrowing_leaves_the_other_threads_behind(one: Host) -> None:
    """They have lost it, as they would have if another process had taken it, and are not waited for."""
    one.acquire()
    assert Background(one.acquire).result() == 1
    user = one.of[1].pop()
    assert one.outgrow(user, 1, 0) == 1
    assert one.outgrow(user, 1, 7) == 8
    with pytest.raises(LeaseLostError):
        one.check(1)
    one.release(1)
    one.check(8)
    one.release(user)
    assert (one.there().held, one.there().generation) == (False, 8)


def test_close_gives_it_back_whoever_uses_it(one: Host) -> None:
    """The process ends: so do its sessions."""
    one.acquire()
    one.acquire()
    one.close()
    assert not one.there().held
    with pytest.raises(LeaseLostError):
        one.check(1)


# -- for operators --------------------------------------------------------------------------------------------------


def test_break_evicts_what_was_inspected(one: Host, two: Host) -> None:
    """By a generation of its own, which is free: the holder is fenced off, and the next one takes the one after it."""
    one.acquire()
    broken = two.break_(two.there())
    assert (broken.held, broken.generation, two.there()) == (False, 2, broken)
    with pytest.raises(LeaseLostError):
        one.renew(1)
    assert one.acquire() == 3


def test_break_evicts_a_living_holder(one: Host, two: Host, clock: ManualClock) -> None:
    """One that has renewed its lease since it was shown, and one that does so at this very moment."""
    one.acquire()
    shown = two.there()
    clock.advance(TTL / 3)
    one.tick()
    get = two.faulty.get

    def renewed_after(key: str) -> object:
        answer = get(key)
        two.faulty.get = get  # type: ignore[method-assign]
        one.renew(1)
        return answer

    two.faulty.get = renewed_after  # type: ignore[method-assign,assignment]
    assert two.break_(shown).generation == 2
    with pytest.raises(LeaseLostError):
        one.renew(1)


def test_break_evicts_nobody_else(one: Host, two: Host) -> None:
    """Who has taken it since it was shown stays; and nothing is done to a free one."""
    one.acquire()
    shown = two.there()
    one.release(1)
    with pytest.raises(LeaseLostError, match="nobody was evicted"):
        two.break_(shown)
    two.acquire()
    with pytest.raises(LeaseLostError, match="nobody was evicted"):
        one.break_(shown)
    two.check(2)
    assert one.there().generation == 2


CHILD = """
import os, random, signal, sys
from temaki.clock import SystemClock
from temaki.lease.lease import Lease
from temaki.process.exit import close_on_sigterm
from temaki.lease.record import LeaseObject
from temaki.remote.retry import RetryPolicy
from temaki.stores.directory import DirectoryStore
if "own" in sys.argv: signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
close_on_sigterm()
clock, rng = SystemClock(), random.Random()
record = LeaseObject(DirectoryStore(sys.argv[1]), "app.sqlite.lease", RetryPolicy(clock, rng, timeout=10))
Lease(record, url="x", clock=clock, rng=rng, ttl=30, acquire_timeout=60).acquire(sys)
if "exit" not in sys.argv: os.kill(os.getpid(), signal.SIGTERM)
if "exit" not in sys.argv: signal.pause()
"""


@pytest.mark.parametrize(("how", "code"), [("exit", 0), ("default", -signal.SIGTERM), ("own", 7)])
def test_a_process_that_ends_gives_it_back(tmp_path: Path, how: str, code: int) -> None:
    """By its exit, or by SIGTERM, whose default it keeps; an application's own handler is left alone."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path), how], cwd=Path(__file__).parents[2], timeout=60, check=False
    )
    assert done.returncode == code
    clock = ManualClock()
    record = LeaseObject(DirectoryStore(str(tmp_path)), KEY, RetryPolicy(clock, random.Random(1), timeout=1)).read()
    assert record is not None
    assert (record.record.held, record.record.generation) == (False, 1)


# -- whose it is --------------------------------------------------------------------------------------------------


def clone(host: Host, bucket: MemoryStore) -> Host:
    """What a second machine has that is restored from a snapshot of the host's: the same memory."""
    other = Host(bucket, host.clock, hold=host._hold)
    for name in ("seen", "written", "taken", "left", "loss"):
        setattr(other._tenure, name, getattr(host._tenure, name))
    other._idle_until = host._idle_until
    other._waiter._name, other._tenure.sent = copy.copy(host._waiter._name), copy.copy(host._tenure.sent)
    return other


def test_the_token_is_drawn_each_time_that_it_is_taken(one: Host, clock: ManualClock) -> None:
    """Nothing that was drawn before is used; but the process keeps its turn among the others."""
    tokens = []
    for generation in (1, 2, 3):
        one.acquire()
        tokens.append(one.there().owner.token)
        one.release(generation)
    assert len(set(tokens)) == 3
    assert list(one.there().served.values()) == [3], "one process, under one name"


def test_clones_wait_for_each_other(one: Host, bucket: MemoryStore, clock: ManualClock) -> None:
    """Restored from a snapshot that was taken after the lease had been used: one takes it, the other one waits."""
    one.acquire()
    one.release(1)
    other = clone(one, bucket)
    one.acquire()
    assert (hand_over(one, 2, other), len(clock.slept) > 0) == (3, True)
    with pytest.raises(LeaseLostError):
        one.check(2)


def test_clones_that_had_it_find_out_that_one_has_it(bucket: MemoryStore, clock: ManualClock) -> None:
    """Restored from a snapshot in the middle of a hold: whoever writes first keeps it, the other has lost it."""
    one = Host(bucket, clock, hold=TTL)
    one.acquire()
    other = clone(one, bucket)
    user = User()
    assert other.rejoin(user) == 1
    one.renew(1)
    with pytest.raises(LeaseLostError):
        other.renew(1)
    other.close()
    one.check(1)
    assert one.there().held, "what the other one gives back is not its own"


def test_a_clone_does_not_take_it_from_a_living_one(bucket: MemoryStore, clock: ManualClock) -> None:
    """It had it in the snapshot, and believes in that no more; what is there now another machine has renewed."""
    one = Host(bucket, clock, hold=10 * TTL)
    one.acquire()
    other = clone(one, bucket)
    clock.advance(TTL)
    one.renew(1)
    started = clock.monotonic()
    assert other.acquire() == 2
    assert clock.monotonic() - started == pytest.approx(TTL, abs=1.5)


def test_of_two_clones_one_takes_what_both_had(bucket: MemoryStore, clock: ManualClock) -> None:
    """Both find their common record; the second one finds the first one's, and waits."""
    one = Host(bucket, clock, hold=10 * TTL, acquire_timeout=TTL / 2)
    one.release(one.acquire())
    other = clone(one, bucket)
    other._acquire_timeout = TTL / 2
    clock.advance(TTL)
    assert (one.acquire(), clock.slept) == (2, [])
    with pytest.raises(LeaseTimeoutError):
        other.acquire()


def test_clones_take_turns(bucket: MemoryStore, clock: ManualClock) -> None:
    """One of them takes another name, or it would always come after those that the other one has let pass."""
    one, third = Host(bucket, clock), Host(bucket, clock)
    one.acquire()
    hand_over(one, 1, third)
    third.release(2)
    other = clone(one, bucket)
    one.release(one.acquire())
    other.release(other.acquire())
    served = one.there().served
    assert len({name for name in served if served[name] >= 3}) == 2
    assert sorted(served.values()) == [2, 3, 4]


def test_the_dead_on_this_machine_are_not_waited_for(one: Host, two: Host, clock: ManualClock) -> None:
    """A record whose owner is certainly gone is free; one whose owner may be there is not."""
    one.acquire()
    seen = one._record.read()
    assert seen is not None
    child = subprocess.Popen(["true"])
    child.wait()
    cases: list[tuple[dict[str, Any], bool]] = [
        ({"pid": child.pid, "host": "another machine"}, True),
        ({"host": seen.record.owner.host}, False),
    ]
    for changes, waits in cases:
        seen = one._record.write(replace(seen.record, owner=replace(seen.record.owner, **changes)), seen)
        started = clock.monotonic()
        two._acquire_timeout = TTL / 2
        if waits:
            with pytest.raises(LeaseTimeoutError):
                two.acquire()
        else:
            assert two.acquire() == 2
            assert clock.monotonic() == started


# -- what is said of a loss -----------------------------------------------------------------------------------------


def _loss(host: Host, generation: int = 1) -> LeaseLostError:
    with pytest.raises(LeaseLostError) as caught:
        host.renew(generation)
    with pytest.raises(LeaseLostError, match=re.escape(str(caught.value))):
        host.check(generation)  # it says the same a second time
    return caught.value


def test_the_evicted_is_told_so(one: Host, two: Host) -> None:
    """By whom, too; also where others have had the lease since."""
    one.acquire()
    two.break_(two.there())
    by = str(two.there().owner)
    two.release(two.acquire())
    error = _loss(one)
    assert f"was evicted (`temaki lease break`, by {by})" in str(error)
    assert "silent" not in str(error)
    assert (error.evicted_by, error.generation) == (by, 1)
    assert pickle.loads(pickle.dumps(error)).evicted_by == by


def test_the_heartbeat_says_so_too(one: Host, two: Host, clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
    """Its warning has the same reason as the error."""
    one.acquire()
    two.break_(two.there())
    clock.advance(TTL / 3)
    one.tick()
    assert "was evicted" in caplog.text
    assert "was evicted" in str(_loss(one))


def test_only_a_few_evictions_are_remembered(one: Host, two: Host) -> None:
    """The record does not grow for ever."""
    for _ in range(10):
        generation = one.acquire()
        two.break_(two.there())
        _loss(one, generation)
    assert list(two.there().evicted) == [str(generation) for generation in range(13, 21, 2)]


def test_who_was_not_silent_is_not_told_that_it_was(one: Host, two: Host, bucket: MemoryStore) -> None:
    """A record that was deleted, or put back; an older temaki's eviction; a lease that was given back or outgrown."""
    one.acquire()
    found = bucket.get(KEY)
    assert found is not None
    first = found.read(found.length)
    bucket.delete(KEY)
    said = [str(_loss(one))]

    two.release(two.acquire())
    one.acquire()
    bucket.put(KEY, first)
    said.append(str(_loss(one, 2)))

    bucket.delete(KEY)
    one.acquire()
    there = two._record.read()
    assert there is not None
    two._record.write(replace(there.record, held=False, generation=2, owner=Owner("vm", 7, "t0ken")), there)
    said.append(str(_loss(one)))

    one.acquire()
    one.outgrow(one.of[3][-1], 3, 9)
    said.append(str(_loss(one, 3)))
    one.close()
    said.append(str(_loss(one, 10)))
    for message, reason in zip(
        said,
        [
            "its record was deleted or moved away",
            "an older record was put in the place of its own (generation 1, by process",
            "process 7 on vm has replaced its record, 0.0 s after this process had renewed it",
            "another thread of this process goes on under generation 10",
            "this process has given it back, as it was about to end",
        ],
        strict=True,
    ):
        assert reason in message
        assert "silent" not in message


def test_taken_over_by_the_waiting(one: Host, two: Host, clock: ManualClock) -> None:
    """Who was silent is told for how long, who has taken it, and what helps."""
    one.acquire()
    clock.advance(TTL + 5)
    two.acquire()
    error = _loss(one)
    assert f"silent for longer than its ttl of 30 s (for 35.0 s), and {two.there().owner} has taken it" in str(error)
    assert "longer ttl" in str(error)
    assert error.evicted_by is None
