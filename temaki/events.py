"""What happens to a database's working copy and its object, as it is told to whoever listens.

Nothing here is imported by temaki before somebody does: see :mod:`temaki.observe.reporter`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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
class WentBack(Event):
    """The stored object was replaced by a version without the commits that this process has seen.

    Somebody put an old copy there, or an object with another history. It is followed: sessions read it from now on.

    Attributes:
        sequence: Number of the version that is stored now.
        commit: Its id.
        known_sequence: Number of the version that was known before, and is not in its history.
        known_commit: Its id.
    """

    sequence: int
    commit: str
    known_sequence: int
    known_commit: str


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
    """This process had the lease, and has lost it: another one has taken it over, or somebody has evicted it.

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
