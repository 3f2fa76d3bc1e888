"""SQLite files on this machine: folders and copies of them, connections that Ctrl-C reaches, and SQLite's checks."""

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
from temaki.wal import DATABASE_HEADER, MODE_AT, ROLLBACK_MODE, FormatError, read_header

_PAGES_AT_ONCE: Final = 4096


@contextmanager
def scratch() -> Iterator[Path]:
    """A private folder that is gone at the end, however that comes.

    Raises:
        WorkingCopyError: There is no place for it.
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
    """Switch a file at rest from WAL mode to rollback mode, so that any tool opens it, in a read-only folder too."""
    with open(path, "r+b") as file:
        file.seek(MODE_AT)
        file.write(ROLLBACK_MODE)


def read_only(path: Path) -> sqlite3.Connection:
    """A connection that cannot write."""
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
    connection.execute("PRAGMA query_only = ON").close()
    return connection


@contextmanager
def interruptible(connection: sqlite3.Connection) -> Iterator[None]:
    """Let Ctrl-C end a statement that takes long.

    Python runs its signal handlers between its own instructions, and a statement of SQLite's is one of them, however
    long it takes. So while a block runs, the handler itself tells SQLite to stop, through a pipe that a thread reads.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard, told = os.pipe()
    os.set_blocking(told, False)
    before = signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    listener = threading.Thread(target=_stop_when_told, args=(heard, connection), name="temaki-interrupt", daemon=True)
    listener.start()
    try:
        yield
    except sqlite3.OperationalError as error:
        # The handler has its turn now, if it was a signal that ended the statement.
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
            raise KeyboardInterrupt from None
        raise
    finally:
        signal.set_wakeup_fd(before)
        os.close(told)
        listener.join()
        os.close(heard)


def _stop_when_told(heard: int, connection: sqlite3.Connection) -> None:
    while data := os.read(heard, 64):
        if any(number in SIGNALS for number in data):
            with suppress(sqlite3.Error):
                connection.interrupt()


def problems(path: Path) -> list[str]:
    """What SQLite's own checks find wrong with a database; nothing, usually."""
    try:
        with closing(read_only(path)) as connection, interruptible(connection):
            found = [row[0] for row in connection.execute("PRAGMA integrity_check")]
            broken = [
                f"row {rowid} of {table} refers to a row of {parent} that is not there (foreign key {number})"
                for table, rowid, parent, number in connection.execute("PRAGMA foreign_key_check")
            ]
    except sqlite3.Error as error:
        return [str(error)]
    return [text for text in found if text != "ok"] + broken


def copy_at_rest(source: Path, folder: Path, name: str | None = None) -> Path:
    """A copy of somebody's SQLite file, consistent whoever is writing to it, with what its WAL has committed.

    Args:
        source: The file.
        folder: For the copy.
        name: What the file is called in messages, if that is not its path.

    Raises:
        WorkingCopyError: The file cannot be read.
        CorruptDatabaseError: It is no SQLite database, or a damaged one.
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
            # One snapshot of theirs, in pieces of ours: between two of them Ctrl-C is heard.
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
        # A file in WAL mode in a folder that may not be written to. Without a WAL beside it, it is all there is.
        if os.path.exists(f"{source}-wal"):
            raise
        connection = sqlite3.connect(f"{uri}?immutable=1", uri=True)
    return connection
