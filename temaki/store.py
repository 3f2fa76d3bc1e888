"""The object store as temaki needs it: five verbs, two conditions, and errors that say what is certain.

A store is one bucket. Implementations are in :mod:`temaki.stores`; :class:`temaki.testing.StoreTests` is the
conformance suite that each of them, and anyone else's, has to pass.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Protocol, Self, runtime_checkable


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What a store says of one object.

    Attributes:
        key: The object's name in its bucket.
        etag: The store's opaque token for these contents, without quotes. It repeats when contents repeat, so it
            serves for conditions and not for identity.
        size: Length of the whole object in bytes, also in the answer to a ranged request.
        metadata: The user's metadata; keys in lower case, ASCII. Empty in listings.
        last_modified: The store's time of the last write, where it says so.
        date: The store's own clock when it answered, where it says so.
    """

    key: str
    etag: str
    size: int
    metadata: Mapping[str, str] = field(default_factory=dict)
    last_modified: datetime | None = None
    date: datetime | None = None


class ReadableBody(Protocol):
    """A seekable, readable body to upload. Read from its start, several times if the request is repeated."""

    def read(self, size: int = -1, /) -> bytes:
        """As :meth:`io.RawIOBase.read`."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """As :meth:`io.IOBase.seek`."""

    def tell(self) -> int:
        """As :meth:`io.IOBase.tell`."""


class Download(Protocol):
    """An object, or one range of it, on its way. Use it as a context manager; leaving early drops the rest.

    Attributes:
        info: The object that the bytes belong to.
        length: How many bytes ``read`` will give in all.
    """

    @property
    def info(self) -> ObjectInfo:
        """See above."""

    @property
    def length(self) -> int:
        """See above."""

    def read(self, size: int, /) -> bytes:
        """Up to ``size`` bytes, ``b""`` only once all ``length`` of them were given.

        Raises:
            StoreUnavailableError: The body ended early, timed out, or does not match the store's own checksum.
        """

    def __enter__(self) -> Self: ...
    def __exit__(self, *exc: object) -> None: ...


class Store(Protocol):
    """One bucket. Safe to use from many threads, and in a forked child.

    Every method makes one attempt: whoever calls decides what may be repeated. All raise

    * ``BucketNotFoundError``: the bucket does not exist;
    * ``AccessDeniedError``: credentials missing or wrong, or a permission is;
    * ``StoreUnavailableError``: no usable answer, with ``ambiguous`` telling whether a write may have landed;
    * ``StoreError``: any other refusal, with the store's status and code.

    Attributes:
        url: The bucket, as ``s3://bucket``, ``file:///folder`` or ``memory://name``. Never has credentials in it.
        honours_conditions: True where conditional writes are known to be honoured; false where temaki should find
            out before its first write.
    """

    @property
    def url(self) -> str:
        """See above."""

    @property
    def honours_conditions(self) -> bool:
        """See above."""

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
            key: The object's name.
            if_none_match: An ETag; if the object still has it, the answer is None and no body is sent.
            if_match: An ETag; if the object no longer has it, ``PreconditionFailedError``.
            byte_range: First byte and the byte after the last one. Cut at the object's end; a range that starts at or
                beyond the end raises ``StoreError``.

        Raises:
            NotFoundError: The bucket exists and has no such key.
            PreconditionFailedError: ``if_match`` does not hold.
        """

    def head(self, key: str) -> ObjectInfo:
        """What the store says of an object, without its bytes.

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
        """Write a whole object, atomically, and give its new ETag.

        Args:
            key: The object's name.
            body: The bytes, or a seekable view of them, which is read from its start.
            metadata: ASCII, 2 KB in all (S3's limit).
            if_match: Write only if the object's ETag is still this one.
            if_none_match: Write only if there is no such object.

        Raises:
            PreconditionFailedError: The condition does not hold; with ``if_match``, a missing object is this error
                too. ``in_flight`` where the store undecidedly refused (409).
            StoreUnavailableError: See ``ambiguous``.
        """

    def delete(self, key: str) -> None:
        """Remove an object. A missing one is no error."""

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """The objects whose keys start with ``prefix``, in the order of their keys (UTF-8), however many there are."""


@dataclass(frozen=True, slots=True)
class ObjectVersion:
    """One version of an object that a bucket has kept.

    Attributes:
        version_id: The bucket's name for it.
        etag: As in :class:`ObjectInfo`; empty for a deletion.
        size: In bytes; 0 for a deletion.
        last_modified: The store's time of the write.
        is_current: Whether it is what a plain GET answers.
        is_deletion: Whether it is a delete marker: from here on, there was no object.
    """

    version_id: str
    etag: str
    size: int
    last_modified: datetime | None
    is_current: bool
    is_deletion: bool = False


@runtime_checkable
class VersionedStore(Protocol):
    """What a store can do beside :class:`Store` if its bucket keeps the versions of an object. Optional.

    Its methods raise what those of :class:`Store` do.
    """

    def versioning(self) -> bool:
        """Whether the bucket keeps versions of what is written from now on."""

    def versions(self, key: str) -> Iterator[ObjectVersion]:
        """The versions of one object, newest first; a deletion of the same second may stand elsewhere in it.

        Empty where there never was one.
        """

    def head_version(self, key: str, version_id: str) -> ObjectInfo:
        """What the store says of one version.

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
