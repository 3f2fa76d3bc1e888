"""How a version is laid out in the store: what every format does.

A format reads what a store answered, brings it into the working copy, and makes the body that a commit uploads. It
knows the store and the working copy; the engine decides when each of these happens.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from temaki.remote.fetch import Source
    from temaki.replica.image import Image
    from temaki.replica.replica import Replica
    from temaki.store import Download, ReadableBody
    from temaki.version import Version


@dataclass(frozen=True, slots=True, eq=False)
class Body:
    """What a commit uploads as the database's object.

    Attributes:
        content: The bytes, read from their start at each attempt.
        size: Length of ``content``, in bytes.
        metadata: The format's own user metadata for the object.
    """

    content: ReadableBody
    size: int
    metadata: Mapping[str, str] = field(default_factory=dict)


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

    def bring(self, replica: Replica) -> Path:
        """Write the version into the working copy, beside what is there. Raises what :meth:`save` does.

        Returns:
            The new file, for :meth:`~temaki.replica.replica.Replica.install`.
        """
        path = replica.next_path()
        self.save(path)
        return path

    @abstractmethod
    def close(self) -> None:
        """Drop what has not come. Repeating it does nothing more."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class Format(ABC):
    """One way to lay a version out in the store."""

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
    def store(self, image: Image, base: Version | None) -> Body:
        """What to upload for a commit.

        Args:
            image: The database as the commit leaves it.
            base: The version that the commit replaces; None for the first one.
        """
