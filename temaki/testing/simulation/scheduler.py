"""Runs one thread at a time, and draws which one goes on.

Each task is a thread of its own, because the library's code blocks while it waits. One task has the baton. It hands the
baton on at a **step**: at each lock, each request, each use of a clock, and between the parts of a commit and a pull.
The scheduler has its own time, which moves only when no task can run.
"""

from __future__ import annotations

import threading as real
from collections.abc import Callable
from typing import Protocol

from temaki.testing.simulation.choices import Choices

_GRAIN = 1e-4  # seconds


class Violation(AssertionError):  # noqa: N818 - what has happened, not an error of the program
    """A promise was broken."""


class Crash(BaseException):
    """The process was killed. Code that runs while it unwinds changes nothing that others can see."""


class Host(Protocol):
    """A process, as the scheduler sees it."""

    dead: bool
    frozen_until: float


class Task:
    """One thread of a process.

    Attributes:
        wake_at: Time at which it can go on, in seconds of the schedule; None while it waits for another task.
        unwinding: True if its process is dead and the task has noticed.
    """

    def __init__(self, scheduler: Scheduler, host: Host, name: str, run: Callable[[], None], *, daemon: bool) -> None:
        self.scheduler, self.host, self.name, self.daemon = scheduler, host, name, daemon
        self._run = run
        self.wake_at: float | None = scheduler.now
        self.finished = self.unwinding = False
        self.handle: object = None
        self.gate = real.Lock()
        self.gate.acquire()
        self.thread = real.Thread(target=self._main, name=name, daemon=True)
        self.thread.start()

    def _main(self) -> None:
        self.gate.acquire()
        try:
            self._after_waiting()
            self._run()
        except Crash:
            self.unwinding = True
        except BaseException as error:  # noqa: BLE001 - handed to the caller of Scheduler.run
            if not self.unwinding:
                self.scheduler.fail(error)
        self.finished = True
        self.scheduler.leave()

    # -- where others may come in between -------------------------------------------------------------------------

    def step(self) -> None:
        """Let another task go on, or a fault happen."""
        if not self.unwinding:
            self.scheduler.chaos(self)
            if self.host.dead:
                self._after_waiting()

    def pause(self, seconds: float) -> None:
        """Let time pass for this task, while others run."""
        if self.unwinding:
            raise Crash
        self.wake_at = self.scheduler.now + seconds
        self.hand_on()
        self.step()

    def wait(self, waiters: list[Task], timeout: float | None) -> None:
        """Wait until another task takes this one off ``waiters``, or for ``timeout`` seconds."""
        if self.unwinding:
            raise Crash  # no other task will wake it
        # Timers have a smallest step: a remainder that is too small to move the clock would never be over.
        self.wake_at = None if timeout is None else self.scheduler.now + max(timeout, _GRAIN)
        waiters.append(self)
        self.hand_on()
        if self in waiters:
            waiters.remove(self)

    def hand_on(self) -> None:
        """Let the scheduler choose who goes on; return when it is this task's turn."""
        chosen = self.scheduler.next(self)
        if chosen is not self:
            self.scheduler.running = chosen
            chosen.gate.release()
            self.gate.acquire()
        self._after_waiting()

    def _after_waiting(self) -> None:
        self.wake_at = self.scheduler.now
        if self.host.dead or self.scheduler.over:
            self.unwinding = True
            raise Crash


class Scheduler:
    """Runs tasks, one at a time.

    Args:
        choices: Draws which task goes on.
        chaos: Called at each step of a task, before it goes on. May call :meth:`Task.hand_on`.

    Attributes:
        now: Time since the schedule began, in seconds.
        ticks: Number of events so far: a clock for real-time order that only the test sees.
    """

    def __init__(self, choices: Choices, chaos: Callable[[Task], None]) -> None:
        self.choices, self.chaos = choices, chaos
        self.now = 0.0
        self.ticks = 0
        self.tasks: list[Task] = []
        self.running: Task | None = None
        self.over = False
        self.failure: BaseException | None = None
        self._done = real.Lock()
        self._done.acquire()

    def tick(self) -> int:
        """Count an event, and return its number."""
        self.ticks += 1
        return self.ticks

    def spawn(self, host: Host, name: str, run: Callable[[], None], *, daemon: bool = False) -> Task:
        """Make a task. It runs when it is chosen. A daemon does not keep the schedule going."""
        task = Task(self, host, name, run, daemon=daemon)
        self.tasks.append(task)
        return task

    def run(self) -> None:
        """Run all tasks to their end.

        Raises:
            BaseException: The first error of a task, or :class:`Violation` if all tasks wait for each other.
        """
        global _active  # noqa: PLW0603 - see running()
        assert _active is None, "one schedule at a time"
        _active = self
        try:
            self.leave()
            assert self._done.acquire(timeout=30), "a task does not come back: it waits for something real"
            for task in self.tasks:
                task.thread.join(30)
        finally:
            _active = None
        if self.failure is not None:
            raise self.failure

    def fail(self, error: BaseException) -> None:
        """End the schedule with an error. The first error counts."""
        self.failure = self.failure or error
        self.over = True

    def leave(self) -> None:
        """Give the baton to another task, because the task that has it is finished; or end the schedule."""
        if all(task.finished or task.daemon for task in self.tasks):
            self.over = True
        chosen = None
        if any(not task.finished for task in self.tasks):
            chosen = self.next(None)
        self.running = chosen
        if chosen is None:
            self._done.release()
        else:
            chosen.gate.release()

    def next(self, current: Task | None) -> Task:
        """Choose the task that goes on. ``current`` has the baton, and stays a candidate if it is ready."""
        for task in self.tasks:
            # Tasks of dead processes come first: for all others, their end is one step.
            if not task.finished and not task.unwinding and (self.over or task.host.dead):
                return task
        while True:
            ready, first = self._ready(current)
            if ready:
                return ready[0] if len(ready) == 1 else ready[self.choices.below(len(ready))]
            if first is None:
                waiting = ", ".join(task.name for task in self.tasks if not task.finished)
                self.fail(Violation(f"deadlock: {waiting} wait for each other"))
                return self.next(current)
            self.now = first

    def _ready(self, current: Task | None) -> tuple[list[Task], float | None]:
        """Get the tasks that can go on now, ``current`` first; and the time at which the next one can."""
        ready: list[Task] = []
        first: float | None = None
        for task in self.tasks:
            if task.finished or task.wake_at is None:
                continue
            at = max(task.wake_at, task.host.frozen_until)
            if at <= self.now:
                ready.insert(0 if task is current else len(ready), task)
            elif first is None or at < first:
                first = at
        return ready, first


_active: Scheduler | None = None


def running() -> Task | None:
    """Get the task that has the baton, if it is the calling thread; None outside of a schedule."""
    task = _active.running if _active is not None else None
    return task if task is not None and task.thread is real.current_thread() else None
