"""Seeded schedules of processes that want one lease, on clocks of their own and through a store that fails.

Every process runs in a thread, and one thread at a time has the baton. It hands it on whenever time passes for it: on
the way to the store and back, asleep, at work. Who goes on, how long things take, what fails, who freezes and who dies
is drawn from one seed, so a seed is a schedule: it runs again exactly as before.

There is one true clock. A process sees it through a :class:`_View`: its wall clock is off and may be set, its monotonic
one started elsewhere and may stand still while the machine sleeps; both run at the true rate.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import pairwise
from typing import Any, TypeVar

from temaki.errors import LeaseLostError, LeaseTimeoutError, PreconditionFailedError, StoreError, StoreUnavailableError
from temaki.lease.lease import Lease
from temaki.lease.record import LeaseObject
from temaki.lease.waiting import LONGEST_COURTESY, LONGEST_LOOK
from temaki.remote.retry import RetryPolicy
from temaki.store import Download, ReadableBody
from temaki.stores.memory import MemoryStore
from temaki.stores.rules import read_body
from temaki.stores.wrapper import Verb
from temaki.testing.clock import ManualClock
from temaki.testing.faulty import Fault, FaultyStore

T = TypeVar("T")

LEASE, DATA = "app.sqlite.lease", "app.sqlite"
ROUNDS = 2
"""How often each process uses the lease before the faults end."""
QUICK, SLOW = (0.0, 0.0, 0.01, 0.03, 0.1), (0.3, 0.6, 0.9)
"""Seconds that a request is on its way to the store, or its answer back: mostly, and now and then."""
LOOK = LONGEST_LOOK + LONGEST_COURTESY
"""Seconds between two looks of a waiter, and for which it leaves a free lease to others, at most."""
RESOLUTION = 1.0
"""Seconds by which an age by the store's clock may be too small (``temaki.lease.record``)."""
FAULTS_IN_A_ROW = 3


class Violation(AssertionError):  # noqa: N818 - what has happened, not an error of the program
    """What must hold does not. Carries the seed and the trace."""


class _CrashedError(BaseException):
    """The process is no more."""


class _OverError(BaseException):
    """The schedule is."""


class Simulation:
    """One schedule.

    Args:
        seed: All of it.
    """

    def __init__(self, seed: int) -> None:
        self.seed, self.rng = seed, random.Random(seed)
        self.clock = ManualClock()
        self.now = 0.0  # true seconds since the schedule began
        self.ttl = self.rng.choice([2.0, 3.0, 5.0])
        self.trace: list[tuple[float, str, str]] = []
        self.store = _WatchedStore(self)
        self.closing_at: float | None = None
        self.over = False
        self.failure: BaseException | None = None
        self.acquired = 0
        self._done = threading.Lock()
        self._done.acquire()
        chaos = self.rng.choice([0.0, 0.5, 1.0, 1.0, 2.0])
        self.freeze_rate, self.crash_rate, self.jump_rate = 0.03 * chaos, 0.008 * chaos, 0.03 * chaos
        self.fault_rate = 0.05 * chaos
        self.store.put(DATA, b'{"generation": 0}')
        self.processes = [Process(self, number) for number in range(self.rng.choice([2, 2, 3, 3, 4, 5]))]

    def run(self) -> list[str]:
        """Run it to its end, and give its trace.

        Raises:
            Violation: Something that must hold did not.
        """
        for process in self.processes:
            process.thread.start()
        self._pass_on()
        assert self._done.acquire(timeout=60), f"seed {self.seed} hangs: {self.lines()}"
        for process in self.processes:
            process.thread.join(60)
            process.lease.reset_after_fork()  # holds nothing, so that nothing is given back when pytest exits
        if self.failure is not None:
            trace = "\n".join(self.lines())
            message = f"seed {self.seed}, ttl {self.ttl:g}: {self.failure!r}\n{trace}\nseed {self.seed}: {self.failure}"
            raise Violation(message) from self.failure
        return self.lines()

    def lines(self) -> list[str]:
        """The trace, for people."""
        return [f"{when:8.3f} {who:3} {what}" for when, who, what in self.trace]

    # -- the baton ------------------------------------------------------------------------------------------------

    def pause(self, process: Process, seconds: float) -> None:
        """Time passes for the process, while others run."""
        process.wake_at = self.now + max(0.0, seconds)
        self._chaos(process)
        chosen = self._next()
        if chosen is not process:
            chosen.go.release()
            process.go.acquire()
        if self.over:
            raise _OverError
        if process.frozen:
            process.frozen = False
            process.waits_since = process.waits_since and self.now

    def leave(self, process: Process) -> None:
        """The process has ended, in one way or another."""
        process.alive = False
        if not self.over:
            self._pass_on()

    def fail(self, error: BaseException) -> None:
        """End the schedule here."""
        self.failure, self.over = error, True
        for process in self.processes:
            if process.go.locked():
                process.go.release()
        self._done.release()

    def _pass_on(self) -> None:
        try:
            if any(process.alive for process in self.processes):
                self._next().go.release()
            else:
                self.over = True
                self._done.release()
        except Violation as error:
            self.fail(error)

    def _next(self) -> Process:
        alive = [process for process in self.processes if process.alive]
        self.check()
        if self.closing_at is None and all(process.rounds >= ROUNDS for process in alive):
            self.closing_at = self.now
            self.trace.append((self.now, "", "no more faults"))
            for process in alive:
                process.faulty.stop()
        first = min(process.wake_at for process in alive)
        if first > self.now:
            self.clock.advance(first - self.now)  # beliefs only end while time passes
            self.now = first
        runnable = [process for process in alive if process.wake_at <= self.now]
        return self.rng.choice(runnable)

    def _chaos(self, process: Process) -> None:
        """What may befall a process at any step, and late requests of anybody's, the dead included."""
        rng = self.rng
        other = rng.choice(self.processes)
        if other.faulty.late and rng.random() < 0.3:
            landed = other.faulty.land_late()
            self.trace.append((self.now, other.name, f"late requests land: {landed}"))
        if self.closing_at is not None:
            return
        if rng.random() < self.crash_rate and sum(other.alive for other in self.processes) > 1:
            process.log("crashes")
            raise _CrashedError
        if rng.random() < self.freeze_rate:
            seconds = rng.uniform(0.3, 2.5) * self.ttl
            process.wake_at += seconds
            process.frozen = True
            if process.view.sleeps:
                process.view.slept += seconds
            process.log(f"is frozen for {seconds:.3f}")
        if rng.random() < self.jump_rate and not process.view.sleeps:
            process.view.skew += rng.choice([-1, 1]) * rng.choice([0.5, self.ttl, 3600.0])
            process.log(f"has its wall clock set to {process.view.skew:+.3f}")

    # -- what must hold -------------------------------------------------------------------------------------------

    def check(self) -> None:
        """At this moment: at most one process believes that it has the lease; and nobody waits in vain."""
        believers = [process.name for process in self.processes if process.believes()]
        if len(believers) > 1:
            raise Violation(f"{' and '.join(believers)} believe at once that they hold the lease")
        # The record has been left alone for all this time, and somebody has been there to see it.
        waiting = [process.waits_since or 0.0 for process in self.processes if process.waits]
        if waiting:
            since = max(self.store.changed_at, min(waiting))
            if self.now - since > self.longest_wait(since):
                raise Violation(f"nobody has taken the lease since {since:.3f}, and somebody waits")

    def longest_wait(self, since: float) -> float:
        """Seconds after which a record that nobody renews has been replaced, if somebody waits.

        Until a waiter that sees it late may call it expired: ttl, and what ages by whole seconds fall short of it.
        Then one look, a read and a write. Without faults that is four ways (to the store, and back). With them, each
        of the two is tried up to FAULTS_IN_A_ROW + 1 times, and a refused write is followed by a read; each has two
        slow ways and a back-off below LONGEST_LOOK. A wall clock that is set does not count for a waiter; a process
        that is frozen does not wait.
        """
        base = self.ttl + RESOLUTION + LOOK
        if self.closing_at is not None and since > self.closing_at + 2 * max(SLOW):
            return base + 4 * max(QUICK)
        return base + 3 * (FAULTS_IN_A_ROW + 1) * (2 * max(SLOW) + LONGEST_LOOK)


class Process:
    """One process: it takes the lease, works, commits and gives it back, again and again."""

    def __init__(self, simulation: Simulation, number: int) -> None:
        rng = simulation.rng
        self.simulation, self.name = simulation, f"P{number}"
        self.view = _View(simulation.clock, self)
        rate = simulation.fault_rate
        each: Mapping[Fault, float] = dict.fromkeys([Fault.LOST_REPLY, Fault.FAIL_BEFORE, Fault.REFUSED], rate)
        rates: Mapping[Verb, Mapping[Fault, float]] = {
            "get": each,
            "put": {**each, Fault.LATE_LANDING: 2 * rate, Fault.CONFLICT_409: rate, Fault.LOST_REPLY: 2 * rate},
        }
        self.faulty = FaultyStore(simulation.store, seed=rng.getrandbits(32), rates=rates, late_after=6)
        self.wire = _Wire(self)
        ttl, jitter = simulation.ttl, random.Random(rng.getrandbits(32))
        record = LeaseObject(self.wire, LEASE, RetryPolicy(self.view, jitter, timeout=ttl / 3))
        self.lease = Lease(
            record,
            url="memory://simulation/app.sqlite",
            clock=self.view,
            rng=jitter,
            ttl=ttl,
            acquire_timeout=rng.choice([1.5, 4.0]) * ttl,
            hold=rng.choice([0.0, 0.0, 0.5 * ttl, 1.5 * ttl]),
            heartbeat=False,
        )
        self.lease._state.wait_for = _waits_for_itself  # type: ignore[method-assign,assignment]
        self.beats = rng.random() < 0.7
        self.rounds = 0
        self.alive, self.frozen, self.releasing = True, False, False
        self.waits_since: float | None = None
        self.wake_at = simulation.now + rng.choice(QUICK)
        self.go = threading.Lock()
        self.go.acquire()
        self.thread = threading.Thread(target=self._main, name=self.name, daemon=True)

    def log(self, what: str) -> None:
        """Add a line to the trace."""
        self.simulation.trace.append((self.simulation.now, self.name, what))

    def believes(self) -> bool:
        """Whether ``check`` would say yes without asking. While it gives the lease back, nobody can call that."""
        return self.alive and not self.releasing and self.lease._tenure.believes()

    @property
    def waits(self) -> bool:
        """Whether it is there, and wants the lease."""
        return self.alive and not self.frozen and self.waits_since is not None

    def pause(self, seconds: float) -> None:
        """Time passes for it."""
        self.simulation.pause(self, seconds)

    def _main(self) -> None:
        self.go.acquire()
        try:
            if not self.simulation.over:
                self._live()
        except (_CrashedError, _OverError):
            pass
        except BaseException as error:
            self.simulation.fail(error)
        self.simulation.leave(self)

    def _live(self) -> None:
        simulation, rng = self.simulation, self.simulation.rng
        last = False
        while not last:
            self.pause(rng.choice([0.0, 0.05, 0.3, 0.3 * simulation.ttl]))
            if self.lease._tenure.seen is not None and rng.random() < 0.5:
                self._tick()
            last = simulation.closing_at is not None  # once more without faults: that must succeed
            generation = self._acquire(until_it_works=last)
            if generation is not None:
                self._use(generation)
            self.rounds += 1

    def _acquire(self, *, until_it_works: bool) -> int | None:
        self.waits_since = self.simulation.now
        while True:
            self.wire.written = []
            try:
                generation = self.lease.acquire(self)
            except (LeaseTimeoutError, StoreUnavailableError) as error:
                self.log(f"acquire: {type(error).__name__}")
                if not until_it_works:
                    self.waits_since = None
                    return None
                self.pause(0.05)
                continue
            self.waits_since = None
            self.log(f"acquires {generation}")
            self.simulation.acquired += 1
            # A lost reply that is taken for a defeat shows here: the process would take the lease from itself.
            if self.simulation.store.follow_each_other(self.wire.written):
                raise Violation(f"{self.name} took the lease twice in one acquire")
            return generation

    def _use(self, generation: int) -> None:
        rng, ttl = self.simulation.rng, self.simulation.ttl
        try:
            base, etag = self.wire.read_data()
            for _ in range(rng.choice([0, 1, 1, 3])):
                self.pause(rng.choice([0.01, 0.3, 0.3, 0.5]) * ttl)
                if self.beats:
                    self._tick()
            self.lease.check(generation)
            self.wire.put(DATA, json.dumps({**base, "generation": generation, "by": self.name}).encode(), if_match=etag)
            self.log(f"commits under {generation}")
        except LeaseLostError:
            self.log(f"has lost {generation}")
            if self.simulation.store.generation <= generation:
                raise Violation(f"{self.name} is told that it lost generation {generation}, which is current") from None
        except (StoreUnavailableError, PreconditionFailedError) as error:
            self.log(f"does not commit: {type(error).__name__}")
        self.releasing = True  # with one thread per process, the last user
        self.lease.release(self, keep=rng.choice([0.0, 0.0, 0.1 * ttl]))
        self.releasing = False
        self.log(f"releases {generation}")

    def _tick(self) -> None:
        self.releasing = not self.lease._users
        self.lease.tick()
        self.releasing = False


def _waits_for_itself(*_: object) -> bool:
    raise Violation("a process with one thread waits for its other threads")


class _View:
    """The true clock as a process sees it."""

    def __init__(self, truth: ManualClock, process: Process) -> None:
        rng = process.simulation.rng
        self._truth, self._process = truth, process
        self._offset = rng.uniform(0, 1e5)
        self.skew = rng.choice([0.0, rng.uniform(-5, 5), rng.uniform(-1e6, 1e6)])
        self.sleeps = rng.random() < 0.3  # its machine: the monotonic clock stands still meanwhile
        self.slept = 0.0

    def monotonic(self) -> float:
        return self._truth.monotonic() + self._offset - self.slept

    def time(self) -> float:
        return self._truth.time() + self.skew

    def sleep(self, seconds: float) -> None:
        self._process.pause(seconds)


class _Wire:
    """A process's way to the store. Requests and answers take their time; a crash may leave a request behind."""

    honours_conditions = True

    def __init__(self, process: Process) -> None:
        self._process = process
        self.url = process.simulation.store.url
        self.written: list[bytes] = []
        self._failures = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._process.faulty, name)

    def read_data(self) -> tuple[dict[str, Any], str]:
        """The database object, such as it is."""
        download = self.get(DATA)
        with download:
            return json.loads(download.read(download.length)), download.info.etag

    def get(self, key: str, **conditions: Any) -> Download:
        """See :meth:`temaki.store.Store.get`."""
        return self._request("get", key, lambda: self._process.faulty.get(key, **conditions))  # type: ignore[return-value]

    def put(self, key: str, body: bytes | ReadableBody, **conditions: Any) -> str:
        """See :meth:`temaki.store.Store.put`."""
        if key == LEASE:
            self.written.append(read_body(body))
        try:
            return self._request("put", key, lambda: self._process.faulty.put(key, body, **conditions))
        except _CrashedError:
            if self._process.simulation.rng.random() < 0.5:  # it was on its way
                with suppress(StoreError):
                    self._process.simulation.store.put(key, body, **conditions)
            raise

    def _request(self, verb: Verb, key: str, call: Callable[[], T]) -> T:
        process = self._process
        process.pause(self._way())
        if self._failures >= FAULTS_IN_A_ROW:
            process.faulty.fail_next(verb, None)
        what = "fails"
        try:
            answer = call()
            what, self._failures = "ok", 0
            return answer
        except StoreError as error:
            what = f"{type(error).__name__}"
            undecided = isinstance(error, StoreUnavailableError) or getattr(error, "in_flight", False)
            self._failures = self._failures + 1 if undecided else 0
            raise
        finally:
            process.log(f"{verb} {key}: {what}")
            process.pause(self._way())

    def _way(self) -> float:
        simulation = self._process.simulation
        slow = simulation.closing_at is None and simulation.rng.random() < 0.1
        return simulation.rng.choice(SLOW if slow else QUICK)


class _WatchedStore(MemoryStore):
    """The bucket. Looks at everything that lands."""

    def __init__(self, simulation: Simulation) -> None:
        super().__init__("simulation", clock=simulation.clock)
        self._simulation = simulation
        self._landed: list[bytes] = []
        self._record: dict[str, Any] = {}
        self._committed = 0
        self.changed_at = 0.0

    @property
    def generation(self) -> int:
        """Of the record as it is."""
        return int(self._record.get("generation", 0))

    def follow_each_other(self, bodies: list[bytes]) -> bool:
        """Whether one of these records has replaced another one of them."""
        return any(one in bodies and other in bodies for one, other in pairwise(self._landed))

    def put(self, key: str, body: bytes | ReadableBody, **conditions: Any) -> str:
        """See :meth:`temaki.store.Store.put`."""
        etag = super().put(key, body, **conditions)
        data = read_body(body)
        if key == LEASE:
            self._landed.append(data)
            self._lease_written(json.loads(data))
        elif conditions:
            self._data_written(int(json.loads(data)["generation"]))
        return etag

    def delete(self, key: str) -> None:
        """Nobody ever does."""
        raise Violation(f"{key} is deleted")

    def _lease_written(self, new: dict[str, Any]) -> None:
        old, self._record = self._record, new
        self.changed_at = self._simulation.now
        if new["generation"] == self.generation_of(old):
            if new["owner"] != old["owner"] or not old["held"]:
                raise Violation(f"generation {new['generation']} is taken a second time")
        elif new["generation"] < self.generation_of(old):
            raise Violation(f"generation {old['generation']} is followed by {new['generation']}")

    def _data_written(self, generation: int) -> None:
        if generation < self._committed:
            raise Violation(f"a commit under {generation} replaces one under {self._committed}")
        self._committed = generation

    @staticmethod
    def generation_of(record: dict[str, Any]) -> int:
        """0 if there is none."""
        return int(record.get("generation", 0))
