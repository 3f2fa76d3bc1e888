"""The one hierarchy of errors that temaki raises.

Every message says what happened, to which object, and what to do about it. The facts of a message are
also attributes, and every error survives :mod:`pickle` and :func:`copy.copy` (process pools, threads that
share one failed request).

``should_retry`` is Pony's own convention: ``@db_session(retry=N)`` runs a function again after an error whose
attribute is true. It is true where a fresh start from the current version can succeed.

``may_repeat`` is temaki's: a retry also comes after *any* error in a commit. Where that would be wrong (the commit may
have landed) or pointless (access denied), it is false, and the function is not entered again.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final


class TemakiError(Exception):
    """Base of everything that temaki raises on purpose.

    Args:
        message: What happened, to which object, and what to do.
        facts: The same as data; each becomes an attribute.
    """

    should_retry: ClassVar[bool] = False
    may_repeat: ClassVar[bool] = True

    def __init__(self, message: str, **facts: Any) -> None:
        super().__init__(message)
        self.facts = facts
        for name, value in facts.items():
            setattr(self, name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.args[0], self.facts))


def _rebuild(cls: type[TemakiError], message: str, facts: dict[str, Any]) -> TemakiError:
    return cls(message, **facts)


class ConfigurationError(TemakiError):
    """Settings, URL, strategy or use of the API that cannot work. Raised before any request is made."""

    may_repeat = False


class StoreError(TemakiError):
    """The object store refused or failed a request.

    Attributes:
        url: Of the object or bucket.
        status: HTTP status, or None.
        code: The store's own error code, or None.
        service: What failed instead of the store, or None: a service that gives credentials, or a proxy.
        advice: What to do: the end of the message. Empty where the message does not end with it.
    """

    url: str
    status: int | None = None
    code: str | None = None
    service: str | None = None
    advice: str = ""


class NotFoundError(StoreError):
    """The bucket exists and has no such key: the store's definite answer, never a guess."""


class BucketNotFoundError(StoreError):
    """The bucket (or folder) itself does not exist.

    Deliberately no :class:`NotFoundError`: a wrong bucket name must never look like a database yet to be created.
    """

    may_repeat = False


class PreconditionFailedError(StoreError):
    """A conditional request was refused: the object is not (or no longer) what the condition names.

    ``in_flight`` is true where the store said that a conflicting request was under way (S3's 409
    ``ConditionalRequestConflict``): nothing was decided, the same request may be sent again.
    """

    in_flight: bool = False


class StoreUnavailableError(StoreError):
    """No usable answer: timeout, reset, refused connection, 5xx, a body that ended early.

    ``ambiguous`` is false only where the request certainly never reached the store. Otherwise a write may have
    landed, or may land yet.
    """

    ambiguous: bool = True


class AccessDeniedError(StoreError):
    """The credentials are missing, wrong, or lack a permission. Without ListBucket, S3 says this for missing keys.

    ``lacks_permission`` is false where the credentials themselves are missing or refused, or a proxy refuses: no grant
    helps then.
    """

    may_repeat = False
    lacks_permission: bool = True


class UnsafeStoreError(StoreError):
    """The store accepts writes whose condition is false. Two writers would overwrite each other in silence."""

    may_repeat = False


class SyncError(TemakiError):
    """Keeping the working copy and the stored object in step failed. Attribute: ``url`` of the database."""

    url: str


class ConflictError(SyncError):
    """Another writer came first; nothing of this transaction was stored. Run it again on the current version.

    An application whose sessions have no ``retry``, and are not to get one, binds with ``strategy="lease-locked"`` and
    ``isolation="pony"``.
    """

    should_retry = True


RUN_AGAIN: Final = (
    "run the function again, as @db_session(retry=5) does; or, for sessions without retry, bind with "
    'strategy="lease-locked", isolation="pony" (docs/how-to/migrating.md#several-processes).'
)
"""What to do about a conflict: the end of a message's first sentence."""


class CommitUnknownError(SyncError):
    """The store never said whether it accepted the commit. Look for ``commit_id`` before doing the work again.

    Attributes: ``commit_id``, and ``url`` of the database.
    """

    may_repeat = False
    commit_id: str


class ReadOnlyError(SyncError):
    """A write on a database that is bound with a strategy that never writes."""

    may_repeat = False


class LeaseTimeoutError(SyncError):
    """The lease was held by others for longer than the writer was willing to wait."""


class LeaseRecordError(SyncError):
    """What is stored in the lease's place is no lease that temaki can use. It is never taken over or overwritten."""

    may_repeat = False


class LeaseLostError(SyncError):
    """The lease was lost while a transaction was under way; nothing of it was stored. The message says how.

    Attributes: ``generation`` of the lease that was lost; ``evicted_by``, who took it away with ``temaki lease break``,
    or None if nobody did; and ``url`` of the database.
    """

    should_retry = True
    generation: int
    evicted_by: str | None = None


class BookmarkError(SyncError):
    """The version that a bookmark stands for is not in the store.

    Attributes: ``bookmark``, as text; ``lost``, whether it will not come any more; and ``url`` of the database.
    """

    bookmark: str
    lost: bool = False


class CorruptDatabaseError(SyncError):
    """The stored object is no SQLite database, or is truncated or damaged. It is never overwritten."""

    may_repeat = False


class WorkingCopyError(SyncError):
    """The local working copy cannot be written or read: no space, no permission, a vanished folder.

    Attributes: ``path``, and ``url`` of the database.
    """

    path: str


class StatementRefusedError(SyncError):
    """A raw SQL statement would bypass temaki's transaction: the message says what to use instead."""

    may_repeat = False


class SeedError(TemakiError):
    """The rows that an entity brings cannot be stored as they are; nothing of them was.

    Attributes:
        entity: The entity's name.
        row: The number of the row among the entity's rows, from 1; or None.
        column: The attribute's name, or None.
        value: The value that will not do, or None.
    """

    may_repeat = False
    entity: str
    row: int | None = None
    column: str | None = None
    value: Any = None
