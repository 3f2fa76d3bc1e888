"""Which version of the database an object in the store is: what its metadata say, and how they are written."""

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

ADOPTED: Final = "adopted-"
"""How the id of a version begins that another tool wrote."""

_OWN_KEYS = (COMMIT_KEY, SEQUENCE_KEY, LINEAGE_KEY, FORMAT_KEY)
_METADATA_LIMIT: Final = 2048  # bytes, names and values together; "User-defined object metadata" in the S3 user guide
_ROOT: Final = "root"  # ends a lineage that is complete
_COMMIT = re.compile(r"[0-9a-z-]{8,64}")
_SEQUENCE = re.compile(r"[0-9]{1,18}")


class MetadataError(ValueError):
    """The object's metadata contradict each other or are not temaki's. The message is a reason, without the object."""


class NewerFormatError(MetadataError):
    """The object was written by a temaki that this one does not understand."""


@dataclass(frozen=True, slots=True)
class Version:
    """One stored version of the database. Equal if commit and ETag are.

    Attributes:
        etag: The store's token for it, for conditions. Empty where it is not known (see ``Published``).
        commit: The id of the commit that made it: its identity, wherever its bytes go.
        sequence: One more than that of the version that it replaced.
        lineage: Ids of this and the versions before it, newest first, as far as they fit into the metadata.
        complete: The lineage goes back to the creation or adoption of the database.
        size: In bytes.
        metadata: All metadata of the object.
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
        """The generation of the lease under which it was made, or one before it; 0 if there never was a lease."""
        stored = self.metadata.get(LEASE_KEY, "")
        return int(stored) if _SEQUENCE.fullmatch(stored) else 0

    @property
    def format(self) -> str:
        """How it is stored: :data:`FILE_FORMAT` or :data:`PAGES_FORMAT`."""
        return self.metadata.get(FORMAT_KEY, FILE_FORMAT)

    @property
    def is_adopted(self) -> bool:
        """Whether another tool wrote it."""
        return self.commit.startswith(ADOPTED)

    def went_back(self, known: Version) -> bool:
        """Whether this version was put into the place of one that has ``known`` in it, and does not have it itself.

        So it is when somebody copies an old object over the new one, however many commits were built on it since; if
        the lineage does not go back so far, only a lower number shows it. What another tool wrote has no lineage: a
        file that was changed by hand and uploaded is a new version, unless its number is lower.
        """
        if known.commit in self.lineage:
            return False
        if self.sequence < known.sequence:
            return True
        reaches = self.complete or len(self.lineage) > self.sequence - known.sequence
        return reaches and not self.is_adopted and not self.lineage[-1].startswith(ADOPTED)

    def to_json(self) -> dict[str, Any]:
        """As plain data; :meth:`from_json` makes it a version again."""
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
        """What :meth:`to_json` wrote, or None if it did not write this."""
        etag, commit, sequence, size = (facts.get(name) for name in ("etag", "commit", "sequence", "size"))
        lineage, complete, metadata = facts.get("lineage"), facts.get("complete"), facts.get("metadata")
        if not (isinstance(etag, str) and isinstance(commit, str) and etag and commit):
            return None
        if not (type(sequence) is int and type(size) is int and isinstance(complete, bool)):
            return None
        if not (isinstance(lineage, list) and all(isinstance(one, str) for one in lineage) and lineage[:1] == [commit]):
            return None
        if not (isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values())):
            return None
        return cls(etag, commit, sequence, tuple(lineage), complete, size, metadata)


@dataclass(frozen=True, slots=True)
class Published:
    """A commit that the store has accepted.

    Attributes:
        version: What was stored.
        superseded: Another writer has replaced it already, by a version that was built on it. ``version.etag`` is
            empty: it is not known, and no condition with it could hold.
        found: It was found by a look, and not acknowledged by an answer. So maintenance may have come in since: its
            bytes need not be those that were sent.
    """

    version: Version
    superseded: bool = False
    found: bool = False


def read_version(info: ObjectInfo) -> Version:
    """The version that an object is, by its metadata.

    An object without temaki's metadata was written by another tool. It is adopted: its id comes from its ETag. Its
    number is SQLite's own counter, which only its bytes tell: 0 here.

    Args:
        info: The store's answer.

    Raises:
        NewerFormatError: Written by a newer temaki.
        MetadataError: Some of temaki's metadata are there, but not as temaki writes them.
    """
    metadata = {name.lower(): value for name, value in info.metadata.items()}
    found = {name: metadata[name] for name in _OWN_KEYS if name in metadata}
    if not found:
        commit = ADOPTED + hashlib.sha256(info.etag.encode()).hexdigest()[:16]
        return Version(info.etag, commit, 0, (commit,), True, info.size, metadata)
    written_as = found.get(FORMAT_KEY)
    if written_as is not None and written_as not in _FORMATS and written_as.isdecimal():
        known = " and ".join(_FORMATS)
        raise NewerFormatError(f"it was written by a newer temaki, in format {written_as} (this one knows {known})")
    if written_as not in _FORMATS or len(found) < len(_OWN_KEYS):
        raise MetadataError(f"its metadata are not as temaki writes them: {found}")
    *ids, last = found[LINEAGE_KEY].split(".")
    complete = last == _ROOT
    lineage = tuple(ids if complete else [*ids, last])
    if not _SEQUENCE.fullmatch(found[SEQUENCE_KEY]):
        raise MetadataError(f"its metadata say {SEQUENCE_KEY}: {found[SEQUENCE_KEY]!r}, which is no number")
    if not all(_COMMIT.fullmatch(one) for one in lineage) or lineage[:1] != (found[COMMIT_KEY],):
        raise MetadataError(f"its {LINEAGE_KEY} does not begin with its {COMMIT_KEY}, {found[COMMIT_KEY]!r}")
    return Version(info.etag, found[COMMIT_KEY], int(found[SEQUENCE_KEY]), lineage, complete, info.size, metadata)


def next_version(
    base: Version | None,
    *,
    commit: str,
    sequence: int,
    size: int,
    extra: Mapping[str, str],
    written_as: str = FILE_FORMAT,
) -> Version:
    """The version that replaces ``base``, with the metadata to upload it with, and no ETag yet.

    The lineage is cut to what S3's limit leaves. Two ids are always in it: without them no writer could tell whether
    its commit was replaced or never came to be.

    Raises:
        ValueError: ``extra`` has one of temaki's own names, or the commit's id is not made of 8 to 64 of ``0-9a-z-``.
    """
    if not _COMMIT.fullmatch(commit):
        raise ValueError(f"{commit!r} is no id for a commit")
    taken = [name for name in extra if name.lower() in _OWN_KEYS]
    if taken:
        raise ValueError(f"the metadata {taken} are temaki's own")
    inherited = {LEASE_KEY: base.metadata[LEASE_KEY]} if base is not None and LEASE_KEY in base.metadata else {}
    metadata = {**inherited, **extra, COMMIT_KEY: commit, SEQUENCE_KEY: str(sequence), FORMAT_KEY: written_as}
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
