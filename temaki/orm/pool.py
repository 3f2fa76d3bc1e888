"""Each thread's connection to the current generation, and the session that is using it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from typing import cast

from pony.orm.dbproviders.sqlite import SQLitePool

from temaki.connection import Connection
from temaki.engine import Engine
from temaki.generation import Generation
from temaki.session import Session


class SessionPool(SQLitePool):  # a threading.local: its attributes, and __init__, are each thread's own
    """Pony's pool for SQLite, in which a connection lives as long as its generation.

    Args:
        engine: Runs the sessions.
        on_connect: Runs the user's ``@db.on_connect`` handlers on a new connection. Pony itself would run them
            between connecting and the transaction, where a refused commit of another thread could come in between.
    """

    con: Connection | None
    session: Session | None

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
        self.session = None

    def open(self, *, immediate: bool) -> Connection:
        """Begin a session in this thread and pin its snapshot."""
        self._leave_stale_session()
        self.session, connection = self._engine.open(self._connect_to, immediate=immediate)
        return connection

    def _leave_stale_session(self) -> None:
        """End what a fork or a killed coroutine left here."""
        if self.con is not None and self.con.pid != os.getpid():
            self.con = self.session = None  # the parent's; temaki.fork keeps it from being closed
        elif self.session is not None and self.con is not None:
            self.release(self.con)

    def _connect_to(self, generation: Generation) -> Connection:
        if self.con is not None:
            if self._engine.claim(self.con, generation):
                return self.con
            self.con.close()
            self.con = None
        self.filename = str(generation.path)
        self._connect()
        connection = cast("Connection", self.con)
        try:
            self._engine.welcome(connection, generation)
            self._on_connect(connection)
            connection.end_transaction()
        except BaseException:
            self.con = None
            connection.close()
            raise
        return connection

    def release(self, con: Connection) -> None:
        """End the session; the connection stays for the thread's next one, if its generation does."""
        try:
            if not con.closed and con.pid == os.getpid():
                con.end_transaction()
        except BaseException:
            self.drop(con)
            raise
        self._end(con)

    def drop(self, con: Connection) -> None:
        """End the session and close the connection."""
        self.con = None
        with suppress(sqlite3.Error):
            if con.pid == os.getpid():
                con.close()
        self._end(con)

    def disconnect(self) -> None:
        """Close this thread's connection."""
        if self.con is not None:
            self.drop(self.con)

    def _end(self, con: Connection) -> None:
        session, self.session = self.session, None
        if con.pid != os.getpid():
            self.con = None
            return
        self._engine.put_back(con)
        if session is not None:
            self._engine.close(session)
        if con.closed:
            self.con = None
