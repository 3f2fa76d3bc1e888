"""A SQLite connection to the working copy that cannot be led astray by raw SQL.

Pony hands its users the connection itself (``db.get_connection()``, cursors of ``db.execute``). What they do
with it must not end temaki's transaction behind its back, change how the file is journalled, or hold a read
snapshot beyond the session. So statements that would are refused by an authorizer, each with a message that
says what to use instead, and cursors are tracked and closed when their transaction is over.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal, NoReturn, Self

from temaki.errors import StatementRefusedError
from temaki.process.fork import keep_inherited, never_close_in_child, process, require_own
from temaki.replica.cursor import Cursor
from temaki.replica.explain import Place, explain, rolled_back
from temaki.replica.functions import Functions
from temaki.replica.rules import (
    GUARDED,
    Ignored,
    Private,
    Refused,
    changes_unseen,
    judge,
    judge_foreign_keys,
    number_set,
)

_log = logging.getLogger(__name__)
_ISOLATION_LEVEL: Any = sqlite3.Connection.isolation_level


class Connection(sqlite3.Connection):
    """One connection to one generation of the working copy.

    Made by Pony's pool, which knows nothing of generations; :meth:`settle_in` tells it where it belongs.

    Attributes:
        process: The process that opened it; none that was forked from it may use or close it.
        session: The engine's own, from the beginning of a session to its end.
        closed: Whether :meth:`close` was called.
        busy: Whether a session is using it. The replica's lock guards it: an idle one may be closed by any thread.
        begin_on_write: What begins a transaction at the first write of ``on_connect`` handlers; None otherwise.
        in_handlers: Whether such handlers write now, in a transaction that temaki commits after them.
        wanted_to_write: Whether a write was refused since :meth:`settle_in`, because it was in no write transaction.
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
        self.closed = False
        self._trusted = 0
        self.begin_on_write: Callable[[], None] | None = None
        self.in_handlers = False
        self._foreign_keys: bool | None = None  # whether they are to be enforced after the handlers' transaction
        self._enforces = True
        self._functions: Functions | None = None
        self._functions_seen = 0
        self.wanted_to_write = False
        self._mark = os.urandom(8).hex()
        self._private_mark = os.urandom(8).hex()
        self._private: Private | None = None  # the rules while a statement writes to private tables only
        self._wrote_private = False
        self._verdict: Refused | Ignored | None = None
        self._noted: set[str] = set()
        self._changes_before = 0
        self._changed_schema = False
        self._open_cursors: weakref.WeakSet[sqlite3.Cursor | sqlite3.Blob] = weakref.WeakSet()
        self._query_only = False
        self._ended_by: BaseException | None = None  # the error with which SQLite rolled back by itself
        never_close_in_child(self)

    def settle_in(
        self,
        url: str,
        folder: str,
        *,
        writable: bool,
        is_intact: Callable[[], bool] = lambda: True,
        noted: set[str] | None = None,
    ) -> None:
        """Make this a guarded connection to the working copy.

        Args:
            url: The database's URL, for messages.
            folder: The working copy's folder; nothing in it may be attached.
            writable: Whether sessions of this connection may write at all.
            is_intact: Tells whether the working copy's files are as temaki left them.
            noted: The ignored pragmas that the log has a line about. Connections to one database share it.
        """
        self.is_intact = is_intact
        self._noted = set() if noted is None else noted
        self.url, self.folder, self.writable = url, folder, writable
        # Durability is the store's business: a working copy that a power cut tears is thrown away (see folder.py).
        self._run("PRAGMA synchronous = OFF")
        # A setting of each connection, not of the file: without it every commit could checkpoint what is not
        # acknowledged yet.
        self._run("PRAGMA wal_autocheckpoint = 0")
        self.forbid_writes()
        me = weakref.ref(self)  # a bound method would keep the connection alive in a cycle

        def authorize(action: int, first: str | None, second: str | None, schema: str | None, _by: str | None) -> int:
            connection = me()
            allowed = connection is None or connection.allows(action, first, second, schema)
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
        """The text under which a statement is prepared: where a verdict is special, a text that nobody else can have.

        The ``sqlite3`` module caches prepared statements by their text, and SQLite asks the authorizer only when it
        prepares one. So a user's statement could come by a verdict that was meant for temaki's; or, where a function
        of the user's runs it within a private write, by one that was meant for a write transaction.
        """
        if self._trusted:
            return f"{sql} /* {self._mark} */"
        if self._private is not None:
            return f"/* {self._private_mark} */ {sql}"  # in front: SQLite keeps the end of a view's text
        return sql

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

    def end_transaction(self, *, keep: bool = False) -> None:
        """End every cursor, roll back whatever is open, and forbid writes.

        A half-read cursor would keep its snapshot for the thread's next session.

        Args:
            keep: Whether the cursors' unread rows can be read after it.
        """
        self.end_cursors(keep=keep)
        if self.in_transaction:
            if self._wrote_private and self._query_only:  # nothing else can have been written
                with suppress(sqlite3.Error):
                    self._run("COMMIT")
            if self.in_transaction:
                self._run("ROLLBACK")
        self.forbid_writes()

    def commit_locally(self) -> None:
        """SQLite's COMMIT, then writes are forbidden again. :meth:`end_cursors` comes before it.

        Raises:
            StatementRefusedError: There is no transaction any more: SQLite has rolled it back by itself.
        """
        if self._ended_by is not None:
            raise rolled_back(self.url, self._ended_by)
        self._run("COMMIT")
        self.end_cursors(keep=True)
        self.forbid_writes()

    def frames(self) -> int:
        """How many frames the WAL that this connection has open holds; checkpoints them.

        Only for a connection whose commit changed nothing, so that all of them are acknowledged.
        """
        with self.trusted():
            return int(self.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1])

    def end_cursors(self, *, keep: bool) -> None:
        """End the cursors that were made on this connection and still live; close its blobs.

        Args:
            keep: Whether the cursors' unread rows can be read after it.
        """
        for cursor in list(self._open_cursors):
            if isinstance(cursor, Cursor):
                cursor.end(keep=keep)
            else:
                cursor.close()
        self._open_cursors.clear()

    def allow_writes(self) -> None:
        """Inside temaki's own write transaction only."""
        if self._query_only:
            self._run("PRAGMA query_only = OFF")
            self._query_only = False
        self._changes_before, self._changed_schema = self.total_changes, False

    def forbid_writes(self) -> None:
        """Everywhere else: nothing may be written that temaki would not upload."""
        self._ended_by = None
        if not self._query_only:
            self._run("PRAGMA query_only = ON")
            self._query_only = True

    @contextmanager
    def _privately(self) -> Iterator[None]:
        """Statements in here may write to what is private to the connection, and to nothing else."""
        with self.trusted():
            attached = self.execute("PRAGMA database_list").fetchall()
        private = Private(["temp", *(name for _, name, file in attached if not file and name != "main")])
        self._run("PRAGMA query_only = OFF")
        self._private = private
        try:
            yield
        finally:
            self._private = None
            if not self.closed:
                self._run("PRAGMA query_only = ON")

    def _run(self, sql: str) -> None:
        with self.trusted():
            self.execute(sql).close()

    # -- what others do with it -----------------------------------------------------------------------------------

    def cursor(self, factory: Any = Cursor) -> Any:
        """A cursor that ends with the transaction in which it was made; see :meth:`Cursor.end`."""
        self.require_own()
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
            if self.in_handlers:  # all that handlers write is committed after them
                return
            self._refuse("commit() on the connection would not be stored", "call commit() of pony.orm")
        super().commit()

    def rollback(self) -> None:
        """As :meth:`commit`.

        Raises:
            StatementRefusedError: In a transaction.
        """
        self.require_own()
        if self.in_transaction and not self._trusted:
            if self.in_handlers:  # where a handler has begun no transaction, plain SQLite has none to roll back either
                return
            self._refuse("rollback() on the connection goes behind Pony's back", "call rollback() of pony.orm")
        super().rollback()

    def __enter__(self) -> Self:
        self.require_own()
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> Literal[False]:
        """Python's own would commit, or roll back after an exception. Where nothing has changed, there is no need.

        Raises:
            StatementRefusedError: It would commit something, and that would not be stored.
        """
        self.require_own()
        if self._has_changed():
            if error is None:
                self._refuse(
                    "the end of `with connection:` commits, which would not be stored",
                    "leave the `with` out, and call commit() of pony.orm",
                )
            # As with plain SQLite, what comes after must not be stored either, whoever catches the exception.
            self._run("ROLLBACK")
            self.forbid_writes()
            self._ended_by = error
        return False

    def _has_changed(self) -> bool:
        """Whether the session's write transaction has changed anything by now; rather too often than not at all."""
        if not self.in_transaction or self._query_only or self.in_handlers:
            return False
        return self._changed_schema or self.total_changes != self._changes_before

    @property
    def isolation_level(self) -> Any:
        """As in :mod:`sqlite3`, where setting it to None commits. Pony has set it to None already.

        Raises:
            StatementRefusedError: It is set to None in a write transaction.
        """
        return _ISOLATION_LEVEL.__get__(self)

    @isolation_level.setter
    def isolation_level(self, level: str | None) -> None:
        self.require_own()
        if level is None and self.in_transaction:
            if not self._query_only and not self.in_handlers:
                self._refuse(
                    "isolation_level = None commits, which would not be stored",
                    "leave it out, and call commit() of pony.orm",
                )
            if self.isolation_level is None:
                return
        _ISOLATION_LEVEL.__set__(self, level)

    def close(self) -> None:
        """Close it, from any thread; again is no error. In a forked child it stays open: it is the parent's."""
        self.closed = True
        if self.process == process():
            super().close()

    def __del__(self) -> None:
        # A thread's pooled connection goes with its thread, and a generation's guard with the generation: that is their
        # proper end, about which Python 3.13 need not warn. In a forked child it is not their end (see
        # temaki.process.fork): there they live on, where Python has not seen the fork and drops what belonged to
        # threads that do not exist.
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

    def allows(self, action: int, first: str | None, second: str | None, schema: str | None) -> bool:
        """The authorizer's verdict on an action; a refusal is explained by the error that follows."""
        if self._trusted:
            self._verdict = None
            return True
        if self._private is not None:
            self._verdict = None
            return self._private.allows(action, first, schema)
        self._changed_schema = self._changed_schema or changes_unseen(action, first, second, schema)
        if action not in GUARDED:
            return True
        self._verdict = judge(action, first, second, schema, folder=self.folder)
        if self.in_handlers and self._verdict is None:
            wanted = judge_foreign_keys(action, first, second, enforced=self._enforces)
            if isinstance(wanted, Refused):
                self._verdict = wanted
            elif wanted is not None:
                self._foreign_keys = wanted
        return self._verdict is None

    def permits(self, error: sqlite3.DatabaseError, run: Callable[[str], object], sql: str) -> bool:
        """Do what can be done about a refused statement.

        Args:
            error: SQLite's refusal.
            run: Runs a statement on the cursor that has tried.
            sql: The statement.

        Returns:
            Whether it is done: the cursor has the answer. If not, the error stands.

        Raises:
            sqlite3.DatabaseError: The statement is allowed, and fails.
        """
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_AUTH and isinstance(self._verdict, Ignored):
            ignored, self._verdict = self._verdict, None
            if ignored.pragma.lower() not in self._noted:
                self._noted.add(ignored.pragma.lower())
                _log.info("%s: %s changes nothing here: %s", self.url, ignored.pragma, ignored.reason)
            with self.trusted():
                run(self.marked(ignored.answer))
            return True
        if code == sqlite3.SQLITE_READONLY and self._query_only and not self._trusted and self._ended_by is None:
            return self._permits_privately(run, sql)
        return False

    def _permits_privately(self, run: Callable[[str], object], sql: str) -> bool:
        if self._private is not None:  # within a function that such a statement calls
            return False
        was_pinned = self.in_transaction
        with self._privately():
            try:
                run(self.marked(sql))
            except sqlite3.DatabaseError as error:
                if was_pinned and not self.in_transaction:  # INSERT OR ROLLBACK: the session's snapshot is gone
                    self.close()
                if getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_AUTH:
                    raise
            else:
                self._wrote_private = True
                return True
        if self.sets_nothing_new(sql):
            with self.trusted():
                run(self.marked("SELECT NULL LIMIT 0"))
            return True
        self.wanted_to_write = True
        begin, self.begin_on_write = self.begin_on_write, None
        if begin is None:
            return False
        begin()
        run(self.marked(sql))
        return True

    def sets_nothing_new(self, sql: str) -> bool:
        """Whether a statement is ``PRAGMA user_version = N``, or ``application_id``, and N is there already.

        SQLite would write the page all the same, and it would be uploaded.
        """
        pragma = number_set(sql)
        if pragma is None:
            return False
        with self.trusted():
            return bool(self.execute(f"PRAGMA main.{pragma[0]}").fetchone() == (pragma[1],))

    # -- handlers of on_connect -----------------------------------------------------------------------------------

    def begin_handlers(self) -> None:
        """Begin the transaction in which handlers write. What they have set before, such as foreign keys, holds."""
        with self.trusted():
            self._enforces = bool(self.execute("PRAGMA foreign_keys").fetchone()[0])
        self._foreign_keys = None
        self.allow_writes()
        self._run("BEGIN IMMEDIATE TRANSACTION")
        self.in_handlers = True

    def end_handlers(self) -> None:
        """The handlers' transaction is over: what could not be set inside of it is set now."""
        self.in_handlers = False
        self.begin_on_write = None
        wanted, self._foreign_keys = self._foreign_keys, None
        if wanted is not None:
            self._run(f"PRAGMA foreign_keys = {int(wanted)}")

    # -- functions ------------------------------------------------------------------------------------------------

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

    def _refuse(self, what: str, instead: str) -> None:
        raise StatementRefusedError(f"{what}; database {self.url}. Instead, {instead}.", url=self.url)

    def raise_explained(self, error: sqlite3.DatabaseError, sql: str = "") -> NoReturn:
        """Raise what temaki knows about an error, or the error itself.

        Some errors end the whole transaction (a full disk, ``INSERT OR ROLLBACK``, a trigger's ``RAISE(ROLLBACK)``).
        What comes after them would be committed statement by statement, so nothing may be written from then on.
        """
        verdict, self._verdict = self._verdict, None
        explained = explain(
            error,
            sql,
            Place(self.url, self.folder, writable=self.writable, is_intact=self.is_intact),
            refusal=verdict.reason if isinstance(verdict, Refused) else None,
            query_only=self._query_only,
            ended_by=self._ended_by,
        )
        if not self._query_only and not self._trusted and not self.in_transaction:
            self.forbid_writes()
            self._ended_by = error
        if explained is None:
            raise error
        raise explained from error
