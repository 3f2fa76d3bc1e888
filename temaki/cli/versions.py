"""The versions that a bucket keeps: listing them, and finding the one that the command line names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.console import Console

from temaki.cli.move import SHORTEST
from temaki.cli.parallel import in_parallel
from temaki.cli.progress import showing_progress
from temaki.cli.results import StoredVersion
from temaki.cli.target import LocalCopy, Target
from temaki.errors import ConfigurationError, CorruptDatabaseError, NotFoundError, StoreError
from temaki.formats.choice import open_stored
from temaki.store import ObjectVersion, VersionedStore
from temaki.version import MetadataError, Version, read_version

if TYPE_CHECKING:
    from temaki.store import Download, ObjectInfo, ReadableBody

_AT_ONCE: Final = 8  # requests
SEARCHED: Final = 1000
"""How many of the newest versions are searched for a commit or a number: one request each."""


@dataclass(frozen=True)
class Kept:
    """A version that the bucket keeps.

    Attributes:
        listed: The version as the bucket lists it.
        version: The version as its metadata describe it; None if temaki cannot read them.
    """

    listed: ObjectVersion
    version: Version | None

    def stored(self) -> StoredVersion:
        """Return the version as a result."""
        assert self.version is not None
        return StoredVersion(
            sequence=self.version.sequence,
            commit=self.version.commit,
            size=self.version.size,
            modified=self.listed.last_modified,
            version_id=self.listed.version_id,
            current=self.listed.is_current,
        )


class KeptVersions:
    """The versions of one database that its bucket keeps.

    Args:
        target: The database.

    Attributes:
        deleted: Whether the object is deleted now.
        versions: The versions as the bucket lists them, newest first, without deletions.

    Raises:
        ConfigurationError: This kind of store keeps no versions.
        NotFoundError: The bucket has no version of the database.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._store = versioned(target)
        listed = target.repeat(lambda: list(self._store.versions(target.key)))
        self.deleted = bool(listed) and listed[0].is_deletion
        self.versions = [version for version in listed if not version.is_deletion]
        if not self.versions:
            raise NotFoundError(
                f"The bucket has no version of {target.url}, old or new. Check the URL.", url=target.url
            )

    def newest(self, limit: int) -> list[Kept]:
        """Return the newest versions with their metadata. This makes one request for each, several at once."""
        return in_parallel(self._look, self.versions[:limit], at_once=_AT_ONCE)

    def named(self, name: str) -> Kept:
        """Return the version with a name.

        Args:
            name: ``current``, the bucket's version id, the number of a version, or a commit's id or its beginning.

        Raises:
            NotFoundError: None of the newest :data:`SEARCHED` versions has this name.
            ConfigurationError: Several versions have this name.
        """
        if name == "current":
            if self.deleted or not self.versions[0].is_current:
                raise NotFoundError(
                    f"{self._target.url} is deleted now: it has no current version.", url=self._target.url
                )
            return self._readable(self._look(self.versions[0]))
        for listed in self.versions:
            if listed.version_id == name:
                return self._readable(self._look(listed))
        matching = [
            kept for kept in self.newest(SEARCHED) if kept.version is not None and _is_meant(kept.version, name)
        ]
        if not matching:
            raise NotFoundError(
                f"{self._target.url} has no version {name!r} that the bucket still keeps. Name it by its number, "
                f"commit or version id, as listed by: temaki history {self._target.url}",
                url=self._target.url,
            )
        commits = {kept.version.commit for kept in matching if kept.version is not None}
        if len(commits) > 1:
            raise ConfigurationError(
                f"{name!r} names {len(commits)} versions of {self._target.url}: {', '.join(sorted(commits))}. "
                "Give more characters of the commit."
            )
        return matching[0]

    def fetch(self, kept: Kept, folder: Path, name: str, console: Console) -> LocalCopy:
        """Fetch a version into ``folder``, checked as every download is, and show the progress on ``console``."""
        reading = _OneVersion(self._store, self._target.store.url, kept.listed.version_id)
        with showing_progress(reading, console) as store:
            return self._target.fetch(folder, remote=self._target.remote_on(store), name=name)

    def _look(self, listed: ObjectVersion) -> Kept:
        if not listed.size:  # an empty object is no database, and has no first byte to read
            return Kept(listed, None)
        info = self._target.repeat(lambda: self._store.head_version(self._target.key, listed.version_id))
        try:
            version = read_version(info)
        except MetadataError:
            return Kept(listed, None)
        if version.is_adopted:
            # Its number is in its first bytes. If they are not those of a database, it cannot be restored.
            reading = _OneVersion(self._store, self._target.store.url, listed.version_id)
            try:
                fetched = self._target.remote_on(reading).fetch(open_stored)
            except CorruptDatabaseError:
                return Kept(listed, None)
            assert fetched is not None, "an unconditional GET has a body"
            with fetched:
                version = fetched.version
        return Kept(listed, version)

    def _readable(self, kept: Kept) -> Kept:
        if kept.version is None:
            raise CorruptDatabaseError(
                f"Version {kept.listed.version_id} of {self._target.url} is no database that temaki can use. Choose "
                f"another version, listed by: temaki history {self._target.url}",
                url=self._target.url,
            )
        return kept


def versioned(target: Target) -> VersionedStore:
    """Return the database's store, which must be of a kind that can keep versions.

    Raises:
        ConfigurationError: This kind of store keeps no versions.
    """
    if isinstance(target.store, VersionedStore):
        return target.store
    raise ConfigurationError(
        f"{target.url}: this kind of store keeps no older versions. history, diff and restore need an S3 bucket with "
        "versioning."
    )


def _is_meant(version: Version, name: str) -> bool:
    if name.isdecimal() and str(version.sequence) == name:
        return True
    return len(name) >= SHORTEST and version.commit.startswith(name)


class _OneVersion:
    """A read-only store that shows one version of each object."""

    honours_conditions = True

    def __init__(self, store: VersionedStore, url: str, version_id: str) -> None:
        self._store, self.url, self._version_id = store, url, version_id

    def get(
        self,
        key: str,
        *,
        if_none_match: str | None = None,
        if_match: str | None = None,
        byte_range: tuple[int, int] | None = None,
    ) -> Download | None:
        assert if_none_match is None, "an old version does not change"
        return self._store.get_version(key, self._version_id, if_match=if_match, byte_range=byte_range)

    def head(self, key: str) -> ObjectInfo:
        return self._store.head_version(key, self._version_id)

    def put(
        self,
        key: str,
        body: bytes | ReadableBody,  # noqa: ARG002 - the protocol's
        *,
        metadata: Mapping[str, str] | None = None,  # noqa: ARG002
        if_match: str | None = None,  # noqa: ARG002
        if_none_match: bool = False,  # noqa: ARG002
    ) -> str:
        raise self._read_only(key)

    def delete(self, key: str) -> None:
        raise self._read_only(key)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        raise self._read_only(prefix)

    def _read_only(self, key: str) -> StoreError:
        return StoreError(f"{self.url}/{key}: an old version cannot be written to.", url=f"{self.url}/{key}")


def base_for_restore(target: Target, versions: KeptVersions) -> tuple[Version | None, int]:
    """Return the version that a restored one replaces, and the number of the restored one.

    The number is higher than that of any recent version. An object that is no longer a database can be replaced, too:
    its ETag is enough for that.

    Returns:
        The version to replace, None if the object is deleted; and the number.
    """
    recent = [kept.version for kept in versions.newest(_AT_ONCE) if kept.version is not None]
    newest = max((version.sequence for version in recent), default=0)
    try:
        base = target.current_or_none()
    except CorruptDatabaseError:
        base = _as_stored_now(target.info(), newest)
    return base, max(newest, 0 if base is None else base.sequence) + 1


def _as_stored_now(info: ObjectInfo, newest: int) -> Version:
    try:
        version = read_version(info)
    except MetadataError:
        version = read_version(replace(info, metadata={}))
    return replace(version, sequence=max(version.sequence, newest))
