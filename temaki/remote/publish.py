"""Storing a commit: the swap of the database's object, and what the lineage proves.

Each version's metadata name the versions before it, newest first. So a look at the object after a refusal proves:

* Our id in the object's lineage, at its head or further down: a commit landed, and it is ours.
* Our base in the lineage, and we are not: each version in a lineage replaced the one named after it, so what replaced
  our base is someone else's. The same goes for a creation and a complete lineage without us.
* A lineage that is too short to show our base, an object by another tool: nothing about attempts in doubt.

See :mod:`temaki.remote.swap` for what follows from each.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from temaki.errors import RUN_AGAIN, CommitUnknownError, ConflictError, NotFoundError, StoreError, WorkingCopyError
from temaki.remote.swap import (
    BrokenBodyError,
    Landed,
    Proof,
    RefusedError,
    Swap,
    UndecidedError,
    UnfoundedRefusalError,
)
from temaki.version import ADOPTED, COMMIT_KEY, LINEAGE_KEY, MetadataError, Published, Version, read_version

if TYPE_CHECKING:
    import random

    from temaki.clock import Clock
    from temaki.store import ObjectInfo, ReadableBody, Store


class Publication:
    """One commit on its way into the store. :meth:`run` once.

    Args:
        store: The bucket.
        key: The database's key in it.
        url: The database's URL, for messages.
        body: The bytes. They are read from their start at each attempt, so they must not change.
        version: What is to be stored, with its metadata and without an ETag.
        base: What it replaces; None to create.
        clock: Time.
        deadline: When to stop making new attempts.
        rng: For the jitter between attempts.
    """

    def __init__(  # noqa: PLR0917 - one call, from Remote
        self,
        store: Store,
        key: str,
        url: str,
        body: ReadableBody,
        version: Version,
        base: Version | None,
        clock: Clock,
        deadline: float,
        rng: random.Random,
    ) -> None:
        self._url, self._body, self._version, self._base = url, body, version, base
        self._swap: Swap[ObjectInfo] = Swap(
            store,
            key,
            body,
            metadata=version.metadata,
            replaces=None if base is None else base.etag,
            look=lambda: store.head(key),
            proves=self._proves,
            clock=clock,
            deadline=deadline,
            rng=rng,
        )

    def run(self) -> Published:
        """Upload, until the store has said what became of it.

        Raises:
            ConflictError: Another version came first. Nothing of ours is stored, or will be.
            NotFoundError: The base was deleted. Nothing of ours is stored, or will be.
            CommitUnknownError: None of the above can be proved; also where an interrupt came in between.
            WorkingCopyError: The body could not be read. Nothing of ours is stored, or will be.
            StoreError: The store refused, or could not be reached. Nothing of ours is stored, or will be.
        """
        try:
            return self._published(self._swap.run())
        except RefusedError as error:
            raise self._refused(error) from error.__cause__
        except UndecidedError as error:
            raise self._unknown(error.cause) from error.cause
        except UnfoundedRefusalError as error:
            raise self._unfounded(error) from error.refusal
        except BrokenBodyError as error:
            raise self._broken() from error.__cause__

    def _proves(self, info: ObjectInfo) -> Proof:
        current = _as_version(info)
        if current is None:
            return Proof.NOTHING
        if self._version.commit in current.lineage:
            return Proof.OURS
        if self._base is not None and current == self._base:
            return Proof.UNCHANGED
        return Proof.DISPROVED if self._disproved_by(current) else Proof.NOTHING

    def _disproved_by(self, current: Version) -> bool:
        """Whether ``current``, which does not have us in its lineage, proves that no attempt landed or will."""
        if self._base is not None:
            return self._base.commit in current.lineage
        # Another tool's file proves nothing: such tools overwrite what is there.
        return current.complete and not current.lineage[-1].startswith(ADOPTED)

    def _published(self, landed: Landed[ObjectInfo]) -> Published:
        if landed.seen is None:
            return Published(replace(self._version, etag=landed.etag))
        current = read_version(landed.seen)
        superseded = current.commit != self._version.commit
        return Published(replace(self._version, etag="" if superseded else current.etag), superseded)

    # -- errors ---------------------------------------------------------------------------------------------------

    def _refused(self, error: RefusedError[ObjectInfo]) -> ConflictError | NotFoundError:
        cause = error.__cause__
        if error.is_gone and isinstance(cause, NotFoundError):
            return NotFoundError(
                f"{self._url} was deleted while this commit was being made; nothing was stored. Restore the object, or "
                "start a new process to begin with an empty database.",
                url=self._url,
                status=cause.status,
                code=cause.code,
            )
        if error.seen is None:
            why = "the store refused it, and did not say what is there instead"
        else:
            why = _described(_as_version(error.seen))
        return ConflictError(
            f"Another writer has changed {self._url} since this transaction began: {RUN_AGAIN} Nothing of this one was "
            f"stored ({why}).",
            url=self._url,
            commit_id=self._version.commit,
        )

    def _unfounded(self, error: UnfoundedRefusalError) -> StoreError:
        refusal = error.refusal
        why = "that a conflicting request is under way" if refusal.in_flight else "that the condition does not hold"
        return StoreError(
            f"{self._url} is unchanged, and yet the store kept refusing to replace it. It said {why}: {refusal}. "
            "Nothing was stored. Try again; if this happens every time, the store's conditional writes are not S3's.",
            url=self._url,
            status=refusal.status,
            code=refusal.code,
        )

    def _unknown(self, cause: BaseException) -> CommitUnknownError:
        commit = self._version.commit
        return CommitUnknownError(
            f"It is not known whether commit {commit} of {self._url} was stored: {_reason(cause)}. "
            "It may have been, or may be yet. Before doing the work again, look at the object's metadata (a HEAD "
            f"request): it was stored if {COMMIT_KEY} or {LINEAGE_KEY} has that id.",
            url=self._url,
            commit_id=commit,
        )

    def _broken(self) -> WorkingCopyError:
        return WorkingCopyError(
            f"The working copy of {self._url} was truncated by something else on this machine while it was "
            f"uploaded: {getattr(self._body, 'broken', None)}. Nothing was stored; the next session starts from the "
            "stored version.",
            url=self._url,
            path="",
            should_retry=True,
        )


def _reason(cause: BaseException) -> str:
    if isinstance(cause, KeyboardInterrupt):
        return "it was interrupted before the store had answered"
    return f"{type(cause).__name__}: {cause}".rstrip(": .")


def _as_version(info: ObjectInfo) -> Version | None:
    try:
        return read_version(info)
    except MetadataError:
        return None


def _described(current: Version | None) -> str:
    if current is None:
        return "its metadata are not this temaki's"
    return f"the current version is {current.commit}" + (f", number {current.sequence}" if current.sequence else "")
