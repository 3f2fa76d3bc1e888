"""A clock that stands still until a test moves it."""

from __future__ import annotations

import threading
import time as real_time


class ManualClock:
    """A :class:`temaki.clock.Clock` under a test's control. Safe to share between threads.

    The two readings start far apart, so that code which mixes them up is found out.

    Args:
        start: What :meth:`time` says at first, in seconds since the epoch.

    Attributes:
        slept: The arguments of all calls of :meth:`sleep`, in order.
    """

    def __init__(self, start: float = 1_750_000_000.0) -> None:
        self._wall = float(start)
        self._monotonic = 1_000.0
        self._lock = threading.Lock()
        self.slept: list[float] = []

    def monotonic(self) -> float:
        """Seconds that only :meth:`advance` and :meth:`sleep` move."""
        with self._lock:
            return self._monotonic

    def time(self) -> float:
        """Seconds since the epoch; :meth:`skew` moves them too, in both directions."""
        with self._lock:
            return self._wall

    def sleep(self, seconds: float) -> None:
        """Advance by ``seconds`` and return at once."""
        self.advance(seconds)
        with self._lock:
            self.slept.append(seconds)
        # A loop that waits for another thread by sleeping would otherwise keep that thread from running.
        real_time.sleep(0)

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass for both readings.

        Raises:
            ValueError: ``seconds`` is negative.
        """
        if seconds < 0:
            message = f"time does not go back: {seconds}. Use skew() to set the wall clock."
            raise ValueError(message)
        with self._lock:
            self._wall += seconds
            self._monotonic += seconds

    def skew(self, seconds: float) -> None:
        """Set the wall clock forward or back by ``seconds``, and leave the monotonic one.

        Forward, this is also what a machine sees that was suspended for so long.
        """
        with self._lock:
            self._wall += seconds
