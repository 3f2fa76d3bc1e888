"""Other threads, for tests that need one at a certain moment."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

PATIENCE = 30
"""Seconds after which a test that waits for another thread fails. No test that passes waits for so long."""


class Background(Generic[T]):
    """A call that is under way in a thread of its own."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._result: list[T] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result.append(self._call())
        except BaseException as error:
            self._error = error

    @property
    def is_running(self) -> bool:
        """Whether it has yet to return."""
        return self._thread.is_alive()

    def result(self) -> T:
        """Wait for it, and give what it returned or raise what it raised."""
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the other thread hangs"
        if self._error is not None:
            raise self._error
        return self._result[0]


def in_thread(call: Callable[[], T]) -> T:
    """Run it in another thread, to its end."""
    return Background(call).result()


def until(condition: Callable[[], object]) -> None:
    """Let other threads run until the condition holds, which it does as soon as they have come so far."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "what the test waits for does not come"
        os.sched_yield()
