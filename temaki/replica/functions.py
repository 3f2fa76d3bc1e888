"""What a thread registers on its connection, for the connections that it gets later."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any


class Functions:
    """Functions, aggregates and collations of one thread.

    With plain SQLite, a thread has one connection for its life, and what it registers there is there to stay. Here
    each version of the database may bring a new connection.
    """

    def __init__(self) -> None:
        self._calls: dict[tuple[Any, ...], Callable[[sqlite3.Connection], object]] = {}
        self.changes = 0

    def add(self, key: tuple[Any, ...], call: Callable[[sqlite3.Connection], object]) -> None:
        """Remember a registration; the last one for a key counts.

        Args:
            key: Kind, name and number of arguments.
            call: Does it again on another connection.
        """
        self._calls.pop(key, None)
        self._calls[key] = call
        self.changes += 1

    def register(self, connection: sqlite3.Connection) -> None:
        """Do on a connection all that was remembered."""
        for call in self._calls.values():
            call(connection)
