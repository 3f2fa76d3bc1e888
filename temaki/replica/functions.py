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


class RegisteringConnection(sqlite3.Connection):
    """A connection that remembers what is registered on it, for the other ones of its thread."""

    _functions: Functions | None = None
    _functions_seen = 0

    def share_functions(self, functions: Functions) -> None:
        """Have what the thread has registered on its other connections, and tell them what is registered here."""
        if self._functions is not functions or self._functions_seen != functions.changes:
            self._functions = None
            functions.register(self)
            self._functions = functions
        self._functions_seen = functions.changes

    def _remember(self, key: tuple[Any, ...], call: Callable[[sqlite3.Connection], object]) -> None:
        if self._functions is not None:
            self._functions.add(key, call)

    def create_function(self, name: str, narg: int, func: Any, **options: Any) -> None:
        """As in :mod:`sqlite3`, for all sessions of the thread. So are the other three."""
        super().create_function(name, narg, func, **options)
        # One name is one function, be it an aggregate or not.
        self._remember(("function", name.lower(), narg), lambda c: c.create_function(name, narg, func, **options))

    def create_aggregate(self, name: str, n_arg: int, aggregate_class: Any) -> None:  # noqa: D102
        super().create_aggregate(name, n_arg, aggregate_class)
        self._remember(("function", name.lower(), n_arg), lambda c: c.create_aggregate(name, n_arg, aggregate_class))

    def create_window_function(self, name: str, num_params: int, aggregate_class: Any, /) -> None:  # noqa: D102
        super().create_window_function(name, num_params, aggregate_class)
        self._remember(
            ("function", name.lower(), num_params),
            lambda c: c.create_window_function(name, num_params, aggregate_class),
        )

    def create_collation(self, name: str, callback: Any, /) -> None:  # noqa: D102
        super().create_collation(name, callback)
        self._remember(("collation", name.lower()), lambda c: c.create_collation(name, callback))
