"""A store of one's own: a bucket whose objects are rows of a SQLite file, shared by the processes of one machine.

What matters in a store is that a condition is decided and the write is done in one step, whoever else is writing, and
that its errors say what is certain. Here SQLite's write lock does the first: ``BEGIN IMMEDIATE``, look, write, commit.

Where this distribution is installed, its entry point makes the scheme ``sqlite`` known:

.. code-block:: python

    db.bind_s3("sqlite:///srv/bucket.sqlite/app.sqlite")
"""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from temaki.errors import NotFoundError, PreconditionFailedError, StoreUnavailableError
from temaki.store import Download, Location, ObjectInfo, ReadableBody, Store, StoreOpener
from temaki.stores.memory import BytesDownload
from temaki.stores.rules import (
    check_conditions,
    check_range,
    checked_key,
    checked_metadata,
    cut_range,
    read_body,
)

_PATIENCE = 15.0  # seconds for which a request waits for another process's


class SQLiteOpener(StoreOpener):
    """``sqlite:///folder/bucket.sqlite/key``: the last part is the key, and all before it is the file's path."""

    example: ClassVar[str] = "sqlite:///srv/bucket.sqlite/app.sqlite"

    def split(self, rest: str) -> tuple[str, str]:
        """See :meth:`temaki.store.StoreOpener.split`."""
        path, _, key = rest.rpartition("/")
        if not path.startswith("/"):
            raise ValueError("it has no absolute path of a file with a key after it: three slashes after 'sqlite:'")
        if not key:
            raise ValueError("it has no key after the file")
        return os.path.abspath(path), key

    def open(self, location: Location, *, client: Any = None) -> Store:  # noqa: ARG002 - it takes none
        """See :meth:`temaki.store.StoreOpener.open`."""
        return SQLiteStore(location.bucket)


class SQLiteStore:
    """One bucket in one file. Safe to use from many threads and processes.

    Args:
        path: The file. The first request makes it if it is not there.
    """

    honours_conditions = True

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path).absolute()
        self.url = f"sqlite://{self._path}"

    def get(
        self,
        key: str,
        *,
        if_none_match: str | None = None,
        if_match: str | None = None,
        byte_range: tuple[int, int] | None = None,
    ) -> Download | None:
        """See :meth:`temaki.store.Store.get`."""
        check_conditions(if_match, if_none_match, self.url)
        check_range(byte_range, self.url)
        with self._connected() as bucket:
            row = bucket.execute(_SELECT + ", data FROM object WHERE key = ?", (key,)).fetchone()
        if row is None:
            raise self._missing(key)
        info, data = _info(row), row[-1]
        if if_match is not None and info.etag != if_match:
            raise self._refused(key)
        if info.etag == if_none_match:
            return None
        start, stop = cut_range(byte_range, len(data), f"{self.url}/{key}")
        return BytesDownload(info, memoryview(data)[start:stop])

    def head(self, key: str) -> ObjectInfo:
        """See :meth:`temaki.store.Store.head`."""
        with self._connected() as bucket:
            row = bucket.execute(_SELECT + " FROM object WHERE key = ?", (key,)).fetchone()
        if row is None:
            raise self._missing(key)
        return _info(row)

    def put(
        self,
        key: str,
        body: bytes | ReadableBody,
        *,
        metadata: Mapping[str, str] | None = None,
        if_match: str | None = None,
        if_none_match: bool = False,
    ) -> str:
        """See :meth:`temaki.store.Store.put`."""
        checked_key(key, self.url)
        check_conditions(if_match, if_none_match, self.url)
        described = json.dumps(checked_metadata(metadata, self.url))
        data, etag = read_body(body), secrets.token_hex(16)
        with self._transaction() as bucket:
            found = bucket.execute("SELECT etag FROM object WHERE key = ?", (key,)).fetchone()
            if (if_none_match and found is not None) or (if_match is not None and found != (if_match,)):
                raise self._refused(key)
            values = (key, etag, datetime.now(UTC).timestamp(), described, data)
            bucket.execute("INSERT OR REPLACE INTO object VALUES (?, ?, ?, ?, ?)", values)
        return etag

    def delete(self, key: str) -> None:
        """See :meth:`temaki.store.Store.delete`."""
        with self._transaction() as bucket:
            bucket.execute("DELETE FROM object WHERE key = ?", (key,))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See :meth:`temaki.store.Store.list`. SQLite compares texts by their UTF-8."""
        with self._connected() as bucket:
            statement = _SELECT + " FROM object WHERE substr(key, 1, ?) = ? ORDER BY key"
            rows = bucket.execute(statement, (len(prefix), prefix)).fetchall()
        for row in rows:
            found = _info(row)
            yield ObjectInfo(found.key, found.etag, found.size, {}, found.last_modified, found.date)

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        """A connection for one request: none is shared between threads, or with a forked child."""
        try:
            with closing(sqlite3.connect(self._path, timeout=_PATIENCE, isolation_level=None)) as bucket:
                bucket.execute(_TABLE)
                yield bucket
        except sqlite3.OperationalError as error:
            # Locked for too long, no space, no permission. SQLite has rolled back: nothing of it is ambiguous.
            message = f"{self.url}: {error}. Nothing was changed. Check the file and its folder, and try again."
            raise StoreUnavailableError(message, url=self.url, status=None, code=None, ambiguous=False) from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._connected() as bucket:
            bucket.execute("BEGIN IMMEDIATE")
            yield bucket
            bucket.execute("COMMIT")  # whatever is raised before leads to a rollback, when the connection closes

    def _missing(self, key: str) -> NotFoundError:
        url = f"{self.url}/{key}"
        return NotFoundError(f"{url} does not exist.", url=url, status=404, code="NoSuchKey")

    def _refused(self, key: str) -> PreconditionFailedError:
        url = f"{self.url}/{key}"
        return PreconditionFailedError(
            f"The condition for {url} does not hold: it is another version, or exists already, or does not exist.",
            url=url,
            status=412,
            code="PreconditionFailed",
            in_flight=False,
        )


_TABLE = (
    "CREATE TABLE IF NOT EXISTS object (key TEXT PRIMARY KEY, etag TEXT NOT NULL, modified REAL NOT NULL, "
    "metadata TEXT NOT NULL, data BLOB NOT NULL)"
)
_SELECT = "SELECT key, etag, modified, metadata, length(data)"


def _info(row: tuple[str, str, float, str, int]) -> ObjectInfo:
    key, etag, modified, metadata, size = row[:5]
    now = datetime.now(UTC)
    return ObjectInfo(key, etag, size, json.loads(metadata), datetime.fromtimestamp(modified, UTC), now)
