"""One generation of the working copy: one local file, from the pull that wrote it to the last session that leaves it.

A generation's file has a name of its own. It is never replaced or patched while it is open. Its state is the main file
plus the WAL up to the **acknowledged mark**. Commits beyond the mark wait for the store.

Other programs remove, replace and truncate files in temporary folders. SQLite opens files by name; temaki reads them
through descriptors. If these are no longer the same files, or no longer as temaki left them, the generation is over.
Then no session begins in it (:meth:`Generation.is_intact`), and new connections are not used. A commit fails unless it
went to the files that temaki reads.
"""

from __future__ import annotations

import os
import sqlite3
import weakref
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Protocol

from temaki.errors import WorkingCopyError
from temaki.process.fork import process
from temaki.replica.apply import WalIndex, append
from temaki.replica.connection import Connection
from temaki.replica.header import DATABASE_HEADER, MODES_AT, WAL_MODE, FormatError, read_header
from temaki.replica.image import Image
from temaki.replica.wal import Mark, Scan, scan
from temaki.version import Version

MOST_TAKEN_BACK: Final = 8 << 20
"""Bytes of pages up to which a refused commit is undone in place. They are in memory meanwhile."""
SCHEMA_COOKIE: Final = slice(40, 44)
"""Where page 1 has the number of the schema ("Schema cookie", fileformat2.html, section 1.3.9)."""

Extent = tuple[int, int, int]
"""What a format knows of the size of a version: pages, bytes in a page, and the version's number."""


class Knowledge(Protocol):
    """What a format knows of a version that is here. It means nothing to the working copy, which keeps it."""

    def to_json(self) -> dict[str, Any]:
        """As plain data, for the clean record."""


class Generation:
    """One local file, with its descriptors and connections.

    Not thread-safe by itself: the replica's lock guards it.

    Args:
        path: Path of the file. It is created if ``version`` is None.
        version: The stored version that the file holds; None if there is no database yet.
        url: The database's URL, for messages.
        folder: Kept alive as long as the files are open, because it holds the folder's lock.

    Attributes:
        path: Path of the file.
        url: URL of the database.
        version: The stored version that the file holds. It moves on with each acknowledged commit.
        users: Number of sessions in the generation.
        abandoned: True if the file may hold data that the store has not accepted. No session may begin in it.
        complete: True if the main file holds everything that is acknowledged, without the WAL.
        knowledge: What the version's format knows of it: as it gave it, or as plain data from the clean record; None
            if it knows nothing.
        catch_ups: How often a version from elsewhere has come in. A session that has pinned its snapshot before the
            last one has read an older version.
    """

    def __init__(self, path: Path, version: Version | None, url: str, folder: object = None) -> None:
        self.path = path
        self.version = version
        self.url = url
        self.users = 0
        self.abandoned = False
        self.complete = True
        self.knowledge: Knowledge | dict[str, Any] | None = None
        self.catch_ups = 0
        self._folder = folder
        self._process = process()
        self._is_open = False
        self._mark = Mark.START
        self._pages: dict[int, int] = {}
        self._connections: weakref.WeakSet[Connection] = weakref.WeakSet()
        # POSIX drops every lock that a process has on a file when any descriptor of the file closes. So the descriptors
        # for reading open before the first connection and close after the last. (SQLite's locks are on the wal-index;
        # its descriptor can only be opened after the guard.)
        create = os.O_CREAT if version is None else 0  # a file that has vanished must not become an empty database
        self._main = os.open(path, os.O_RDONLY | os.O_CLOEXEC | create, 0o600)
        self._wal = self._index = -1
        try:
            self._guard = self._open_guard()
            self._wal = os.open(f"{path}-wal", os.O_RDWR | os.O_CLOEXEC)
            self._index = os.open(f"{path}-shm", os.O_RDWR | os.O_CLOEXEC)
            self._index_maps = WalIndex(self._index)
            # SQLite maps this file into memory, and a process dies of SIGBUS if somebody truncates it. The connections
            # of one process share the guard's mapping and do not open the file again. So the file needs no name.
            os.unlink(f"{path}-shm")
            self._remember_files()
        except BaseException:
            self._close()
            raise
        self._is_open = True

    def _open_guard(self) -> Connection:
        """Open the guard: a connection that outlives all others, because SQLite checkpoints when the last one closes.

        The guard never keeps a transaction open, so the WAL can start over.
        """
        guard = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, factory=Connection)
        guard.url, guard.folder = self.url, str(self.path.parent)
        try:
            with guard.trusted():
                for statement in (
                    "PRAGMA synchronous = OFF",
                    "PRAGMA journal_mode = WAL",  # writes only in a new file; pulled files are in WAL mode already
                    "PRAGMA wal_autocheckpoint = 0",
                    "SELECT count(*) FROM sqlite_master",  # opens the WAL and reads the schema: fails on garbage
                    "PRAGMA busy_timeout = 0",  # it is used while the replica's lock is held, and waits for nobody
                ):
                    guard.execute(statement).close()
        except BaseException:
            guard.close()
            raise
        return guard

    def facts(self) -> dict[str, Any]:
        """Version and knowledge as plain data."""
        assert self.version is not None
        known = self.knowledge
        kept = known if known is None or isinstance(known, dict) else known.to_json()
        return {**self.version.to_json(), "knowledge": kept}

    # -- connections ----------------------------------------------------------------------------------------------

    def welcome(self, connection: Connection) -> None:
        """Register a connection, so that it is closed when the generation is left behind."""
        self._connections.add(connection)

    def has(self, connection: Connection) -> bool:
        """Whether the connection belongs to this generation."""
        return connection in self._connections

    def close_idle(self) -> None:
        """Close the pooled connections that no session is using. Their threads open others elsewhere."""
        for connection in list(self._connections):
            if not connection.busy:
                connection.close()

    # -- files that others may have touched -----------------------------------------------------------------------

    def is_intact(self) -> bool:
        """Whether the files at these names are the ones that temaki has open, as temaki left them."""
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
        """Make sure that the open files are as temaki left them, whatever names they have now.

        Raises:
            WorkingCopyError: They were truncated or overwritten.
        """
        if _shape(os.fstat(self._main)) != self._main_shape:
            raise self.damaged("the file was truncated or overwritten")
        if os.fstat(self._wal).st_size < self._wal_size:
            raise self.damaged("its WAL was truncated")

    def _remember_files(self) -> None:
        """Note the state of the files. Only a checkpoint changes the main file, and the WAL never shrinks."""
        self._main_shape = _shape(os.fstat(self._main))
        wal = os.fstat(self._wal)
        self._wal_identity, self._wal_size = (wal.st_dev, wal.st_ino), wal.st_size

    # -- a commit -------------------------------------------------------------------------------------------------

    def uncommitted_to_store(self, connection: Connection) -> Scan:
        """Find what was committed locally beyond the acknowledged mark.

        Args:
            connection: The connection that has just committed. If the scan finds no changes, the connection has to
                agree.

        Raises:
            WorkingCopyError: The files do not show what was committed.
        """
        try:
            self.require_intact()
            changes = scan(self._wal, self._index, self._mark)
        except (FormatError, OSError) as error:
            raise self.damaged(error) from error
        if changes.page_count is None:
            frames = connection.frames()
            if frames != changes.mark.frames:
                raise self.damaged(
                    f"SQLite counts {frames} frames in the WAL that it has open, not {changes.mark.frames}"
                )
            self._checkpoint()  # counting them has copied what a session had kept from the main file
        return changes

    def image(self, changes: Scan, sequence: int) -> Image:
        """Make the image of the database with everything in ``changes``, ready to upload.

        It is valid until the next commit, checkpoint or disposal. The replica's lock is held all that time.
        """
        assert changes.page_count is not None
        assert changes.page_size is not None
        if changes.restarted:
            self._pages = {}
        try:
            return Image(
                self._main,
                self._wal,
                pages=self._pages | changes.pages,
                page_count=changes.page_count,
                page_size=changes.page_size,
                sequence=sequence,
                changed=frozenset(changes.pages),
            )
        except (FormatError, OSError) as error:
            raise self.damaged(error) from error

    def damaged(self, reason: object) -> WorkingCopyError:
        """Make the error for files that do not hold what temaki has left in them."""
        return WorkingCopyError(
            f"Something else on this machine damaged the working copy of {self.url} in {self.path}: {reason}. Nothing "
            "was stored. The next session starts from the stored version. Keep other programs away from the folder, or "
            "set cache_dir to another folder.",
            url=self.url,
            path=str(self.path),
            should_retry=True,
        )

    def acknowledge(self, changes: Scan, version: Version) -> None:
        """Move the mark and checkpoint: the store has accepted ``changes`` as ``version``.

        Raises:
            WorkingCopyError: The files were truncated or overwritten since.
        """
        self.require_intact()  # after a checkpoint, a file that was truncated would look as if temaki had left it so
        self.complete = False
        self._pages |= changes.pages
        if changes.page_count is not None:
            self._pages = {number: at for number, at in self._pages.items() if number <= changes.page_count}
        self._mark = changes.mark
        self.version = version
        self._checkpoint()

    def _checkpoint(self) -> None:
        with self._guard.trusted():
            busy, frames, copied = self._guard.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        # If a reader is pinned to an older snapshot, a later checkpoint copies the rest.
        self.complete = not busy and frames == copied
        if self.complete:
            self._pages = {}
        self._remember_files()

    # -- a catch-up -----------------------------------------------------------------------------------------------

    def acknowledged(self, page_count: int, page_size: int, sequence: int) -> Image:
        """The database as its version has it, page by page.

        Valid until the next commit, checkpoint or disposal; the replica's lock is held for all that time.

        Args:
            page_count: The version's size, in pages.
            page_size: In bytes.
            sequence: The version's number.

        Raises:
            WorkingCopyError: The files were truncated or overwritten.
        """
        try:
            self.require_intact()
            return self._acknowledged((page_count, page_size, sequence))
        except (FormatError, OSError) as error:
            raise self.damaged(error) from error

    def _acknowledged(self, extent: Extent, *, pinned: bool = False) -> Image:
        if scan(self._wal, self._index, self._mark).restarted:
            self._pages = {}  # a transaction that was rolled back had spilled, and its offsets are others' now
        return Image(self._main, self._wal, dict(self._pages), *extent, pinned=pinned)

    # -- a version that stays -------------------------------------------------------------------------------------

    def pin(self, extent: Extent) -> tuple[Connection, Image]:
        """The acknowledged version, page by page, as long as the connection's transaction lasts.

        The replica's lock is held for this call, and need not be afterwards: commits and catch-ups may follow. Whoever
        calls is counted among the users.

        The transaction keeps SQLite from restarting the WAL, and from copying newer frames into the main file. If the
        main file has everything, the transaction does not hold the WAL, and the image does not read it. So the
        checkpoint comes first, then the transaction, and then the image.

        Args:
            extent: The version's size.

        Raises:
            WorkingCopyError: The files were truncated or overwritten.
            sqlite3.Error: No connection can be opened.
        """
        try:
            self.require_intact()
            self._checkpoint()
            connection = self._connect()
            try:
                connection.pin()
                return connection, self._acknowledged(extent, pinned=True)
            except BaseException:
                connection.close()
                raise
        except (FormatError, OSError) as error:
            raise self.damaged(error) from error

    def unpin(self, connection: Connection) -> None:
        """End the transaction of :meth:`pin`, and copy what it has kept from the main file. The lock is held."""
        connection.close()
        if self._is_open and not self.abandoned and not self.complete:
            self._checkpoint()

    def _connect(self) -> Connection:
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, factory=Connection)
        connection.url, connection.folder = self.url, str(self.path.parent)
        try:
            with connection.trusted():
                for statement in ("PRAGMA synchronous = OFF", "PRAGMA wal_autocheckpoint = 0"):
                    connection.execute(statement).close()
        except BaseException:
            connection.close()
            raise
        return connection

    def catch_up(self, pages: Mapping[int, bytes], page_count: int, page_size: int, version: Version) -> bool:
        """Put a newer version into the live file, as one transaction. Sessions keep their snapshots.

        The replica's lock is held. If this raises, the generation is to be abandoned.

        Args:
            pages: The pages that differ, by number; page 1 in WAL mode, with the new version's number and size.
            page_count: The new version's size, in pages.
            page_size: In bytes.
            version: What it is then.

        Returns:
            False if it cannot be done now. Nothing was written then: another connection is writing, or SQLite's files
            are not as they are documented.

        Raises:
            WorkingCopyError: The files were damaged by something else, or cannot be written.
        """
        try:
            self.require_intact()
            if not self._accepts_foreign_pages(page_size):
                return False
            if not self.users and self.complete:
                with self._guard.trusted():
                    self._guard.execute("PRAGMA wal_checkpoint(TRUNCATE)").close()  # the WAL starts over
                self._remember_files()
            return self._append(pages, page_count, page_size, version)
        except (FormatError, OSError) as error:
            raise self.damaged(error) from error

    def take_back(self, changes: Scan, extent: Extent) -> bool:
        """Undo a local commit that the store has refused: what it changed gets its earlier pages back.

        So the acknowledged version stays here, and a catch-up leads on from it. As for a catch-up, sessions keep their
        snapshots, and the replica's lock is held. If this raises, the generation is to be abandoned.

        Args:
            changes: What was committed.
            extent: The size of the acknowledged version.

        Returns:
            False if it cannot be done, or if a copy of everything is no worse. Nothing was written then.

        Raises:
            WorkingCopyError: The files were damaged by something else, or cannot be written.
        """
        page_count, page_size, _ = extent
        assert self.version is not None
        assert changes.page_count is not None
        # Pages that were cut off need nothing: their frames, or the main file, still have them.
        numbers = {1, *(number for number in changes.pages if number <= page_count)}
        if changes.page_size != page_size or len(numbers) * page_size > MOST_TAKEN_BACK:
            return False
        try:
            self.require_intact()
            image = self._acknowledged(extent)
            pages = {number: image.page(number) for number in numbers}
            # A connection keeps a schema as long as its number stays the same, and another schema may get that number.
            if self._newest_header(changes)[SCHEMA_COOKIE] != pages[1][SCHEMA_COOKIE]:
                return False
            pages[1] = pages[1][:MODES_AT] + WAL_MODE + pages[1][MODES_AT + len(WAL_MODE) :]
            return self._append(pages, page_count, page_size, self.version)
        except (FormatError, OSError) as error:
            raise self.damaged(error) from error

    def _newest_header(self, changes: Scan) -> bytes:
        at = changes.pages.get(1)
        if at is not None:
            return os.pread(self._wal, DATABASE_HEADER, at)
        at = None if changes.restarted else self._pages.get(1)
        return os.pread(self._main, DATABASE_HEADER, 0) if at is None else os.pread(self._wal, DATABASE_HEADER, at)

    def _append(self, pages: Mapping[int, bytes], page_count: int, page_size: int, version: Version) -> bool:
        """Write pages as one transaction, and acknowledge it. Raises what :func:`append` does not explain."""
        with self._guard.trusted():
            try:
                self._guard.execute("BEGIN IMMEDIATE").close()
            except sqlite3.OperationalError:  # busy
                return False
            try:
                append(self._wal, self._index_maps, pages, page_count, page_size)
            except FormatError:
                return False
            finally:
                self._guard.execute("COMMIT").close()
        found = scan(self._wal, self._index, self._mark)
        if found.restarted:
            self._pages = {}
        self.acknowledge(found, version)
        self.catch_ups += 1
        return True

    def _accepts_foreign_pages(self, page_size: int) -> bool:
        """Whether an empty transaction of the guard really is empty.

        SQLite corrects a stale size in page 1 at the beginning of a write transaction; files that were last written
        before SQLite 3.7.0 have one.
        """
        at = self._pages.get(1)
        raw = os.pread(self._main, DATABASE_HEADER, 0) if at is None else os.pread(self._wal, DATABASE_HEADER, at)
        header = read_header(raw)
        return header.size_is_valid and header.page_size == page_size

    # -- the end --------------------------------------------------------------------------------------------------

    def dispose(self) -> None:
        """Remove the file and close everything. The file goes first, because closing the guard would checkpoint."""
        if self._process != process():  # the files and the connections belong to the parent
            return
        for name in (f"{self.path}", f"{self.path}-wal", f"{self.path}-shm"):
            with suppress(OSError):
                os.unlink(name)
        self.close_idle()
        self._close()

    def close(self) -> None:
        """Close everything and keep the file. The file must be complete, and no session may be in the generation."""
        assert self.complete
        self.close_idle()
        self._close()

    def __del__(self) -> None:
        # For the last generation of a database that nothing refers to any more. A forked child must not touch it.
        if getattr(self, "_is_open", False) and self._process == process():
            with suppress(Exception):
                self.close_idle()
                self._close()

    def _close(self) -> None:
        self._is_open = False
        if hasattr(self, "_guard"):
            self._guard.close()
        if hasattr(self, "_index_maps"):
            self._index_maps.close()
        descriptors = (self._index, self._wal, self._main)
        # Closed again, a number would be somebody else's file by then.
        self._index = self._wal = self._main = -1
        for descriptor in descriptors:
            if descriptor >= 0:
                os.close(descriptor)


def _shape(status: os.stat_result) -> tuple[int, int, int, int]:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
