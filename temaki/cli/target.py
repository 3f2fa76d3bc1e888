"""The database that a command works on: configured as by ``bind_s3``, fetched and published as by sessions."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from temaki.cli.local import make_plain
from temaki.cli.results import LeaseState, StoredVersion
from temaki.cli.streams import readable
from temaki.clock import SystemClock
from temaki.config import settings
from temaki.config.registry import load
from temaki.errors import ConfigurationError, NotFoundError, StoreError
from temaki.formats.choice import format_for, open_stored
from temaki.formats.format import ConvertedError, WholeTask
from temaki.lease.record import SUFFIX, LeaseObject, LeaseRecord
from temaki.remote.remote import Remote, new_commit
from temaki.remote.retry import RetryPolicy
from temaki.replica.image import Image
from temaki.stores import canonical_url, open_store
from temaki.version import Published, Version

if TYPE_CHECKING:
    from temaki.formats.format import Format, Layout, Stored
    from temaki.store import ObjectInfo, Store

T = TypeVar("T")

SHORTEST: Final = 4
"""The smallest number of characters that may name a commit."""


@dataclass(frozen=True)
class LocalCopy:
    """A version on this machine: a plain SQLite file in rollback mode, which any tool opens.

    Attributes:
        path: The file.
        version: The version.
        info: The store's description of the object; None if it does not belong to this version, or is unknown.
        layout: The version's layout in the store; None if it is one object.
    """

    path: Path
    version: Version
    info: ObjectInfo | None = None
    layout: Layout | None = None

    def stored(self) -> StoredVersion:
        """Return the version as a result."""
        return as_stored(self.version, self.info)


class Target:
    """A database in its bucket.

    Args:
        url: The URL from the command line; None to take it from the environment or a file.
        checks_options: Whether a misspelt option of the strategy is an error, although the command needs no option.

    Attributes:
        url: The URL in its canonical form.
        key: The key of the object.
        store: The store that holds the object.
        remote: The remote side of the database: fetches and publishes versions.
        settings: All settings.

    Raises:
        ConfigurationError: No setting names a database, or a setting is malformed.
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
        """Return the remote side of the database, or of another key, on ``store``."""
        timeout = self.settings.timeout
        return Remote(store, key or self.key, url=self.url, clock=self.clock, timeout=timeout)

    def current(self) -> Version:
        """Return the version that is stored now, by one GET that stops after the header.

        Raises:
            NotFoundError: There is no database.
            CorruptDatabaseError: The object is no database.
        """
        with self.opened(self.remote) as stored:
            return stored.version

    def look(self) -> tuple[Version, Layout | None]:
        """Return the version that is stored now, and its layout; None if it is one object. Raises as :meth:`current`.

        A database in pages takes one GET of its head.
        """
        with self.opened(self.remote) as stored:
            return stored.version, stored.layout()

    def check_objects(self) -> int:
        """Find out whether the objects beside the database's own can be read. Raises as :meth:`current`.

        Returns:
            The number of these objects.
        """
        with self.opened(self.remote) as stored:
            return stored.check()

    def current_or_none(self) -> Version | None:
        """Return the version that is stored now; None if there is no database."""
        try:
            return self.current()
        except NotFoundError:
            return None

    def info(self, key: str | None = None) -> ObjectInfo:
        """Return the store's description of the object, by a HEAD.

        Raises:
            NotFoundError: There is no object.
            StoreError: The request failed.
        """
        return self.repeat(lambda: self.store.head(key or self.key))

    def repeat(self, request: Callable[[], T]) -> T:
        """Make a request, and retry it for the configured time while it gets no usable answer."""
        return self.retrying.run(request)

    def fetch(self, folder: Path, *, remote: Remote | None = None, name: str = "copy.sqlite") -> LocalCopy:
        """Fetch a version into ``folder``.

        Args:
            folder: The folder for the file.
            remote: The remote side to fetch from. The default fetches the current version.
            name: The name of the file.

        Raises:
            NotFoundError: There is no database.
            CorruptDatabaseError: The object is no database, or only a part of one.
            StoreError: The download failed, even when it was repeated.
        """
        path = folder / name
        try:
            version, layout = self._save(remote or self.remote, path)
        except ConvertedError:
            version, layout = self._save(remote or self.remote, path)
        make_plain(path)
        info = None
        if remote is None:
            with suppress(StoreError):
                info = self.info()
        return LocalCopy(path, version, info if info is not None and info.etag == version.etag else None, layout)

    def _save(self, remote: Remote, path: Path) -> tuple[Version, Layout | None]:
        with self.opened(remote) as stored:
            stored.save(path)
            return stored.version, stored.layout()

    @contextmanager
    def opened(self, remote: Remote) -> Iterator[Stored]:
        """Open the version that is stored now, on a remote side of the database. Raises as :meth:`current`."""
        try:
            stored = remote.fetch(open_stored)
        except NotFoundError as error:
            raise NotFoundError(
                f"There is no database at {self.url}. Check the URL, or store one with: temaki push {self.url} PATH",
                url=self.url,
                status=error.status,
                code=error.code,
            ) from error
        assert stored is not None, "an unconditional GET has a body"
        with stored:
            yield stored

    def publish(
        self,
        path: Path,
        base: Version | None,
        *,
        sequence: int | None = None,
        store: Store | None = None,
        key: str | None = None,
        form: Format | None = None,
    ) -> Published:
        """Store a plain SQLite file as the next version, exactly once, if ``base`` is still the current version.

        Args:
            path: The file. No other program may write to it meanwhile.
            base: The version that it replaces; None to create the database.
            sequence: The number of the new version. The default is one more than that of ``base``.
            store: The store for the upload. The default is the database's own.
            key: The key of the object. The default is the database's own.
            form: The format of the new version. The default is that of ``base``; for a new database, the setting's.

        Raises:
            ConflictError: Another version came first.
            UnsafeStoreError: The store does not honour conditions.
            CommitUnknownError, StoreError: See :meth:`temaki.remote.remote.Remote.publish`.
        """
        self.remote.probe_conditions()
        number = sequence or (1 if base is None else base.sequence + 1)
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            remote = self.remote_on(store or self.store, key)
            form = form or format_for(base, self.settings.format)
            commit = new_commit()
            body = form.store_whole(WholeTask(Image.of_file(descriptor, number), base, commit, number, remote.source))
            return remote.publish(
                body.content,
                body.size,
                base,
                sequence=number,
                commit_id=commit,
                metadata=body.metadata,
                written_as=form.number,
                rebuild=body.rebuild,
            )
        finally:
            os.close(descriptor)

    def lease_object(self) -> LeaseObject:
        """Return the object that holds the lease's record."""
        return LeaseObject(self.store, self.key + SUFFIX, self.retrying)

    def lease(self) -> LeaseState:
        """Return the current state of the lease."""
        seen = self.lease_object().read()
        return as_lease(None if seen is None else seen.record)


def _check_options(chosen: settings.Settings) -> None:
    """Check the names of the strategy's options, so that the first command finds a typing error in a file.

    A strategy that is not installed on this machine is no error.
    """
    try:
        strategy = load(str(chosen.strategy), origin=chosen.origins.get("strategy", "strategy"))
    except ConfigurationError:
        return
    settings.check_names(strategy, chosen.options)


def as_stored(
    version: Version, info: ObjectInfo | None = None, *, version_id: str | None = None, current: bool = True
) -> StoredVersion:
    """Return a version as a result."""
    return StoredVersion(
        sequence=version.sequence,
        commit=version.commit,
        size=version.size,
        modified=None if info is None else info.last_modified,
        version_id=version_id,
        current=current,
    )


def as_lease(record: LeaseRecord | None) -> LeaseState:
    """Return a lease's record as a result."""
    if record is None:
        return LeaseState(held=False)
    since = None
    with suppress(ValueError, OverflowError, OSError):  # another machine's clock may be out of range
        since = datetime.fromtimestamp(record.since, UTC)
    return LeaseState(
        held=record.held,
        holder=str(record.owner),
        purpose=record.purpose,
        since=since,
        ttl=record.ttl,
        generation=record.generation,
    )
