"""The versions that a bucket has kept: which there are, and how one is named on the command line."""

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
from temaki.cli.target import LocalCopy, Target, as_stored
from temaki.errors import ConfigurationError, CorruptDatabaseError, NotFoundError, StoreError
from temaki.formats.choice import open_stored
from temaki.store import ObjectVersion, VersionedStore
from temaki.version import MetadataError, Version, read_version

if TYPE_CHECKING:
    from temaki.store import Download, ObjectInfo, ReadableBody

_AT_ONCE: Final = 8  # requests
SEARCHED: Final = 1000
"""How far back a version is looked for that is named by its commit or number: one request for each."""


@dataclass(frozen=True)
class Kept:
    """A version that the bucket has kept.

    Attributes:
        kept: As the bucket lists it.
        version: What its metadata say; None where they are not temaki's to read.
    """

    kept: ObjectVersion
    version: Version | None

    def stored(self) -> StoredVersion:
        """As a result."""
        assert self.version is not None
        found = as_stored(self.version, version_id=self.kept.version_id, current=self.kept.is_current)
        return StoredVersion(
            sequence=found.sequence,
            commit=found.commit,
            size=found.size,
            modified=self.kept.last_modified,
            version_id=found.version_id,
            current=found.current,
        )


class KeptVersions:
    """The versions of one database.

    Args:
        target: The database.

    Attributes:
        deleted: Whether the object is deleted now.
        versions: As the bucket lists them, newest first, without deletions.

    Raises:
        ConfigurationError: This kind of store keeps no versions.
        NotFoundError: There is not one.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._store = versioned(target)
        found = target.repeat(lambda: list(self._store.versions(target.key)))
        self.deleted = bool(found) and found[0].is_deletion
        self.versions = [one for one in found if not one.is_deletion]
        if not self.versions:
            raise NotFoundError(
                f"The bucket has no version of {target.url}, old or new. Check the URL.", url=target.url
            )

    def newest(self, limit: int) -> list[Kept]:
        """The newest ones, with what their metadata say: one request for each, several at once."""
        return in_parallel(self._look, self.versions[:limit], at_once=_AT_ONCE)

    def named(self, name: str) -> Kept:
        """The version that somebody means.

        Args:
            name: ``current``; the bucket's version id; a version's number; or a commit's id, or how it begins.

        Raises:
            NotFoundError: There is none, among the newest :data:`SEARCHED`.
            ConfigurationError: There are several.
        """
        if name == "current":
            if self.deleted or not self.versions[0].is_current:
                raise NotFoundError(
                    f"{self._target.url} is deleted now: it has no current version.", url=self._target.url
                )
            return self._readable(self._look(self.versions[0]))
        for one in self.versions:
            if one.version_id == name:
                return self._readable(self._look(one))
        found = [one for one in self.newest(SEARCHED) if one.version is not None and _is_meant(one.version, name)]
        if not found:
            raise NotFoundError(
                f"{self._target.url} has no version {name!r} that the bucket still keeps. Name it by its number, "
                f"commit or version id, as in: temaki history {self._target.url}",
                url=self._target.url,
            )
        commits = {one.version.commit for one in found if one.version is not None}
        if len(commits) > 1:
            raise ConfigurationError(
                f"{name!r} names {len(commits)} versions of {self._target.url}: {', '.join(sorted(commits))}. "
                "Say more of it."
            )
        return found[0]

    def fetch(self, kept: Kept, folder: Path, name: str, console: Console) -> LocalCopy:
        """Fetch a version into ``folder``, checked as every download is; its progress is shown on ``console``."""
        reading = _OneVersion(self._store, self._target.store.url, kept.kept.version_id)
        with showing_progress(reading, console) as store:
            return self._target.fetch(folder, remote=self._target.remote_on(store), name=name)

    def _look(self, kept: ObjectVersion) -> Kept:
        if not kept.size:  # it is no database, and a store has no first byte of it to answer with
            return Kept(kept, None)
        info = self._target.repeat(lambda: self._store.head_version(self._target.key, kept.version_id))
        try:
            version = read_version(info)
        except MetadataError:
            return Kept(kept, None)
        if version.is_adopted:
            # Its number is in its first bytes; where they are no database's, it is no version to go back to.
            reading = _OneVersion(self._store, self._target.store.url, kept.version_id)
            try:
                fetched = self._target.remote_on(reading).fetch(open_stored)
            except CorruptDatabaseError:
                return Kept(kept, None)
            assert fetched is not None, "an unconditional GET has a body"
            with fetched:
                version = fetched.version
        return Kept(kept, version)

    def _readable(self, kept: Kept) -> Kept:
        if kept.version is None:
            raise CorruptDatabaseError(
                f"Version {kept.kept.version_id} of {self._target.url} is no database that temaki can use. Take "
                f"another one, of: temaki history {self._target.url}",
                url=self._target.url,
            )
        return kept


def versioned(target: Target) -> VersionedStore:
    """The database's store, if it is of a kind that can keep versions.

    Raises:
        ConfigurationError: It is not.
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
    """A store that shows one version of each object, and cannot be written to."""

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
        return StoreError(f"{self.url}/{key}: history is not written to.", url=f"{self.url}/{key}")


def base_for_restore(target: Target, versions: KeptVersions) -> tuple[Version | None, int]:
    """What a restored version is to replace, and the number it gets: higher than any that is known.

    An object that is no database any more is replaced too: that is what restore is for. Its ETag is enough for that.

    Returns:
        The version, None where the object is deleted; and the number.
    """
    known = [one.version for one in versions.newest(_AT_ONCE) if one.version is not None]
    newest = max((version.sequence for version in known), default=0)
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
