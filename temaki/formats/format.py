"""The interface of a format: the layout of a version in the store.

A format reads a store's answer, brings the version into the working copy, and makes the body that a commit uploads. It
knows the store and the working copy. The engine decides when each of these happens.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Self

from temaki.errors import StoreError
from temaki.version import FILE_FORMAT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from temaki.remote.fetch import Source
    from temaki.remote.remote import Remote
    from temaki.remote.swap import Rebuilt
    from temaki.replica.generation import Extent, Generation, Knowledge
    from temaki.replica.image import Image
    from temaki.replica.replica import Replica
    from temaki.store import Download, ReadableBody, Store
    from temaki.version import Published, Version


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """A commit that is to be stored.

    Attributes:
        image: The database as the commit leaves it.
        generation: The working copy, whose acknowledged version the commit replaces.
        commit: The commit's id.
        sequence: The new version's number.
        source: Where requests go.
    """

    image: Image
    generation: Generation
    commit: str
    sequence: int
    source: Source


@dataclass(frozen=True, slots=True, eq=False)
class WholeTask:
    """A database file that is to be stored as the next version, whatever that replaces.

    Attributes:
        image: The database.
        base: The version that it replaces; None where there is no object.
        commit: The commit's id.
        sequence: The new version's number.
        source: Where requests go.
    """

    image: Image
    base: Version | None
    commit: str
    sequence: int
    source: Source


@dataclass(frozen=True, slots=True)
class Uploaded:
    """What was uploaded for a commit. A request that was repeated counts once.

    Attributes:
        size: In bytes: the database's object, and the objects beside it.
        objects: Number of the objects beside it.
    """

    size: int
    objects: int = 0


@dataclass(frozen=True, slots=True)
class Received:
    """What a pull has brought. A request that was repeated counts once.

    Attributes:
        size: In bytes: the database's object, and the objects beside it.
        is_catch_up: True if only what had changed was fetched.
    """

    size: int
    is_catch_up: bool = False


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of a full pull.

    Attributes:
        requests: Number of GETs. A large object takes more of them where the network is slow.
        size: Bytes of all bodies.
    """

    requests: int
    size: int


@dataclass(frozen=True, slots=True)
class Layout:
    """The layout of a version that is more than one object in the store.

    Attributes:
        page_size: Size of a page of the database, in bytes.
        base_size: Size of the base, in bytes.
        base_sequence: Number of the base's version.
        segments: Number of segments.
        segments_size: Size of all segments, in bytes.
        tail_pages: Number of pages in the database's own object.
        tail_size: Size of their images, in bytes.
        since: Number of the oldest version that can catch up.
        condemned: Number of objects that no version needs any more, and that are going to be deleted. Those in lists
            of their own count as one for each list.
        claimed: Time when a fold claimed the version, by the store's clock, in seconds since 1970; None if none has.
        full_pull: The cost of a full pull.
        compacted: The cost of a full pull after a fold.
    """

    page_size: int
    base_size: int
    base_sequence: int
    segments: int
    segments_size: int
    tail_pages: int
    tail_size: int
    since: int
    condemned: int
    claimed: int | None
    full_pull: Cost
    compacted: Cost


def _no_knowledge() -> Knowledge | None:
    return None


@dataclass(frozen=True, slots=True, eq=False)
class Body:
    """The body that a commit uploads as the database's object.

    Attributes:
        content: The bytes. Each attempt reads them from their start.
        size: Size of the database, in bytes.
        metadata: User metadata that the format itself adds to the object.
        rebuild: Builds the content anew; see :class:`temaki.remote.publish.Publication`. None if the format has no
            maintenance.
        knowledge: What the format then knows of the version, for its next commit or pull.
        uploaded: What was uploaded for the commit so far, this body included. None if it is this body alone.
    """

    content: ReadableBody
    size: int
    metadata: Mapping[str, str] = field(default_factory=dict)
    rebuild: Callable[[Version], Rebuilt | None] | None = None
    knowledge: Callable[[], Knowledge | None] = _no_knowledge
    uploaded: Callable[[], Uploaded] | None = None

    def cost(self) -> Uploaded:
        """What was uploaded for the commit so far."""
        return Uploaded(self.size) if self.uploaded is None else self.uploaded()


@dataclass(frozen=True, slots=True)
class Maintained:
    """What maintenance has done.

    Attributes:
        sent: Bytes that were uploaded, beside the database's object.
        freed: Bytes of the objects that were removed.
        before: Number of objects that a pull needed beside the database's object before.
        after: The same, after it.
        has_collected: Whether it looked for objects to remove.
    """

    sent: int = 0
    freed: int = 0
    before: int = 0
    after: int = 0
    has_collected: bool = False


class ConvertedError(StoreError):
    """The database was converted to another format while it was read. Whoever reads it has to ask for it again."""


def converted(url: str) -> ConvertedError:
    """Make the error for the database at ``url``."""
    return ConvertedError(
        f"{url} was converted to another format while it was read. Nothing was changed. Try again.", url=url
    )


@dataclass(frozen=True, slots=True, eq=False)
class CopyTask:
    """A copy of a stored version, as a new database, that the store should make by itself.

    Attributes:
        store: Where the copy goes, a :class:`temaki.store.CopyingStore` that can copy from where the version is.
        remote_on: Makes the remote side of the new database, on a store.
        commit: Id of the new database's first commit.
        done: New names of the objects that were copied, by their names. An attempt after another one goes on with them.
    """

    store: Store
    remote_on: Callable[[Store], Remote]
    commit: str
    done: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Copied:
    """A version that the store has copied.

    Attributes:
        published: The new database's version.
        original: The version that was copied.
        objects: Number of the objects that were copied.
        size: Size of these objects, in bytes.
    """

    published: Published
    original: Version
    objects: int
    size: int


class SourceChangedError(Exception):
    """The version was replaced while it was copied. Nothing was stored; the version of now can be copied."""


class Stored(ABC):
    """A version that the store has begun to send. Use it as a context manager: leaving it drops the rest.

    Attributes:
        version: The version. If the download begins again, this becomes the version that the store has by then.
    """

    version: Version

    @abstractmethod
    def save(self, path: Path) -> None:
        """Write the version into a new database file in WAL mode, with mode 0600. It is not flushed to the disk.

        If this raises, no new file is left.

        Raises:
            CorruptDatabaseError: The stored version is no database, or is damaged.
            ConvertedError: The stored version is in another format by now.
            NotFoundError: The object was deleted meanwhile.
            StoreError: A request failed, also when retried.
            WorkingCopyError: The file exists, or cannot be written.
        """

    def arrive(self, replica: Replica, *, instead_of: Generation | None, at: Version | None) -> bool:
        """Make the working copy this version. Raises what :meth:`save` does.

        Args:
            replica: The working copy.
            instead_of: The generation that was current when the pull started.
            at: The version of that generation when the pull started.

        Returns:
            False if the working copy has gone on meanwhile: the answer may be older than what is there.
        """
        path = replica.next_path()
        self.save(path)
        if instead_of is not None and at == self.version and replica.confirm(path, instead_of, at=at):
            return True
        return replica.install(path, self.version, instead_of=instead_of, at=at, knowledge=self.knowledge())

    def knowledge(self) -> Knowledge | None:
        """What the format knows of the version, for the next commit or pull."""
        return None

    def layout(self) -> Layout | None:
        """The version's layout; None if it is one object."""
        return None

    def check(self) -> int:
        """Find out whether the objects beside the database's own can be read, without reading them.

        Returns:
            The number of these objects.

        Raises:
            CorruptDatabaseError: An object is missing, or has another size.
            StoreError: An object cannot be read.
        """
        return 0

    def copy(self, task: CopyTask) -> Copied | None:  # noqa: ARG002 - what this one cannot do
        """Make a new database of this version, by copies within the store.

        Returns:
            What was copied; None if it is not possible, so that the bytes have to pass through this machine.

        Raises:
            SourceChangedError: The version was replaced meanwhile. Nothing was stored.
            ConflictError: There is a database already. Nothing was stored.
            CommitUnknownError: It is not known whether the copy was stored.
            CorruptDatabaseError: The stored version is damaged. Nothing was stored.
            StoreError: A request failed. Nothing was stored.
        """
        return None

    @property
    @abstractmethod
    def received(self) -> Received:
        """What :meth:`save` or :meth:`arrive` has brought."""

    @abstractmethod
    def close(self) -> None:
        """Drop the rest of the download. Repeated calls have no further effect."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class Format(ABC):
    """One layout of a version in the store.

    Attributes:
        number: Number of the format in the metadata of a stored object.
    """

    number: ClassVar[str] = FILE_FORMAT

    def layout(self, generation: Generation) -> Layout | None:  # noqa: ARG002 - the other format's
        """The layout of the version in the working copy; None if it is one object, or if that is not known here.

        Makes no request. The replica's lock is held.
        """
        return None

    def extent(self, generation: Generation) -> Extent | None:  # noqa: ARG002 - the other format's
        """The size of the version in the working copy, from which a pull can lead on; None if every pull brings it all.

        Makes no request. The replica's lock is held.
        """
        return None

    @abstractmethod
    def open(self, source: Source, download: Download) -> Stored:
        """Read the beginning of an answer, and find out which version it is.

        Args:
            source: The object, for further requests.
            download: The answer. It is closed if this raises.

        Raises:
            CorruptDatabaseError: The object is no version of this format.
            StoreUnavailableError: The body ended early.
        """

    @abstractmethod
    def store(self, task: Task) -> Body:
        """Make the body to upload for a commit. What it refers to is uploaded before this returns.

        Raises:
            WorkingCopyError: The working copy cannot be read.
            StoreError: Something could not be uploaded. Nothing refers to it.
            CorruptDatabaseError: What is stored is damaged.
        """

    @abstractmethod
    def store_whole(self, task: WholeTask) -> Body:
        """Make the body to upload for a database that comes from a file. Raises what :meth:`store` does."""

    def is_due(self, generation: Generation, *, now: float, idle: float) -> int | None:  # noqa: ARG002
        """Whether the stored version needs maintenance that no commit does. Makes no request, and waits for no lock.

        Args:
            generation: The working copy.
            now: This machine's time, in seconds since 1970.
            idle: Seconds since this process has last looked for objects to remove.

        Returns:
            Bytes to upload; None if nothing is due.
        """
        return None

    def maintain(self, source: Source, replica: Replica, *, idle: float) -> Maintained:  # noqa: ARG002
        """Do what is due, from the pages of the working copy. It holds up no session for longer than a moment.

        Args:
            source: Where requests go.
            replica: The working copy.
            idle: As for :meth:`is_due`.

        Raises:
            NotFoundError: There is no database.
            CorruptDatabaseError: What is stored is damaged.
            StoreError: A request failed. Nothing is lost.
            WorkingCopyError: The working copy cannot be read.
        """
        return Maintained()
