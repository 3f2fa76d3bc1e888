"""The one hierarchy of errors that temaki raises.

Every message says what happened, to which object, and what to do. The facts of a message are also attributes. Every
error survives :mod:`pickle` and :func:`copy.copy`, for process pools and for threads that share one failed request.

``should_retry`` is Pony's convention: ``@db_session(retry=N)`` runs a function again after an error whose attribute is
true. It is true for errors after which a fresh start from the current version can succeed.

``may_repeat`` is temaki's own: Pony also retries after *any* error in a commit. The attribute is false where a retry
would be wrong (the commit may have landed) or pointless (access denied). Then the function does not run again.
"""

from __future__ import annotations

import sqlite3
from typing import Any, ClassVar, Final


class TemakiError(Exception):
    """Base class of all errors that temaki raises on purpose.

    Args:
        message: What happened, to which object, and what to do.
        facts: The same facts as data. Each becomes an attribute.
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
    """Settings, a URL, a strategy or a use of the API that cannot work. Raised before any request."""

    may_repeat = False


class StoreError(TemakiError):
    """The object store refused or failed a request.

    Attributes:
        url: URL of the object or bucket.
        status: HTTP status of the answer, or None.
        code: The store's own error code, or None.
        service: Name of the service that failed instead of the store (credentials, a proxy), or None.
        advice: What to do, if the message ends with it; else empty.
    """

    url: str
    status: int | None = None
    code: str | None = None
    service: str | None = None
    advice: str = ""


class NotFoundError(StoreError):
    """The bucket exists and has no such key. This is the store's definite answer, never a guess."""


class BucketNotFoundError(StoreError):
    """The bucket (or folder) itself does not exist.

    It is not a :class:`NotFoundError`, on purpose: a wrong bucket name must never look like a database to create.
    """

    may_repeat = False


class PreconditionFailedError(StoreError):
    """The store refused a conditional request: the object is not, or no longer, what the condition names.

    Attributes:
        in_flight: True if the store answered that a conflicting request was under way (S3's 409
            ``ConditionalRequestConflict``). The store decided nothing; the caller may send the request again.
    """

    in_flight: bool = False


class StoreUnavailableError(StoreError):
    """The store gave no usable answer: timeout, reset, refused connection, 5xx, a body that ended early.

    Attributes:
        ambiguous: False only if the request certainly never reached the store. If true, a write may have landed or
            may land later.
    """

    ambiguous: bool = True


class AccessDeniedError(StoreError):
    """The credentials are missing, wrong, or lack a permission. Without ListBucket, S3 says this for missing keys.

    Attributes:
        lacks_permission: False if a proxy refused, or if the credentials themselves are missing or refused. No grant
            helps then.
    """

    may_repeat = False
    lacks_permission: bool = True


class ObjectArchivedError(StoreError):
    """The object is in an archive storage class, from which it cannot be read until it is restored."""

    may_repeat = False


class UnsafeStoreError(StoreError):
    """The store accepts writes whose condition is false. Two writers would silently overwrite each other."""

    may_repeat = False


class SyncError(TemakiError):
    """The working copy and the stored object could not be kept in step.

    Attributes:
        url: URL of the database.
    """

    url: str


class ConflictError(SyncError):
    """Another writer came first. Nothing of this transaction was stored. Run it again on the current version.

    An application whose sessions have no ``retry`` binds with ``strategy="lease-locked"`` and ``isolation="pony"``.
    """

    should_retry = True


RUN_AGAIN: Final = (
    "run the function again, as @db_session(retry=5) does; or, for sessions without retry, bind with "
    'strategy="lease-locked", isolation="pony" (docs/how-to/migrating.md#several-processes).'
)
"""What to do about a conflict: the end of a message's first sentence."""


class CommitUnknownError(SyncError):
    """The store never said whether it accepted the commit. Look for ``commit_id`` before doing the work again.

    Attributes:
        commit_id: Id of the commit.
        url: URL of the database.
    """

    may_repeat = False
    commit_id: str


class ReadOnlyError(SyncError, sqlite3.DatabaseError):
    """A session tried to write to a database that is bound with a strategy that never writes.

    ``except sqlite3.Error`` catches it too. It is no ``sqlite3.OperationalError``: code that expects one, such as
    "duplicate column name", must not take a refusal for it.
    """

    may_repeat = False


class LeaseTimeoutError(SyncError):
    """Other processes held the lease for longer than the writer was willing to wait."""


class LeaseRecordError(SyncError):
    """The object under the lease's key is no lease that temaki can use. temaki never takes it over or overwrites it."""

    may_repeat = False


class LeaseLostError(SyncError):
    """This process lost the lease during a transaction. Nothing was stored. The message says how it lost the lease.

    Attributes:
        generation: Generation of the lost lease.
        evicted_by: Who evicted this process with ``temaki lease break``; None if nobody did.
        url: URL of the database.
    """

    should_retry = True
    generation: int
    evicted_by: str | None = None


class BookmarkError(SyncError):
    """The store does not have the version that a bookmark stands for.

    Attributes:
        bookmark: The bookmark as text.
        lost: True if the version can never come.
        url: URL of the database.
    """

    bookmark: str
    lost: bool = False


class CorruptDatabaseError(SyncError):
    """The stored object is no SQLite database, or is truncated or damaged. temaki never overwrites it."""

    may_repeat = False


class WorkingCopyError(SyncError):
    """The local working copy cannot be written or read: no space, no permission, a vanished folder.

    Attributes:
        path: Path of the file or folder.
        url: URL of the database.
    """

    path: str


class StatementRefusedError(SyncError, sqlite3.DatabaseError):
    """A raw SQL statement would bypass temaki's transaction. The message says what to use instead.

    ``except sqlite3.Error`` catches it too. It is no ``sqlite3.OperationalError``; see :class:`ReadOnlyError`.
    """

    may_repeat = False


class SeedError(TemakiError):
    """The rows that an entity brings cannot be stored. None of them was stored.

    Attributes:
        entity: Name of the entity.
        row: Number of the row among the entity's rows, from 1; or None.
        column: Name of the attribute, or None.
        value: The value that cannot be stored, or None.
    """

    may_repeat = False
    entity: str
    row: int | None = None
    column: str | None = None
    value: Any = None
