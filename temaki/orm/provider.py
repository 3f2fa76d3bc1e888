"""Pony's SQLite provider, which keeps the changes of every transaction in the store.

Pony makes these calls, in the order of a session:

- ``connect`` pulls the current version and pins it.
- ``set_transaction_mode`` of a session that writes: the strategy begins, SQLite runs BEGIN IMMEDIATE, and the engine
  checks that the generation is still current.
- ``commit`` runs SQLite's COMMIT and the upload.
- ``release`` or ``drop`` ends the session.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import wraps
from threading import Lock
from typing import Any

from pony.orm import core
from pony.orm.core import log_orm
from pony.orm.dbapiprovider import DBException, wrap_dbapi_exceptions
from pony.orm.dbproviders.sqlite import SQLiteProvider

from temaki.engine.engine import Engine, session_of
from temaki.engine.session import MovedError
from temaki.errors import ConflictError, TemakiError
from temaki.orm.conflicts import CONFLICTS
from temaki.orm.no_repeat import NoRepeat, guard
from temaki.orm.pool import SessionPool
from temaki.orm.sqlite_time import with_time
from temaki.orm.tries import current_tries
from temaki.process.fork import process, require_own
from temaki.replica.connection import Connection


def _wrap_exceptions(method: Callable[..., Any]) -> Callable[..., Any]:
    """Raise SQLite's errors as Pony's own, as Pony's providers do; and temaki's as they are.

    Some of temaki's are SQLite's as well, for whoever uses the connection itself.
    """
    wrapped = wrap_dbapi_exceptions(method)

    @wraps(method)
    def unwrapping(*args: Any, **kwargs: Any) -> Any:
        try:
            return wrapped(*args, **kwargs)
        except DBException as error:
            original = error.original_exc
            if isinstance(original, TemakiError):
                raise original from original.__cause__
            raise

    return unwrapping


class StoreProvider(SQLiteProvider):
    """The provider that :func:`temaki.bind_s3` gives to ``Database.bind``, together with ``engine=``.

    Args:
        database: The Pony database that is bound.
        engine: Runs the sessions.
        allow_stale_seeds: See :attr:`temaki.config.settings.Settings.allow_stale_seeds`.
    """

    pool: SessionPool
    converter_classes = with_time(SQLiteProvider.converter_classes)

    # Pony's own constructor connects to learn what SQLite can do, and calls the on_connect handlers. Binding must make
    # no request, so this one asks an empty database in memory.
    def __init__(self, database: Any, engine: Engine, *, allow_stale_seeds: bool = False, **_: Any) -> None:
        self.database = database
        self.allow_stale_seeds = allow_stale_seeds
        self.engine = engine
        self.pool = SessionPool(engine, self._call_on_connect)
        self.pre_transaction_lock = Lock()
        self.transaction_lock = engine.writer
        self._no_repeat = NoRepeat()
        with closing(sqlite3.connect(":memory:")) as connection:
            self.inspect_connection(connection)

    def _call_on_connect(self, connection: Connection) -> None:
        self.database.call_on_connect(connection)

    def let_go(self) -> None:
        """Release the store. The mapping still refers to this provider, for its dialect.

        Raises:
            ConfigurationError: A session is open.
        """
        self.engine.let_go()
        self.pool = SessionPool(self.engine, self._call_on_connect)  # the old pool has connections of all threads

    def acquire_lock(self) -> None:
        """Wait for the writer lock, which all databases of this process that are bound to one URL share."""
        assert self.pool.entering is not None
        self.transaction_lock.acquire(self.pool.entering)

    def release_lock(self) -> None:
        """Release the writer lock. A strategy that never writes does not hold it."""
        if self.engine.writes:
            self.transaction_lock.release()

    @_wrap_exceptions
    def connect(self) -> tuple[Connection, bool]:
        """Begin a session: pull, connect, pin.

        Returns:
            The connection, and False: Pony need not run the handlers for new connections, since they have run.
        """
        self._no_repeat.check()
        guard(core.local.db_session, CONFLICTS.failed)
        cache = core.local.db2cache.get(self.database)
        tries = current_tries()
        if tries is not None:
            which = tries.touch(self.engine)
        else:
            which = CONFLICTS.touch(self.engine.shared.clock)
            if cache is not None and CONFLICTS.is_enough:
                cache.immediate = True
        moved, self.pool.moved = self.pool.moved, None
        connection = self.pool.open(immediate=cache is not None and cache.immediate, which=which)
        if moved is not None:
            moved.successor = connection
        return connection, False

    @_wrap_exceptions
    def set_transaction_mode(self, connection: Connection, cache: Any) -> None:
        """Begin to write if Pony asks for it. A session that reads is pinned already."""
        require_own(connection.process, self.engine.url)
        if not self.engine.writes:
            self._begin_read_only(connection, cache)
        elif cache.immediate:
            try:
                self._begin_to_write(connection, cache)
            except MovedError:
                self.pool.moved = connection
                raise
            except ConflictError as error:
                CONFLICTS.failed(error)
                raise

    def _begin_to_write(self, connection: Connection, cache: Any) -> None:
        self.engine.before_write(connection)
        self.pool.entering = connection
        connection.end_transaction(keep=True)
        connection.allow_writes()
        try:
            # Pony waits for the writer lock in this call. The check after it finds what happened meanwhile.
            with connection.trusted():
                super().set_transaction_mode(connection, cache)
            self.engine.check_current(connection)
        except BaseException:
            self.rollback(connection, cache)
            # A function that catches this error may go on reading, from a snapshot; without one, close.
            if not self.engine.pin(connection):
                connection.close()
            raise

    def should_reconnect(self, exc: BaseException) -> bool:
        """Whether Pony drops the connection, connects anew and goes on in the same ``db_session``.

        Pony asks this where its connection fails before anything was written. temaki has it do so for a session that
        goes on in a newer version (:meth:`temaki.strategy.Session.follow`).
        """
        return isinstance(exc, MovedError)

    def _begin_read_only(self, connection: Connection, cache: Any) -> None:
        """Begin a transaction that can only read. It needs no lock: the pinned snapshot is the transaction."""
        if not connection.in_transaction and not self.engine.pin(connection):
            raise session_of(connection).conflict("refused by the store, in another thread of this process")
        if cache.immediate:
            cache.saved_fk_state = False
            cache.in_transaction = True

    def commit(self, connection: Connection, cache: Any = None) -> None:
        """Run SQLite's COMMIT and the upload, under the writer lock and the replica's lock."""
        in_transaction = cache is not None and cache.in_transaction
        try:
            if core.local.debug:
                log_orm("COMMIT")
            self._commit(connection)
        except BaseException as error:
            self._no_repeat.remember(error)
            CONFLICTS.failed(error)
            tries = current_tries()
            if tries is not None:
                tries.failed(error)
            raise
        finally:
            if in_transaction:
                # The order matters: after an interrupt between the two, the rollback releases the lock once more.
                self.release_lock()
                cache.in_transaction = False

    @_wrap_exceptions
    def execute(self, cursor: Any, sql: str, arguments: Any = None, returning_id: bool = False) -> Any:
        """As Pony's, but for temaki's errors."""
        return super().execute(cursor, sql, arguments, returning_id)

    @_wrap_exceptions
    def _commit(self, connection: Connection) -> None:
        require_own(connection.process, self.engine.url)
        connection.end_cursors(keep=True)  # here, since no lock of temaki's is held: functions of the user's may run
        if self.engine.writes:
            stored = self.engine.commit(connection)
            tries = current_tries()
            if tries is not None and stored:
                tries.stored = True
        else:
            connection.end_transaction(keep=True)

    def rollback(self, connection: Connection, cache: Any = None) -> None:
        """Undo what is not committed."""
        self._no_repeat.remember_interrupt()
        if connection.closed or connection.process != process():
            if cache is not None and cache.in_transaction:
                cache.in_transaction = False
                self.release_lock()
            return
        with connection.trusted():
            super().rollback(connection, cache)
        connection.end_transaction()
