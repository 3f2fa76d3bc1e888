"""What a session does, in order: one remote, one replica, one strategy.

The engine is what the Pony binding calls. It knows nothing of Pony; it knows when the locks are held.
"""

from __future__ import annotations

import gc
import logging
import sqlite3
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from temaki.clock import Clock, SystemClock
from temaki.engine.pull import Puller
from temaki.engine.session import Session
from temaki.errors import ConfigurationError, CorruptDatabaseError, SyncError, WorkingCopyError
from temaki.lease.shared import SharedLease
from temaki.lease.turn import FIRST_TRY, Try
from temaki.observe.counted import CountedClock
from temaki.observe.metering import Meter, MeteredStore
from temaki.observe.reporter import Reporter, Watch
from temaki.process.fork import ProcessLock, look, process, reset_in_child
from temaki.remote import remote
from temaki.remote.remote import Remote
from temaki.replica.connection import Connection
from temaki.replica.generation import Generation
from temaki.replica.replica import Replica, WriterLock
from temaki.replica.wal import Scan
from temaki.store import Store
from temaki.strategy import Strategy

if TYPE_CHECKING:
    from temaki.events import Operation

_log = logging.getLogger(__name__)
_MOST_VANISHED = 5
"""How often a session begins again because its files vanished while they were opened."""


@dataclass(frozen=True, eq=False)
class Shared:
    """What all databases of a process that are bound to one URL share, each with its own strategy."""

    store: Store
    given: object
    timeout: float
    remote: Remote
    replica: Replica
    puller: Puller
    lease: SharedLease
    meter: Meter
    reporter: Reporter
    clock: Clock
    bindings: weakref.WeakSet[Engine] = field(default_factory=weakref.WeakSet)

    def close(self) -> None:
        """Let go of the working copy and the lease, with its thread."""
        self.replica.close()
        self.lease.close()


_shared: weakref.WeakValueDictionary[str, Shared] = weakref.WeakValueDictionary()
_shared_lock = ProcessLock()


def share(
    url: str,
    key: str,
    store: Store,
    *,
    given: object = None,
    cache_dir: Path | None,
    timeout: float,
    clock: Clock | None = None,
) -> Shared:
    """The remote and the replica of a URL: made at the first call, the same ones for every later one.

    They are made anew with other arguments if what was bound with the old ones is gone, as where a cell of a notebook
    is run again.

    Args:
        url: The database's URL, in its canonical form.
        key: The object's name in ``store``.
        store: The bucket.
        given: The store or the client that the user passed, so that another one under the same URL is a mistake.
        cache_dir: Where to keep the working copy between processes, or None.
        timeout: Seconds after which no new attempt of a request is made.
        clock: Time, for tests.

    Raises:
        ConfigurationError: The URL is in use with another store or cache folder.
    """
    with _shared_lock():
        found = _shared.get(url)
    if found is not None and (found.timeout != timeout or _conflict(found, store, given, cache_dir) is not None):
        found = None
        gc.collect()  # a dropped Database refers to itself
    with _shared_lock():
        found = _shared.get(url)
        conflict = None if found is None else _conflict(found, store, given, cache_dir)
        if conflict is not None and found is not None and found.bindings:
            raise conflict
        if found is not None and conflict is None and (found.timeout == timeout or found.bindings):
            if found.timeout != timeout:
                _log.warning(
                    "%s is already bound in this process with timeout=%g, which stays; call unbind() of that Database "
                    "to have timeout=%g",
                    url,
                    found.timeout,
                    timeout,
                )
            return found
        _shared[url] = made = _make(url, key, store, given, cache_dir, timeout, clock or SystemClock())
    if found is not None:  # somebody still refers to it, and nobody is bound to it
        found.close()
    return made


def _make(  # noqa: PLR0917 - one call, from share()
    url: str, key: str, store: Store, given: object, cache_dir: Path | None, timeout: float, clock: Clock
) -> Shared:
    meter, reporter = Meter(), Reporter(url)
    metered = MeteredStore(store, meter)
    stored = Remote(metered, key, url=url, clock=CountedClock(clock, reporter, "retry"), timeout=timeout)
    replica = Replica(url, cache_dir)
    puller = Puller(stored, replica, clock, reporter)
    lease = SharedLease(metered, key, url=url, clock=CountedClock(clock, reporter, "wait"), reporter=reporter)
    return Shared(store, given, timeout, stored, replica, puller, lease, meter, reporter, clock)


def _conflict(found: Shared, store: Store, given: object, cache_dir: Path | None) -> ConfigurationError | None:
    """Why what is bound to the URL cannot be shared; None if it can."""
    url = found.replica.url
    other = "or call unbind() of the Database that is bound to it"
    if given is not found.given and store is not found.store:
        return ConfigurationError(
            f"{url} is already bound in this process, with another store or client. Pass the same one, use another "
            f"URL, {other}.",
            url=url,
        )
    if found.replica.cache_dir != cache_dir:
        return ConfigurationError(
            f"{url} is already bound in this process with cache_dir={str(found.replica.cache_dir)!r}, "
            f"not {str(cache_dir)!r}. One URL has one working copy per process: use the same cache_dir, {other}.",
            url=url,
        )
    return None


class Engine:
    """Runs the sessions of one bound database.

    Args:
        shared: See :func:`share`.
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
        self._open: weakref.WeakSet[Session] = weakref.WeakSet()

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
    def _shared(self) -> Shared:
        return self.shared

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
        shared.lease.forget(self)
        shared.bindings.discard(self)
        if shared.bindings:
            gc.collect()  # dropped ones refer to themselves
        with _shared_lock():
            if shared.bindings:
                return
            if _shared.get(self.url) is shared:
                del _shared[self.url]
        shared.close()

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
            session = Session(
                shared.remote,
                shared.replica,
                shared.puller,
                shared.lease,
                immediate=immediate,
                which=which,
                binding=self,
            )
            self._open.add(session)
        try:
            shared.replica.begin_use(session)
            vanished = 0
            while True:
                with self._watch("pull"):
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
        self, connect: Callable[[Generation], Connection], session: Session, generation: Generation
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
        with self._replica.lock:
            if generation is None or generation.abandoned:
                return False
            connection.pin()
            return generation.is_intact()  # now: SQLite opens the WAL, by its name, when it first reads

    def before_write(self, connection: Connection) -> None:
        """Before BEGIN IMMEDIATE, and before the writer lock: the strategy may wait or refuse."""
        session = session_of(connection)
        session.immediate = True
        with self._watch("begin"):
            self.strategy.begin(session)

    def check_current(self, connection: Connection) -> None:
        """After BEGIN IMMEDIATE: what the session has seen must still be what a commit would replace.

        Raises:
            ConflictError: It is not; the caller rolls back.
        """
        session = session_of(connection)
        with self._watch("begin"), self._replica.lock:
            if session.generation is None or not self._replica.is_current(session.generation):
                raise session.conflict("replaced while it waited to write")
        session.writing = True

    # -- the commit -----------------------------------------------------------------------------------------------

    def commit(self, connection: Connection) -> bool:
        """SQLite's COMMIT, and the upload if it changed anything. The caller holds the writer lock all the while.

        Whatever it raises, the generation is abandoned.

        Returns:
            Whether it changed anything.

        Raises:
            SyncError, StoreError: Nothing was stored, unless it is a ``CommitUnknownError``.
            sqlite3.Error: SQLite refused its COMMIT.
        """
        session = session_of(connection)
        generation = session.generation
        assert generation is not None
        stored: remote.Published | None = None
        with self._watch("commit") as watch, self._replica.lock:
            try:
                self._replica.commit_locally(connection)
                found = generation.uncommitted_to_store(connection)
                if found.page_count is not None:
                    stored = self._store(session, generation, found)
                else:
                    self._replica.settle(generation)
            except BaseException:
                self._replica.abandon(generation)
                raise
            finally:
                session.writing = False
                session.forget_image()
        if stored is not None:  # told when readers need not wait any more
            self.shared.reporter.published(
                stored.version, len(found.pages), watch.seconds, superseded=stored.superseded
            )
        return stored is not None

    def _watch(self, operation: Operation) -> Watch:
        return Watch(self.shared.reporter, operation, self.shared.clock.monotonic)

    def _store(self, session: Session, generation: Generation, found: Scan) -> remote.Published:
        if not self._replica.is_current(generation):
            raise session.conflict("replaced while it was being changed")
        session.prepare(found)
        moment = self.shared.puller.moment()
        try:
            self.strategy.push(session)
        except Exception:
            if session.published is None:
                raise
            _log.exception("%s: the strategy failed after its commit was stored; the commit stands", self.url)
        if session.published is None:
            raise SyncError(
                f"The strategy {type(self.strategy).__name__} returned from push() without session.publish(); nothing "
                f"was stored in {self.url}. A strategy that never writes says so with writes = False.",
                url=self.url,
            )
        self._acknowledge(session.published, generation, found, moment)
        return session.published

    def _acknowledge(
        self, published: remote.Published, generation: Generation, found: Scan, moment: tuple[float, float]
    ) -> None:
        """The commit is stored: whatever goes wrong here costs the next session a pull, and nobody an error."""
        try:
            self._replica.known = True
            if published.superseded:
                # Another writer has already built on it; that version's ETag is not ours to adopt.
                self._replica.abandon(generation)
                return
            generation.acknowledge(found, published.version)
            self.shared.puller.acknowledged(moment)
            self._replica.settle(generation)
        except Exception:  # noqa: BLE001 - see above
            _log.exception("%s: version %s is stored; the working copy is not", self.url, published.version.sequence)
            self._replica.abandon(generation)

    # -- the end --------------------------------------------------------------------------------------------------

    @staticmethod
    def is_writing(connection: Connection) -> bool:
        """Whether a session is in its write transaction on the connection."""
        return isinstance(connection.session, Session) and connection.session.writing

    def close(self, connection: Connection) -> None:
        """The connection's session is over: let go of its generation, which may close it. No error if there is none."""
        if connection.process != process():  # the parent goes on with it
            return
        session, connection.session = connection.session, None
        self._replica.writer.release(connection)  # a leftover, if anything: see WriterLock
        with self._replica.lock:
            connection.busy = False
        if isinstance(session, Session):
            self._end(session)

    def _end(self, session: Session) -> None:
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

    def _leave(self, session: Session) -> None:
        generation, session.generation = session.generation, None
        if generation is not None and session.process == process():
            self._replica.exit(generation)

    # -- pooled connections ---------------------------------------------------------------------------------------

    def welcome(self, connection: Connection, generation: Generation) -> None:
        """A new connection of a session that is in ``generation``."""
        with self._replica.lock:
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
        """Take a pooled connection for a session, unless it belongs elsewhere or was closed meanwhile."""
        with self._replica.lock:
            if connection.closed or not generation.has(connection):
                return False
            connection.busy = True
            return True


def session_of(connection: Connection) -> Session:
    """The session that is using the connection.

    Raises:
        ConflictError: It began in the parent, before a fork.
    """
    session = connection.session
    assert isinstance(session, Session), "the connection has no session"
    session.require_own()
    return session
