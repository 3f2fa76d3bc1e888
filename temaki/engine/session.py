"""One session: what a strategy is given to work with, from the first touch of the database to the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from temaki.engine.pull import Puller
from temaki.errors import ConflictError, LeaseLostError, StoreError
from temaki.lease.shared import SharedLease
from temaki.lease.turn import ENOUGH, FIRST_TRY, Try
from temaki.process.fork import process, require_own
from temaki.remote.remote import Published, Remote, Version
from temaki.replica.generation import Generation
from temaki.replica.image import Image
from temaki.replica.replica import Replica
from temaki.replica.wal import Scan
from temaki.version import LEASE_KEY

if TYPE_CHECKING:
    from temaki.lease.lease import Lease


class Session:
    """The way of one ``db_session`` through pull, begin, push and end, and the verbs that strategies are made of.

    Attributes:
        url: The database's URL.
        immediate: Whether the session asked to write from its start (``@db_session(immediate=True)``).
        writing: Whether it is in a write transaction now.
        conflicts: How often in a row its function was refused before, because another writer came first.
        state: Room for the strategy's own; temaki never looks at it.
        process: The process in which it began; none that was forked from it can go on with it.
    """

    def __init__(
        self,
        remote: Remote,
        replica: Replica,
        puller: Puller,
        shared_lease: SharedLease,
        *,
        immediate: bool,
        which: Try = FIRST_TRY,
        binding: object = None,
    ) -> None:
        self.process = process()
        self._remote = remote
        self._shared_lease = shared_lease
        self._binding = binding
        self._replica = replica
        self._puller = puller
        self.url = replica.url
        self.immediate = immediate
        self.writing = False
        self.conflicts = which.conflicts
        self._left = which.left
        self._turn: Lease | None = None
        self.state: Any = None
        self.generation: Generation | None = None
        self.published: Published | None = None
        self._image: Image | None = None

    @property
    def version(self) -> Version | None:
        """The stored version that the session sees; before its pull, the one it would see.

        None where nothing has been pulled, or where the database has yet to be created.
        """
        generation = self.generation or self._replica.current
        return None if generation is None else generation.version

    # -- for pull -------------------------------------------------------------------------------------------------

    def revalidate(self, *, max_age: float = 0.0) -> None:
        """Bring the working copy up to date with one conditional request, shared with threads that ask at once.

        Args:
            max_age: Make no request if the last one is younger than so many seconds.

        Raises:
            StoreError, NotFoundError, CorruptDatabaseError, WorkingCopyError: See :class:`temaki.engine.pull.Puller`.
        """
        self.require_own()
        self._puller.revalidate(max_age=max_age)

    def download(self) -> None:
        """Bring the working copy up to date by fetching all of the object. Raises what :meth:`revalidate` does."""
        self.require_own()
        self._puller.download()

    # -- for pull and begin ----------------------------------------------------------------------------------------

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
        self.require_own()
        self._remote.probe_conditions()
        return self._shared_lease.get(ttl=ttl, acquire_timeout=acquire_timeout, hold=hold, user=self._binding)

    def wait_turn(self) -> None:
        """Before the pull: let another session through that was refused too often; or have this one let through.

        Makes no request unless this session's function was refused again and again, or this process is a busy writer:
        see :mod:`temaki.lease.turn`. Waits for a few seconds at most, and raises nothing.
        """
        turns = self._shared_lease.turns
        if self._turn is None and self.conflicts >= ENOUGH:
            try:
                self._remote.probe_conditions()
            except StoreError:
                return  # it will be reported when something is to be stored
            self._turn = turns.take(self, self._left)
        elif self._turn is None and (self.immediate or self.conflicts or turns.thread.writes):
            turns.give_way()
        turns.thread.writes = False

    # -- for begin ------------------------------------------------------------------------------------------------

    def give_way(self) -> bool:
        """Before BEGIN IMMEDIATE: let another session through that was refused too often, as :meth:`wait_turn` does.

        Returns:
            Whether it has waited for one: what this session has read may be old by now.
        """
        self._shared_lease.turns.thread.writes = True
        return self._turn is None and self._shared_lease.turns.give_way()

    def require_current(self) -> None:
        """Ask the store whether what the session has read is still current.

        Raises:
            ConflictError: It is not. Run the function again.
            StoreError: The request failed.
        """
        if self.generation is None:
            return
        self.revalidate()
        if not self._replica.is_current(self.generation):
            raise self.conflict("read, and another writer has stored a newer version since")

    # -- for push -------------------------------------------------------------------------------------------------

    @property
    def changed_pages(self) -> frozenset[int]:
        """The numbers of the database pages that this commit changes; empty outside of push."""
        return frozenset() if self._image is None else self._image.changed

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
        self.require_own()
        assert self._image is not None, "publish() is for Strategy.push"
        self._remote.probe_conditions()
        base = self.version
        extra = dict(metadata or {})
        if lease_generation is not None:
            if base is not None and base.lease_generation > lease_generation:
                raise LeaseLostError(
                    f"The stored version of {self.url} was made under generation {base.lease_generation} of its "
                    f"lease, and this one under {lease_generation}, which is over. Nothing was stored; run the "
                    "function again.",
                    url=self.url,
                    generation=lease_generation,
                )
            extra[LEASE_KEY] = str(lease_generation)
        try:
            self.published = self._remote.publish(
                self._image, self._image.size, base, sequence=next_sequence(base), metadata=extra
            )
        except ConflictError:
            self._shared_lease.turns.refused()
            raise
        self._shared_lease.turns.stored()
        return self.published

    # -- for the engine -------------------------------------------------------------------------------------------

    def require_own(self) -> None:
        """Make sure that the session began in this process.

        Raises:
            ConflictError: It began in the parent, before a fork.
        """
        require_own(self.process, self.url)

    def prepare(self, found: Scan) -> None:
        """Have the image of what was committed locally ready for :meth:`publish`."""
        assert self.generation is not None
        self.published = None
        self._image = self.generation.image(found, next_sequence(self.version))

    def forget_image(self) -> None:
        """The image is valid no longer than the replica's lock is held."""
        self._image = None

    def end_turn(self) -> None:
        """The session is over: others may write again."""
        turn, self._turn = self._turn, None
        if turn is not None:
            turn.release(self)

    def conflict(self, why: str) -> ConflictError:
        """The error for a session that is no longer in the current generation."""
        self._shared_lease.turns.refused()
        version = self.version
        return ConflictError(
            f"Nothing was stored in {self.url}: this session's version was {why}. Run the function again; "
            "@db_session(retry=N) does.",
            url=self.url,
            sequence=None if version is None else version.sequence,
        )


def next_sequence(base: Version | None) -> int:
    """One more than the version that a commit replaces."""
    return 1 if base is None else base.sequence + 1
