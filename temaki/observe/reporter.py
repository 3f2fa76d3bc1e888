"""What happens to a database's working copy and its object: counted, and told to whoever listens.

The engine, the puller and the lease report here. Nobody has to listen: then a report is an addition under a lock, and
the classes of :mod:`temaki.events` are not even made, which takes 5 ms of a cold start.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Self

from temaki.errors import CommitUnknownError, ConflictError
from temaki.process.fork import ProcessLock, reset_in_child

if TYPE_CHECKING:
    from collections.abc import Callable

    from temaki.events import Event, Operation
    from temaki.version import Version

    Callback = Callable[[Event], object]

_log = logging.getLogger(__name__)

_LEVELS = {"CommitUnknown": logging.WARNING, "LeaseLost": logging.INFO, "LeaseTimedOut": logging.INFO}
"""Everything else is the normal course of things, an error that somebody gets to see, or a conflict that is retried."""


class Reporter:
    """Counts what happens to one database in this process, and tells who listens.

    Args:
        url: The database's URL.

    Attributes:
        url: As above.
        last: The version that was pulled or published last.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._listeners: tuple[Callback, ...] = ()
        self._lock = ProcessLock()
        self.reset_after_fork()
        reset_in_child(self)

    def reset_after_fork(self) -> None:
        """In a forked child: what the parent did was not done here; who listens goes on listening."""
        self.last: Version | None = None
        self._counts: dict[str, int] = {}
        self._seconds: dict[str, float] = {}

    def listen(self, callback: Callback) -> Callable[[], None]:
        """Have ``callback`` called with each event, from now on; gives a function that ends it."""
        with self._lock():
            self._listeners = (*self._listeners, callback)

        def stop() -> None:
            with self._lock():
                self._listeners = tuple(one for one in self._listeners if one is not callback)

        return stop

    # -- one for each event: see temaki.events ----------------------------------------------------------------------

    def pulled(self, version: Version, seconds: float) -> None:
        """The working copy was brought to this version."""
        self.last = version
        self._tell("Pulled", version.sequence, version.commit, version.size, seconds)

    def went_back(self, version: Version, known: Version) -> None:
        """The version that was pulled does not have the one in it that was known before."""
        _log.warning(
            "%s went back: version %d (%s) is stored now, and version %d (%s), which this process knew, is not in its "
            "history. It is used from now on; commits since were lost from it. If nobody put an old copy there on "
            "purpose, restore the newer version of the object.",
            self.url,
            version.sequence,
            version.commit,
            known.sequence,
            known.commit,
        )
        self._tell("WentBack", version.sequence, version.commit, known.sequence, known.commit)

    def unchanged(self, seconds: float) -> None:
        """The store was asked, and the working copy is current."""
        self._tell("Unchanged", seconds)

    def published(self, version: Version, pages: int, seconds: float, *, superseded: bool) -> None:
        """A commit was stored as this version."""
        self.last = version
        self._tell("Published", version.sequence, version.commit, version.size, pages, seconds, superseded)

    def failed(self, operation: Operation, error: Exception, seconds: float) -> None:
        """An operation was refused, is in doubt, or failed."""
        if isinstance(error, ConflictError):
            self._tell("Conflict", operation, seconds)
        elif isinstance(error, CommitUnknownError):
            self._tell("CommitUnknown", error.commit_id, seconds)
        else:
            self._tell("Failed", operation, type(error).__name__, seconds)

    def lease_acquired(self, generation: int, seconds: float) -> None:
        """This process has the lease now."""
        self._tell("LeaseAcquired", generation, seconds)

    def lease_released(self, generation: int) -> None:
        """This process has given it back."""
        self._tell("LeaseReleased", generation)

    def lease_lost(self, generation: int) -> None:
        """Another process has taken it over."""
        self._tell("LeaseLost", generation)

    def lease_timed_out(self, seconds: float) -> None:
        """Others held it for too long."""
        self._tell("LeaseTimedOut", seconds)

    def _tell(self, name: str, *facts: object) -> None:
        """Count an event; tell it, if anybody listens. Whatever a callback raises is logged, and harms nobody."""
        self.count(name)
        level = _LEVELS.get(name, logging.DEBUG)
        is_logged = _log.isEnabledFor(level)
        if not is_logged and not self._listeners:
            return
        from temaki import events

        event: Event = getattr(events, name)(self.url, *facts)
        if is_logged:
            _log.log(level, "%s", event)
        for callback in self._listeners:
            try:
                callback(event)
            except Exception:  # noqa: BLE001 - it is somebody else's code, in the middle of a session
                _log.exception("%s: a callback failed on %s", self.url, name)

    # -- counting ----------------------------------------------------------------------------------------------------

    def count(self, name: str) -> None:
        """Count something, event or not."""
        with self._lock():
            self._counts[name] = self._counts.get(name, 0) + 1

    def add_seconds(self, name: str, seconds: float) -> None:
        """Add to the time that was spent on something."""
        with self._lock():
            self._seconds[name] = self._seconds.get(name, 0.0) + seconds

    def counts(self) -> tuple[dict[str, int], dict[str, float]]:
        """Counts and seconds so far, by name."""
        with self._lock():
            return dict(self._counts), dict(self._seconds)


class Watch:
    """The time of one operation, and how it failed if it did. A context manager; it lets every error through.

    Args:
        reporter: Is told.
        operation: Which one.
        monotonic: Seconds that never go back.

    Attributes:
        seconds: Since it began; once it has ended, that it took.
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
