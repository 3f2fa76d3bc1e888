"""Runs the sessions of one database, with one remote, one replica and one strategy.

The Pony binding calls the engine. The engine knows nothing of Pony. It decides when each lock is held.
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
from temaki.replica.replica import Replica
from temaki.replica.writer import WriterLock
from temaki.strategy import Strategy

_log = logging.getLogger(__name__)
_MOST_VANISHED = 5
"""Number of times that a session begins again because its files vanished while it opened them."""


class Engine:
    """Runs the sessions of one bound database.

    Args:
        shared: What the databases on one URL share: see :func:`temaki.engine.shared.share`.
        strategy: Decides when to pull and push.

    Attributes:
        url: URL of the database.
        strategy: The strategy.
    """

    def __init__(self, shared: Shared, strategy: Strategy) -> None:
        self._bound: Shared | None = shared
        self.url = shared.replica.url
        self.strategy = strategy
        self.reset_after_fork()
        reset_in_child(self)
        shared.bindings.add(self)
        shared.replica.reopen()
        shared.compaction.reopen()

    def reset_after_fork(self) -> None:
        """Forget the parent's sessions in a forked child: none of them goes on here."""
        self._lock = threading.Lock()
        self._open: weakref.WeakSet[EngineSession] = weakref.WeakSet()

    @property
    def shared(self) -> Shared:
        """The objects that this engine shares with others on the same URL.

        Raises:
            ConfigurationError: The database was unbound.
        """
        if self._bound is None:
            raise ConfigurationError(
                f"This Database is not bound to {self.url} any longer: unbind() was called. Bind it again with "
                "bind_s3().",
                url=self.url,
            )
        return self._bound

    @property
    def _replica(self) -> Replica:
        return self.shared.replica

    def let_go(self) -> None:
        """Unbind from the URL. The last engine to leave closes the working copy and releases the lease.

        Raises:
            ConfigurationError: A session is open.
        """
        look()
        shared = self.shared
        with self._lock:
            if self._open:
                raise ConfigurationError(
                    f"unbind() of {self.url} is not possible: {len(self._open)} of its sessions are open, in other "
                    "threads or in suspended generators. End them first.",
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
        """Whether there was a database at the last pull."""
        look()
        return self._replica.current is None or self._replica.current.version is not None

    # -- the beginning --------------------------------------------------------------------------------------------

    def open(
        self, connect: Callable[[Generation], Connection], *, immediate: bool, which: Try = FIRST_TRY
    ) -> Connection:
        """Begin a session: pull, connect, and pin the session's snapshot.

        Args:
            connect: Opens a connection to a generation. It may run the user's ``on_connect`` handlers, so no lock is
                held meanwhile.
            immediate: True if the session writes from its start.
            which: The try of a retried function.

        Returns:
            The connection. Its ``session`` is the new session.
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
                session.catch_ups = None
                if generation is None:
                    # Another thread's commit was refused meanwhile, or the strategy did not pull when there was no
                    # working copy, or the working copy is gone.
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
                    self._compact()
                    return connection
                self._leave(session)
        except BaseException:
            self._end(session)
            raise

    def _connect(
        self, connect: Callable[[Generation], Connection], session: EngineSession, generation: Generation
    ) -> Connection | None:
        """Open a connection with the session's snapshot; None if the generation no longer has one."""
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
        """Take the session's snapshot at a moment when the store has accepted everything in the generation.

        Returns:
            False if the generation was abandoned meanwhile, or its files were removed or replaced. Then the session
            must not read from it.
        """
        generation = session_of(connection).generation
        with self._replica.gate:
            if generation is None or generation.abandoned:
                return False
            connection.pin()
            session = session_of(connection)
            if session.catch_ups is None:
                session.catch_ups = generation.catch_ups
            return generation.is_intact()  # now: SQLite opens the WAL, by its name, when it first reads

    def before_write(self, connection: Connection) -> None:
        """Let the strategy wait or refuse, before the writer lock and BEGIN IMMEDIATE."""
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
        """Make sure, after BEGIN IMMEDIATE, that the session's version is the one that a commit would replace.

        Raises:
            ConflictError: It is not. The caller rolls back.
        """
        session = session_of(connection)
        with self._beginning(), self._replica.gate:
            if session.generation is None or not self._replica.is_current(session.generation, session.catch_ups):
                raise session.conflict("replaced while it waited to write")
        session.writing = True

    def commit(self, connection: Connection) -> bool:
        """Commit the session's write transaction: see :class:`temaki.engine.commit.Commit`.

        The caller holds the writer lock throughout.

        Returns:
            True if the commit changed anything.
        """
        session = session_of(connection)
        changed = Commit(self.shared, self.strategy, session, connection).run()
        self._compact()
        return changed

    def _compact(self) -> None:
        """Maintenance in the background, if it is due. A strategy that never writes leaves it to others."""
        if self.writes:
            self.shared.compaction.look()

    # -- the end --------------------------------------------------------------------------------------------------

    @staticmethod
    def is_writing(connection: Connection) -> bool:
        """Whether a session is in its write transaction on the connection."""
        return isinstance(connection.session, EngineSession) and connection.session.writing

    def close(self, connection: Connection) -> None:
        """End the connection's session, if there is one, and leave its generation. That may close the connection."""
        if connection.process != process():  # the parent goes on with this connection
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
        """Register a new connection of a session that is in ``generation``."""
        with self._replica.state:
            connection.busy = True
            generation.welcome(connection)
        connection.settle_in(
            self.url,
            str(generation.path.parent),
            writable=self.writes,
            is_intact=generation.is_intact,
            noted=self._replica.noted,
        )

    def claim(self, connection: Connection, generation: Generation) -> bool:
        """Take a pooled connection for a session. False if it belongs to another generation or was closed meanwhile."""
        with self._replica.state:
            if connection.closed or not generation.has(connection):
                return False
            connection.busy = True
            return True


def session_of(connection: Connection) -> EngineSession:
    """Get the session that is using the connection.

    Raises:
        ConflictError: The session began in the parent, before a fork.
    """
    session = connection.session
    assert isinstance(session, EngineSession), "the connection has no session"
    session.require_own()
    return session
