"""The version of a database that a stored object is, as the object's metadata describe it."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from temaki.store import ObjectInfo

FILE_FORMAT: Final = "1"
PAGES_FORMAT: Final = "2"
_FORMATS: Final = (FILE_FORMAT, PAGES_FORMAT)

COMMIT_KEY: Final = "temaki-commit"
SEQUENCE_KEY: Final = "temaki-seq"
LINEAGE_KEY: Final = "temaki-lineage"
LEASE_KEY: Final = "temaki-lease-generation"
FORMAT_KEY: Final = "temaki-format"
SIZE_KEY: Final = "temaki-size"
"""Names the size of the database where the object has another one."""

ADOPTED: Final = "adopted-"
"""Prefix of the commit id of a version that another tool wrote."""

_OWN_KEYS = (COMMIT_KEY, SEQUENCE_KEY, LINEAGE_KEY, FORMAT_KEY)
_METADATA_LIMIT: Final = 2048  # bytes, names and values together; "User-defined object metadata" in the S3 user guide
_ROOT: Final = "root"  # ends a lineage that is complete
_COMMIT = re.compile(r"[0-9a-z-]{8,64}")
_SEQUENCE = re.compile(r"[0-9]{1,18}")


class MetadataError(ValueError):
    """The object's metadata contradict each other, or temaki did not write them.

    The message is only a reason. The caller names the object.
    """


class NewerFormatError(MetadataError):
    """A newer temaki wrote the object in a format that this one does not understand."""


@dataclass(frozen=True, slots=True)
class Version:
    """One stored version of the database. Two versions are equal if their commits and ETags are.

    Attributes:
        etag: The store's token for the object, for conditions. Empty if it is not known (see ``Published``).
        commit: Id of the commit that made the version. It identifies the version, wherever its bytes go.
        sequence: Number of the version: one more than that of the version that it replaced.
        lineage: Commit ids of this version and the ones before it, newest first, as far as they fit into the metadata.
        complete: True if the lineage goes back to the creation or adoption of the database.
        size: Size of the database, in bytes.
        metadata: All user metadata of the object.
    """

    etag: str
    commit: str
    sequence: int = field(compare=False)
    lineage: tuple[str, ...] = field(compare=False)
    complete: bool = field(compare=False)
    size: int = field(compare=False)
    metadata: Mapping[str, str] = field(compare=False, default_factory=dict)

    @property
    def lease_generation(self) -> int:
        """Generation of the lease under which this or an earlier version was made; 0 if there never was a lease."""
        stored = self.metadata.get(LEASE_KEY, "")
        return int(stored) if _SEQUENCE.fullmatch(stored) else 0

    @property
    def format(self) -> str:
        """How it is stored: :data:`FILE_FORMAT` or :data:`PAGES_FORMAT`."""
        return self.metadata.get(FORMAT_KEY, FILE_FORMAT)

    @property
    def is_adopted(self) -> bool:
        """Whether another tool wrote the version."""
        return self.commit.startswith(ADOPTED)

    def went_back(self, known: Version) -> bool:
        """Whether this version has replaced one that contains ``known``, and does not contain it itself.

        This happens when somebody copies an old object over the new one, however many commits were built on it since.
        If the lineage does not go back so far, only a lower number shows it. A file from another tool has no lineage:
        if somebody changed a file by hand and uploaded it, it is a new version, unless its number is lower.
        """
        if known.commit in self.lineage:
            return False
        if self.sequence < known.sequence:
            return True
        reaches = self.complete or len(self.lineage) > self.sequence - known.sequence
        return reaches and not self.is_adopted and not self.lineage[-1].startswith(ADOPTED)

    def to_json(self) -> dict[str, Any]:
        """The version as plain data, for :meth:`from_json`."""
        return {
            "etag": self.etag,
            "commit": self.commit,
            "sequence": self.sequence,
            "lineage": list(self.lineage),
            "complete": self.complete,
            "size": self.size,
            "metadata": dict(self.metadata),
        }

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> Version | None:
        """Read what :meth:`to_json` wrote; None for anything else."""
        etag, commit, sequence, size = (facts.get(name) for name in ("etag", "commit", "sequence", "size"))
        lineage, complete, metadata = facts.get("lineage"), facts.get("complete"), facts.get("metadata")
        if not (isinstance(etag, str) and isinstance(commit, str) and etag and commit):
            return None
        if not (type(sequence) is int and type(size) is int and isinstance(complete, bool)):
            return None
        if not (isinstance(lineage, list) and all(isinstance(item, str) for item in lineage)):
            return None
        if lineage[:1] != [commit]:
            return None
        if not (isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values())):
            return None
        return cls(etag, commit, sequence, tuple(lineage), complete, size, metadata)


@dataclass(frozen=True, slots=True)
class Published:
    """A commit that the store has accepted.

    Attributes:
        version: The version that was stored.
        superseded: True if another writer has already replaced the version by one that was built on it. Then
            ``version.etag`` is empty: it is not known, and no condition with it could hold.
        found: True if a look proved the commit, not an answer to the upload. Then maintenance may have come in since:
            the object's bytes need not be those that were sent.
    """

    version: Version
    superseded: bool = False
    found: bool = False


def read_version(info: ObjectInfo) -> Version:
    """Read the version of an object from its metadata.

    Another tool wrote an object that has none of temaki's metadata. temaki adopts it: its commit id comes from its
    ETag. Its number is SQLite's change counter, which only its bytes contain: so the number is 0 here.

    Args:
        info: The store's description of the object.

    Raises:
        NewerFormatError: A newer temaki wrote the object.
        MetadataError: The object has some of temaki's metadata, but not as temaki writes them.
    """
    metadata = {name.lower(): value for name, value in info.metadata.items()}
    own = {name: metadata[name] for name in _OWN_KEYS if name in metadata}
    if not own:
        commit = ADOPTED + hashlib.sha256(info.etag.encode()).hexdigest()[:16]
        return Version(info.etag, commit, 0, (commit,), True, info.size, metadata)
    written_as = own.get(FORMAT_KEY)
    if written_as is not None and written_as not in _FORMATS and written_as.isdecimal():
        known = " and ".join(_FORMATS)
        raise NewerFormatError(f"it was written by a newer temaki, in format {written_as} (this one knows {known})")
    if written_as not in _FORMATS or len(own) < len(_OWN_KEYS):
        raise MetadataError(f"its metadata are not as temaki writes them: {own}")
    *ids, last = own[LINEAGE_KEY].split(".")
    complete = last == _ROOT
    lineage = tuple(ids if complete else [*ids, last])
    if not _SEQUENCE.fullmatch(own[SEQUENCE_KEY]):
        raise MetadataError(f"its metadata say {SEQUENCE_KEY}: {own[SEQUENCE_KEY]!r}, which is no number")
    if not all(_COMMIT.fullmatch(commit) for commit in lineage) or lineage[:1] != (own[COMMIT_KEY],):
        raise MetadataError(f"its {LINEAGE_KEY} does not begin with its {COMMIT_KEY}, {own[COMMIT_KEY]!r}")
    size = info.size
    if written_as == PAGES_FORMAT:
        if not _SEQUENCE.fullmatch(metadata.get(SIZE_KEY, "")):
            raise MetadataError(f"its metadata say {SIZE_KEY}: {metadata.get(SIZE_KEY)!r}, which is no number")
        size = int(metadata[SIZE_KEY])
    return Version(info.etag, own[COMMIT_KEY], int(own[SEQUENCE_KEY]), lineage, complete, size, metadata)


def next_version(
    base: Version | None,
    *,
    commit: str,
    sequence: int,
    size: int,
    extra: Mapping[str, str],
    written_as: str = FILE_FORMAT,
) -> Version:
    """Describe the version that replaces ``base``, with the metadata for its upload. It has no ETag yet.

    The lineage is cut to the space that S3's limit leaves. It always has two ids: without them a writer could not tell
    whether its commit was replaced or never landed.

    Args:
        base: The version that is replaced; None for the first one.
        commit: Id of the commit: 8 to 64 of ``0-9a-z-``.
        sequence: Number of the new version.
        size: Size of the database, in bytes.
        extra: More user metadata for the object.
        written_as: Number of the format of the new object.

    Raises:
        ValueError: ``extra`` has one of temaki's own names, or ``commit`` is no such id.
    """
    if not _COMMIT.fullmatch(commit):
        raise ValueError(f"{commit!r} is no id for a commit: use 8 to 64 of 0-9a-z-")
    taken = [name for name in extra if name.lower() in {*_OWN_KEYS, SIZE_KEY}]
    if taken:
        raise ValueError(f"the metadata {taken} are temaki's own")
    inherited = {LEASE_KEY: base.metadata[LEASE_KEY]} if base is not None and LEASE_KEY in base.metadata else {}
    metadata = {**inherited, **extra, COMMIT_KEY: commit, SEQUENCE_KEY: str(sequence), FORMAT_KEY: written_as}
    if written_as == PAGES_FORMAT:
        metadata[SIZE_KEY] = str(size)
    left = _METADATA_LIMIT - len(LINEAGE_KEY) - sum(len(name) + len(value) for name, value in metadata.items())
    ids = [commit, *(base.lineage if base else ())]
    complete = base is None or base.complete
    text = ".".join([*ids, _ROOT] if complete else ids)
    while len(text) > left and len(ids) > 2:  # noqa: PLR2004 - see above
        ids.pop()
        complete = False
        text = ".".join(ids)
    metadata[LINEAGE_KEY] = text
    return Version("", commit, sequence, tuple(ids), complete, size, metadata)
