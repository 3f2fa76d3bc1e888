"""The versions that a bucket keeps: listing them, and finding the one that the command line names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.console import Console

from temaki.cli.moments import moment_named, shown
from temaki.cli.parallel import in_parallel
from temaki.cli.progress import showing_progress
from temaki.cli.results import StoredVersion
from temaki.cli.target import SHORTEST, LocalCopy, Target
from temaki.errors import ConfigurationError, CorruptDatabaseError, NotFoundError, StoreError
from temaki.formats.choice import open_stored
from temaki.store import ObjectVersion, VersionedStore
from temaki.version import MetadataError, Version, read_version

if TYPE_CHECKING:
    from datetime import datetime

    from temaki.store import Download, ObjectInfo, ReadableBody

_AT_ONCE: Final = 8  # requests
NAMES: Final = (
    "Name a version by its number, its commit (or the beginning of it), its version id, 'current', or the time at "
    "which it was current: 'yesterday', '2h', '3d', '2026-11-24', '2026-11-24T09:00' (UTC)."
)
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
        self._listed = listed
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
            name: ``current``, the bucket's version id, the number of a version, a commit's id or its beginning, or a
                time; see :func:`temaki.cli.moments.moment_named`. A name that fits a commit is not taken for a time.

        Raises:
            NotFoundError: None of the newest :data:`SEARCHED` versions has this name, or there was no version then.
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
        moment = None if matching else moment_named(name, self._target.clock.time())
        if moment is not None:
            return self._readable(self._look(self._current_at(moment)))
        if not matching:
            raise NotFoundError(
                f"{self._target.url} has no version {name!r} that the bucket still keeps. Name it by its number, "
                f"commit, version id or time, as listed by: temaki history {self._target.url}",
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
        reading = _OneVersion(self._store, self._target, kept.listed.version_id)
        with showing_progress(reading, console) as store:
            return self._target.fetch(folder, remote=self._target.remote_on(store), name=name)

    def _current_at(self, moment: datetime) -> ObjectVersion:
        """The version that was current then, by the store's clock."""
        url = self._target.url
        for listed in self._listed:
            if listed.last_modified is not None and listed.last_modified <= moment:
                if listed.is_deletion:
                    raise NotFoundError(
                        f"{url} was deleted at {shown(moment)}: there was no database. Name another time, or a version "
                        f"that is listed by: temaki history {url}",
                        url=url,
                    )
                return listed
        oldest = self._listed[-1].last_modified
        raise NotFoundError(
            f"The bucket keeps no version of {url} that is as old as {shown(moment)}."
            + ("" if oldest is None else f" The oldest that it keeps was stored at {shown(oldest)}."),
            url=url,
        )

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
            reading = _OneVersion(self._store, self._target, listed.version_id)
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
    """A read-only store that shows one version of the database's object, and the objects beside it that this refers to.

    Those were written once. One that has been collected since is read by its version id, if the bucket keeps it.
    """

    honours_conditions = True

    def __init__(self, store: VersionedStore, target: Target, version_id: str) -> None:
        self._store, self._target, self._version_id = store, target, version_id
        self.url = target.store.url
        self._collected: dict[str, str] = {}

    def get(
        self,
        key: str,
        *,
        if_none_match: str | None = None,
        if_match: str | None = None,
        byte_range: tuple[int, int] | None = None,
    ) -> Download | None:
        assert if_none_match is None, "an old version does not change"
        if key == self._target.key:
            return self._store.get_version(key, self._version_id, if_match=if_match, byte_range=byte_range)
        if key not in self._collected:
            try:
                return self._target.store.get(key, if_match=if_match, byte_range=byte_range)
            except NotFoundError:
                kept = next((one for one in self._store.versions(key) if not one.is_deletion), None)
                if kept is None:
                    raise
                self._collected[key] = kept.version_id
        return self._store.get_version(key, self._collected[key], if_match=if_match, byte_range=byte_range)

    def head(self, key: str) -> ObjectInfo:
        assert key == self._target.key, "nobody asks for less than the bytes of an object beside the head"
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
