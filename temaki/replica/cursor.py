"""Cursors that explain their errors, and that outlive their transaction without holding its snapshot."""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable, Iterable
from itertools import chain, islice
from typing import Any, Final, NoReturn, Protocol

from temaki.errors import StatementRefusedError

MOST_KEPT: Final = 10_000
"""How many unread rows of a cursor are kept when its transaction ends."""


class Guard(Protocol):
    """What a cursor asks of its connection: :class:`temaki.replica.guarded.GuardedConnection`.

    Attributes:
        url: The database's URL, for messages.
        in_handlers: Whether ``on_connect`` handlers write in a session of their own.
    """

    url: str
    in_handlers: bool

    def require_own(self) -> None:
        """Make sure that the connection belongs to this process."""

    def sets_nothing_new(self, sql: str, /) -> bool:
        """Whether the statement sets a value that is there already."""

    def marked(self, sql: str, /) -> str:
        """The statement in the form that the authorizer accepts now."""

    def permits(self, error: sqlite3.DatabaseError, run: Callable[[str], object], sql: str, /) -> bool:
        """Whether a refused statement was allowed after all, and has run."""

    def raise_explained(self, error: sqlite3.DatabaseError, sql: str = "", /) -> NoReturn:
        """Raise the error in temaki's words."""


class Cursor(sqlite3.Cursor):
    """A cursor whose errors say what temaki knows about them.

    With plain SQLite, a cursor can be read after a commit, because it holds its snapshot until then. A session's
    snapshot ends with the session. So :meth:`end` reads the rows that are left, and the cursor goes on with those.
    """

    connection: Guard  # type: ignore[assignment]
    _is_over = _is_closed = False
    _rows: deque[Any]
    _failure: Exception | None = None

    def execute(self, sql: str, parameters: Any = (), /) -> Cursor:  # noqa: D102
        self._run(sql, lambda text: super(Cursor, self).execute(text, parameters))
        return self

    def executemany(self, sql: str, parameters: Any, /) -> Cursor:  # noqa: D102
        again = _Repeatable(parameters)
        self._run(sql, lambda text: super(Cursor, self).executemany(text, again.rows()))
        return self

    def _run(self, sql: str, run: Callable[[str], object]) -> None:
        connection = self.connection
        connection.require_own()
        if self._is_over:
            raise _over(connection.url, "it cannot run another statement", "Take a new cursor for each transaction")
        try:
            if connection.in_handlers and connection.sets_nothing_new(sql):
                sql = "SELECT NULL LIMIT 0"
            run(connection.marked(sql))
        except sqlite3.DatabaseError as error:
            final = error
            try:
                if connection.permits(error, run, sql):
                    return
            except sqlite3.DatabaseError as other:
                final = other
            connection.raise_explained(final, sql)

    def executescript(self, sql_script: str, /) -> Cursor:
        """Run the statements of a script, in the transaction that is open. (Python's own commits before it starts.)"""
        statement = ""
        for part in sql_script.split(";"):
            statement += part + ";"
            if sqlite3.complete_statement(statement):
                self.execute(statement)
                statement = ""
        if statement.strip(" \t\r\n;"):
            self.execute(statement.removesuffix(";"))
        return self

    # -- its rows -------------------------------------------------------------------------------------------------

    def fetchone(self) -> Any:  # noqa: D102
        if self._is_over:
            rows = self._kept()
            return rows.popleft() if rows else None
        return self._fetch(super().fetchone)

    def fetchmany(self, size: int | None = None) -> list[Any]:  # noqa: D102
        size = self.arraysize if size is None else size
        if self._is_over:
            rows = self._kept()
            return [rows.popleft() for _ in range(min(size, len(rows)))]
        return list(self._fetch(lambda: super(Cursor, self).fetchmany(size)))

    def fetchall(self) -> list[Any]:  # noqa: D102
        if self._is_over:
            rows = self._kept()
            every = list(rows)
            rows.clear()
            return every
        return list(self._fetch(super().fetchall))

    def __next__(self) -> Any:
        if self._is_over:
            rows = self._kept()
            if not rows:
                raise StopIteration
            return rows.popleft()
        return self._fetch(super().__next__)

    def _fetch(self, fetch: Callable[[], Any]) -> Any:
        self.connection.require_own()
        try:
            return fetch()
        except sqlite3.DatabaseError as error:
            self.connection.raise_explained(error)

    def _kept(self) -> deque[Any]:
        if self._failure is not None:
            raise self._failure
        return self._rows

    # -- its end --------------------------------------------------------------------------------------------------

    def close(self) -> None:  # noqa: D102
        self._is_closed = True
        super().close()

    def end(self, *, keep: bool) -> None:
        """The transaction is over: hold its snapshot no longer.

        Args:
            keep: Whether the rows that are left can be read after it, as after a commit. After a rollback they cannot.
        """
        if self._is_over or self._is_closed:
            return
        rows: list[Any] = []
        if keep:
            try:
                rows = super().fetchmany(MOST_KEPT + 1)  # one more than are kept tells whether there are more
            except sqlite3.Error as error:
                self._failure = error
        self._rows = deque(rows)
        if not keep:
            self._failure = _over(self.connection.url, "it was rolled back", "Read the rows before")
        elif len(rows) > MOST_KEPT:
            self._rows.clear()
            self._failure = _over(
                self.connection.url,
                f"more than {MOST_KEPT} of its rows had not been read, and so many are not kept",
                "Read them before commit() and before the end of the db_session, with fetchall() for example",
            )
        super().close()
        self._is_over = True


class _Repeatable:
    """Parameters of ``executemany`` that can start over, after an attempt that took only the first."""

    def __init__(self, parameters: Iterable[Any]) -> None:
        self._rest = iter(parameters)
        self._first: list[Any] = []

    def rows(self) -> Iterable[Any]:
        if not self._first:
            self._first = list(islice(self._rest, 1))
        return chain(self._first, self._rest)


def _over(url: str, why: str, instead: str) -> StatementRefusedError:
    return StatementRefusedError(
        f"The transaction of this cursor on {url} is over: {why}. {instead}.",
        url=url,
    )
