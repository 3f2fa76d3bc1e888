"""The interface of a format: the layout of a version in the store.

A format reads a store's answer, brings the version into the working copy, and makes the body that a commit uploads. It
knows the store and the working copy. The engine decides when each of these happens.
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
    """The body that a commit uploads as the database's object.

    Attributes:
        content: The bytes. Each attempt reads them from their start.
        size: Length of ``content``, in bytes.
        metadata: User metadata that the format itself adds to the object.
    """

    content: ReadableBody
    size: int
    metadata: Mapping[str, str] = field(default_factory=dict)


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
            NotFoundError: The object was deleted meanwhile.
            StoreError: A request failed, also when retried.
            WorkingCopyError: The file exists, or cannot be written.
        """

    def bring(self, replica: Replica) -> Path:
        """Write the version into a new file of the working copy. Raises what :meth:`save` does.

        Returns:
            The new file, for :meth:`~temaki.replica.replica.Replica.install`.
        """
        path = replica.next_path()
        self.save(path)
        return path

    @abstractmethod
    def close(self) -> None:
        """Drop the rest of the download. Repeated calls have no further effect."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class Format(ABC):
    """One layout of a version in the store."""

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
    def store(self, image: Image, base: Version | None) -> Body:
        """Make the body to upload for a commit.

        Args:
            image: The database as the commit leaves it.
            base: The version that the commit replaces; None for the first one.
        """
