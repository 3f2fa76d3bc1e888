"""A substitute for the module ``threading``, so that the scheduler sees which task waits for which."""

from __future__ import annotations

import threading as real
from collections.abc import Callable
from typing import Any

from temaki.testing.simulation.scheduler import Task, running

_LOOK = 0.01  # seconds


class SimulatedLock:
    """A substitute for ``threading.Lock``."""

    _reentrant = False

    def __init__(self) -> None:
        self._owner: object = None
        self._count = 0
        self._waiters: list[Task] = []

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:  # noqa: D102
        task = running()
        if task is None:
            me: object = real.get_ident()  # before or after the schedule, when no other task runs
        else:
            me = task
            if not (self._reentrant and self._owner is me):
                task.step()
                if not self._await(task, blocking, timeout):
                    return False
        self._owner = me
        self._count += 1
        return True

    def _await(self, task: Task, blocking: bool, timeout: float) -> bool:
        deadline = task.scheduler.now + timeout if timeout >= 0 else None
        while self._owner is not None:
            left = None if deadline is None else deadline - task.scheduler.now
            if not blocking or (left is not None and left <= 0):
                return False
            task.wait(self._waiters, left)
        return True

    def release(self) -> None:  # noqa: D102
        if self._reentrant and self._owner is not (running() or self._owner):
            message = "cannot release un-acquired lock"
            raise RuntimeError(message)
        self._count -= 1
        if not self._count:
            self._owner = None
            for task in self._waiters:
                task.wake_at = task.scheduler.now

    def locked(self) -> bool:  # noqa: D102
        return self._owner is not None

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class SimulatedRLock(SimulatedLock):
    """A substitute for ``threading.RLock``."""

    _reentrant = True

    def _is_owned(self) -> bool:
        return self._owner is not None and self._owner == (running() or real.get_ident())


class SimulatedCondition:
    """A substitute for ``threading.Condition``."""

    def __init__(self, lock: SimulatedLock | None = None) -> None:
        self._lock = lock or SimulatedRLock()
        self.acquire, self.release = self._lock.acquire, self._lock.release
        self._waiters: list[Task] = []

    def __enter__(self) -> bool:
        return self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def wait(self, timeout: float | None = None) -> bool:  # noqa: D102
        task = running()
        assert task is not None, "nobody would come"
        lock = self._lock
        owner, count = lock._owner, lock._count  # noqa: SLF001 - one with the lock
        lock._count = 1  # noqa: SLF001
        lock.release()
        before = task.scheduler.now
        try:
            task.wait(self._waiters, timeout)
        finally:
            if not task.unwinding:
                lock._await(task, True, -1)  # noqa: SLF001
            lock._owner, lock._count = owner, count  # noqa: SLF001
        return timeout is None or task.scheduler.now < before + timeout

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:  # noqa: D102
        task = running()
        assert task is not None, "nobody would come"
        deadline = None if timeout is None else task.scheduler.now + timeout
        result = predicate()
        while not result:
            left = None if deadline is None else deadline - task.scheduler.now
            if left is not None and left <= 0:
                break
            self.wait(left)
            result = predicate()
        return result

    def notify(self, n: int = 1) -> None:  # noqa: D102
        for task in self._waiters[:n]:
            self._waiters.remove(task)
            task.wake_at = task.scheduler.now

    def notify_all(self) -> None:  # noqa: D102
        self.notify(len(self._waiters))


class SimulatedThread:
    """A substitute for ``threading.Thread``. A thread belongs to the process that starts it."""

    def __init__(
        self, *, target: Callable[..., object], name: str = "thread", args: tuple[Any, ...] = (), daemon: bool = False
    ) -> None:
        self._target, self._args, self.name, self.daemon = target, args, name, daemon
        self._task: Task | None = None

    def start(self) -> None:  # noqa: D102
        starter = running()
        assert starter is not None, "a thread of no process"
        self._task = starter.scheduler.spawn(starter.host, self.name, self._run, daemon=self.daemon)
        self._task.handle = self

    def _run(self) -> None:
        self._target(*self._args)

    def join(self, timeout: float | None = None) -> None:  # noqa: D102
        task = running()
        if task is None:
            return
        deadline = float("inf") if timeout is None else task.scheduler.now + timeout
        while self.is_alive() and task.scheduler.now < deadline:
            task.pause(_LOOK)

    def is_alive(self) -> bool:  # noqa: D102
        return self._task is not None and not self._task.finished


class SimulatedThreading:
    """A substitute for the module ``threading``."""

    Lock, RLock, Condition, Thread = SimulatedLock, SimulatedRLock, SimulatedCondition, SimulatedThread

    @staticmethod
    def current_thread() -> object:
        """Get the handle of the running task."""
        task = running()
        return real.current_thread() if task is None else task.handle

    def __getattr__(self, name: str) -> Any:
        return getattr(real, name)
