"""A clock that stands still until a test moves it."""

from __future__ import annotations

import threading
import time as real_time


class ManualClock:
    """A :class:`temaki.clock.Clock` under a test's control. Safe to share between threads.

    The two readings start far apart, so that tests find code that mixes them up.

    Args:
        start: First reading of :meth:`time`, in seconds since the epoch.

    Attributes:
        slept: Arguments of all calls of :meth:`sleep`, in seconds, in order.
    """

    def __init__(self, start: float = 1_750_000_000.0) -> None:
        self._wall = float(start)
        self._monotonic = 1_000.0
        self._lock = threading.Lock()
        self.slept: list[float] = []

    def monotonic(self) -> float:
        """Seconds that move only with :meth:`advance` and :meth:`sleep`."""
        with self._lock:
            return self._monotonic

    def time(self) -> float:
        """Seconds since the epoch. :meth:`skew` moves them too, in both directions."""
        with self._lock:
            return self._wall

    def sleep(self, seconds: float) -> None:
        """Advance by ``seconds`` and return at once."""
        self.advance(seconds)
        with self._lock:
            self.slept.append(seconds)
        # Without this, a loop that sleeps until another thread is done would keep that thread from running.
        real_time.sleep(0)

    def advance(self, seconds: float) -> None:
        """Move both readings forward by ``seconds``.

        Raises:
            ValueError: ``seconds`` is negative.
        """
        if seconds < 0:
            message = f"advance() cannot move time back: {seconds}. Use skew() to set the wall clock."
            raise ValueError(message)
        with self._lock:
            self._wall += seconds
            self._monotonic += seconds

    def skew(self, seconds: float) -> None:
        """Set the wall clock forward or back by ``seconds``, and leave the monotonic clock.

        Forward, this is also what a machine sees after a suspend of that length.
        """
        with self._lock:
            self._wall += seconds
