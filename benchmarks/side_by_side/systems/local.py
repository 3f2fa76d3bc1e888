"""A plain SQLite file on this machine: the floor."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from benchmarks.side_by_side.systems import sql
from benchmarks.side_by_side.systems.system import Config


class Local:
    """A connection for each session."""

    def __init__(self, config: Config) -> None:
        self._path = config["file"]

    def read(self) -> tuple[str, int]:
        """Open, read."""
        with closing(self._connect()) as connection:
            return sql.read(connection)

    def commit(self, rows: int, name: str) -> None:
        """Open, write."""
        with closing(self._connect()) as connection:
            sql.commit(connection, rows, name)

    def increment(self) -> int:
        """Open, write; SQLite's own locks let writers wait for each other."""
        with closing(self._connect()) as connection:
            return sql.increment(connection)

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=60)


make = Local
