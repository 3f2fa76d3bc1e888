"""A SQLite connection that tells which statements it runs: what is refused, what is ignored, and what an error means.

The verdicts are those of :mod:`temaki.replica.rules`, the errors those of :mod:`temaki.replica.explain`.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from temaki.errors import StatementRefusedError
from temaki.process.fork import keep_inherited, never_close_in_child, process, require_own
from temaki.replica.cursor import Cursor
from temaki.replica.explain import Place, explain
from temaki.replica.functions import RegisteringConnection
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


class GuardedConnection(RegisteringConnection):
    """A connection to a working copy that only runs what temaki allows.

    Attributes:
        process: The process that opened it; none that was forked from it may use or close it.
        closed: Whether :meth:`close` was called.
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
        self.closed = False
        self.begin_on_write: Callable[[], None] | None = None
        self.in_handlers = False
        self.wanted_to_write = False
        self._foreign_keys: bool | None = None  # whether they are to be enforced after the handlers' transaction
        self._enforces = True
        self._trusted = 0
        self._mark = os.urandom(8).hex()
        self._private: Private | None = None  # the rules while a statement writes to private tables only
        self._wrote_private = False
        self._verdict: Refused | Ignored | None = None
        self._noted: set[str] = set()
        self._changes_before = 0
        self._changed_schema = False
        self._query_only = False
        self._ended_by: BaseException | None = None  # the error with which the transaction was rolled back
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

    # -- running statements ---------------------------------------------------------------------------------------

    def marked(self, sql: str) -> str:
        """The text under which a statement is prepared: where a verdict is special, a text that nobody else can have.

        The ``sqlite3`` module caches prepared statements by their text, and SQLite asks the authorizer only when it
        prepares one. So a user's statement could come by a verdict that was meant for temaki's; or, where a function
        of the user's runs it within a private write, by one that was meant for a write transaction.
        """
        if self._trusted:
            return f"{sql} /* {self._mark} */"
        if self._private is not None:
            return f"/* private {self._mark} */ {sql}"  # in front: SQLite keeps the end of a view's text
        return sql

    @contextmanager
    def trusted(self) -> Iterator[None]:
        """Statements in here are temaki's or Pony's own, and no rule applies."""
        self._trusted += 1
        try:
            yield
        finally:
            self._trusted -= 1

    def execute(self, sql: str, parameters: Any = (), /) -> Cursor:
        """As in :mod:`sqlite3`, which would not use :class:`Cursor`'s."""
        cursor = self.cursor(Cursor)
        return cursor.execute(sql, parameters)

    def executemany(self, sql: str, parameters: Any, /) -> Cursor:
        """As in :mod:`sqlite3`, which would not use :class:`Cursor`'s."""
        cursor = self.cursor(Cursor)
        return cursor.executemany(sql, parameters)

    def executescript(self, sql_script: str, /) -> Any:
        """See :meth:`Cursor.executescript`."""
        return self.cursor().executescript(sql_script)

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

    # -- verdicts and errors --------------------------------------------------------------------------------------

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

    def _refuse(self, what: str, instead: str) -> None:
        raise StatementRefusedError(f"{what}; database {self.url}. Instead, {instead}.", url=self.url)

    # -- its end --------------------------------------------------------------------------------------------------

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
