"""What a session does, in order: one remote, one replica, one strategy.

The engine is what the Pony binding calls. It knows nothing of Pony; it knows when the locks are held.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from temaki.engine.commit import Commit
from temaki.engine.session import EngineSession, MovedError
from temaki.engine.shared import Shared, leave
from temaki.errors import ConfigurationError, CorruptDatabaseError, WorkingCopyError
from temaki.lease.turn import FIRST_TRY, Try
from temaki.process.fork import look, process, reset_in_child
from temaki.replica.connection import Connection
from temaki.replica.generation import Generation
from temaki.replica.replica import Replica, WriterLock
from temaki.strategy import Strategy

_log = logging.getLogger(__name__)
_MOST_VANISHED = 5
"""How often a session begins again because its files vanished while they were opened."""


class Engine:
    """Runs the sessions of one bound database.

    Args:
        shared: See :func:`temaki.engine.shared.share`.
        strategy: When to pull and push.
    """

    def __init__(self, shared: Shared, strategy: Strategy) -> None:
        self._bound: Shared | None = shared
        self.url = shared.replica.url
        self.strategy = strategy
        self.reset_after_fork()
        reset_in_child(self)
        shared.bindings.add(self)
        shared.replica.reopen()

    def reset_after_fork(self) -> None:
        """In a forked child: no session of the parent's goes on here."""
        self._lock = threading.Lock()
        self._open: weakref.WeakSet[EngineSession] = weakref.WeakSet()

    @property
    def shared(self) -> Shared:
        """What it shares with others on the same URL.

        Raises:
            ConfigurationError: It was let go of.
        """
        if self._bound is None:
            raise ConfigurationError(
                f"This Database is not bound to {self.url} any more: unbind() was called. Bind it again with "
                "bind_s3().",
                url=self.url,
            )
        return self._bound

    @property
    def _replica(self) -> Replica:
        return self.shared.replica

    def let_go(self) -> None:
        """Have no part in the URL any more. The last one to leave closes the working copy and gives back the lease.

        Raises:
            ConfigurationError: A session is open.
        """
        look()
        shared = self.shared
        with self._lock:
            if self._open:
                raise ConfigurationError(
                    f"unbind() of {self.url}: {len(self._open)} of its sessions are open, in other threads or in "
                    "suspended generators. End them first.",
                    url=self.url,
                )
            self._bound = None
        leave(shared, self)

    @property
    def writer(self) -> WriterLock:
        """The lock that Pony's provider holds while it writes."""
        return self._replica.writer

    @property
    def writes(self) -> bool:
        """Whether the strategy ever writes."""
        return self.strategy.writes

    @property
    def has_database(self) -> bool:
        """Whether the last pull found a database, not the lack of one."""
        look()
        return self._replica.current is None or self._replica.current.version is not None

    # -- the beginning --------------------------------------------------------------------------------------------

    def open(
        self, connect: Callable[[Generation], Connection], *, immediate: bool, which: Try = FIRST_TRY
    ) -> Connection:
        """Begin a session: pull, connect, and pin what it will see.

        Args:
            connect: Gives a connection to a generation. May run the user's ``on_connect`` handlers, so no lock is held.
            immediate: Whether the session will write from its start.
            which: Which try of a retried function it is.

        Returns:
            The connection, with the session in it.
        """
        look()
        with self._lock:
            shared = self.shared
            session = EngineSession(shared, immediate=immediate, which=which, binding=self)
            self._open.add(session)
        try:
            shared.replica.begin_use(session)
            vanished = 0
            while True:
                with self.shared.watch("pull"):
                    self.strategy.pull(session)
                generation = session.generation = self._replica.enter()
                if generation is None:
                    # Another thread's commit was refused since; or the strategy did not pull when there was nothing; or
                    # the working copy is gone.
                    session.revalidate()
                    continue
                try:
                    connection = self._connect(connect, session, generation)
                except (sqlite3.Error, WorkingCopyError, CorruptDatabaseError):
                    vanished += 1
                    if vanished > _MOST_VANISHED or generation.is_intact():
                        raise
                    connection = None
                if connection is not None:
                    shared.reporter.count("session")
                    return connection
                self._leave(session)
        except BaseException:
            self._end(session)
            raise

    def _connect(
        self, connect: Callable[[Generation], Connection], session: EngineSession, generation: Generation
    ) -> Connection | None:
        """A connection with the session's snapshot; None if there is none in this generation any more."""
        connection = connect(generation)
        connection.session = session
        try:
            if self.pin(connection):
                return connection
        except BaseException:
            connection.close()
            raise
        connection.close()
        return None

    def pin(self, connection: Connection) -> bool:
        """Take the session's snapshot, at a moment in which everything in the generation is accepted.

        Returns:
            False where the generation has been abandoned meanwhile, or its files were removed or replaced: there is
            nothing there that may be seen.
        """
        generation = session_of(connection).generation
        with self._replica.gate:
            if generation is None or generation.abandoned:
                return False
            connection.pin()
            return generation.is_intact()  # now: SQLite opens the WAL, by its name, when it first reads

    def before_write(self, connection: Connection) -> None:
        """Before BEGIN IMMEDIATE, and before the writer lock: the strategy may wait or refuse."""
        session = session_of(connection)
        session.immediate = True
        with self._beginning():
            self.strategy.begin(session)

    @contextmanager
    def _beginning(self) -> Iterator[None]:
        moved: MovedError | None = None
        with self.shared.watch("begin"):
            try:
                yield
            except MovedError as error:
                moved = error  # the session goes on: neither a conflict nor a failure, for those who count
        if moved is not None:
            raise moved

    def check_current(self, connection: Connection) -> None:
        """After BEGIN IMMEDIATE: what the session has seen must still be what a commit would replace.

        Raises:
            ConflictError: It is not; the caller rolls back.
        """
        session = session_of(connection)
        with self._beginning(), self._replica.gate:
            if session.generation is None or not self._replica.is_current(session.generation):
                raise session.conflict("replaced while it waited to write")
        session.writing = True

    def commit(self, connection: Connection) -> bool:
        """See :class:`temaki.engine.commit.Commit`. The caller holds the writer lock all the while.

        Returns:
            Whether it changed anything.
        """
        session = session_of(connection)
        return Commit(self.shared, self.strategy, session, connection).run()

    # -- the end --------------------------------------------------------------------------------------------------

    def close(self, connection: Connection) -> None:
        """The connection's session is over: let go of its generation, which may close it. No error if there is none."""
        if connection.process != process():  # the parent goes on with it
            return
        session, connection.session = connection.session, None
        self._replica.writer.release(connection)  # a leftover, if anything: see WriterLock
        with self._replica.state:
            connection.busy = False
        if isinstance(session, EngineSession):
            self._end(session)

    def _end(self, session: EngineSession) -> None:
        try:
            self.strategy.end(session)
        except Exception:  # noqa: BLE001 - a session ends, whatever its strategy does
            _log.exception("%s: the strategy failed at the end of a session", self.url)
        finally:
            try:
                session.end_turn()
            finally:
                self._leave(session)
                self._replica.end_use(session)
                with self._lock:
                    self._open.discard(session)

    def _leave(self, session: EngineSession) -> None:
        generation, session.generation = session.generation, None
        if generation is not None and session.process == process():
            self._replica.exit(generation)

    # -- pooled connections ---------------------------------------------------------------------------------------

    def welcome(self, connection: Connection, generation: Generation) -> None:
        """A new connection of a session that is in ``generation``."""
        with self._replica.state:
            connection.busy = True
            generation.welcome(connection)
        connection.settle_in(
            self.url, str(generation.path.parent), writable=self.writes, is_intact=generation.is_intact
        )

    def claim(self, connection: Connection, generation: Generation) -> bool:
        """Take a pooled connection for a session, unless it belongs elsewhere or was closed meanwhile."""
        with self._replica.state:
            if connection.closed or not generation.has(connection):
                return False
            connection.busy = True
            return True


def session_of(connection: Connection) -> EngineSession:
    """The session that is using the connection.

    Raises:
        ConflictError: It began in the parent, before a fork.
    """
    session = connection.session
    assert isinstance(session, EngineSession), "the connection has no session"
    session.require_own()
    return session
