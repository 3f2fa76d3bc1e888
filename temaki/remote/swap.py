"""Replacing one object exactly once, and never guessing whether it was replaced.

A swap uploads one body under one condition: "replace the object that I was built on", or "create". An attempt without
an answer is **in doubt**: it may have landed, or land yet. So it is sent again. That is safe, because at most one of
all attempts can land: the first to land makes the condition of the others false. No two bodies under one key are equal
(each carries an id of its own), so the ETag that the condition names does not come back either. Only a restore from
outside brings it back; see the end.

A refused attempt is followed by a look at the object. What the object proves is the caller's knowledge (a commit's
lineage, a lease's write id), in one of these words:

* :attr:`Proof.OURS`: it is what this swap has written, or was built on it. No doubt is left.
* :attr:`Proof.DISPROVED`: what replaced our base is someone else's. Our condition is false and stays false: attempts
  still under way, however late they arrive, will be refused. A refusal for certain.
* :attr:`Proof.NOTHING`: it says nothing about attempts in doubt. They may have landed and been replaced, or deleted.
* :attr:`Proof.UNCHANGED`: our condition is true, so nothing of ours has landed; but what is under way may land yet. The
  refusal was the store's 409 ("in flight"), or the store dislikes its own ETag. The attempt is sent again; that may be
  refused because a late one has landed by then, which the next look shows.

A look without a refusal before it proves less: "unchanged" can be overtaken by an attempt that is under way. That is
why nothing is ever concluded from a look alone.

Without any attempt in doubt, a refusal is enough by itself: nothing of ours was stored, or can be.

Not promised: if someone restores our base, byte for byte, while an attempt of ours is under way, that attempt lands on
it. Likewise, a creation lands on the deletion of what it lost against.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final, Generic, NoReturn, TypeVar

from temaki.errors import NotFoundError, PreconditionFailedError, StoreError, StoreUnavailableError, TemakiError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from temaki.remote.retry import Attempts
    from temaki.store import ReadableBody, Store

S = TypeVar("S")

_UNFOUNDED_REFUSALS: Final = 4  # so often may a store refuse a condition that holds, before it is the store's fault


class Proof(Enum):
    """What an object that was found after a refusal proves; see the module."""

    OURS = "ours"
    DISPROVED = "disproved"
    NOTHING = "nothing"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True)
class Landed(Generic[S]):
    """The swap has taken place.

    Attributes:
        etag: The new object's ETag, if the store's answer to the upload gave it; else empty.
        seen: What was found at the look that proved it; None if the upload was answered.
    """

    etag: str
    seen: S | None = None


class RefusedError(Exception, Generic[S]):
    """The swap was refused: nothing of it is stored, or will be.

    Attributes:
        seen: What is in the object's place; None if it is not known, or if nothing is there.
        is_gone: Whether nothing is there.
    """

    def __init__(self, seen: S | None, *, is_gone: bool = False) -> None:
        super().__init__(seen)
        self.seen, self.is_gone = seen, is_gone


class UndecidedError(Exception):
    """It cannot be proved whether the swap has taken place.

    Attributes:
        cause: Why.
    """

    def __init__(self, cause: BaseException) -> None:
        super().__init__(str(cause))
        self.cause = cause


class UnfoundedRefusalError(Exception):
    """The object is unchanged, and yet the store kept refusing to replace it. Nothing was stored.

    Attributes:
        refusal: The store's last refusal.
    """

    def __init__(self, refusal: PreconditionFailedError) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


class BrokenBodyError(Exception):
    """The body could not be read to its end, so nobody has all of it. ``__cause__`` is what the upload raised."""


class _SendAgainError(Exception):
    """The attempt was refused although its condition holds."""

    def __init__(self, refusal: PreconditionFailedError) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


class Swap(Generic[S]):
    """One body on its way into the store. :meth:`run` once.

    Args:
        store: The bucket.
        key: The object's key in it.
        body: The bytes. They are read from their start at each attempt, so they must not change.
        metadata: User metadata for the object.
        replaces: ETag of the object that is to be replaced; None to create it.
        look: Asks once what is in the object's place. Raises ``NotFoundError`` if nothing is.
        proves: What that proves.
        attempts: Until when an attempt is repeated.
    """

    def __init__(
        self,
        store: Store,
        key: str,
        body: bytes | ReadableBody,
        *,
        metadata: Mapping[str, str] | None = None,
        replaces: str | None,
        look: Callable[[], S],
        proves: Callable[[S], Proof],
        attempts: Attempts,
    ) -> None:
        self._store, self._key, self._body, self._metadata, self._replaces = store, key, body, metadata, replaces
        self._look, self._proves = look, proves
        self._attempts = attempts
        self._in_doubt = False
        self._unfounded_refusals = 0

    def run(self) -> Landed[S]:
        """Upload, until the store has said what became of it.

        Raises:
            RefusedError: Another object came first.
            UndecidedError: None of this can be proved; also where an interrupt came in between.
            UnfoundedRefusalError: The store refuses a condition that holds.
            BrokenBodyError: The body could not be read. Nothing was stored.
            StoreError: The store refused, or could not be reached. Nothing was stored.
        """
        try:
            return self._attempts.run(self._attempt, on=(StoreUnavailableError, _SendAgainError))
        except (RefusedError, UndecidedError, BrokenBodyError):
            raise
        except _SendAgainError as error:
            if self._in_doubt:
                raise UndecidedError(error.refusal) from error.refusal
            raise UnfoundedRefusalError(error.refusal) from error.refusal
        except BaseException as error:
            if self._in_doubt:
                raise UndecidedError(error) from error
            raise

    def _attempt(self) -> Landed[S]:
        before, self._in_doubt = self._in_doubt, True  # an interrupt may come from now on
        try:
            return self._put(before)
        except Exception as error:
            if getattr(self._body, "broken", None) is None:
                raise
            self._in_doubt = before
            raise BrokenBodyError from error

    def _put(self, before: bool) -> Landed[S]:
        try:
            etag = self._store.put(
                self._key,
                self._body,
                metadata=self._metadata,
                if_match=self._replaces,
                if_none_match=self._replaces is None,
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
        return Landed(etag)

    def _after(self, refusal: PreconditionFailedError) -> Landed[S]:
        """What a refused attempt means, by what the object is now."""
        try:
            seen = self._attempts.run(self._look)
        except NotFoundError as error:
            self._after_finding_nothing(refusal, error)
        except StoreError as error:
            # Without a look it is open who was first, but not that the attempt was refused.
            if self._in_doubt:
                raise UndecidedError(error) from error
            raise RefusedError(None) from error
        proof = self._proves(seen)
        if proof is Proof.OURS:
            return Landed("", seen)
        if proof is Proof.UNCHANGED:
            self._send_again(refusal)
        if self._in_doubt and proof is not Proof.DISPROVED:
            raise UndecidedError(refusal) from refusal
        self._in_doubt = False
        raise RefusedError(seen) from refusal

    def _after_finding_nothing(self, refusal: PreconditionFailedError, error: NotFoundError) -> NoReturn:
        creates = self._replaces is None
        if self._in_doubt and not (creates and refusal.in_flight):
            raise UndecidedError(error) from error  # it may have landed, and have been deleted since
        if creates:
            self._send_again(refusal)  # what was in our way has gone
        raise RefusedError(None, is_gone=True) from error

    def _send_again(self, refusal: PreconditionFailedError) -> NoReturn:
        self._unfounded_refusals += not refusal.in_flight
        if self._unfounded_refusals >= _UNFOUNDED_REFUSALS:
            raise UnfoundedRefusalError(refusal) from refusal
        raise _SendAgainError(refusal)
