"""A clock that counts the waits before retries."""

from __future__ import annotations

from temaki.clock import Clock
from temaki.observe.reporter import Reporter


class CountedClock:
    """A wrapper around a clock that counts its sleeps. Each sleep comes before another attempt.

    Args:
        clock: The clock that is wrapped.
        reporter: Counts the sleeps, and adds up their seconds.
        name: Name under which a sleep is counted.
    """

    def __init__(self, clock: Clock, reporter: Reporter, name: str) -> None:
        self._clock, self._reporter, self._name = clock, reporter, name

    def monotonic(self) -> float:
        """See :meth:`temaki.clock.Clock.monotonic`."""
        return self._clock.monotonic()

    def time(self) -> float:
        """See :meth:`temaki.clock.Clock.time`."""
        return self._clock.time()

    def sleep(self, seconds: float) -> None:
        """See :meth:`temaki.clock.Clock.sleep`."""
        self._reporter.count(self._name)
        self._reporter.add_seconds(self._name, seconds)
        self._clock.sleep(seconds)
