"""SQLite files on this machine: copies, temporary folders, connections that Ctrl-C interrupts, and SQLite's checks."""

from __future__ import annotations

import os
import signal
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

from temaki.cli.streams import SIGNALS, undisturbed
from temaki.errors import CorruptDatabaseError, WorkingCopyError
from temaki.replica.header import DATABASE_HEADER, MODES_AT, ROLLBACK_MODE, FormatError, read_header

_PAGES_AT_ONCE: Final = 4096


@contextmanager
def scratch() -> Iterator[Path]:
    """Make a private folder that is deleted at the end, even after an error.

    Raises:
        WorkingCopyError: The folder cannot be made.
    """
    try:
        with undisturbed():
            folder = tempfile.TemporaryDirectory(prefix="temaki-")
    except OSError as error:
        raise WorkingCopyError(
            f"No folder can be made for the local copy: {error.strerror or error}. Set TMPDIR to a folder that this "
            "user may write to.",
            path=tempfile.tempdir or "",
            url="",
        ) from error
    try:
        yield Path(folder.name)
    finally:
        with undisturbed():
            folder.cleanup()


def make_plain(path: Path) -> None:
    """Switch a closed file from WAL mode to rollback mode, so that any tool opens it, even in a read-only folder."""
    with open(path, "r+b") as file:
        file.seek(MODES_AT)
        file.write(ROLLBACK_MODE)


def read_only(path: Path) -> sqlite3.Connection:
    """Open a connection that cannot write."""
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
    connection.execute("PRAGMA query_only = ON").close()
    return connection


@contextmanager
def interruptible(connection: sqlite3.Connection) -> Iterator[None]:
    """Let Ctrl-C end a long statement while a block runs.

    Python runs its signal handlers between its own instructions. A statement of SQLite is one instruction, however long
    it takes. So the signal writes to a pipe, and a thread that reads the pipe tells SQLite to stop.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    before = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    listener = threading.Thread(
        target=_interrupt_on_signal, args=(read_end, connection), name="temaki-interrupt", daemon=True
    )
    listener.start()
    try:
        yield
    except sqlite3.OperationalError as error:
        # If a signal ended the statement, Python runs its handler now.
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
            raise KeyboardInterrupt from None
        raise
    finally:
        signal.set_wakeup_fd(before)
        os.close(write_end)
        listener.join()
        os.close(read_end)


def _interrupt_on_signal(pipe: int, connection: sqlite3.Connection) -> None:
    while data := os.read(pipe, 64):
        if any(number in SIGNALS for number in data):
            with suppress(sqlite3.Error):
                connection.interrupt()


def problems(path: Path) -> list[str]:
    """Return the problems that SQLite's own checks find in a database; empty for a sound one."""
    try:
        with closing(read_only(path)) as connection, interruptible(connection):
            integrity = [row[0] for row in connection.execute("PRAGMA integrity_check")]
            broken_links = [
                f"row {rowid} of {table} refers to a row of {parent} that is not there (foreign key {number})"
                for table, rowid, parent, number in connection.execute("PRAGMA foreign_key_check")
            ]
    except sqlite3.Error as error:
        return [str(error)]
    return [text for text in integrity if text != "ok"] + broken_links


def copy_at_rest(source: Path, folder: Path, name: str | None = None) -> Path:
    """Make a consistent copy of a SQLite file, with what its WAL has committed, while other programs may write to it.

    Args:
        source: The file.
        folder: The folder for the copy.
        name: The file's name in messages. The default is its path.

    Returns:
        The copy, in rollback mode.

    Raises:
        WorkingCopyError: The file cannot be read.
        CorruptDatabaseError: The file is no SQLite database, or it is damaged.
    """
    name = name or str(source)
    try:
        with open(source, "rb") as file:
            read_header(file.read(DATABASE_HEADER))
    except OSError as error:
        raise WorkingCopyError(
            f"{name} cannot be read: {error.strerror}. Name another file.", path=str(source), url=""
        ) from error
    except FormatError as error:
        raise CorruptDatabaseError(f"{name} is no SQLite database: {error}. Nothing was stored.", url=name) from error
    path = folder / "push.sqlite"
    try:
        with closing(_open_for_copying(source)) as theirs, closing(sqlite3.connect(path)) as ours:
            # The transaction pins one snapshot. The copy goes in pieces, and Ctrl-C takes effect between two of them.
            theirs.execute("BEGIN").close()
            theirs.execute("SELECT count(*) FROM sqlite_master").close()
            theirs.backup(ours, pages=_PAGES_AT_ONCE, progress=lambda *_: None)
    except sqlite3.Error as error:
        raise CorruptDatabaseError(
            f"{name} cannot be read as a database: {error}. Nothing was stored.", url=name
        ) from error
    make_plain(path)
    return path


def _open_for_copying(source: Path) -> sqlite3.Connection:
    uri = source.absolute().as_uri()
    try:
        connection = sqlite3.connect(f"{uri}?mode=ro", uri=True)
        connection.execute("SELECT count(*) FROM sqlite_master").close()
    except sqlite3.OperationalError:
        # A file in WAL mode in a read-only folder. Without a WAL beside it, the file alone is the whole database.
        if os.path.exists(f"{source}-wal"):
            raise
        connection = sqlite3.connect(f"{uri}?immutable=1", uri=True)
    return connection
