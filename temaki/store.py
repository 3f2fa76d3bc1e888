"""The interface to an object store: five verbs, two conditions, and errors that say what is certain.

A store is one bucket. Implementations are in :mod:`temaki.stores`. Every implementation, built-in or not, has to pass
the conformance suite :class:`temaki.testing.StoreTests`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Protocol, Self, runtime_checkable


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """A store's description of one object.

    Attributes:
        key: Name of the object in its bucket.
        etag: The store's opaque token for these contents, without quotes. Equal contents may have equal ETags, so an
            ETag serves for conditions and not for identity.
        size: Length of the whole object in bytes, also in the answer to a ranged request.
        metadata: User metadata: keys in lower case, ASCII. Empty in listings.
        last_modified: Time of the last write by the store's clock; None if the store does not say.
        date: Time of the answer by the store's clock; None if the store does not say.
    """

    key: str
    etag: str
    size: int
    metadata: Mapping[str, str] = field(default_factory=dict)
    last_modified: datetime | None = None
    date: datetime | None = None

    @property
    def age(self) -> float | None:
        """Seconds from the last write to the answer, by the store's clock alone; None if the store does not say."""
        if self.date is None or self.last_modified is None:
            return None
        return max(0.0, (self.date - self.last_modified).total_seconds())


class ReadableBody(Protocol):
    """A seekable, readable body to upload. The store reads it from its start; a retry reads it again."""

    def read(self, size: int = -1, /) -> bytes:
        """As :meth:`io.RawIOBase.read`."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """As :meth:`io.IOBase.seek`."""

    def tell(self) -> int:
        """As :meth:`io.IOBase.tell`."""


class Download(Protocol):
    """An object, or one range of it, during its download. Use it as a context manager: leaving early drops the rest.

    Attributes:
        info: The object that the bytes belong to.
        length: Number of bytes that ``read`` gives in all.
    """

    @property
    def info(self) -> ObjectInfo:
        """The object that the bytes belong to."""

    @property
    def length(self) -> int:
        """Number of bytes that ``read`` gives in all."""

    def read(self, size: int, /) -> bytes:
        """Read up to ``size`` bytes; ``b""`` only after all ``length`` bytes.

        Raises:
            StoreUnavailableError: The body ended early, timed out, or does not match the store's own checksum.
        """

    def __enter__(self) -> Self: ...
    def __exit__(self, *exc: object) -> None: ...


class Store(Protocol):
    """One bucket. Safe to use from many threads, and in a forked child.

    Every method makes one attempt. The caller decides what to retry. All methods raise

    * ``BucketNotFoundError``: the bucket does not exist;
    * ``AccessDeniedError``: the credentials are missing or wrong, or lack a permission;
    * ``StoreUnavailableError``: no usable answer; ``ambiguous`` says whether a write may have landed;
    * ``StoreError``: any other refusal, with the store's status and code.

    Attributes:
        url: URL of the bucket: ``s3://bucket``, ``file:///folder`` or ``memory://name``. Never contains credentials.
        honours_conditions: True if the store is known to honour conditional writes. If false, temaki probes the store
            before its first write.
    """

    @property
    def url(self) -> str:
        """URL of the bucket, without credentials."""

    @property
    def honours_conditions(self) -> bool:
        """Whether the store is known to honour conditional writes."""

    def get(
        self,
        key: str,
        *,
        if_none_match: str | None = None,
        if_match: str | None = None,
        byte_range: tuple[int, int] | None = None,
    ) -> Download | None:
        """Open an object for reading.

        Args:
            key: Name of the object.
            if_none_match: ETag; if the object still has it, the answer is None, without a body.
            if_match: ETag; if the object no longer has it, ``PreconditionFailedError``.
            byte_range: First byte, and the byte after the last one. A range ends at the object's end at the latest.
                A range that starts at or beyond the end raises ``StoreError``.

        Raises:
            NotFoundError: The bucket exists and has no such key.
            PreconditionFailedError: ``if_match`` does not hold.
        """

    def head(self, key: str) -> ObjectInfo:
        """Describe an object, without its bytes.

        Raises:
            NotFoundError: The bucket exists and has no such key.
        """

    def put(
        self,
        key: str,
        body: bytes | ReadableBody,
        *,
        metadata: Mapping[str, str] | None = None,
        if_match: str | None = None,
        if_none_match: bool = False,
    ) -> str:
        """Write a whole object atomically, and return its new ETag.

        Args:
            key: Name of the object.
            body: The bytes, or a seekable view of them, which the store reads from its start.
            metadata: User metadata: ASCII, 2 KB in all (S3's limit).
            if_match: ETag; write only if the object still has it.
            if_none_match: True to write only if there is no such object.

        Raises:
            PreconditionFailedError: The condition does not hold. With ``if_match``, a missing object raises this error
                too. ``in_flight`` is true if the store refused without a decision (409).
            StoreUnavailableError: No usable answer; ``ambiguous`` says whether the write may have landed.
        """

    def delete(self, key: str) -> None:
        """Delete an object. A missing object is no error."""

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """List all objects whose keys start with ``prefix``, in the order of their keys (UTF-8)."""


@dataclass(frozen=True, slots=True)
class ObjectVersion:
    """One version of an object that a bucket has kept.

    Attributes:
        version_id: The bucket's name for the version.
        etag: ETag of the version, as in :class:`ObjectInfo`; empty for a deletion.
        size: Size of the version in bytes; 0 for a deletion.
        last_modified: Time of the write by the store's clock; None if the store does not say.
        is_current: True if a plain GET answers with this version.
        is_deletion: True for a delete marker: from this version on, there was no object.
    """

    version_id: str
    etag: str
    size: int
    last_modified: datetime | None
    is_current: bool
    is_deletion: bool = False


@runtime_checkable
class VersionedStore(Protocol):
    """A store whose bucket keeps the versions of an object. Optional, beside :class:`Store`.

    Its methods raise the errors of :class:`Store`.
    """

    def versioning(self) -> bool:
        """Whether the bucket keeps the versions that are written from now on."""

    def versions(self, key: str) -> Iterator[ObjectVersion]:
        """List the versions of one object, newest first.

        A deletion in the same second as a write may be out of order. The list is empty if there never was an object.
        """

    def head_version(self, key: str, version_id: str) -> ObjectInfo:
        """Describe one version, without its bytes.

        Raises:
            NotFoundError: There is no such version.
        """

    def get_version(
        self,
        key: str,
        version_id: str,
        *,
        if_match: str | None = None,
        byte_range: tuple[int, int] | None = None,
    ) -> Download:
        """Open one version for reading, as :meth:`Store.get` does the current one.

        Raises:
            NotFoundError: There is no such version.
        """


@dataclass(frozen=True, slots=True)
class LifecycleRule:
    """A rule by which a bucket removes or archives objects without being asked.

    Attributes:
        name: Name of the rule; empty if it has none.
        prefix: The rule is for the objects whose keys begin with it.
        expires: True if it removes current objects.
        archives: True if it moves current objects to a storage class from which they cannot be read.
        old_versions_days: Days after which it removes versions that are not current any more; None if it never does.
    """

    name: str
    prefix: str
    expires: bool
    archives: bool
    old_versions_days: int | None


@runtime_checkable
class LifecycleStore(Protocol):
    """A store whose bucket has lifecycle rules. Optional, beside :class:`Store`. It raises the errors of that one."""

    def lifecycle(self) -> list[LifecycleRule]:
        """List the rules that are in force, without those for objects with tags."""


@runtime_checkable
class CopyingStore(Protocol):
    """A store that copies objects by itself: their bytes do not pass through this machine. Optional.

    Its methods raise the errors of :class:`Store`.
    """

    def can_copy(self, source: Store) -> bool:
        """Whether :meth:`copy` can read objects of ``source``, which may be this store. Makes no request."""

    def copy(
        self,
        source: Store,
        info: ObjectInfo,
        key: str,
        *,
        metadata: Mapping[str, str] | None = None,
        if_none_match: bool = False,
    ) -> str:
        """Copy a whole object atomically, and return the ETag of the copy.

        Args:
            source: The store of the object, for which :meth:`can_copy` is true.
            info: The object, as ``source`` described it. An object that has changed since is not copied.
            key: Name of the copy.
            metadata: User metadata of the copy: as for :meth:`Store.put`. Those of the object are not copied.
            if_none_match: True to write only if there is no object with this key.

        Raises:
            NotFoundError: The object that should be copied does not exist any more. ``url`` names it.
            PreconditionFailedError: The object that should be copied is another one by now, and ``url`` names it; or
                ``if_none_match`` does not hold, and ``url`` names the copy.
            StoreUnavailableError: No usable answer; ``ambiguous`` says whether the copy may have landed.
        """


@dataclass(frozen=True, slots=True)
class Location:
    """Where a database is.

    Attributes:
        scheme: The scheme of its URL, in lower case.
        bucket: The bucket's name; for ``file`` the folder's absolute path.
        key: The object's name in the bucket.
        url: The canonical URL: equal for URLs that name the same database.
    """

    scheme: str
    bucket: str
    key: str
    url: str


class StoreOpener(ABC):
    """Makes the URLs of one scheme usable: ``myscheme://bucket/key`` becomes a store and a key.

    Sub-class it, and register the class as an entry point of the group ``temaki.stores``, under the scheme's name in
    lower case. It is called without arguments.

    temaki itself refuses URLs with credentials, a query, a fragment or control characters, for every scheme. What comes
    after ``myscheme://`` is the opener's business. Refuse what makes no sense with a ``ValueError`` that says what is
    wrong, as the rest of a sentence: "its port is no number". The message then names the URL and has the example.

    Attributes:
        example: A URL of this scheme, for messages.
        takes_client: Whether :meth:`open` makes use of the argument ``client`` of ``bind_s3``. If not, temaki refuses
            it.
    """

    example: ClassVar[str]
    takes_client: ClassVar[bool] = False

    def split(self, rest: str) -> tuple[str, str]:
        """Split what comes after ``myscheme://`` into a bucket and a key. By default, at the first slash.

        Raises:
            ValueError: It is malformed.
        """
        bucket, slash, key = rest.partition("/")
        if not bucket:
            raise ValueError("it has no bucket")
        if not key:
            missing = "no key" if slash else "no '/' and no key"
            raise ValueError(f"it has {missing} after the bucket")
        if key.endswith("/"):
            raise ValueError("its key ends in '/', so that it names a folder and no object")
        return bucket, key

    def join(self, bucket: str, key: str) -> str:
        """Write what comes after ``myscheme://``, in the one way in which temaki writes it. The inverse of ``split``.

        Two URLs name the same database if this is equal for them. By default, ``bucket/key``.
        """
        return f"{bucket}/{key}"

    @abstractmethod
    def open(self, location: Location, *, client: Any = None) -> Store:
        """Make the store for ``location.bucket``. Makes no request, and imports no more than that takes.

        Args:
            location: Where the database is.
            client: As given to ``bind_s3``; always None if ``takes_client`` is false.

        Raises:
            ConfigurationError: Something that the store needs is not configured.
        """
