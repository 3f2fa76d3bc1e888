"""One schedule: its processes, its bucket, its faults, and its result."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import tempfile
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from functools import cache
from pathlib import Path
from typing import Any, Final
from unittest import mock

from temaki.errors import NotFoundError
from temaki.formats.choice import NAMES, by_number
from temaki.remote.remote import Remote
from temaki.stores.memory import MemoryStore
from temaki.testing.clock import ManualClock
from temaki.testing.histories import Operation, Outcome, Value, anomalies
from temaki.testing.simulation import limits, substitutes, workload
from temaki.testing.simulation.caretaker import Caretaker, publish_file
from temaki.testing.simulation.choices import Choices
from temaki.testing.simulation.ledger import Bucket, Ledger
from temaki.testing.simulation.network import KEY, Wire
from temaki.testing.simulation.process import Process
from temaki.testing.simulation.scheduler import Crash, Scheduler, Task, Violation, running
from temaki.testing.simulation.stored import materialised, value_of
from temaki.testing.simulation.workload import Program

_TTL: Final = 2.0
_LEASE: Final = {"ttl": _TTL, "acquire_timeout": 2 * _TTL}
STRATEGIES: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ("etag-cached", {}),
    ("always-download", {}),
    ("lease-locked", {**_LEASE, "hold": 0.0}),
    ("lease-locked", {**_LEASE, "hold": 1.0}),
    ("lease-locked", {**_LEASE, "isolation": "pony"}),
    ("read-only", {}),
    ("etag-cached", {"max_age": 0.5}),
    ("read-only", {"max_age": 0.5}),
)
PAGES = 0.4
"""Share of the schedules in which the format ``pages`` takes part."""
_FIRST: Final = "w0"
_PREFIX: Final = "temaki-simulation-"
Event = tuple[float, str, tuple[Any, ...]]


class _Director:
    """The host of the task that brings a schedule to its end. It is no process."""

    dead = False
    frozen_until = 0.0

    def __init__(self) -> None:
        self.generations: list[Any] = []


class World:
    """One schedule, from its seed to its verdict. Use :func:`run`.

    Args:
        choices: The random choices of the schedule.
        home: Folder for all working copies.

    Attributes:
        history: The operations of all clients.
        events: All events, for people.
    """

    def __init__(self, choices: Choices, home: Path) -> None:
        self.choices, self.home = choices, home
        self.scheduler = Scheduler(choices, self._chaos)
        self.history: list[Operation] = []
        self.events: list[Event] = []
        self.final: Value = ()
        self._folders = 0
        self._times: list[float] = []
        self._ticks: list[int] = []
        self.processes: list[Process] = []
        self.wires: list[Wire] = []
        self._living: dict[int, Process] = {}
        self.programs: dict[int, list[Program | Caretaker]] = {}
        self._incarnations: dict[int, int] = {}
        self._directing: list[Task] = []
        self._draw()

    def _draw(self) -> None:
        choices = self.choices
        trouble = choices.pick((0.0, 0.3, 1.0, 1.0, 2.0))
        self.switch_rate = choices.pick((0.05, 0.3, 0.6))
        self.fault_rate = 0.03 * trouble
        self.hostile_rate = 0.04 * trouble * choices.below(2)
        self.crash_rate = 0.01 * trouble
        self.odds: tuple[float, ...] = (
            self.switch_rate,
            0.004 * trouble,  # crash
            0.004 * trouble,  # freeze
            0.004 * trouble,  # the wall clock is set
            0.02 * trouble,  # late requests land
        )
        self.timeout = choices.pick((60.0, 1.0, 0.05))
        self.in_pages = PAGES > 0 and choices.chance(PAGES)
        self.format = "pages" if self.in_pages and not choices.chance(0.2) else "file"
        self.budget = choices.pick(limits.BUDGETS) if self.in_pages else 0
        self.bucket: MemoryStore = MemoryStore("simulation", clock=ManualClock())
        self.ledger: Ledger | None = None
        if self.in_pages:
            self.bucket = bucket = Bucket(self.scheduler, grace=limits.GRACE)
            self.ledger = bucket.ledger
        if not choices.chance(0.15):
            self._store_first()
        for number in range(choices.pick((1, 2, 2, 2, 3))):
            strategy = choices.pick(STRATEGIES)
            others = [other for other in STRATEGIES if other[0] != "lease-locked"]
            self.programs[number] = [Program(self, number, 0, strategy)]
            for thread in range(1, 1 + choices.pick((0, 0, 1, 1, 2))):
                own = choices.pick(others) if choices.chance(0.3) else strategy
                self.programs[number].append(Program(self, number, thread, own))
        if self.in_pages:
            self._employ(len(self.programs))

    def _employ(self, number: int) -> None:
        assert isinstance(self.bucket, Bucket)
        choices = self.choices
        self.programs[number] = [
            Caretaker(
                self,
                self.bucket,
                number,
                commands=choices.pick((1, 2, 3, 5)),
                erases=choices.chance(0.25),
                meddles=choices.chance(0.3),
            )
        ]

    def _store_first(self) -> None:
        remote = Remote(self.bucket, KEY, url="memory://simulation", clock=ManualClock(), timeout=1.0)
        path = self.home / "first.sqlite"
        path.write_bytes(_first_version(ballast=self.in_pages))
        names = random.Random(1)  # noqa: S311 - repeatable, on purpose
        with mock.patch.object(os, "urandom", names.randbytes):
            publish_file(remote, path, None, by_number(NAMES[self.format]), "the-first-commit", 1)
        tick = self.scheduler.tick()
        self.history.append(
            Operation(_FIRST, "setup", tick, self.scheduler.tick(), Outcome.OK, ((),), writes=True, fresh_from=None)
        )

    # -- running --------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Run the schedule to its end, and judge its history.

        Raises:
            Violation: A promise was broken.
        """
        self._directing.clear()
        for number in self.programs:
            self._start(number, self.next_folder())
        self.scheduler.spawn(_Director(), "director", self._direct)
        try:
            self.scheduler.run()
        finally:
            for process in self.processes:
                process.bury()
        ledger = self.ledger
        if ledger is not None:
            ledger.judge(self.history)
            if ledger.is_erased:
                return
        broken = anomalies(self.history, self.final)
        if broken:
            raise Violation("; ".join(str(anomaly) for anomaly in broken))

    def _start(self, number: int, folder: Path, delay: float = 0.0) -> None:
        incarnation = self._incarnations.get(number, -1) + 1
        self._incarnations[number] = incarnation
        process = Process(self, number, incarnation, folder)
        self._living[number] = process
        self.processes.append(process)
        self.wires.append(process.wire)
        for program in self.programs.get(number, ()):
            if not program.done:
                self._spawn(process, program, delay)

    def _spawn(self, process: Process, program: Program | Caretaker, delay: float) -> None:
        task = process.spawn("abc"[program.thread], lambda: program.run(process))
        task.wake_at = self.scheduler.now + delay

    def _direct(self) -> None:
        programs = [program for programs in self.programs.values() for program in programs]
        self._await(lambda: all(program.done for program in programs))
        self._calm_down()
        tasks = []
        for number, process in sorted(self._living.items()):
            program = self.programs[number][0]
            tasks.append(process.spawn("last", lambda program=program, process=process: program.finish(process)))  # type: ignore[misc]
        self._await(lambda: all(task.finished for task in tasks))
        self.final = self._stored()

    def _stored(self) -> Value:
        """Read the final value from the bucket with plain SQLite."""
        try:
            download = self.bucket.get(KEY)
        except NotFoundError:
            return ()
        assert download is not None
        data = download.read(download.length)
        return value_of(materialised(data, self.bucket.object) if isinstance(self.bucket, Bucket) else data)

    def check_file(self, connection: sqlite3.Connection) -> None:
        """Make sure that what a connection reads is a version that was stored, all of it.

        Raises:
            Violation: It is none.
        """
        if self.ledger is not None and not self.ledger.has_seen(connection.serialize()):
            raise Violation("a session reads a database that was never stored")

    def _await(self, condition: Any) -> None:
        task = running()
        assert task is not None
        while not condition():
            task.wait(self._directing, 0.5)

    def wake_director(self) -> None:
        """Wake the director, because a program is done."""
        for task in self._directing:
            task.wake_at = self.scheduler.now

    def _calm_down(self) -> None:
        """End all faults. Late requests land now."""
        self.odds = (self.switch_rate,)
        self.fault_rate = self.hostile_rate = self.crash_rate = 0.0
        self.log("", "no more trouble")
        self._land()

    # -- trouble --------------------------------------------------------------------------------------------------

    def _chaos(self, task: Task) -> None:
        what = self.choices.one_of(self.odds)
        if not what:
            return
        if what == 1:
            task.hand_on()
            return
        process = task.host
        if what == 5:
            self._land()
        elif isinstance(process, Process):
            (self.crash, self._freeze, self._set_clock)[what - 2](process)

    def crash(self, process: Process) -> None:
        """End a process, and start its next incarnation."""
        politely = self.choices.chance(0.4)
        self.log(process.name, "exits" if politely else "is killed")
        folder = process.kill(politely=politely)
        if self.choices.chance(0.3):
            folder = self.next_folder()
        self._start(process.number, folder, self.choices.pick((0.0, 0.0, 0.5, 5.0)))

    def _freeze(self, process: Process) -> None:
        seconds = self.choices.pick((0.3, 1.1, 3.0)) * _TTL
        self.log(process.name, f"is frozen for {seconds:g} s")
        process.frozen_until = self.scheduler.now + seconds
        if process.view.sleeps:
            process.view.slept += seconds
        task = running()
        assert task is not None
        task.hand_on()

    def _set_clock(self, process: Process) -> None:
        if not process.view.sleeps:  # with both clocks wrong at once, no code could measure time
            by = self.choices.pick((1.0, -1.0, 3600.0, -3600.0))
            process.view.skew += by
            self.log(process.name, f"has its wall clock set by {by:+g} s")

    def _land(self) -> None:
        for wire in self.wires:
            if wire.late:
                self.log("", "late requests land:", wire.land())

    # -- for the rest of the simulation ---------------------------------------------------------------------------

    def next_folder(self) -> Path:
        """Choose the name of a new cache folder."""
        self._folders += 1
        return self.home / str(self._folders)

    def log(self, who: str, *what: Any) -> None:
        """Record an event."""
        self.events.append((self.scheduler.now, who, what))

    def tick_before(self, seconds: float) -> int:
        """Get the number of a new event; or, with ``seconds``, of the last event before that time."""
        now, tick = self.scheduler.now, self.scheduler.tick()
        self._times.append(now)
        self._ticks.append(tick)
        if not seconds:
            return tick
        at = bisect_right(self._times, now - seconds - 1e-6)
        return self._ticks[at - 1] if at else 0

    def lines(self) -> list[str]:
        """List the events as text, for people, and for comparing two runs."""
        return [f"{when:8.3f} {who:4} {' '.join(_shown(fact) for fact in facts)}" for when, who, facts in self.events]


def _shown(fact: Any) -> str:
    if isinstance(fact, Operation):
        ended = f"until {fact.ended}" if fact.ended is not None else "died"
        reads = " then ".join(f"[{' '.join(value)}]" for value in fact.reads) or "nothing"
        return f"{fact.name}: from {fact.began} {ended}, {fact.outcome.name}, {'writes, ' * fact.writes}read {reads}"
    if isinstance(fact, Exception):
        return type(fact).__name__
    return str(fact)


@cache
def _first_version(*, ballast: bool) -> bytes:
    """Make the smallest database in which clients can write, as version 1. Small pages are fast to check and send.

    Args:
        ballast: Whether there are some pages more, so that a commit changes a small part of them.
    """
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute("PRAGMA page_size = 512")
        for statement in workload.SCHEMA:
            connection.execute(statement)
        connection.execute("INSERT INTO history (name) VALUES (?)", (_FIRST,))
        if ballast:
            rng = random.Random(0)  # noqa: S311 - repeatable, on purpose
            connection.execute(workload.BALLAST)
            for number in range(workload.PIECES):
                connection.execute("INSERT INTO ballast VALUES (?, ?)", (number, rng.randbytes(workload.PIECE)))
        data = bytearray(connection.serialize())
    data[24:28] = data[92:96] = b"\0\0\0\1"
    return bytes(data)


@contextmanager
def _home() -> Iterator[Path]:
    """Make a temporary folder, in memory if the machine allows that."""
    memory = Path("/dev/shm")  # noqa: S108 - the folder gets an unpredictable name
    where = memory if memory.is_dir() else Path(tempfile.gettempdir())
    _sweep(where)
    path = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=where))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@cache
def _sweep(where: Path) -> None:
    """Remove the folders that killed runs have left behind. Runs once per process."""
    for left in where.glob(f"{_PREFIX}*"):
        with suppress(ValueError):
            pid = int(left.name.removeprefix(_PREFIX).partition("-")[0])
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                shutil.rmtree(left, ignore_errors=True)
            except PermissionError:
                continue


def run(seed: int = 0, replay: Sequence[int] | None = None) -> tuple[World, Violation | None]:
    """Run one schedule.

    Args:
        seed: Seed of the whole schedule.
        replay: Choices to use instead of the seed's.

    Returns:
        The schedule, and the promise that it broke; None if it broke none.
    """
    with substitutes.installed(), _home() as home:
        world = World(Choices(seed, replay), home)
        try:
            with limits.small(world.budget) if world.in_pages else nullcontext():
                world.run()
        except Violation as violation:
            return world, violation
        except (Exception, Crash) as error:  # noqa: BLE001 - any other error is undocumented, so it is a violation
            undocumented = Violation(f"{type(error).__name__}: {error}")
            undocumented.__cause__ = error
            return world, undocumented
        return world, None
