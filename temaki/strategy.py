"""What a sync strategy is: when to pull, what to do before writing, how to push.

The built-in ones are in the package ``temaki_strategies``; a third party's is a subclass of :class:`Strategy`, named
by an entry point in the group ``temaki.strategies`` or passed to ``bind_s3`` as an instance.
:class:`temaki.testing.StrategyTests` is the suite that every one of them has to pass.
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
        """Wait for the lease, or join the threads of this process that have it; gives the generation."""

    def rejoin(self, user: object) -> int | None:
        """Use the lease if this process still has it, without waiting; gives the generation, or None."""

    def check(self, generation: int) -> None:
        """Make sure that the lease is still this process's."""

    def outgrow(self, user: object, generation: int, stored: int) -> int:
        """Make sure that the generation is above the one under which the stored version was made; gives it."""

    def release(self, user: object, *, keep: float = 0.0) -> None:
        """Give the lease back, or keep it for ``keep`` seconds; never raises."""


class Session(ABC):
    """The way of one ``db_session`` through pull, begin, push and end, and the verbs that strategies are made of.

    temaki makes it; a strategy only uses it.

    Attributes:
        url: The database's URL.
        immediate: Whether the session asked to write from its start (``@db_session(immediate=True)``).
        writing: Whether it is in a write transaction now.
        conflicts: How often in a row its function was refused before, because another writer came first.
        state: Room for the strategy's own; temaki never looks at it.
    """

    url: str
    immediate: bool
    writing: bool
    conflicts: int
    state: Any

    @property
    @abstractmethod
    def version(self) -> Version | None:
        """The stored version that the session sees; before its pull, the one it would see.

        None where nothing has been pulled, or where the database has yet to be created.
        """

    # -- for pull -----------------------------------------------------------------------------------------------------

    @abstractmethod
    def revalidate(self, *, max_age: float = 0.0) -> None:
        """Bring the working copy up to date with one conditional request, shared with threads that ask at once.

        Args:
            max_age: Make no request if the last one is younger than so many seconds.

        Raises:
            StoreError, NotFoundError, CorruptDatabaseError, WorkingCopyError: See :class:`temaki.engine.pull.Puller`.
        """

    @abstractmethod
    def download(self) -> None:
        """Bring the working copy up to date by fetching all of the object. Raises what :meth:`revalidate` does."""

    # -- for pull and begin -------------------------------------------------------------------------------------------

    @abstractmethod
    def lease(self, *, ttl: float, acquire_timeout: float, hold: float) -> Lease:
        """This process's lease on the database, the same for all its threads; not taken yet.

        Args:
            ttl: Seconds; see :class:`temaki.lease.lease.Lease` for all three.
            acquire_timeout: Seconds.
            hold: Seconds.

        Raises:
            ConfigurationError: It is in use with other options, through another ``Database``.
            UnsafeStoreError: The store does not honour conditions, which is all that a lease is made of.
        """

    @abstractmethod
    def wait_turn(self) -> None:
        """Before the pull: let another session through that was refused too often; or have this one let through.

        Makes no request unless this session's function was refused again and again, or this process is a busy writer:
        see :mod:`temaki.lease.turn`. Waits for a few seconds at most, and raises nothing.
        """

    # -- for begin ----------------------------------------------------------------------------------------------------

    @abstractmethod
    def give_way(self) -> bool:
        """Before BEGIN IMMEDIATE: let another session through that was refused too often, as :meth:`wait_turn` does.

        Returns:
            Whether it has waited for one: what this session has read may be old by now.
        """

    @abstractmethod
    def require_current(self) -> None:
        """Ask the store whether what the session has read is still current.

        Raises:
            ConflictError: It is not. Run the function again.
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
        """The numbers of the database pages that this commit changes; empty outside of push."""

    @abstractmethod
    def publish(self, *, metadata: Mapping[str, str] | None = None, lease_generation: int | None = None) -> Published:
        """Upload the commit, exactly once, if the stored version is still the one that it was built on.

        Args:
            metadata: More user metadata for the object, within S3's 2 KB.
            lease_generation: The generation of the lease under which it was made: a fencing token, stored with it.

        Raises:
            ConflictError: Another writer came first.
            LeaseLostError: The stored version was made under a later generation of the lease.
            CommitUnknownError: The store never said whether it accepted the commit.
            UnsafeStoreError: The store does not honour conditions.
            StoreError: The upload failed, and certainly did not land.
        """


class Strategy(ABC):
    """How the working copy and the stored object are kept in step.

    One instance serves one bound ``Database``; its methods are called from many threads. The keyword-only parameters
    of ``__init__`` are its options, by which it is configured from ``bind_s3``, the environment and TOML; they need
    annotations.

    None of the methods can break the five promises by accident: temaki pins the snapshot, checks the generation, and
    the upload is a compare-and-swap whatever a strategy does. What it decides is freshness, waiting and cost.

    Attributes:
        writes: False for a strategy that never writes: its sessions need no lock and every write is refused.
    """

    writes: ClassVar[bool] = True

    @abstractmethod
    def pull(self, session: Session) -> None:
        """The session's first touch of the database: bring the working copy up to date, or decide that it is.

        Called again if a commit of another thread is refused at this very moment, which leaves no working copy.

        Raises:
            TemakiError: The session cannot begin.
        """

    def begin(self, session: Session) -> None:  # noqa: B027
        """Before the session's BEGIN IMMEDIATE: may wait, may refuse. Called again for each transaction in it.

        Raises:
            TemakiError: The session cannot write.
        """

    def push(self, session: Session) -> None:
        """After SQLite's own COMMIT, and only if it changed something: publish it, or raise.

        Readers of this process wait meanwhile.

        Raises:
            TemakiError: Nothing was stored, or :class:`~temaki.errors.CommitUnknownError`.
        """
        session.publish()

    def end(self, session: Session) -> None:  # noqa: B027
        """The session is over, however it ended. May be called again; must not raise."""
