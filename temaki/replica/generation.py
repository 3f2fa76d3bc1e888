"""One generation of the working copy: one local file, from the pull that wrote it to the session that leaves it last.

A generation's file has a name of its own and is never replaced or patched while it is open. Its state is the main file
plus the WAL up to the **acknowledged mark**; what is committed beyond the mark waits for the store.

Other programs remove, replace and truncate files in temporary folders. SQLite opens files by name, temaki reads them
through descriptors: where the two are no longer the same files, or no longer as temaki left them, the generation is
over. Sessions do not begin in it (:meth:`Generation.is_intact`), new connections are not used, and commits fail unless
the files that they went to are the ones that are read here.
"""

from __future__ import annotations

import os
import sqlite3
import weakref
from contextlib import suppress
from pathlib import Path

from temaki.errors import WorkingCopyError
from temaki.process.fork import process
from temaki.replica.connection import Connection
from temaki.replica.header import FormatError
from temaki.replica.image import Image
from temaki.replica.wal import Mark, Scan, scan
from temaki.version import Version


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

    def __init__(self, path: Path, version: Version | None, url: str, folder: object = None) -> None:
        self.path = path
        self.version = version
        self.url = url
        self.users = 0
        self.abandoned = False
        self.complete = True
        self._folder = folder  # keeps the folder's lock for as long as files in it are open
        self._process = process()
        self._is_open = False
        self._mark = Mark.START
        self._pages: dict[int, int] = {}
        self._connections: weakref.WeakSet[Connection] = weakref.WeakSet()
        # POSIX drops every lock that a process has on a file when any descriptor of it closes. So there is one for
        # reading, opened before the first connection and closed after the last. (That of the wal-index, on which
        # SQLite's locks are, can only be opened after the guard.)
        create = os.O_CREAT if version is None else 0  # a file that has vanished is not an empty database
        self._main = os.open(path, os.O_RDONLY | os.O_CLOEXEC | create, 0o600)
        self._wal = self._index = -1
        try:
            self._guard = self._open_guard()
            self._wal = os.open(f"{path}-wal", os.O_RDONLY | os.O_CLOEXEC)
            self._index = os.open(f"{path}-shm", os.O_RDONLY | os.O_CLOEXEC)
            # SQLite maps this file into memory: a process dies of SIGBUS if somebody truncates it. Connections of one
            # process share the mapping that the guard has, and open the file no more, so it needs no name.
            os.unlink(f"{path}-shm")
            self._remember_files()
        except BaseException:
            self._close()
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

    # -- files that others may have touched -----------------------------------------------------------------------

    def is_intact(self) -> bool:
        """Whether SQLite would open, by their names, the very files that temaki has open, as temaki left them."""
        try:
            main, wal = os.stat(self.path), os.stat(f"{self.path}-wal")
        except OSError:
            return False
        return (
            _shape(main) == self._main_shape
            and (wal.st_dev, wal.st_ino) == self._wal_identity
            and wal.st_size >= self._wal_size
        )

    def require_intact(self) -> None:
        """Make sure that the open files are as temaki left them, whatever their names are by now.

        Raises:
            WorkingCopyError: They were truncated or overwritten.
        """
        if _shape(os.fstat(self._main)) != self._main_shape:
            raise self._damaged("the file was truncated or overwritten")
        if os.fstat(self._wal).st_size < self._wal_size:
            raise self._damaged("its WAL was truncated")

    def _remember_files(self) -> None:
        """Only a checkpoint changes the main file, and the WAL never shrinks."""
        self._main_shape = _shape(os.fstat(self._main))
        wal = os.fstat(self._wal)
        self._wal_identity, self._wal_size = (wal.st_dev, wal.st_ino), wal.st_size

    # -- a commit -------------------------------------------------------------------------------------------------

    def uncommitted_to_store(self, connection: Connection) -> Scan:
        """What is committed locally beyond the acknowledged mark.

        Args:
            connection: The one that has just committed. That it changed nothing has to be its own word, too.

        Raises:
            WorkingCopyError: What is committed cannot be told.
        """
        try:
            self.require_intact()
            found = scan(self._wal, self._index, self._mark)
        except (FormatError, OSError) as error:
            raise self._damaged(error) from error
        if found.page_count is None:
            frames = connection.frames()
            if frames != found.mark.frames:
                raise self._damaged(
                    f"SQLite counts {frames} frames in the WAL that it has open, not {found.mark.frames}"
                )
        return found

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

    def _damaged(self, reason: object) -> WorkingCopyError:
        return WorkingCopyError(
            f"The working copy of {self.url} in {self.path} was damaged by something else on this machine: {reason}. "
            "Nothing was stored; the next session starts from the stored version. Keep other programs away from the "
            "folder, or set cache_dir to another one.",
            url=self.url,
            path=str(self.path),
            should_retry=True,
        )

    def acknowledge(self, found: Scan, version: Version) -> None:
        """The store has accepted ``found`` as ``version``: move the mark and checkpoint.

        Raises:
            WorkingCopyError: The files were truncated or overwritten since.
        """
        self.require_intact()  # a checkpoint into a file that was cut would look like temaki's own work
        self.complete = False
        self._pages |= found.pages
        self._mark = found.mark
        self.version = version
        with self._guard.trusted():
            busy, frames, copied = self._guard.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        # A reader that is pinned to an older snapshot keeps the rest for a later checkpoint.
        self.complete = not busy and frames == copied
        if self.complete:
            self._pages = {}
        self._remember_files()

    # -- the end --------------------------------------------------------------------------------------------------

    def dispose(self) -> None:
        """Remove the file and close everything. The file goes first: the guard's closing would checkpoint into it."""
        if self._process != process():  # the parent's files, and its connections
            return
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
        if getattr(self, "_is_open", False) and self._process == process():
            with suppress(Exception):
                self.close_idle()
                self._close()

    def _close(self) -> None:
        self._is_open = False
        if hasattr(self, "_guard"):
            self._guard.close()
        descriptors = (self._index, self._wal, self._main)
        # Closed again, a number would be somebody else's file by then.
        self._index = self._wal = self._main = -1
        for descriptor in descriptors:
            if descriptor >= 0:
                os.close(descriptor)


def _shape(status: os.stat_result) -> tuple[int, int, int, int]:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
