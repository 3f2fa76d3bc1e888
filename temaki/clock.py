"""Time as a value that is passed in, so that no test has to wait for it."""

from __future__ import annotations

import time as _time
from typing import Protocol


class Clock(Protocol):
    """What temaki asks of time. All values are seconds."""

    def monotonic(self) -> float:
        """Seconds that never go back; stands still while some machines are suspended."""

    def time(self) -> float:
        """Seconds since the epoch; goes on while a machine is suspended, and jumps when it is set."""

    def sleep(self, seconds: float) -> None:
        """Let ``seconds`` pass."""


class SystemClock:
    """The machine's own clocks."""

    monotonic = staticmethod(_time.monotonic)
    time = staticmethod(_time.time)
    sleep = staticmethod(_time.sleep)
