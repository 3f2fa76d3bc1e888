"""What happens to a database's working copy and its object, told to whoever listens, and counted.

The engine and the puller report here. Nobody has to listen: then an event is an addition under a lock.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Self

from temaki.errors import CommitUnknownError, ConflictError
from temaki.fork import reset_in_child

_log = logging.getLogger(__name__)

Operation = Literal["pull", "begin", "commit"]


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events.

    Attributes:
        url: The database's URL.
    """

    url: str


@dataclass(frozen=True, slots=True)
class Pulled(Event):
    """The working copy was brought to another version: the first one, or a newer one.

    Attributes:
        sequence: The version's number.
        commit: Its id.
        size: Bytes.
        seconds: From the request to the end of its body.
    """

    sequence: int
    commit: str
    size: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Unchanged(Event):
    """The store was asked, and the working copy is current.

    Attributes:
        seconds: That took.
    """

    seconds: float


@dataclass(frozen=True, slots=True)
class Published(Event):
    """A commit was stored.

    Attributes:
        sequence: The new version's number.
        commit: Its id.
        size: Bytes that were uploaded.
        pages: How many pages of the database it changed.
        seconds: That took, with what the strategy did.
        superseded: Whether another writer has already replaced it, by a version that was built on it.
    """

    sequence: int
    commit: str
    size: int
    pages: int
    seconds: float
    superseded: bool


@dataclass(frozen=True, slots=True)
class Conflict(Event):
    """A session was refused because another writer came first. Nothing of it was stored.

    Attributes:
        operation: Whether before it began to write, or at its commit.
        seconds: That the operation took.
    """

    operation: Operation
    seconds: float


@dataclass(frozen=True, slots=True)
class CommitUnknown(Event):
    """The store never said whether it accepted a commit.

    Attributes:
        commit: The commit's id.
        seconds: For which it was asked.
    """

    commit: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Failed(Event):
    """An operation failed in another way.

    Attributes:
        operation: Which.
        error: The error's class.
        seconds: That it took.
    """

    operation: Operation
    error: str
    seconds: float


@dataclass(frozen=True, slots=True)
class LeaseAcquired(Event):
    """This process has the lease now.

    Attributes:
        generation: Of the lease.
        seconds: For which it was waited for.
    """

    generation: int
    seconds: float


@dataclass(frozen=True, slots=True)
class LeaseReleased(Event):
    """This process has given the lease back.

    Attributes:
        generation: Of the lease.
    """

    generation: int


@dataclass(frozen=True, slots=True)
class LeaseLost(Event):
    """This process had the lease, and another one has taken it over.

    Attributes:
        generation: That was lost.
    """

    generation: int


@dataclass(frozen=True, slots=True)
class LeaseTimedOut(Event):
    """Others held the lease for longer than this process was willing to wait.

    Attributes:
        seconds: For which it waited.
    """

    seconds: float


Callback = Callable[[Event], object]

_LEVELS: dict[type[Event], int] = {CommitUnknown: logging.WARNING, LeaseLost: logging.INFO, LeaseTimedOut: logging.INFO}
"""Everything else is the normal course of things, an error that somebody gets to see, or a conflict that is retried."""


class Reporter:
    """Counts what happens to one database in this process, and tells who listens.

    Args:
        url: The database's URL.

    Attributes:
        url: As above.
        last: What was pulled or published last.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._listeners: tuple[Callback, ...] = ()
        self.reset_after_fork()
        reset_in_child(self)

    def reset_after_fork(self) -> None:
        """In a forked child: what the parent did was not done here; who listens goes on listening."""
        self._lock = threading.Lock()
        self.last: Pulled | Published | None = None
        self._counts: dict[str, int] = {}
        self._seconds: dict[str, float] = {}

    def listen(self, callback: Callback) -> Callable[[], None]:
        """Have ``callback`` called with each event, from now on; gives a function that ends it."""
        with self._lock:
            self._listeners = (*self._listeners, callback)

        def stop() -> None:
            with self._lock:
                self._listeners = tuple(one for one in self._listeners if one is not callback)

        return stop

    def report(self, event: Event) -> None:
        """Count an event and tell it. Whatever a callback raises is logged, and harms nobody."""
        self.count(type(event).__name__)
        if isinstance(event, (Pulled, Published)):
            self.last = event
        level = _LEVELS.get(type(event), logging.DEBUG)
        if _log.isEnabledFor(level):
            _log.log(level, "%s", event)
        for callback in self._listeners:
            try:
                callback(event)
            except Exception:  # noqa: BLE001 - it is somebody else's code, in the middle of a session
                _log.exception("%s: a callback failed on %s", self.url, type(event).__name__)

    def count(self, name: str, *, by: int = 1) -> None:
        """Count something that is no event."""
        with self._lock:
            self._counts[name] = self._counts.get(name, 0) + by

    def add_seconds(self, name: str, seconds: float) -> None:
        """Add to the time that was spent on something."""
        with self._lock:
            self._seconds[name] = self._seconds.get(name, 0.0) + seconds

    def counts(self) -> tuple[dict[str, int], dict[str, float]]:
        """Counts and seconds so far, by name."""
        with self._lock:
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
        if not isinstance(error, Exception):
            return
        url = self._reporter.url
        if isinstance(error, ConflictError):
            self._reporter.report(Conflict(url, self._operation, self.seconds))
        elif isinstance(error, CommitUnknownError):
            self._reporter.report(CommitUnknown(url, error.commit_id, self.seconds))
        else:
            self._reporter.report(Failed(url, self._operation, type(error).__name__, self.seconds))
