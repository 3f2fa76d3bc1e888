"""Stores a commit: swaps the database's object, and reads from the lineage what a look at the object proves.

Each version's metadata name the versions before it, newest first. So a look at the object after a refusal proves:

* The lineage has our id, at its head or further down: our commit landed.
* The lineage has our base and not our id: another commit replaced our base, because each version in a lineage replaced
  the one that is named after it. A creation is disproved in the same way by a complete lineage without our id.
* The object is our base with another ETag: its format's maintenance has rearranged it. The body is built anew.
* The lineage is too short to show our base, or another tool wrote the object: this proves nothing about attempts in
  doubt.

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
    Rebuilt,
    RefusedError,
    Swap,
    UndecidedError,
    UnfoundedRefusalError,
)
from temaki.version import ADOPTED, COMMIT_KEY, LINEAGE_KEY, MetadataError, Published, Version, read_version

if TYPE_CHECKING:
    from collections.abc import Callable

    from temaki.remote.retry import Attempts
    from temaki.store import ObjectInfo, ReadableBody, Store


class Publication:
    """One commit on its way into the store. Call :meth:`run` once.

    Args:
        store: The bucket.
        key: The database's key in the bucket.
        url: The database's URL, for messages.
        body: The bytes. Each attempt reads them from their start, so they must not change.
        version: The version to store, with its metadata and without an ETag.
        base: The version that it replaces; None to create the object.
        attempts: The attempts of the upload, until their deadline.
        rebuild: Builds the body anew on the version that it is given: the base in other bytes, as a format's
            maintenance leaves it. None if versions are not maintained. See :class:`temaki.remote.swap.Swap`.
    """

    def __init__(  # noqa: PLR0917 - one call, from Remote
        self,
        store: Store,
        key: str,
        url: str,
        body: ReadableBody,
        version: Version,
        base: Version | None,
        attempts: Attempts,
        rebuild: Callable[[Version], Rebuilt | None] | None = None,
    ) -> None:
        self._rebuild = rebuild
        self._url, self._version, self._base = url, version, base
        self._body: bytes | ReadableBody = body
        self._swap: Swap[ObjectInfo] = Swap(
            store,
            key,
            body,
            metadata=version.metadata,
            replaces=None if base is None else base.etag,
            look=lambda: store.head(key),
            proves=self._proves,
            attempts=attempts,
            rebuild=None if rebuild is None else self._built_anew,
        )

    def run(self) -> Published:
        """Upload, with retries, until the result is known.

        Raises:
            ConflictError: Another version came first. The commit is not stored, and never will be.
            NotFoundError: The base was deleted. The commit is not stored, and never will be.
            CommitUnknownError: None of the above can be proved, or an interrupt came in between.
            WorkingCopyError: The body could not be read. The commit is not stored, and never will be.
            StoreError: The store refused, or could not be reached. The commit is not stored, and never will be.
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
        if self._rebuild is not None and self._base is not None and current.commit == self._base.commit:
            return Proof.MAINTAINED
        return Proof.DISPROVED if self._disproved_by(current) else Proof.NOTHING

    def _built_anew(self, info: ObjectInfo) -> Rebuilt | None:
        assert self._rebuild is not None, "else nothing is taken for maintained"
        current = read_version(info)
        rebuilt = self._rebuild(current)
        if rebuilt is not None:
            self._base, self._body = current, rebuilt.body
        return rebuilt

    def _disproved_by(self, current: Version) -> bool:
        """Whether ``current``, whose lineage lacks our id, proves that no attempt has landed or ever will."""
        if self._base is not None:
            return self._base.commit in current.lineage
        # Another tool's file proves nothing: such tools overwrite the object unconditionally.
        return current.complete and not current.lineage[-1].startswith(ADOPTED)

    def _published(self, landed: Landed[ObjectInfo]) -> Published:
        if landed.seen is None:
            return Published(replace(self._version, etag=landed.etag))
        current = read_version(landed.seen)
        superseded = current.commit != self._version.commit
        return Published(replace(self._version, etag="" if superseded else current.etag), superseded, found=True)

    # -- errors ---------------------------------------------------------------------------------------------------

    def _refused(self, error: RefusedError[ObjectInfo]) -> ConflictError | NotFoundError:
        cause = error.__cause__
        if error.is_gone and isinstance(cause, NotFoundError):
            return NotFoundError(
                f"{self._url} was deleted while this commit was being made. Nothing was stored. Restore the object, or "
                "start a new process to begin with an empty database.",
                url=self._url,
                status=cause.status,
                code=cause.code,
            )
        if error.seen is None:
            why = "the store refused the commit, and the current version could not be read"
        else:
            why = _described(_as_version(error.seen))
        return conflict(self._url, self._version.commit, why)

    def _unfounded(self, error: UnfoundedRefusalError) -> StoreError:
        refusal = error.refusal
        why = "that a conflicting request is under way" if refusal.in_flight else "that the condition does not hold"
        return StoreError(
            f"{self._url} is unchanged, and yet the store kept refusing to replace it. It said {why}: {refusal}. "
            "Nothing was stored. Try again. If this happens every time, the store's conditional writes do not work as "
            "S3's do.",
            url=self._url,
            status=refusal.status,
            code=refusal.code,
        )

    def _unknown(self, cause: BaseException) -> CommitUnknownError:
        commit = self._version.commit
        return CommitUnknownError(
            f"It is not known whether commit {commit} of {self._url} was stored: {_reason(cause)}. "
            "It may have been stored, or may still be. Before doing the work again, look at the object's metadata (a "
            f"HEAD request): the commit was stored if {COMMIT_KEY} or {LINEAGE_KEY} has that id.",
            url=self._url,
            commit_id=commit,
        )

    def _broken(self) -> WorkingCopyError:
        return WorkingCopyError(
            f"Something else on this machine truncated the working copy of {self._url} while it was uploaded: "
            f"{getattr(self._body, 'broken', None)}. Nothing was stored. Run the function again: the next session "
            "starts from the stored version.",
            url=self._url,
            path="",
            should_retry=True,
        )


def conflict(url: str, commit: str, why: str) -> ConflictError:
    """Make the error for a commit whose base another writer has replaced.

    Args:
        url: The database's URL.
        commit: The commit's id.
        why: What was found instead of the base.
    """
    return ConflictError(
        f"Another writer has changed {url} since this transaction began: {RUN_AGAIN} Nothing of this transaction was "
        f"stored ({why}).",
        url=url,
        commit_id=commit,
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
