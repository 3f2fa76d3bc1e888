"""The interface of a sync strategy: when to pull, what to do before writing, how to push.

The built-in strategies are in the package ``temaki_strategies``. A third party subclasses :class:`Strategy`, and names
the subclass by an entry point in the group ``temaki.strategies`` or passes an instance to ``bind_s3``. Every strategy
has to pass the suite :class:`temaki.testing.StrategyTests`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    from temaki.version import Published, Version

__all__ = ["Lease", "Session", "Strategy"]


class Lease(Protocol):
    """This process's part in the lease on a database, shared by its threads. See :class:`temaki.lease.lease.Lease`."""

    def acquire(self, user: object) -> int:
        """Wait for the lease, or join the threads of this process that have it. Returns the generation."""

    def rejoin(self, user: object) -> int | None:
        """Join the lease without waiting, if this process still has it. Returns the generation, or None."""

    def check(self, generation: int) -> None:
        """Make sure that this process still has the lease."""

    def outgrow(self, user: object, generation: int, stored: int) -> int:
        """Make sure that the generation is above ``stored``, the stored version's. Returns the generation."""

    def release(self, user: object, *, keep: float = 0.0) -> None:
        """Release the lease, or keep it for ``keep`` seconds. Never raises."""


class Session(ABC):
    """One ``db_session`` on its way through pull, begin, push and end. Its methods are the verbs of a strategy.

    temaki makes sessions; a strategy only uses them.

    Attributes:
        url: URL of the database.
        immediate: True if the session asked to write from its start (``@db_session(immediate=True)``).
        writing: True while the session is in a write transaction.
        conflicts: Number of times in a row that the session's function was refused because another writer came first.
        state: Data of the strategy itself. temaki never looks at it.
    """

    url: str
    immediate: bool
    writing: bool
    conflicts: int
    state: Any

    @property
    @abstractmethod
    def version(self) -> Version | None:
        """The stored version that the session sees; before its pull, the one that it would see.

        None if nothing has been pulled, or if there is no database yet.
        """

    # -- for pull -----------------------------------------------------------------------------------------------------

    @abstractmethod
    def revalidate(self, *, max_age: float = 0.0) -> None:
        """Bring the working copy up to date with one conditional request, shared with threads that ask at once.

        Args:
            max_age: Seconds; no request if the last one is younger than this.

        Raises:
            StoreError, NotFoundError, CorruptDatabaseError, WorkingCopyError: See :class:`temaki.engine.pull.Puller`.
        """

    @abstractmethod
    def download(self) -> None:
        """Bring the working copy up to date by fetching all of the object. Raises what :meth:`revalidate` does."""

    # -- for pull and begin -------------------------------------------------------------------------------------------

    @abstractmethod
    def lease(self, *, ttl: float, acquire_timeout: float, hold: float) -> Lease:
        """Get this process's lease on the database, the same one for all its threads. It is not acquired yet.

        Args:
            ttl: Seconds after which a silent holder's lease may be taken over; see :class:`temaki.lease.lease.Lease`.
            acquire_timeout: Seconds to wait for other holders.
            hold: Seconds for which the process keeps the lease between sessions.

        Raises:
            ConfigurationError: The lease is in use with other options, through another ``Database``.
            UnsafeStoreError: The store does not honour conditions. A lease needs them.
        """

    @abstractmethod
    def wait_turn(self) -> None:
        """Wait, before the pull, for a session that was refused too often; or ask others to wait for this one.

        Makes no request unless this session's function was refused again and again, or this process is a busy writer:
        see :mod:`temaki.lease.turn`. Waits for a few seconds at most, and raises nothing.
        """

    # -- for begin ----------------------------------------------------------------------------------------------------

    @abstractmethod
    def give_way(self) -> bool:
        """Wait, before BEGIN IMMEDIATE, for a session that was refused too often, as :meth:`wait_turn` does.

        Returns:
            True if it waited. Then the data that this session has read may be old.
        """

    @abstractmethod
    def require_current(self) -> None:
        """Ask the store whether the version that the session has read is still current.

        Raises:
            ConflictError: It is not current. Run the function again.
            StoreError: The request failed.
        """

    @abstractmethod
    def follow(self) -> None:
        """Let the session write although what it has read may be old, as Pony does on a shared SQLite file.

        Call this in place of :meth:`require_current`. If another writer has stored a newer version since, the session
        goes on in that version: Pony connects anew and keeps the objects that it has loaded. Its optimistic checks
        compare each row that it writes with what was read. They compare nothing else: see "Isolation" in the
        documentation of the guarantees.

        Raises:
            ConflictError: The session cannot go on; temaki and Pony handle this one.
            StoreError: The request failed.
        """

    # -- for push -----------------------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def changed_pages(self) -> frozenset[int]:
        """Numbers of the database pages that this commit changes; empty outside of push."""

    @abstractmethod
    def publish(self, *, metadata: Mapping[str, str] | None = None, lease_generation: int | None = None) -> Published:
        """Upload the commit exactly once, if the stored version is still the one that the commit was built on.

        Args:
            metadata: More user metadata for the object, within S3's 2 KB.
            lease_generation: Generation of the lease under which the commit was made: a fencing token, which is stored
                with the version.

        Raises:
            ConflictError: Another writer came first.
            LeaseLostError: The stored version was made under a later generation of the lease.
            CommitUnknownError: The store never said whether it accepted the commit.
            UnsafeStoreError: The store does not honour conditions.
            StoreError: The upload failed, and certainly did not land.
        """


class Strategy(ABC):
    """Decides how the working copy and the stored object are kept in step.

    One instance serves one bound ``Database``. Many threads call its methods. The keyword-only parameters of
    ``__init__`` are its options: ``bind_s3``, the environment and TOML can set them. They need annotations.

    No method can break the five promises by accident. temaki pins the snapshot and checks the generation, and every
    upload is a compare-and-swap. A strategy decides freshness, waiting and cost.

    Attributes:
        writes: False for a strategy that never writes. Its sessions need no lock, and every write is refused.
    """

    writes: ClassVar[bool] = True

    @abstractmethod
    def pull(self, session: Session) -> None:
        """Bring the working copy up to date at the session's first use of the database, or decide that it is current.

        temaki calls it again if another thread's commit is refused at the same moment, which leaves no working copy.

        Raises:
            TemakiError: The session cannot begin.
        """

    def begin(self, session: Session) -> None:  # noqa: B027
        """Wait or refuse before the session's BEGIN IMMEDIATE. Called for each write transaction of the session.

        Raises:
            TemakiError: The session cannot write.
        """

    def push(self, session: Session) -> None:
        """Publish what SQLite has committed locally, or raise. Called only if the commit changed something.

        Readers of this process wait meanwhile.

        Raises:
            TemakiError: Nothing was stored, or :class:`~temaki.errors.CommitUnknownError`.
        """
        session.publish()

    def end(self, session: Session) -> None:  # noqa: B027
        """Clean up after the session, however it ended. May be called again; must not raise."""
