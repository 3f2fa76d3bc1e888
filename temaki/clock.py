"""Time as a value that is passed in, so that tests never wait."""

from __future__ import annotations

import time as _time
from typing import NamedTuple, Protocol


class Clock(Protocol):
    """The clocks that temaki uses. All values are seconds."""

    def monotonic(self) -> float:
        """Seconds that never go back. On some machines they stand still during a suspend."""

    def time(self) -> float:
        """Seconds since the epoch. They go on during a suspend, and jump when somebody sets the clock."""

    def sleep(self, seconds: float) -> None:
        """Wait for ``seconds``."""


class Moment(NamedTuple):
    """A point in time by both readings of one clock, so that neither a suspend nor a set clock hides an age.

    Attributes:
        monotonic: Reading of ``clock.monotonic()``, in seconds.
        time: Reading of ``clock.time()``, in seconds.
    """

    monotonic: float
    time: float

    @classmethod
    def now(cls, clock: Clock) -> Moment:
        """The present moment by ``clock``."""
        return cls(clock.monotonic(), clock.time())

    def age(self, clock: Clock) -> float:
        """Seconds since this moment, by the reading that counts more.

        The monotonic reading may stand still while the machine is suspended. The wall clock may be set back.
        """
        return max(now - then for now, then in zip(Moment.now(clock), self, strict=True))


class SystemClock:
    """The machine's own clocks."""

    monotonic = staticmethod(_time.monotonic)
    time = staticmethod(_time.time)
    sleep = staticmethod(_time.sleep)
