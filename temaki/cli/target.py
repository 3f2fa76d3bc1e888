"""The database that a command is about: found as ``bind_s3`` finds it, fetched and published as sessions do it."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from temaki.cli.local import make_plain
from temaki.cli.results import LeaseState, StoredVersion
from temaki.cli.streams import readable
from temaki.clock import SystemClock
from temaki.config import settings
from temaki.config.registry import load
from temaki.errors import ConfigurationError, NotFoundError, StoreError
from temaki.lease.record import SUFFIX, LeaseObject, LeaseRecord
from temaki.remote.remote import Published, Remote, Version
from temaki.remote.retry import RetryPolicy
from temaki.replica.image import Image
from temaki.replica.wal import DATABASE_HEADER, read_header
from temaki.stores import canonical_url, open_store

if TYPE_CHECKING:
    from temaki.remote.remote import Fetched
    from temaki.store import ObjectInfo, Store

T = TypeVar("T")


@dataclass(frozen=True)
class LocalCopy:
    """A version on this machine: a plain SQLite file in rollback mode, which any tool opens."""

    path: Path
    version: Version
    info: ObjectInfo | None = None

    def stored(self) -> StoredVersion:
        """As a result."""
        return as_stored(self.version, self.info)


class Target:
    """One database in its bucket.

    Args:
        url: As given on the command line; None to take it from the environment or a file.
        checks_options: Whether a misspelt option of the strategy is an error, although the command needs none.

    Attributes:
        url: In its canonical form.
        key: The object's key.
        store: Its bucket.
        remote: The object.
        settings: What else was configured.

    Raises:
        ConfigurationError: Nothing names a database, or what does is malformed.
    """

    def __init__(self, url: str | None, *, checks_options: bool = True) -> None:
        environ = {name: readable(value) if name.startswith("TEMAKI_") else value for name, value in os.environ.items()}
        self.settings = settings.resolve({"url": url}, environ=environ, folder=settings.working_folder())
        if checks_options:
            _check_options(self.settings)
        self.url = canonical_url(self.settings.url)
        self.clock = SystemClock()
        rng = random.Random()  # noqa: S311 - jitter
        self.retrying = RetryPolicy(self.clock, rng, self.settings.timeout)
        self.store, self.key = open_store(self.settings.url)
        self.remote = self.remote_on(self.store)

    def remote_on(self, store: Store, key: str | None = None) -> Remote:
        """The database's object, or one under another key, as ``store`` shows it."""
        timeout = self.settings.timeout
        return Remote(store, key or self.key, url=self.url, clock=self.clock, timeout=timeout)

    def current(self) -> Version:
        """The version that is stored now, by one GET that stops after the header.

        Raises:
            NotFoundError: There is none.
            CorruptDatabaseError: It is no database.
        """
        with self._found(self.remote) as fetched:
            return fetched.version

    def current_or_none(self) -> Version | None:
        """The version that is stored now; None where there is none."""
        try:
            return self.current()
        except NotFoundError:
            return None

    def info(self, key: str | None = None) -> ObjectInfo:
        """What the store says of the object. Raises what a HEAD does."""
        return self.repeat(lambda: self.store.head(key or self.key))

    def repeat(self, request: Callable[[], T]) -> T:
        """Make a request, and make it again where it gets no usable answer, for the configured time."""
        return self.retrying.run(request)

    def fetch(self, folder: Path, *, remote: Remote | None = None, name: str = "copy.sqlite") -> LocalCopy:
        """Fetch the current version, or the one that ``remote`` shows, into ``folder``.

        Raises:
            NotFoundError: There is none.
            CorruptDatabaseError: It is no database, or not all of one.
            StoreError: The download failed, also when repeated.
        """
        path = folder / name
        with self._found(remote or self.remote) as fetched:
            fetched.save(path)
            version = fetched.version
        make_plain(path)
        info = None
        if remote is None:
            with suppress(StoreError):
                info = self.info()
        return LocalCopy(path, version, info if info is not None and info.etag == version.etag else None)

    @contextmanager
    def _found(self, remote: Remote) -> Iterator[Fetched]:
        try:
            fetched = remote.fetch()
        except NotFoundError as error:
            raise NotFoundError(
                f"There is no database at {self.url}. Check the URL, or store one with: temaki push {self.url} PATH",
                url=self.url,
                status=error.status,
                code=error.code,
            ) from error
        assert fetched is not None, "an unconditional GET has a body"
        with fetched:
            yield fetched

    def publish(
        self, path: Path, base: Version | None, *, sequence: int | None = None, store: Store | None = None
    ) -> Published:
        """Store a plain SQLite file as the next version, if ``base`` is still the current one; exactly once.

        Args:
            path: The file; nobody writes to it meanwhile.
            base: What it replaces; None to create.
            sequence: The new version's number, if it is not one more than that of ``base``.
            store: The bucket as somebody watches it.

        Raises:
            ConflictError: Another version came first.
            UnsafeStoreError: The store does not honour conditions.
            CommitUnknownError, StoreError: See :meth:`temaki.remote.remote.Remote.publish`.
        """
        self.remote.probe_conditions()
        number = sequence or (1 if base is None else base.sequence + 1)
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            header = read_header(os.pread(descriptor, DATABASE_HEADER, 0))
            pages = os.fstat(descriptor).st_size // header.page_size
            body = Image(descriptor, -1, {}, pages, header.page_size, number)
            remote = self.remote if store is None else self.remote_on(store)
            return remote.publish(body, body.size, base, sequence=number)
        finally:
            os.close(descriptor)

    def lease_object(self) -> LeaseObject:
        """Where the lease's record is."""
        return LeaseObject(self.store, self.key + SUFFIX, self.retrying)

    def lease(self) -> LeaseState:
        """The lease as it is now."""
        seen = self.lease_object().read()
        return as_lease(None if seen is None else seen.record)


def _check_options(chosen: settings.Settings) -> None:
    """A slip in a file is found by whatever command comes first. A strategy that is not installed here is no slip."""
    try:
        found = load(str(chosen.strategy), origin=chosen.origins.get("strategy", "strategy"))
    except ConfigurationError:
        return
    settings.check_names(found, chosen.options)


def as_stored(
    version: Version, info: ObjectInfo | None = None, *, version_id: str | None = None, current: bool = True
) -> StoredVersion:
    """A version as a result."""
    return StoredVersion(
        sequence=version.sequence,
        commit=version.commit,
        size=version.size,
        modified=None if info is None else info.last_modified,
        version_id=version_id,
        current=current,
    )


def as_lease(record: LeaseRecord | None) -> LeaseState:
    """A lease's record as a result."""
    if record is None:
        return LeaseState(held=False)
    since = None
    with suppress(ValueError, OverflowError, OSError):  # another machine's clock may say anything
        since = datetime.fromtimestamp(record.since, UTC)
    return LeaseState(
        held=record.held,
        holder=str(record.owner),
        purpose=record.purpose,
        since=since,
        ttl=record.ttl,
        generation=record.generation,
    )
