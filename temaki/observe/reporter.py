"""Counts what happens to a database's working copy and its object, and tells the listeners.

The engine, the puller and the lease report here. Without listeners a report is an addition under a lock. Then the
classes of :mod:`temaki.events` are not even imported, which would take 5 ms of a cold start.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Self

from temaki.errors import CommitUnknownError, ConflictError
from temaki.observe.listeners import Listeners
from temaki.process.fork import ProcessLock, reset_in_child

if TYPE_CHECKING:
    from collections.abc import Callable

    from temaki.events import Event, Operation
    from temaki.version import Version

_log = logging.getLogger(__name__)

_LEVELS = {"CommitUnknown": logging.WARNING, "LeaseLost": logging.INFO, "LeaseTimedOut": logging.INFO}
"""Log levels by event. Other events are routine, errors that the caller sees, or conflicts that are retried: DEBUG."""


class Reporter:
    """Counts what happens to one database in this process, and tells the listeners.

    Args:
        url: The database's URL.

    Attributes:
        url: URL of the database.
        last: The version that was last pulled or published; None if there was none.
        listen: Registers a callback for each event: see :meth:`temaki.observe.listeners.Listeners.listen`.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._listeners: Listeners[Event] = Listeners(_log)
        self.listen = self._listeners.listen
        self._lock = ProcessLock()
        self.reset_after_fork()
        reset_in_child(self)

    def reset_after_fork(self) -> None:
        """Reset the counters in a forked child: this process did not do what the parent did. The listeners stay."""
        self.last: Version | None = None
        self._counts: dict[str, int] = {}
        self._seconds: dict[str, float] = {}

    # -- one method for each event: see temaki.events ---------------------------------------------------------------

    def pulled(self, version: Version, seconds: float, *, received: int, is_catch_up: bool) -> None:
        """Report that the working copy was brought to this version."""
        self.last = version
        self.count("received", received)
        self.count("catch-up" if is_catch_up else "full pull")
        self._tell("Pulled", version.sequence, version.commit, version.size, seconds, received, is_catch_up)

    def went_back(self, version: Version, known: Version) -> None:
        """Report that the version that was pulled does not contain the one that was known before."""
        _log.warning(
            "%s went back: version %d (%s) is stored now, and version %d (%s), which this process knew, is not in its "
            "history. This process uses the stored version from now on; the commits that it lacks are lost. If nobody "
            "put an old copy there on purpose, restore the newer version of the object.",
            self.url,
            version.sequence,
            version.commit,
            known.sequence,
            known.commit,
        )
        self._tell("WentBack", version.sequence, version.commit, known.sequence, known.commit)

    def unchanged(self, seconds: float) -> None:
        """Report that the store confirmed the working copy as current."""
        self._tell("Unchanged", seconds)

    def published(
        self,
        version: Version,
        pages: int,
        seconds: float,
        *,
        superseded: bool,
        sent: int,
        changed: int,
        objects: int,
    ) -> None:
        """Report that a commit was stored as this version; see :class:`temaki.events.Published`."""
        self.last = version
        self.count("sent", sent)
        self.count("changed", changed)
        self._tell(
            "Published",
            version.sequence,
            version.commit,
            sent,
            pages,
            seconds,
            superseded,
            changed,
            objects,
            version.size,
        )

    def failed(self, operation: Operation, error: Exception, seconds: float) -> None:
        """Report that an operation was refused, is in doubt, or failed."""
        if isinstance(error, ConflictError):
            self._tell("Conflict", operation, seconds)
        elif isinstance(error, CommitUnknownError):
            self._tell("CommitUnknown", error.commit_id, seconds)
        else:
            self._tell("Failed", operation, type(error).__name__, seconds)

    def compacted(self, sent: int, freed: int, before: int, after: int, seconds: float) -> None:
        """Report that the stored version was compacted."""
        self.add_seconds("compact", seconds)
        self._tell("Compacted", sent, freed, before, after, seconds)

    def lease_acquired(self, generation: int, seconds: float) -> None:
        """Report that this process has acquired the lease."""
        self._tell("LeaseAcquired", generation, seconds)

    def lease_released(self, generation: int) -> None:
        """Report that this process has released the lease."""
        self._tell("LeaseReleased", generation)

    def lease_lost(self, generation: int) -> None:
        """Report that this process has lost the lease."""
        self._tell("LeaseLost", generation)

    def lease_timed_out(self, seconds: float) -> None:
        """Report that other processes held the lease for too long."""
        self._tell("LeaseTimedOut", seconds)

    def _tell(self, name: str, *facts: object) -> None:
        """Count an event, log it, and call the listeners."""
        self.count(name)
        level = _LEVELS.get(name, logging.DEBUG)
        is_logged = _log.isEnabledFor(level)
        if not is_logged and not self._listeners:
            return
        from temaki import events

        event: Event = getattr(events, name)(self.url, *facts)
        if is_logged:
            _log.log(level, "%s", event)
        self._listeners.call(event, "%s: a callback failed on %s", self.url, name)

    # -- counting ----------------------------------------------------------------------------------------------------

    def count(self, name: str, number: int = 1) -> None:
        """Add to the counter of this name."""
        with self._lock():
            self._counts[name] = self._counts.get(name, 0) + number

    def add_seconds(self, name: str, seconds: float) -> None:
        """Add to the time that was spent under this name."""
        with self._lock():
            self._seconds[name] = self._seconds.get(name, 0.0) + seconds

    def counts(self) -> tuple[dict[str, int], dict[str, float]]:
        """Get the counts and the seconds so far, by name."""
        with self._lock():
            return dict(self._counts), dict(self._seconds)


class Watch:
    """Measures one operation, and reports its failure. A context manager; it lets every error through.

    Args:
        reporter: Gets the report.
        operation: Name of the operation.
        monotonic: Clock: gives seconds that never go back.

    Attributes:
        seconds: Duration of the operation in seconds, once it has ended; 0 before.
    """

    __slots__ = ("_begin", "_monotonic", "_operation", "_reporter", "seconds")

    def __init__(self, reporter: Reporter, operation: Operation, monotonic: Callable[[], float]) -> None:
        self._reporter, self._operation, self._monotonic = reporter, operation, monotonic
        self.seconds = 0.0

    def __enter__(self) -> Self:
        self._begin = self._monotonic()
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        self.seconds = self._monotonic() - self._begin
        self._reporter.add_seconds(self._operation, self.seconds)
        if isinstance(error, Exception):
            self._reporter.failed(self._operation, error, self.seconds)
