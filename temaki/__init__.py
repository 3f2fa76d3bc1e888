"""A Pony ORM database in one SQLite file on S3.

.. code-block:: python

    from temaki import Database

    db = Database()
    ...
    db.bind_s3("s3://bucket/app.sqlite")
    db.generate_mapping(create_tables=True)

The rest is plain Pony: each ``db_session`` starts from the current version and ends with its changes stored.
:data:`temaki.db_session` is Pony's own, with a ``retry`` that waits between tries and stops when a retry cannot help.
"""

from temaki._version import __version__
from temaki.errors import (
    AccessDeniedError,
    BookmarkError,
    BucketNotFoundError,
    CommitUnknownError,
    ConfigurationError,
    ConflictError,
    CorruptDatabaseError,
    LeaseLostError,
    LeaseRecordError,
    LeaseTimeoutError,
    NotFoundError,
    ObjectArchivedError,
    PreconditionFailedError,
    ReadOnlyError,
    SeedError,
    StatementRefusedError,
    StoreError,
    StoreUnavailableError,
    SyncError,
    TemakiError,
    UnsafeStoreError,
    WorkingCopyError,
)
from temaki.orm.binding import bind_s3, sync_of, unbind
from temaki.orm.cause import cause_of
from temaki.orm.database import Database
from temaki.orm.db_session import db_session
from temaki.orm.seeding import Seeded

__all__ = [
    "AccessDeniedError",
    "BookmarkError",
    "BucketNotFoundError",
    "CommitUnknownError",
    "ConfigurationError",
    "ConflictError",
    "CorruptDatabaseError",
    "Database",
    "LeaseLostError",
    "LeaseRecordError",
    "LeaseTimeoutError",
    "NotFoundError",
    "ObjectArchivedError",
    "PreconditionFailedError",
    "ReadOnlyError",
    "SeedError",
    "Seeded",
    "StatementRefusedError",
    "StoreError",
    "StoreUnavailableError",
    "SyncError",
    "TemakiError",
    "UnsafeStoreError",
    "WorkingCopyError",
    "__version__",
    "bind_s3",
    "cause_of",
    "db_session",
    "sync_of",
    "unbind",
]
