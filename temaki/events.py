"""Events: what happens to a database's working copy and its object, for listeners.

temaki imports this module only when somebody listens or logs: see :mod:`temaki.observe.reporter`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Operation = Literal["pull", "begin", "commit"]


@dataclass(frozen=True, slots=True)
class Event:
    """Base class of all events.

    Attributes:
        url: URL of the database.
    """

    url: str


@dataclass(frozen=True, slots=True)
class Pulled(Event):
    """The working copy was brought to another version: the first one, or a newer one.

    Attributes:
        sequence: Number of the version.
        commit: Commit id of the version.
        size: Size of the version, in bytes.
        seconds: Time from the request to the end of its body, in seconds.
        received: Bytes that the pull fetched. It is ``size`` in the format ``file``.
        is_catch_up: True if the pull fetched only what had changed since the version that was there. False for a full
            pull.
    """

    sequence: int
    commit: str
    size: int
    seconds: float
    received: int = 0
    is_catch_up: bool = False


@dataclass(frozen=True, slots=True)
class WentBack(Event):
    """The stored object was replaced by a version without the commits that this process has seen.

    Somebody put an old copy there, or an object with another history. Sessions read the stored version from now on.

    Attributes:
        sequence: Number of the version that is stored now.
        commit: Commit id of the version that is stored now.
        known_sequence: Number of the version that this process knew before. It is not in the history of the new one.
        known_commit: Commit id of the version that this process knew before.
    """

    sequence: int
    commit: str
    known_sequence: int
    known_commit: str


@dataclass(frozen=True, slots=True)
class Unchanged(Event):
    """The store confirmed that the working copy is current.

    Attributes:
        seconds: Duration of the request, in seconds.
    """

    seconds: float


@dataclass(frozen=True, slots=True)
class Published(Event):
    """A commit was stored.

    Attributes:
        sequence: Number of the new version.
        commit: Commit id of the new version.
        size: Size of the upload, in bytes. In the format ``pages``, the database's own object and the objects beside
            it.
        pages: Number of database pages that the commit changed.
        seconds: Duration of the commit in seconds, including what the strategy did.
        superseded: True if another writer has already replaced the version by one that was built on it.
        changed: Size of the changed pages, in bytes. ``size / changed`` says what the upload of a changed byte costs.
        objects: Number of objects that were uploaded beside the database's own. It is 0 in the format ``file``.
        version_size: Size of the new version, in bytes.
    """

    sequence: int
    commit: str
    size: int
    pages: int
    seconds: float
    superseded: bool
    changed: int = 0
    objects: int = 0
    version_size: int = 0


@dataclass(frozen=True, slots=True)
class Conflict(Event):
    """A session was refused because another writer came first. Nothing of the session was stored.

    Attributes:
        operation: The operation that was refused: ``begin`` (before the session could write) or ``commit``.
        seconds: Duration of the operation, in seconds.
    """

    operation: Operation
    seconds: float


@dataclass(frozen=True, slots=True)
class CommitUnknown(Event):
    """The store never said whether it accepted a commit.

    Attributes:
        commit: Id of the commit.
        seconds: Seconds spent asking before giving up.
    """

    commit: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Failed(Event):
    """An operation failed in another way.

    Attributes:
        operation: The operation that failed.
        error: Name of the error's class.
        seconds: Duration of the operation, in seconds.
    """

    operation: Operation
    error: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Compacted(Event):
    """This process has compacted the stored version, in the background. The version itself stays the same.

    Attributes:
        size: Size of the uploads, in bytes.
        freed: Size of the objects that were deleted, in bytes.
        before: Number of objects that a full pull needed before, beside the database's own object.
        after: The same, after it.
        seconds: Duration, in seconds.
    """

    size: int
    freed: int
    before: int
    after: int
    seconds: float


@dataclass(frozen=True, slots=True)
class LeaseAcquired(Event):
    """This process has acquired the lease.

    Attributes:
        generation: Generation of the lease.
        seconds: Seconds spent waiting for the lease.
    """

    generation: int
    seconds: float


@dataclass(frozen=True, slots=True)
class LeaseReleased(Event):
    """This process has released the lease.

    Attributes:
        generation: Generation of the lease.
    """

    generation: int


@dataclass(frozen=True, slots=True)
class LeaseLost(Event):
    """This process has lost the lease: another process took it over, or somebody evicted this process.

    Attributes:
        generation: Generation of the lost lease.
    """

    generation: int


@dataclass(frozen=True, slots=True)
class LeaseTimedOut(Event):
    """Other processes held the lease for longer than this process was willing to wait.

    Attributes:
        seconds: Seconds spent waiting for the lease.
    """

    seconds: float
