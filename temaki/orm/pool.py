"""The pool of connections, one for each thread, to the current generation."""

from __future__ import annotations

import logging
import sqlite3
import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import cast

from pony.orm.dbproviders.sqlite import SQLitePool

from temaki.engine.engine import Engine
from temaki.errors import ConflictError, LeaseLostError
from temaki.lease.turn import FIRST_TRY, Try
from temaki.process.exit import is_ending
from temaki.process.fork import process
from temaki.replica.connection import Connection
from temaki.replica.functions import Functions
from temaki.replica.generation import Generation

_log = logging.getLogger(__name__)

_MOST_WRITES = 20
"""How often a session begins again because its handlers have written. Each time somebody else has stored a version
meanwhile, so this many in a row mean that something else is wrong."""


class _HandlersWrite(Exception):  # noqa: N818 - no error, but the way out of a session that has hardly begun
    """The ``on_connect`` handlers have something to write. They need a write session of their own."""


class LeftOpen:
    """A thread's sessions. Python drops this with the thread, which is when nobody can end them any more.

    Only a session that writes is ended then: it keeps all other writers waiting. One that only reads may go on in
    another thread, as a generator; the garbage collector takes it otherwise.

    Args:
        engine: Runs the sessions.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._process = process()
        self._thread = threading.current_thread().name
        self._connections: weakref.WeakSet[Connection] = weakref.WeakSet()

    def add(self, connection: Connection) -> None:
        """A session has begun on a connection."""
        self._connections.add(connection)

    def discard(self, connection: Connection) -> None:
        """It is over."""
        self._connections.discard(connection)

    def __del__(self) -> None:
        if self._process != process() or sys.is_finalizing() or is_ending():
            return
        for connection in list(self._connections):
            if self._engine.is_writing(connection):
                _log.warning(
                    "%s: the thread %s has ended within a db_session. What it had not committed is rolled back.",
                    self._engine.url,
                    self._thread,
                )
                with suppress(Exception):
                    connection.close()
                with suppress(Exception):
                    self._engine.close(connection)


class SessionPool(SQLitePool):  # a threading.local: its attributes, and __init__, are each thread's own
    """Pony's pool for SQLite, in which a connection lives no longer than its generation.

    Pony keeps one connection per thread. Sessions that interleave in a thread (generators, coroutines) would share it.
    Here each of them gets a connection of its own, since each has a snapshot of its own.

    Args:
        engine: Runs the sessions.
        on_connect: Runs the user's ``@db.on_connect`` handlers on a new connection. Pony itself would run them between
            the connection and the transaction, and a refused commit of another thread could come in between.

    Attributes:
        con: The thread's idle connection; None if there is none.
        entering: The connection that begins to write; None before the first one.
        moved: The connection of a session that goes on in a newer generation, until it has another one.
    """

    con: Connection | None
    entering: Connection | None
    moved: Connection | None

    def __init__(self, engine: Engine, on_connect: Callable[[Connection], None]) -> None:
        super().__init__(
            is_shared_memory_db=False,
            filename="",
            create_db=False,
            # The thread that leaves a generation closes the idle connections of all threads to it.
            check_same_thread=False,
            factory=Connection,
        )
        self._engine = engine
        self._on_connect = on_connect
        self.entering = self.moved = None
        self._functions = Functions()
        self._left_open = LeftOpen(engine)

    def open(self, *, immediate: bool, which: Try = FIRST_TRY) -> Connection:
        """Begin a session in this thread and pin its snapshot.

        Where the handlers of a new connection have something to write, such as a migration, they do it first, in a
        write session of their own.
        """
        for _ in range(_MOST_WRITES):
            try:
                connection = self._engine.open(self._connect_to, immediate=immediate, which=which)
                self._left_open.add(connection)
                return connection
            except _HandlersWrite:
                self._let_handlers_write()
        raise ConflictError(
            f"The on_connect handlers of {self._engine.url} had something to write {_MOST_WRITES} times, and each time "
            "another version came in between. A handler should look first (PRAGMA user_version, PRAGMA table_info), "
            "and write only what is missing.",
            url=self._engine.url,
        )

    def _connect_to(self, generation: Generation) -> Connection:
        idle = self._take_idle()
        if idle is not None:
            if self._engine.claim(idle, generation):
                try:
                    idle.share_functions(self._functions)
                except BaseException:
                    idle.close()
                    raise
                return idle
            idle.close()
        connection = self._connect_without_handlers(generation)
        try:
            self._run_handlers(connection)
            connection.end_transaction()
            connection.share_functions(self._functions)
        except BaseException:
            connection.close()
            raise
        return connection

    def _connect_without_handlers(self, generation: Generation) -> Connection:
        self.filename = str(generation.path)
        self._connect()
        connection, self.con = cast("Connection", self.con), None
        try:
            self._engine.welcome(connection, generation)
        except BaseException:
            connection.close()
            raise
        return connection

    def _run_handlers(self, connection: Connection) -> None:
        """Run the handlers, as long as they only read.

        Raises:
            _HandlersWrite: They have tried to write, whether or not they have caught the refusal.
        """
        try:
            self._on_connect(connection)
        except Exception:
            if connection.wanted_to_write and self._engine.writes:
                raise _HandlersWrite from None
            raise
        if connection.wanted_to_write and self._engine.writes:
            raise _HandlersWrite

    def _let_handlers_write(self) -> None:
        """Run the handlers in a write session of their own, on the connection that the thread then has.

        A conflict is no error: the handlers look again at what another writer has stored.
        """
        try:
            connection = self._engine.open(self._connect_without_handlers, immediate=True)
        except ConflictError:
            return
        try:
            self._engine.before_write(connection)
            connection.end_transaction()
            stored = self._write_in_handlers(connection)
            connection.share_functions(self._functions)
        except (ConflictError, LeaseLostError):
            self.drop(connection)
            return
        except BaseException:
            self.drop(connection)
            raise
        self.release(connection)
        if stored:
            _log.info("%s: what the on_connect handlers wrote is stored", self._engine.url)

    def _write_in_handlers(self, connection: Connection) -> bool:
        def begin() -> None:
            connection.begin_handlers()
            self._engine.check_current(connection)

        self._engine.writer.acquire(connection)
        try:
            connection.begin_on_write = begin
            self._on_connect(connection)
            connection.end_cursors(keep=True)
            stored = connection.in_handlers and self._engine.commit(connection)
            connection.end_handlers()
        finally:
            self._engine.writer.release(connection)
        return stored

    def _take_idle(self) -> Connection | None:
        idle, self.con = self.con, None
        # An inherited connection belongs to the parent process; temaki.process.fork prevents closing it.
        return idle if idle is not None and idle.process == process() else None

    def release(self, con: Connection) -> None:
        """End the connection's session. Keep the connection for the thread's next one if its generation stays."""
        if con.process != process():
            return
        self._left_open.discard(con)
        try:
            if not con.closed:
                con.end_transaction(keep=True)
        except BaseException:
            self.drop(con)
            raise
        self._engine.close(con)
        if self.con is None and not con.closed:
            self.con = con
        else:
            con.close()

    def drop(self, con: Connection) -> None:
        """End the connection's session and close it."""
        if con.process != process():
            return
        with suppress(sqlite3.Error):
            con.close()
        self._engine.close(con)

    def disconnect(self) -> None:
        """Close this thread's idle connection. As with plain SQLite, what was registered on it is gone."""
        self._functions = Functions()
        idle = self._take_idle()
        if idle is not None:
            idle.close()
