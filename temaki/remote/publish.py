"""Putting a new version into the store exactly once, and never guessing whether it got there.

Every attempt to upload carries the same bytes, the same commit id and the same condition: "replace the version that I
was built on", or "create". An attempt without an answer is **in doubt**: it may have landed, or land yet. So it is sent
again. That is safe, because at most one of all attempts can land: the first to land makes the condition of the others
false. No two versions of a lineage have equal bytes (each has its number in SQLite's header), so the ETag that the
condition names does not come back either. Only a restore from outside brings it back; see the end.

When an attempt is refused, the object is looked at. What a look proves:

* Our id in the object's lineage, at its head or further down: a commit landed, and it is ours. No doubt is left.
* Our base in the lineage, and we are not: each version in a lineage replaced the one named after it, so what replaced
  our base is someone else's. Our condition is false and stays false: attempts still under way, however late they
  arrive, will be refused. A conflict for certain. The same goes for a creation and a complete lineage without us.
* A lineage that is too short to show our base, an object by another tool, no object: nothing about attempts in doubt.
  They may have landed and been replaced, or deleted. ``CommitUnknownError``.
* Still our base: our condition is true, so nothing of ours has landed; but what is under way may land yet. The refusal
  was the store's 409 ("in flight"), or the store dislikes its own ETag. Sent again; that may be refused because a
  late one has landed by then, which the next look shows.

A look without a refusal before it proves less: "still our base" can be overtaken by an attempt that is under way. That
is why nothing is ever concluded from a HEAD alone.

Without any attempt in doubt, a refusal is enough by itself: nothing of ours was stored, or can be.

Not promised: if someone restores our base, byte for byte, while an attempt of ours is under way, that attempt lands
on it. Likewise, a creation lands on the deletion of what it lost against.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, NoReturn

from temaki.errors import (
    CommitUnknownError,
    ConflictError,
    NotFoundError,
    PreconditionFailedError,
    StoreError,
    StoreUnavailableError,
    TemakiError,
    WorkingCopyError,
)
from temaki.remote.retry import retry
from temaki.version import ADOPTED, COMMIT_KEY, LINEAGE_KEY, MetadataError, Published, Version, read_version

if TYPE_CHECKING:
    import random

    from temaki.clock import Clock
    from temaki.store import ObjectInfo, ReadableBody, Store

_UNFOUNDED_REFUSALS: Final = 4  # so often may a store refuse a condition that holds, before it is the store's fault


class _SendAgainError(Exception):
    """The attempt was refused although its condition holds."""

    def __init__(self, refusal: PreconditionFailedError) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


class Publication:
    """One commit on its way into the store. :meth:`run` once.

    Args:
        store: The bucket.
        key: The database's key in it.
        url: The database's URL, for messages.
        body: The bytes. Read from their start at each attempt, so they must not change.
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
        self._store, self._key, self._url = store, key, url
        self._body, self._version, self._base = body, version, base
        self._clock, self._deadline, self._rng = clock, deadline, rng
        self._in_doubt = False
        self._unfounded_refusals = 0

    def run(self) -> Published:
        """Upload, until the store has said what became of it.

        Raises:
            ConflictError: Another version came first. Nothing of ours is stored, or will be.
            NotFoundError: The base was deleted. Nothing of ours is stored, or will be.
            CommitUnknownError: None of the above can be proved; also where an interrupt came in between.
            StoreError: The store refused, or could not be reached. Nothing of ours is stored, or will be.
        """
        try:
            return retry(
                self._attempt,
                clock=self._clock,
                deadline=self._deadline,
                rng=self._rng,
                on=(StoreUnavailableError, _SendAgainError),
            )
        except CommitUnknownError:
            raise
        except _SendAgainError as error:
            if self._in_doubt:
                self._raise_unknown(error.refusal)
            raise self._unfounded(error.refusal) from error.refusal
        except BaseException as error:
            if self._in_doubt:
                self._raise_unknown(error)
            raise

    def _attempt(self) -> Published:
        before, self._in_doubt = self._in_doubt, True  # an interrupt may come from now on
        try:
            return self._put(before)
        except Exception as error:
            broken = getattr(self._body, "broken", None)
            if broken is None:
                raise
            self._in_doubt = before  # nobody has got all of a body that could not be read
            raise WorkingCopyError(
                f"The working copy of {self._url} was truncated by something else on this machine while it was "
                f"uploaded: {broken}. Nothing was stored; the next session starts from the stored version.",
                url=self._url,
                path="",
                should_retry=True,
            ) from error

    def _put(self, before: bool) -> Published:
        try:
            etag = self._store.put(
                self._key,
                self._body,
                metadata=self._version.metadata,
                if_match=None if self._base is None else self._base.etag,
                if_none_match=self._base is None,
            )
        except StoreUnavailableError as error:
            self._in_doubt = before or error.ambiguous
            raise
        except PreconditionFailedError as refusal:
            self._in_doubt = before
            return self._after(refusal)
        except TemakiError:  # denied, too large: an answer, and a clear one
            self._in_doubt = before
            raise
        return Published(replace(self._version, etag=etag))

    def _after(self, refusal: PreconditionFailedError) -> Published:
        """What a refused attempt means, by what the object is now."""
        try:
            info = retry(lambda: self._store.head(self._key), clock=self._clock, deadline=self._deadline, rng=self._rng)
        except NotFoundError as error:
            return self._after_finding_nothing(refusal, error)
        except StoreError as error:
            # Without a look it is open who was first, but not that the attempt was refused.
            if self._in_doubt:
                self._raise_unknown(error)
            raise self._conflict("the store refused it, and did not say what is there instead") from error
        current = _as_version(info)
        if current is not None and self._version.commit in current.lineage:
            superseded = current.commit != self._version.commit
            return Published(replace(self._version, etag="" if superseded else info.etag), superseded)
        base = self._base
        if base is not None and current == base:
            raise self._to_send_again(refusal)
        if self._in_doubt and not self._disproved_by(current):
            self._raise_unknown(refusal)
        self._in_doubt = False
        raise self._conflict(_described(current)) from refusal

    def _after_finding_nothing(self, refusal: PreconditionFailedError, error: NotFoundError) -> Published:
        creates = self._base is None
        if self._in_doubt and not (creates and refusal.in_flight):
            self._raise_unknown(error)  # it may have landed, and have been deleted since
        if creates:
            raise self._to_send_again(refusal)  # what was in our way has gone
        raise NotFoundError(
            f"{self._url} was deleted while this commit was being made; nothing was stored. Restore the object, or "
            "start a new process to begin with an empty database.",
            url=self._url,
            status=error.status,
            code=error.code,
        ) from error

    def _disproved_by(self, current: Version | None) -> bool:
        """Whether ``current``, which does not have us in its lineage, proves that no attempt landed or will."""
        if current is None:
            return False
        if self._base is not None:
            return self._base.commit in current.lineage
        # Another tool's file proves nothing: such tools overwrite what is there.
        return current.complete and not current.lineage[-1].startswith(ADOPTED)

    def _to_send_again(self, refusal: PreconditionFailedError) -> _SendAgainError:
        self._unfounded_refusals += not refusal.in_flight
        if self._unfounded_refusals >= _UNFOUNDED_REFUSALS:
            raise self._unfounded(refusal) from refusal
        return _SendAgainError(refusal)

    def _unfounded(self, refusal: PreconditionFailedError) -> StoreError:
        why = "that a conflicting request is under way" if refusal.in_flight else "that the condition does not hold"
        return StoreError(
            f"{self._url} is unchanged, and yet the store kept refusing to replace it. It said {why}: {refusal}. "
            "Nothing was stored. Try again; if this happens every time, the store's conditional writes are not S3's.",
            url=self._url,
            status=refusal.status,
            code=refusal.code,
        )

    def _conflict(self, why: str) -> ConflictError:
        return ConflictError(
            f"Another writer has changed {self._url} since this transaction began ({why}). Nothing of this one was "
            "stored: run it again on the current version; @db_session(retry=N) does so by itself.",
            url=self._url,
            commit_id=self._version.commit,
        )

    def _raise_unknown(self, cause: BaseException) -> NoReturn:
        commit = self._version.commit
        raise CommitUnknownError(
            f"It is not known whether commit {commit} of {self._url} was stored: {_reason(cause)}. "
            "It may have been, or may be yet. Before doing the work again, look at the object's metadata (a HEAD "
            f"request): it was stored if {COMMIT_KEY} or {LINEAGE_KEY} has that id.",
            url=self._url,
            commit_id=commit,
        ) from cause


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
