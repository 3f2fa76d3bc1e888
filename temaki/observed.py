"""The clock and the lease as they are used on behalf of one database, reported as they are used."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from temaki.clock import Clock
from temaki.errors import LeaseLostError, LeaseTimeoutError
from temaki.events import LeaseAcquired, LeaseLost, LeaseTimedOut, Reporter
from temaki.shared_lease import SharedLease

if TYPE_CHECKING:
    from temaki.lease import Lease


class CountedClock:
    """A clock that counts how often it is waited by: each wait comes before another attempt.

    Args:
        clock: The clock.
        reporter: Counts.
        name: What a wait counts as.
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


class ObservedLeases(SharedLease):
    """The lease of a process, reported as it comes and goes.

    Args:
        reporter: Is told.
        options: As for :class:`SharedLease`.
    """

    def __init__(self, reporter: Reporter, clock: Clock, **options: Any) -> None:
        super().__init__(**options, clock=CountedClock(clock, reporter, "wait"))
        self._reporter, self._monotonic = reporter, clock.monotonic
        self._observed: _ObservedLease | None = None

    def get(self, **options: float) -> Lease:
        """See :meth:`SharedLease.get`."""
        lease = super().get(**options)
        if self._observed is None or self._observed.lease is not lease:
            self._observed = _ObservedLease(lease, self._reporter, self._monotonic)
        return cast("Lease", self._observed)


class _ObservedLease:
    """A lease whose coming and going is told; all else is the lease's own."""

    def __init__(self, lease: Lease, reporter: Reporter, monotonic: Callable[[], float]) -> None:
        self.lease, self._reporter, self._monotonic = lease, reporter, monotonic
        self._told = 0  # the generation whose acquisition has been told

    def __getattr__(self, name: str) -> Any:
        return getattr(self.lease, name)

    def acquire(self) -> int:
        begin = self._monotonic()
        try:
            generation = self.lease.acquire()
        except LeaseTimeoutError:
            self._reporter.report(LeaseTimedOut(self.lease.url, self._monotonic() - begin))
            raise
        seconds = self._monotonic() - begin
        self._reporter.add_seconds("lease", seconds)
        if generation != self._told:  # else this process had it already
            self._told = generation
            self._reporter.report(LeaseAcquired(self.lease.url, generation, seconds))
        return generation

    def check(self, generation: int) -> None:
        self._telling(generation, self.lease.check)

    def renew(self, generation: int) -> None:
        self._telling(generation, self.lease.renew)

    def _telling(self, generation: int, call: Callable[[int], None]) -> None:
        try:
            call(generation)
        except LeaseLostError:
            self._reporter.report(LeaseLost(self.lease.url, generation))
            raise
