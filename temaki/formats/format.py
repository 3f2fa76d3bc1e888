"""How a version is laid out in the store: what every format does.

A format reads what a store answered, brings it into the working copy, and makes the body that a commit uploads. It
knows the store and the working copy; the engine decides when each of these happens.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Self

from temaki.version import FILE_FORMAT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from temaki.remote.fetch import Source
    from temaki.remote.swap import Rebuilt
    from temaki.replica.generation import Generation, Knowledge
    from temaki.replica.image import Image
    from temaki.replica.replica import Replica
    from temaki.store import Download, ReadableBody
    from temaki.version import Version


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


def _no_knowledge() -> Knowledge | None:
    return None


@dataclass(frozen=True, slots=True, eq=False)
class Body:
    """What a commit uploads as the database's object.

    Attributes:
        content: The bytes, read from their start at each attempt.
        size: Length of ``content``, in bytes.
        metadata: The format's own user metadata for the object.
        rebuild: Builds the content anew; see :class:`temaki.remote.publish.Publication`. None if the format has no
            maintenance.
        knowledge: What the format then knows of the version, for its next commit or pull.
    """

    content: ReadableBody
    size: int
    metadata: Mapping[str, str] = field(default_factory=dict)
    rebuild: Callable[[Version], Rebuilt | None] | None = None
    knowledge: Callable[[], Knowledge | None] = _no_knowledge


class Stored(ABC):
    """A version that the store has begun to send. Use it as a context manager: leaving it drops what has not come.

    Attributes:
        version: The version. If the download has to begin again, it becomes what the store has by then.
    """

    version: Version

    @abstractmethod
    def save(self, path: Path) -> None:
        """Write the version into a new database file in WAL mode, with mode 0600. It is not flushed to the disk.

        Raises:
            CorruptDatabaseError: The stored version is no database, or is damaged.
            NotFoundError: It was deleted meanwhile.
            StoreError: A request failed, also when repeated.
            WorkingCopyError: The file exists, or cannot be written. No new file is left, whatever is raised.
        """

    def arrive(self, replica: Replica, *, instead_of: Generation | None, at: Version | None) -> bool:
        """Make the working copy this version. Raises what :meth:`save` does.

        Args:
            replica: The working copy.
            instead_of: The generation from which the pull was asked.
            at: That generation's version when it was asked.

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

    @abstractmethod
    def close(self) -> None:
        """Drop what has not come. Repeating it does nothing more."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class Format(ABC):
    """One way to lay a version out in the store.

    Attributes:
        number: By which a stored object tells its format.
    """

    number: ClassVar[str] = FILE_FORMAT

    @abstractmethod
    def open(self, source: Source, download: Download) -> Stored:
        """Read what the store has begun to send, as far as it tells which version it is.

        Args:
            source: Where more requests for it go.
            download: The answer. It is closed if this raises.

        Raises:
            CorruptDatabaseError: It is no version of this format.
            StoreUnavailableError: The body ended early.
        """

    @abstractmethod
    def store(self, task: Task) -> Body:
        """What to upload for a commit, as the database's object. What it refers to is uploaded before this returns.

        Raises:
            WorkingCopyError: The working copy cannot be read.
            StoreError: Something could not be uploaded. Nothing refers to it.
            CorruptDatabaseError: What is stored is damaged.
        """
