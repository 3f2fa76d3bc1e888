"""The engine's side of one session: it implements the verbs that strategies use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from temaki.engine.shared import Shared
from temaki.errors import RUN_AGAIN, ConflictError, LeaseLostError, StoreError
from temaki.formats.choice import format_for
from temaki.formats.format import Task, Uploaded
from temaki.lease.turn import ENOUGH, FIRST_TRY, Try
from temaki.process.fork import process, require_own
from temaki.remote.remote import new_commit
from temaki.replica.generation import Generation, Knowledge
from temaki.replica.image import Image
from temaki.replica.wal import Scan
from temaki.strategy import Session
from temaki.version import LEASE_KEY, Published, Version

if TYPE_CHECKING:
    from temaki.lease.lease import Lease


class MovedError(ConflictError):
    """The session cannot write in its generation any more, and its strategy lets it go on in the current one."""


class EngineSession(Session):
    """The engine's implementation of :class:`temaki.strategy.Session`.

    Attributes:
        process: Number of the process in which the session began. A process that was forked from it cannot go on.
        generation: Generation of the working copy that the session is in; None before its pull and after its end.
        published: The version that the session's push has stored; None if there is none.
        knowledge: What the format knows of the published version.
        uploaded: What was uploaded for it.
        catch_ups: Number of catch-ups that the generation had seen when the session pinned its snapshot; None before.
    """

    def __init__(self, shared: Shared, *, immediate: bool, which: Try = FIRST_TRY, binding: object = None) -> None:
        self.process = process()
        self.url = shared.replica.url
        self.immediate = immediate
        self.writing = False
        self.conflicts = which.conflicts
        self.state: Any = None
        self._remote, self._replica, self._puller = shared.remote, shared.replica, shared.puller
        self._shared_lease, self._binding = shared.lease, binding
        self._left = which.left
        self._follows = False
        self._turn: Lease | None = None
        self.generation: Generation | None = None
        self.published: Published | None = None
        self.knowledge: Knowledge | None = None
        self.uploaded = Uploaded(0)
        self.catch_ups: int | None = None
        self._format = shared.choices.format
        self._image: Image | None = None

    @property
    def version(self) -> Version | None:
        """See :attr:`temaki.strategy.Session.version`."""
        generation = self.generation or self._replica.current
        return None if generation is None else generation.version

    # -- for pull -------------------------------------------------------------------------------------------------

    def revalidate(self, *, max_age: float = 0.0) -> None:
        """See :meth:`temaki.strategy.Session.revalidate`."""
        self.require_own()
        self._puller.revalidate(max_age=max_age)

    def download(self) -> None:
        """See :meth:`temaki.strategy.Session.download`."""
        self.require_own()
        self._puller.download()

    # -- for pull and begin ----------------------------------------------------------------------------------------

    def lease(self, *, ttl: float, acquire_timeout: float, hold: float) -> Lease:
        """See :meth:`temaki.strategy.Session.lease`."""
        self.require_own()
        self._remote.probe_conditions()
        return self._shared_lease.get(ttl=ttl, acquire_timeout=acquire_timeout, hold=hold, user=self._binding)

    def wait_turn(self) -> None:
        """See :meth:`temaki.strategy.Session.wait_turn`."""
        turns = self._shared_lease.turns
        if self._turn is None and self.conflicts >= ENOUGH:
            try:
                self._remote.probe_conditions()
            except StoreError:
                return  # the same error comes again when the session stores something
            self._turn = turns.take(self, self._left)
        elif self._turn is None and (self.immediate or self.conflicts or turns.thread.writes):
            turns.give_way()
        turns.thread.writes = False

    # -- for begin ------------------------------------------------------------------------------------------------

    def give_way(self) -> bool:
        """See :meth:`temaki.strategy.Session.give_way`."""
        self._shared_lease.turns.thread.writes = True
        return self._turn is None and self._shared_lease.turns.give_way()

    def require_current(self) -> None:
        """See :meth:`temaki.strategy.Session.require_current`."""
        if self.generation is None:
            return
        self.revalidate()
        if not self._replica.is_current(self.generation, self.catch_ups):
            raise self.conflict("read, and another writer has stored a newer version since")

    def follow(self) -> None:
        """See :meth:`temaki.strategy.Session.follow`."""
        self._follows = True
        self.require_current()

    # -- for push -------------------------------------------------------------------------------------------------

    @property
    def changed_pages(self) -> frozenset[int]:
        """See :attr:`temaki.strategy.Session.changed_pages`."""
        return frozenset() if self._image is None else frozenset(self._image.changed)

    def publish(self, *, metadata: Mapping[str, str] | None = None, lease_generation: int | None = None) -> Published:
        """See :meth:`temaki.strategy.Session.publish`."""
        self.require_own()
        assert self._image is not None, "publish() is for Strategy.push"
        self._remote.probe_conditions()
        base = self.version
        extra = dict(metadata or {})
        if lease_generation is not None:
            if base is not None and base.lease_generation > lease_generation:
                raise LeaseLostError(
                    f"This transaction has lost the lease on {self.url}: the stored version was made under generation "
                    f"{base.lease_generation} of the lease, and this transaction under {lease_generation}. Nothing was "
                    "stored. Run the function again.",
                    url=self.url,
                    generation=lease_generation,
                )
            extra[LEASE_KEY] = str(lease_generation)
        try:
            assert self.generation is not None
            form, commit, sequence = format_for(base, self._format), new_commit(), next_sequence(base)
            body = form.store(Task(self._image, self.generation, commit, sequence, self._remote.source))
            self.published = self._remote.publish(
                body.content,
                body.size,
                base,
                sequence=sequence,
                commit_id=commit,
                metadata={**extra, **body.metadata},
                written_as=form.number,
                rebuild=body.rebuild,
            )
            self.knowledge, self.uploaded = body.knowledge(), body.cost()
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

    def prepare(self, changes: Scan) -> None:
        """Make the image of the local commit for :meth:`publish`."""
        assert self.generation is not None
        self.published = self.knowledge = None
        self._image = self.generation.image(changes, next_sequence(self.version))

    def forget_image(self) -> None:
        """Drop the image. It is valid only while the replica's lock is held."""
        self._image = None

    def end_turn(self) -> None:
        """End the session's turn: other sessions may write again."""
        turn, self._turn = self._turn, None
        if turn is not None:
            turn.release(self)

    def conflict(self, why: str) -> ConflictError:
        """Make the error for a session that is no longer in the current generation."""
        version = self.version
        if not self._follows:
            self._shared_lease.turns.refused()
        return (MovedError if self._follows and not self.writing else ConflictError)(
            f"Nothing was stored in {self.url}: {RUN_AGAIN} This session's version was {why}.",
            url=self.url,
            sequence=None if version is None else version.sequence,
        )


def next_sequence(base: Version | None) -> int:
    """Number of the version that replaces ``base``: one more than its number."""
    return 1 if base is None else base.sequence + 1
