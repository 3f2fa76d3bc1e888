"""Each thread's connections to the current generation."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from typing import cast

from pony.orm.dbproviders.sqlite import SQLitePool

from temaki.engine.engine import Engine
from temaki.lease.turn import FIRST_TRY, Try
from temaki.process.fork import process
from temaki.replica.connection import Connection
from temaki.replica.generation import Generation


class SessionPool(SQLitePool):  # a threading.local: its attributes, and __init__, are each thread's own
    """Pony's pool for SQLite, in which a connection lives no longer than its generation.

    Pony keeps one connection per thread, which sessions that interleave in it (generators, coroutines) would share.
    Here such a session gets a connection of its own, since its snapshot is its own.

    Args:
        engine: Runs the sessions.
        on_connect: Runs the user's ``@db.on_connect`` handlers on a new connection. Pony itself would run them
            between connecting and the transaction, where a refused commit of another thread could come in between.

    Attributes:
        con: The thread's idle connection, if there is one.
        entering: The connection that begins to write.
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
            # Idle connections to a generation that is left behind are closed by whoever leaves it.
            check_same_thread=False,
            factory=Connection,
        )
        self._engine = engine
        self._on_connect = on_connect
        self.entering = self.moved = None

    def open(self, *, immediate: bool, which: Try = FIRST_TRY) -> Connection:
        """Begin a session in this thread, with its snapshot pinned."""
        return self._engine.open(self._connect_to, immediate=immediate, which=which)

    def _connect_to(self, generation: Generation) -> Connection:
        idle = self._take_idle()
        if idle is not None:
            if self._engine.claim(idle, generation):
                return idle
            idle.close()
        self.filename = str(generation.path)
        self._connect()
        connection, self.con = cast("Connection", self.con), None
        try:
            self._engine.welcome(connection, generation)
            self._on_connect(connection)
            connection.end_transaction()
        except BaseException:
            connection.close()
            raise
        return connection

    def _take_idle(self) -> Connection | None:
        idle, self.con = self.con, None
        # One that was inherited by a fork is the parent's; temaki.process.fork keeps it from being closed.
        return idle if idle is not None and idle.process == process() else None

    def release(self, con: Connection) -> None:
        """End the connection's session; it stays for the thread's next one, if its generation does."""
        if con.process != process():
            return
        try:
            if not con.closed:
                con.end_transaction()
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
        """Close this thread's idle connection."""
        idle = self._take_idle()
        if idle is not None:
            idle.close()
