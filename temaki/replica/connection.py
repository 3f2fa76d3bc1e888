"""A SQLite connection to the working copy that cannot be led astray by raw SQL.

Pony hands its users the connection itself (``db.get_connection()``, cursors of ``db.execute``). What they do with it
must not end temaki's transaction behind its back, change how the file is journalled, or hold a read snapshot beyond the
session. :mod:`temaki.replica.guarded` refuses such statements. This module is about transactions: how temaki begins and
ends them, what Python's own ways to end them do instead, and what becomes of the cursors.
"""

from __future__ import annotations

import sqlite3
import weakref
from contextlib import suppress
from typing import Any, Literal, Self

from temaki.replica.cursor import Cursor
from temaki.replica.explain import rolled_back
from temaki.replica.guarded import GuardedConnection

_ISOLATION_LEVEL: Any = sqlite3.Connection.isolation_level


class Connection(GuardedConnection):
    """One connection to one generation of the working copy.

    Made by Pony's pool, which knows nothing of generations; :meth:`settle_in` tells it where it belongs.

    Attributes:
        session: The engine's own, from the beginning of a session to its end.
        successor: The connection with which its session goes on in a newer generation; None if there is none. Pony may
            have asked for this one just before.
        busy: Whether a session is using it. The replica's lock guards it: an idle one may be closed by any thread.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.busy = False
        self.session: object = None
        self.successor: Connection | None = None
        self._open_cursors: weakref.WeakSet[sqlite3.Cursor | sqlite3.Blob] = weakref.WeakSet()

    # -- what temaki does with it ---------------------------------------------------------------------------------

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

    # -- what others do with it -----------------------------------------------------------------------------------

    def cursor(self, factory: Any = Cursor) -> Any:
        """A cursor that ends with the transaction in which it was made; see :meth:`Cursor.end`."""
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
