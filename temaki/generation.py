"""One generation of the working copy: one local file, from the pull that wrote it to the session that leaves it last.

A generation's file has a name of its own and is never replaced or patched while it is open. Its state is the main file
plus the WAL up to the **acknowledged mark**; what is committed beyond the mark waits for the store.
"""

from __future__ import annotations

import os
import sqlite3
import weakref
from contextlib import suppress
from pathlib import Path

from temaki.connection import Connection
from temaki.errors import CorruptDatabaseError
from temaki.image import Image
from temaki.remote import Version
from temaki.wal import FormatError, Mark, Scan, scan


class Generation:
    """One local file and all that is open on it.

    Not thread-safe by itself: the replica's lock guards it.

    Args:
        path: The file; made if missing.
        version: The stored version that it holds, or None for a database that has yet to be created.
        url: The database's URL, for messages.

    Attributes:
        version: As above; moves on with each acknowledged commit.
        users: How many sessions are in it.
        abandoned: Whether it may hold what the store has not accepted. No session may begin in it.
        complete: Whether the main file holds everything that is acknowledged, without its WAL.
    """

    def __init__(self, path: Path, version: Version | None, url: str) -> None:
        self.path = path
        self.version = version
        self.url = url
        self.users = 0
        self.abandoned = False
        self.complete = True
        self._pid = os.getpid()
        self._is_open = False
        self._mark = Mark.START
        self._pages: dict[int, int] = {}
        self._connections: weakref.WeakSet[Connection] = weakref.WeakSet()
        # POSIX drops every lock that a process has on a file when any descriptor of it closes. So there is one for
        # reading, opened before the first connection and closed after the last.
        self._main = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._wal = -1
        try:
            self._guard = self._open_guard()
            self._wal = os.open(f"{path}-wal", os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except BaseException:
            os.close(self._main)
            raise
        self._is_open = True

    def _open_guard(self) -> Connection:
        """The connection that outlives all others, so that none of them is the last, which would checkpoint.

        It never keeps a transaction, so it never keeps the WAL from starting over.
        """
        guard = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, factory=Connection)
        guard.url, guard.folder = self.url, str(self.path.parent)
        try:
            with guard.trusted():
                for statement in (
                    "PRAGMA synchronous = OFF",
                    "PRAGMA journal_mode = WAL",  # a write in a new file only; pulled ones arrive that way
                    "PRAGMA wal_autocheckpoint = 0",
                    "SELECT count(*) FROM sqlite_master",  # opens the WAL, and reads the schema: garbage shows here
                ):
                    guard.execute(statement).close()
        except BaseException:
            guard.close()
            raise
        return guard

    # -- connections ----------------------------------------------------------------------------------------------

    def welcome(self, connection: Connection) -> None:
        """Count a connection among those to close when the generation is left behind."""
        self._connections.add(connection)

    def has(self, connection: Connection) -> bool:
        """Whether the connection is one to this generation."""
        return connection in self._connections

    def close_idle(self) -> None:
        """Close the pooled connections that no session is using; their threads will open others elsewhere."""
        for connection in list(self._connections):
            if not connection.busy:
                connection.close()

    # -- a commit -------------------------------------------------------------------------------------------------

    def uncommitted_to_store(self) -> Scan:
        """What is committed locally beyond the acknowledged mark."""
        try:
            return scan(self._wal, self._mark)
        except FormatError as error:
            raise self._damaged(error) from error

    def image(self, found: Scan, sequence: int) -> Image:
        """The database as it is with everything in ``found``, ready to upload.

        Valid until the next commit, checkpoint or disposal; the replica's lock is held for all that time.
        """
        assert found.page_count is not None
        assert found.page_size is not None
        if found.restarted:
            self._pages = {}
        try:
            return Image(
                self._main,
                self._wal,
                pages=self._pages | found.pages,
                page_count=found.page_count,
                page_size=found.page_size,
                sequence=sequence,
                changed=frozenset(found.pages),
            )
        except (FormatError, OSError) as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> CorruptDatabaseError:
        return CorruptDatabaseError(
            f"The working copy of {self.url} in {self.path} was damaged by something else on this machine: {error}. "
            "Nothing was stored; the next session starts from the stored version.",
            url=self.url,
        )

    def acknowledge(self, found: Scan, version: Version) -> None:
        """The store has accepted ``found`` as ``version``: move the mark and checkpoint."""
        self.complete = False
        self._pages |= found.pages
        self._mark = found.mark
        self.version = version
        with self._guard.trusted():
            busy, frames, copied = self._guard.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        # A reader that is pinned to an older snapshot keeps the rest for a later checkpoint.
        self.complete = not busy and frames == copied

    # -- the end --------------------------------------------------------------------------------------------------

    def dispose(self) -> None:
        """Remove the file and close everything. The file goes first: the guard's closing would checkpoint into it."""
        for name in (f"{self.path}", f"{self.path}-wal", f"{self.path}-shm"):
            with suppress(OSError):
                os.unlink(name)
        self.close_idle()
        self._close()

    def close(self) -> None:
        """Close everything and keep the file, which is all of it: nothing is uncommitted, and nobody is in it."""
        assert self.complete
        self.close_idle()
        self._close()

    def __del__(self) -> None:
        # The last generation of a database that nobody refers to any more. A forked child must not touch it.
        if getattr(self, "_is_open", False) and self._pid == os.getpid():
            with suppress(Exception):
                self._close()

    def _close(self) -> None:
        self._is_open = False
        self._guard.close()
        for descriptor in (self._wal, self._main):
            os.close(descriptor)
