"""What a folder needs to behave as a bucket: durable writes, a lock between processes, errors of the one hierarchy."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from temaki.errors import AccessDeniedError, StoreError, StoreUnavailableError
from temaki.process.fork import look, reset_in_child
from temaki.store import ReadableBody

PIECE = 1024 * 1024

_NO_PERMISSION = {errno.EACCES, errno.EPERM, errno.EROFS}
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_WAY = {errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL, errno.EXDEV, errno.ENOTEMPTY}


@dataclass(slots=True)
class Progress:
    """How far a write has come.

    Attributes:
        landed: True once others may see the new object: from here on a failure is ambiguous.
    """

    landed: bool = False


@contextmanager
def translated(url: str, progress: Progress | None = None) -> Iterator[None]:
    """Dress every ``OSError`` in one of temaki's errors.

    Args:
        url: Of the object or the folder, for the message.
        progress: Of a write; without it nothing is written, and nothing is ambiguous.
    """
    try:
        yield
    except OSError as error:
        raise _dressed(error, url, ambiguous=progress is not None and progress.landed) from error


def _dressed(error: OSError, url: str, *, ambiguous: bool) -> StoreError:
    code = errno.errorcode.get(error.errno or 0, "OSError")
    reason = f"{error.strerror or error} ({code})"
    facts = {"url": url, "status": None, "code": code}
    where = "" if error.filename is None else f" at {os.fsdecode(error.filename)}"
    if error.errno in _NO_PERMISSION:
        message = f"{url} cannot be accessed: {reason}{where}. Check the owner and the mode of the folder and the file."
        return AccessDeniedError(message, **facts)
    if error.errno in _NO_WAY:
        message = f"{url} cannot be a file here: {reason}{where}. Choose another key, or remove what is in its way."
        return StoreError(message, **facts)
    if error.errno in _NO_SPACE:
        message = f"{url} cannot be written: {reason}{where}. Free some space, then try again."
    else:
        message = f"{url} cannot be read or written: {reason}{where}. Check the disk, then try again."
    return StoreUnavailableError(message, ambiguous=ambiguous, **facts)


def write_durably(path: Path, body: bytes | ReadableBody) -> os.stat_result:
    """Write a new file that survives a power failure (its name does only after :func:`sync_folder`).

    Raises:
        FileExistsError: There is such a file.
    """
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        if isinstance(body, (bytes, bytearray, memoryview)):
            _write_all(handle, memoryview(body))
        else:
            body.seek(0)
            while piece := body.read(PIECE):
                _write_all(handle, memoryview(piece))
        os.fsync(handle)
        return os.fstat(handle)
    finally:
        os.close(handle)


def _write_all(handle: int, data: memoryview) -> None:
    while data:
        data = data[os.write(handle, data) :]


def sync_folder(path: Path) -> None:
    """Make the names in a folder survive a power failure."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # A file system on which folders cannot be synced has nothing to sync there.
            raise
    finally:
        os.close(handle)


def _identity(handle: int) -> tuple[int, int]:
    status = os.fstat(handle)
    return status.st_dev, status.st_ino


class FileLocks:
    """Exclusive locks on files, between threads and processes; the system releases those of a dead process."""

    def __init__(self, timeout: float = 15.0) -> None:
        self._timeout = timeout
        self._held: dict[int, tuple[int, int]] = {}  # descriptors; device and inode of what they are open on
        reset_in_child(self)

    def reset_after_fork(self) -> None:
        """Drop what the parent's other threads hold: if it were killed, its locks would live on in this process."""
        for handle, file in self._held.items():
            with suppress(OSError):  # what a child has closed by now, it may have opened as something else
                if _identity(handle) == file:
                    os.close(handle)
        self._held = {}

    @contextmanager
    def hold(self, path: Path, url: str) -> Iterator[int]:
        """Hold the lock on ``path``, which is created if need be; gives its descriptor.

        Raises:
            StoreUnavailableError: Others hold it for longer than the timeout; nothing was written.
        """
        look()
        held = self._held
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        held[handle] = _identity(handle)
        try:
            self._acquire(handle, url)
            yield handle
        finally:
            look()
            if held is self._held:  # else we are in a child that was forked meanwhile, and it is closed already
                # Closing is not enough: the lock belongs to all copies of the descriptor, and a child that is being
                # forked right now has one. And it comes first: what an interrupt leaves undone here is no lock.
                fcntl.flock(handle, fcntl.LOCK_UN)
                held.pop(handle, None)
                os.close(handle)

    def _acquire(self, handle: int, url: str) -> None:
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    message = f"{url} has been locked by other writers for {self._timeout} s. Try again later."
                    facts = {"url": url, "status": None, "code": "Locked", "ambiguous": False}
                    raise StoreUnavailableError(message, **facts) from error
                # flock() cannot wait with a timeout; a write takes some milliseconds.
                time.sleep(random.uniform(0.0005, 0.005))  # noqa: S311
            else:
                return
