"""What each system is asked to do. A session begins from what is stored, and ends when its change is stored."""

from __future__ import annotations

from typing import Protocol, TypedDict


class Config(TypedDict):
    """What a worker is told.

    Attributes:
        module: In this folder.
        first: Whether to read at once, and to say how long that took.
        bucket: The bucket's name. Endpoint and credentials are in the environment.
        key: The database's key in it, or the prefix of its objects.
        folder: A private one, for what the system keeps on this machine.
        file: A local copy of the database, which all processes share.
        options: The system's own.
    """

    module: str
    first: bool
    bucket: str
    key: str
    folder: str
    file: str
    options: dict[str, str]


class System(Protocol):
    """One way of keeping a SQLite database in S3."""

    def read(self) -> tuple[str, int]:
        """A session that reads row 1: its name and its count."""

    def commit(self, rows: int, name: str) -> None:
        """A session that gives a new name to so many rows from row 2 on."""

    def increment(self) -> int:
        """A session that adds one to the count of row 1, and returns it. Runs again as the system would have it."""
