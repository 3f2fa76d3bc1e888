"""A SQLite connection to the working copy that cannot be led astray by raw SQL.

Pony hands its users the connection itself (``db.get_connection()``, cursors of ``db.execute``). What they do
with it must not end temaki's transaction behind its back, change how the file is journalled, or hold a read
snapshot beyond the session. So statements that would are refused by an authorizer, each with a message that
says what to use instead, and cursors are tracked and closed when their transaction is over.
"""

from __future__ import annotations

import os
import sqlite3
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from temaki.errors import StatementRefusedError, TemakiError
from temaki.process.fork import keep_inherited, never_close_in_child, process, require_own
from temaki.replica.explain import FILE_ERRORS, Place, file_error, is_attach, refused_write, rolled_back

# https://www.sqlite.org/c3ref/c_alter_table.html; the sqlite3 module has names for them only in part.
_PRAGMA, _TRANSACTION, _ATTACH = 19, 22, 24
_GUARDED = frozenset({_PRAGMA, _TRANSACTION, _ATTACH})

_PRAGMA_RULES = {
    "journal_mode": "the working copy is journalled by temaki",
    "locking_mode": "the working copy is shared by temaki's own connections",
    "query_only": "write inside a db_session; temaki opens the working copy for writing there",
    "wal_autocheckpoint": "temaki checkpoints after each acknowledged commit",
    "wal_checkpoint": "temaki checkpoints after each acknowledged commit",
}
"""Pragmas that are refused, and why. All but ``wal_checkpoint`` only with a value: asking is harmless."""


class Cursor(sqlite3.Cursor):
    """A cursor whose errors say what temaki knows about them."""

    connection: Connection

    def execute(self, sql: str, parameters: Any = (), /) -> Cursor:  # noqa: D102
        self.connection.require_own()
        try:
            super().execute(self.connection.marked(sql), parameters)
        except sqlite3.DatabaseError as error:
            self.connection.raise_explained(error, sql)
        return self

    def executemany(self, sql: str, parameters: Any, /) -> Cursor:  # noqa: D102
        self.connection.require_own()
        try:
            super().executemany(sql, parameters)
        except sqlite3.DatabaseError as error:
            self.connection.raise_explained(error, sql)
        return self

    def fetchone(self) -> Any:  # noqa: D102
        self.connection.require_own()
        try:
            return super().fetchone()
        except sqlite3.DatabaseError as error:
            self.connection.raise_explained(error)

    def fetchmany(self, size: int | None = None) -> list[Any]:  # noqa: D102
        self.connection.require_own()
        try:
            return super().fetchmany(self.arraysize if size is None else size)
        except sqlite3.DatabaseError as error:
            self.connection.raise_explained(error)

    def fetchall(self) -> list[Any]:  # noqa: D102
        self.connection.require_own()
        try:
            return super().fetchall()
        except sqlite3.DatabaseError as error:
            self.connection.raise_explained(error)

    def __next__(self) -> Any:
        self.connection.require_own()
        try:
            return super().__next__()
        except sqlite3.DatabaseError as error:
            self.connection.raise_explained(error)

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


class Connection(sqlite3.Connection):
    """One connection to one generation of the working copy.

    Made by Pony's pool, which knows nothing of generations; :meth:`settle_in` tells it where it belongs.

    Attributes:
        process: The process that opened it; none that was forked from it may use or close it.
        session: The engine's own, from the beginning of a session to its end.
        closed: Whether :meth:`close` was called.
        successor: The connection with which its session goes on in a newer generation, if it does: Pony may have
            asked for this one just before.
        busy: Whether a session is using it. The replica's lock guards it: an idle one may be closed by any thread.
    """

    url = ""
    folder = ""
    writable = True
    is_intact: Callable[[], bool] = staticmethod(lambda: True)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.process = process()
        self.busy = False
        self.session: object = None
        self.successor: Connection | None = None
        self.closed = False
        self._trusted = 0
        self._mark = os.urandom(8).hex()
        self._refusal: str | None = None
        self._open_cursors: weakref.WeakSet[sqlite3.Cursor | sqlite3.Blob] = weakref.WeakSet()
        self._query_only = False
        self._ended_by: sqlite3.DatabaseError | None = None  # the error with which SQLite rolled back by itself
        never_close_in_child(self)

    def settle_in(self, url: str, folder: str, *, writable: bool, is_intact: Callable[[], bool] = lambda: True) -> None:
        """Make this a guarded connection to the working copy.

        Args:
            url: The database's URL, for messages.
            folder: The working copy's folder; nothing in it may be attached.
            writable: Whether sessions of this connection may write at all.
            is_intact: Tells whether the working copy's files are as temaki left them.
        """
        self.is_intact = is_intact
        self.url, self.folder, self.writable = url, folder, writable
        # Durability is the store's business: a working copy that a power cut tears is thrown away (see folder.py).
        self._run("PRAGMA synchronous = OFF")
        # A setting of each connection, not of the file: without it every commit could checkpoint what is not
        # acknowledged yet.
        self._run("PRAGMA wal_autocheckpoint = 0")
        self.forbid_writes()
        me = weakref.ref(self)  # a bound method would keep the connection alive in a cycle

        def authorize(action: int, first: str | None, second: str | None, _db: str | None, _by: str | None) -> int:
            if action not in _GUARDED:
                return sqlite3.SQLITE_OK
            connection = me()
            allowed = connection is None or connection.allows(action, first, second)
            return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY

        self.set_authorizer(authorize)

    def require_own(self) -> None:
        """Make sure that this process opened it.

        Raises:
            ConflictError: It was inherited by a fork.
        """
        require_own(self.process, self.url)

    # -- what temaki does with it ---------------------------------------------------------------------------------

    def marked(self, sql: str) -> str:
        """The text under which a statement is prepared: where it is trusted, one that nobody else can have.

        The ``sqlite3`` module caches prepared statements by their text, and SQLite asks the authorizer only when it
        prepares one. So a user's statement could come by a verdict that was meant for temaki's.
        """
        return f"{sql} /* {self._mark} */" if self._trusted else sql

    @contextmanager
    def trusted(self) -> Iterator[None]:
        """Statements in here are temaki's or Pony's own, and no rule applies."""
        self._trusted += 1
        try:
            yield
        finally:
            self._trusted -= 1

    def pin(self) -> None:
        """Begin a read transaction and take its snapshot now: SQLite would only take it at the first read."""
        self._run("BEGIN")
        self._run("SELECT 1 FROM sqlite_master LIMIT 1")

    def end_transaction(self) -> None:
        """Close every cursor, roll back whatever is open, and forbid writes.

        A half-read cursor would keep its snapshot for the thread's next session.
        """
        self.close_cursors()
        if self.in_transaction:
            self._run("ROLLBACK")
        self.forbid_writes()

    def commit_locally(self) -> None:
        """SQLite's COMMIT, then the cursors are closed and writes forbidden again.

        Raises:
            StatementRefusedError: There is no transaction any more: SQLite has rolled it back by itself.
        """
        if self._ended_by is not None:
            raise rolled_back(Place(self.url, self.folder), self._ended_by)
        self._run("COMMIT")
        self.close_cursors()
        self.forbid_writes()

    def frames(self) -> int:
        """How many frames the WAL that this connection has open holds; checkpoints them.

        Only for a connection whose commit changed nothing, so that all of them are acknowledged.
        """
        with self.trusted():
            return int(self.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1])

    def close_cursors(self) -> None:
        """Close the cursors and blobs that were made on this connection and still live."""
        for cursor in list(self._open_cursors):
            cursor.close()
        self._open_cursors.clear()

    def allow_writes(self) -> None:
        """Inside temaki's own write transaction only."""
        if self._query_only:
            self._run("PRAGMA query_only = OFF")
            self._query_only = False

    def forbid_writes(self) -> None:
        """Everywhere else: nothing may be written that temaki would not upload."""
        self._ended_by = None
        if not self._query_only:
            self._run("PRAGMA query_only = ON")
            self._query_only = True

    def _run(self, sql: str) -> None:
        with self.trusted():
            self.execute(sql).close()

    # -- what others do with it -----------------------------------------------------------------------------------

    def cursor(self, factory: Any = Cursor) -> Any:
        """A cursor that is closed when the transaction in which it was made is over."""
        self.require_own()
        if self.successor is not None:
            return self.successor.cursor(factory)
        made = super().cursor(factory)
        self._open_cursors.add(made)
        return made

    def blobopen(self, *args: Any, **kwargs: Any) -> sqlite3.Blob:
        """As in :mod:`sqlite3`; closed like a cursor, since it holds a snapshot like one."""
        self.require_own()
        blob = super().blobopen(*args, **kwargs)
        self._open_cursors.add(blob)
        return blob

    def execute(self, sql: str, parameters: Any = (), /) -> Cursor:
        """As in :mod:`sqlite3`, which would not use :class:`Cursor`'s."""
        cursor: Cursor = self.cursor()
        return cursor.execute(sql, parameters)

    def executemany(self, sql: str, parameters: Any, /) -> Cursor:
        """As in :mod:`sqlite3`, which would not use :class:`Cursor`'s."""
        cursor: Cursor = self.cursor()
        return cursor.executemany(sql, parameters)

    def commit(self) -> None:
        """Pony's own hook after ``on_connect``; anywhere else it would bypass the upload.

        Raises:
            StatementRefusedError: In a transaction.
        """
        self.require_own()
        if self.in_transaction and not self._trusted:
            self._refuse("commit() on the connection would not be stored", "call commit() of pony.orm")
        super().commit()

    def rollback(self) -> None:
        """As :meth:`commit`.

        Raises:
            StatementRefusedError: In a transaction.
        """
        self.require_own()
        if self.in_transaction and not self._trusted:
            self._refuse("rollback() on the connection goes behind Pony's back", "call rollback() of pony.orm")
        super().rollback()

    def close(self) -> None:
        """Close it, from any thread; again is no error. In a forked child it stays open: it is the parent's."""
        self.closed = True
        if self.process == process():
            super().close()

    def __del__(self) -> None:
        # A thread's pooled connection goes with its thread, and a generation's guard with the generation: that is
        # their proper end, about which Python 3.13 need not warn. In a forked child it is not (temaki.process.fork):
        # there it lives on, where Python has not seen the fork and drops what belonged to threads that do not exist.
        owner = getattr(self, "process", None)
        if owner == process():
            with suppress(sqlite3.Error):
                self.close()
        elif owner is not None:
            keep_inherited(self)

    def executescript(self, sql_script: str, /) -> Any:
        """See :meth:`Cursor.executescript`."""
        return self.cursor().executescript(sql_script)

    def backup(self, *args: Any, **kwargs: Any) -> None:
        """Copy the session's snapshot into another connection.

        Raises:
            StatementRefusedError: In a write transaction, where SQLite would wait for itself for ever.
        """
        self.require_own()
        if self.in_transaction and not self._query_only:
            self._refuse(
                "backup() inside a write transaction waits for ever",
                'use a Database that is bound with strategy="read-only"',
            )
        super().backup(*args, **kwargs)

    def allows(self, action: int, first: str | None, second: str | None) -> bool:
        """The authorizer's verdict on a guarded action; a refusal is explained by the error that follows."""
        self._refusal = None if self._trusted else self._reason_to_refuse(action, first, second)
        return self._refusal is None

    def _refuse(self, what: str, instead: str) -> None:
        raise StatementRefusedError(f"{what}; database {self.url}. Instead, {instead}.", url=self.url)

    def _reason_to_refuse(self, action: int, first: str | None, second: str | None) -> str | None:
        if action == _TRANSACTION:
            return f"{first} would bypass the upload: use db_session, commit() and rollback() of pony.orm"
        if action == _PRAGMA:
            name = (first or "").lower()
            rule = _PRAGMA_RULES.get(name)
            if rule is not None and (second is not None or name == "wal_checkpoint"):
                return f"PRAGMA {name} cannot be changed: {rule}"
            return None
        if first is None:
            return "ATTACH needs its file name as a literal, so that temaki can see that it is not the working copy"
        if first and os.path.realpath(_path_of(first)).startswith(self.folder + os.sep):
            return "ATTACH of temaki's own working copy: what is written there is never stored; query it as `main`"
        return None

    def raise_explained(self, error: sqlite3.DatabaseError, sql: str = "") -> NoReturn:
        """Raise what temaki knows about an error, or the error itself.

        Some errors end the whole transaction (a full disk, ``INSERT OR ROLLBACK``, a trigger's ``RAISE(ROLLBACK)``).
        What comes after them would be committed statement by statement, so nothing may be written from then on.
        """
        refusal, self._refusal = self._refusal, None
        explained = self._explain(error, refusal, sql)
        if not self._query_only and not self._trusted and not self.in_transaction:
            self.forbid_writes()
            self._ended_by = error
        if explained is None:
            raise error
        raise explained from error

    def _explain(self, error: sqlite3.DatabaseError, refusal: str | None, sql: str) -> TemakiError | None:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        place = Place(self.url, self.folder)
        if code == sqlite3.SQLITE_AUTH and refusal is not None:
            return StatementRefusedError(f"Refused on {self.url}: {refusal}.", url=self.url)
        if code == sqlite3.SQLITE_READONLY and self._query_only:
            return refused_write(place, writable=self.writable, ended_by=self._ended_by)
        if code in FILE_ERRORS and not is_attach(sql):
            return file_error(place, error, code, is_intact=self.is_intact())
        return None


def _path_of(name: str) -> str:
    """The file that ATTACH would open; see "URI Filenames", https://www.sqlite.org/uri.html section 3."""
    if not name.startswith("file:"):
        return name
    from urllib.parse import unquote

    rest = name.removeprefix("file:").partition("#")[0].partition("?")[0]
    if rest.startswith("//"):
        rest = "/" + rest[2:].partition("/")[2]
    return unquote(rest)
