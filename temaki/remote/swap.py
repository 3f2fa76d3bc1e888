"""Replaces one object exactly once, and never guesses whether it was replaced.

A swap uploads one body under one condition: "replace the object that I was built on", or "create". An attempt without
an answer is **in doubt**: it may have landed, or may land later. So the swap sends it again. That is safe, because at
most one of all attempts can land: the first one to land makes the condition of the others false. No two bodies under
one key are equal, because each contains its own id. So the ETag that the condition names does not come back. Only a
restore from outside brings it back; see the end.

After a refusal, the swap looks at the object. The caller knows what the object proves (a commit by its lineage, a lease
by its write id), and says it in one of these words:

* :attr:`Proof.OURS`: this swap has written the object, or the object was built on what it wrote. No doubt is left.
* :attr:`Proof.DISPROVED`: another writer replaced our base. Our condition is false and stays false. Attempts that are
  still under way will be refused, however late they arrive. The refusal is certain.
* :attr:`Proof.NOTHING`: the object says nothing about attempts in doubt. They may have landed and have been replaced or
  deleted.
* :attr:`Proof.UNCHANGED`: our condition is true, so no attempt has landed; but one under way may land later. The
  refusal was the store's 409 ("in flight"), or the store does not accept its own ETag. The swap sends the attempt
  again. If that is refused because a late attempt has landed by then, the next look shows it.
* :attr:`Proof.MAINTAINED`: the object is our base in other bytes: maintenance has rearranged how it is stored. Our
  condition is false and stays false, so no attempt so far will land. That is no conflict: the swap sends a body that is
  built anew on the object, with the same identity.

A look without a refusal before it proves less: an attempt under way can land after a look that said "unchanged". So the
swap never concludes anything from a look alone.

Without any attempt in doubt, a refusal is enough by itself: the body was not stored, and cannot be.

Not promised: if someone restores our base, byte for byte, while one of our attempts is under way, that attempt lands on
it. Likewise, a creation may land after the deletion of the object that it lost against.
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

_UNFOUNDED_REFUSALS: Final = 4  # refusals of a condition that holds, after which the store is at fault


class Proof(Enum):
    """What a look at the object after a refusal proves; see the module."""

    OURS = "ours"
    DISPROVED = "disproved"
    NOTHING = "nothing"
    UNCHANGED = "unchanged"
    MAINTAINED = "maintained"


@dataclass(frozen=True, slots=True)
class Landed(Generic[S]):
    """The result of a swap that has taken place.

    Attributes:
        etag: ETag of the new object, if the store answered the upload; else empty.
        seen: The object as the look that proved the swap saw it; None if the store answered the upload.
    """

    etag: str
    seen: S | None = None


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """A body that was built anew, on an object that is maintained.

    Attributes:
        body: The bytes, as for :class:`Swap`.
        replaces: ETag of the object that it was built on.
    """

    body: bytes | ReadableBody
    replaces: str


class RefusedError(Exception, Generic[S]):
    """The swap was refused. The body is not stored, and never will be.

    Attributes:
        seen: The object that is stored instead; None if it is not known, or if there is none.
        is_gone: True if there is no object.
    """

    def __init__(self, seen: S | None, *, is_gone: bool = False) -> None:
        super().__init__(seen)
        self.seen, self.is_gone = seen, is_gone


class UndecidedError(Exception):
    """It cannot be proved whether the swap has taken place.

    Attributes:
        cause: The error that left the swap in doubt.
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
    """The body could not be read to its end, so the store does not have it. ``__cause__`` is the upload's error."""


class _SendAgainError(Exception):
    """The attempt was refused although its condition holds."""

    def __init__(self, refusal: PreconditionFailedError) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


class _RebuiltError(_SendAgainError):
    """The attempt was refused because of maintenance, and there may be another body to send."""

    def __init__(self, refusal: PreconditionFailedError, seen: object) -> None:
        super().__init__(refusal)
        self.seen = seen


class Swap(Generic[S]):
    """One body on its way into the store. Call :meth:`run` once.

    Args:
        store: The bucket.
        key: The object's key in the bucket.
        body: The bytes. Each attempt reads them from their start, so they must not change.
        metadata: User metadata for the object.
        replaces: ETag of the object that is to be replaced; None to create the object.
        look: Asks once which object is stored now. Raises ``NotFoundError`` if there is none.
        proves: Says what the object that ``look`` returned proves.
        attempts: The attempts of the upload, until their deadline.
        rebuild: Builds the body anew, for an object that proves ``MAINTAINED``. Gives None if that object has been
            replaced by now. What it raises ends the swap: nothing was stored.
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
        rebuild: Callable[[S], Rebuilt | None] | None = None,
    ) -> None:
        self._rebuild = rebuild
        self._store, self._key, self._body, self._metadata, self._replaces = store, key, body, metadata, replaces
        self._look, self._proves = look, proves
        self._attempts = attempts
        self._in_doubt = False
        self._unfounded_refusals = 0

    def run(self) -> Landed[S]:
        """Upload, with retries, until the result is known.

        Raises:
            RefusedError: Another object came first.
            UndecidedError: Neither success nor refusal can be proved, or an interrupt came in between.
            UnfoundedRefusalError: The store refuses a condition that holds.
            BrokenBodyError: The body could not be read. Nothing was stored.
            StoreError: The store refused, or could not be reached. Nothing was stored.
        """
        try:
            return self._attempts.run(self._attempt, on=(StoreUnavailableError, _SendAgainError))
        except (RefusedError, UndecidedError, BrokenBodyError):
            raise
        except _RebuiltError as error:  # out of time, with one maintenance after the other
            raise RefusedError(error.seen) from error.refusal
        except _SendAgainError as error:
            if self._in_doubt:
                raise UndecidedError(error.refusal) from error.refusal
            raise UnfoundedRefusalError(error.refusal) from error.refusal
        except BaseException as error:
            if self._in_doubt:
                raise UndecidedError(error) from error
            raise

    def _attempt(self) -> Landed[S]:
        """Upload the body, and every body that is built anew, at once.

        Maintenance does not wait between its steps. A writer that waited longer after each of them would be held up
        for as long as it goes on.
        """
        while True:
            try:
                return self._attempt_once()
            except _RebuiltError:
                if self._attempts.is_over:
                    raise

    def _attempt_once(self) -> Landed[S]:
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
        """Decide what a refused attempt means, by a look at the object."""
        try:
            seen = self._attempts.run(self._look)
        except NotFoundError as error:
            self._after_finding_nothing(refusal, error)
        except StoreError as error:
            # Without a look we do not know who was first. But we know that this attempt was refused.
            if self._in_doubt:
                raise UndecidedError(error) from error
            raise RefusedError(None) from error
        proof = self._proves(seen)
        if proof is Proof.OURS:
            return Landed("", seen)
        if proof is Proof.UNCHANGED:
            self._send_again(refusal)
        if proof is Proof.MAINTAINED and self._rebuild is not None:
            self._build_anew(refusal, seen, self._rebuild)
        if self._in_doubt and proof is not Proof.DISPROVED:
            raise UndecidedError(refusal) from refusal
        self._in_doubt = False
        raise RefusedError(seen) from refusal

    def _build_anew(
        self, refusal: PreconditionFailedError, seen: S, rebuild: Callable[[S], Rebuilt | None]
    ) -> NoReturn:
        self._in_doubt = False  # what was sent names an ETag that has gone, and will be refused
        rebuilt = rebuild(seen)
        if rebuilt is not None:
            self._body, self._replaces = rebuilt.body, rebuilt.replaces
        raise _RebuiltError(refusal, seen)

    def _after_finding_nothing(self, refusal: PreconditionFailedError, error: NotFoundError) -> NoReturn:
        creates = self._replaces is None
        if self._in_doubt and not (creates and refusal.in_flight):
            raise UndecidedError(error) from error  # an attempt may have landed, and have been deleted since
        if creates:
            self._send_again(refusal)  # the object that made the condition false is gone
        raise RefusedError(None, is_gone=True) from error

    def _send_again(self, refusal: PreconditionFailedError) -> NoReturn:
        self._unfounded_refusals += not refusal.in_flight
        if self._unfounded_refusals >= _UNFOUNDED_REFUSALS:
            raise UnfoundedRefusalError(refusal) from refusal
        raise _SendAgainError(refusal)
