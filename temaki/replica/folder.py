"""The folder in which a process keeps its working copy.

One process owns a folder, by a lock that it holds for its whole life. A second process on the same ``cache_dir`` gets a
private folder beside it. Without ``cache_dir`` the folder is private and temporary, and is removed at exit. The next
process removes the folders of processes that were killed.

A later process trusts a file in the folder only if the **clean record** names it. The record is removed before every
local COMMIT. It is written again only when everything in the file is acknowledged and checkpointed. It also names the
boot of the machine, because nothing here is ever flushed to the disk: after a power cut no file is trusted. (The
absence of a WAL proves nothing: an interpreter that exits checkpoints everything.)

The process locks a file and the folder itself. systemd-tmpfiles does not clean a folder on which a process holds a BSD
lock ("Cleanup", tmpfiles.d(5)). And if a cleaner removes the file, the folder's lock still keeps a second process out.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import itertools
import json
import logging
import os
import stat
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from temaki.errors import WorkingCopyError
from temaki.process.fork import process

_log = logging.getLogger(__name__)
_LOCK = "owner.lock"
_RECORD = "clean.json"
_FORMAT = 2  # of the clean record
# Numbers of files, unique in this process over all folders: a generation that is over removes its files by their names.
_numbers = itertools.count(1)


class Folder:
    """The folder in which one process keeps the generations of one database.

    Args:
        url: The database's URL. The folder's name comes from a hash of it.
        cache_dir: Parent folder that stays between processes; None for a private temporary folder.

    Raises:
        WorkingCopyError: The folder cannot be made, or belongs to another user.
    """

    def __init__(self, url: str, cache_dir: Path | None) -> None:
        self.url = url
        digest = hashlib.sha256(url.encode()).hexdigest()[:24]
        with self.errors_named(cache_dir or "the temporary folder"):
            if cache_dir is None:
                parent, prefix = _temporary(), f"temaki-{os.getuid()}-"
                self.path, self._lock = _private(parent, prefix)
                self.reusable = False
            else:
                parent, prefix = _expanded(cache_dir), f"{digest}-"
                parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self.path, self._lock, self.reusable = _shared(parent, digest, prefix)
            # A real path, so that an authorizer can compare it with SQLite's names.
            self.path = Path(os.path.realpath(self.path))
        self._end = weakref.finalize(self, _end, self._lock, None if self.reusable else str(self.path), process())
        # Not at exit: later handlers of atexit may still begin sessions. Then the replica releases the folder (see
        # temaki.process.exit).
        self._end.atexit = False
        _sweep(parent, prefix, keep=self.path.name)

    def is_intact(self) -> bool:
        """Whether the folder and its lock are still the ones that this process made or took over."""
        return self._lock.is_intact(self.path)

    def next_path(self) -> Path:
        """Choose a name for the next generation's file: this process has not used it, and no such file exists."""
        while True:
            path = self.path / f"{next(_numbers)}.sqlite"
            if not os.path.lexists(path):
                return path

    def release(self) -> None:
        """Release the lock, and remove a private folder. Repeated calls have no further effect."""
        pending = self._end.detach()
        if pending is not None:  # called directly, because a finalizer does nothing once the process ends
            _, end, arguments, _ = pending
            end(*arguments)

    def die(self) -> None:
        """Act like ``kill -9``: release the lock, and leave everything in place. For tests."""
        if self._end.detach() is not None:
            self._lock.close()

    def record(self, path: Path, version: Mapping[str, Any]) -> None:
        """Write the clean record: ``path`` holds exactly this version, acknowledged and checkpointed.

        A failure is logged and not raised: it only costs the next process a download.
        """
        boot = _boot_id()
        if not self.reusable or boot is None:
            return
        try:
            status = path.stat()
            text = json.dumps(
                {
                    "format": _FORMAT,
                    "boot": boot,
                    "file": path.name,
                    "size": status.st_size,
                    "modified": status.st_mtime_ns,
                    "version": dict(version),
                }
            )
            temporary = self.path / f"{_RECORD}.new"
            with open(temporary, "w", encoding="utf-8", opener=_open_private) as file:
                file.write(text)
            temporary.replace(self.path / _RECORD)
        except OSError as error:
            _log.debug("No clean record for %s: %s", self.url, error)

    def forget(self) -> None:
        """Remove the clean record. From here on, the file may hold data that the store has not accepted.

        Raises:
            WorkingCopyError: The record cannot be removed. A missing record is no error.
        """
        if self.reusable:
            with self.errors_named(self.path):
                (self.path / _RECORD).unlink(missing_ok=True)

    def reuse(self) -> tuple[Path, dict[str, Any]] | None:
        """Get the file that an earlier process left clean, with its version, or None. Remove all other files."""
        recorded = self._recorded() if self.reusable else None
        for entry in self.path.iterdir():
            if entry.name in {_LOCK, _RECORD} or (recorded and entry == recorded[0]):
                continue
            if entry.is_dir() and not entry.is_symlink():
                continue  # not made by temaki
            entry.unlink(missing_ok=True)
        return recorded

    def _recorded(self) -> tuple[Path, dict[str, Any]] | None:
        try:
            record = json.loads((self.path / _RECORD).read_text(encoding="utf-8"))
            path = self.path / Path(record["file"]).name
            status = path.lstat()
            clean = (
                record["format"] == _FORMAT
                and record["boot"] == _boot_id() is not None
                and stat.S_ISREG(status.st_mode)
                and (status.st_size, status.st_mtime_ns) == (record["size"], record["modified"])
            )
            version = record["version"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return (path, version) if clean and isinstance(version, dict) else None

    @contextlib.contextmanager
    def errors_named(self, path: Path | str) -> Iterator[None]:
        """Translate file system errors within it to :class:`WorkingCopyError`, with ``path`` in the message."""
        try:
            yield
        except OSError as error:
            raise WorkingCopyError(
                f"The working copy of {self.url} cannot be kept in {path}: {error.strerror or error}. "
                "Free some space, or set cache_dir to a folder of your own that can be written to.",
                url=self.url,
                path=str(path),
            ) from error


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)  # whatever the umask


def _temporary() -> Path:
    import tempfile  # imported here because it takes 2 ms, and binding alone does not need it

    return Path(tempfile.gettempdir())


def _expanded(cache_dir: Path) -> Path:
    try:
        return cache_dir.expanduser().absolute()
    except RuntimeError as error:  # pathlib raises this if there is no such user, or no home
        raise FileNotFoundError(0, f"{error} (cache_dir={str(cache_dir)!r})") from error


def _private(parent: Path, prefix: str) -> tuple[Path, _Lock]:
    """Make a new folder with an unpredictable name and mode 0700, and lock it."""
    import tempfile

    while True:
        path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        lock = _Lock.take(path)
        if lock is not None:  # None if another process removed the folder as abandoned before it was locked
            return path, lock


def _shared(parent: Path, name: str, prefix: str) -> tuple[Path, _Lock, bool]:
    """Lock the folder that processes take over from each other; make a private one if another process owns it."""
    path = parent / name
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    status = path.lstat()
    if stat.S_ISREG(status.st_mode):
        return (*_private(parent, prefix), False)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise PermissionError(0, f"{path} is not a folder that belongs to this user")
    path.chmod(0o700)
    lock = _Lock.take(path)
    if lock is not None:
        return path, lock, True
    return (*_private(parent, prefix), False)


class _Lock:
    """The lock on a folder: two descriptors, each with a BSD lock.

    Args:
        folder: Descriptor of the folder itself.
        file: Descriptor of the lock file in the folder.
    """

    def __init__(self, folder: int, file: int) -> None:
        self._folder, self._file = folder, file

    @classmethod
    def take(cls, path: Path) -> _Lock | None:
        """Take the lock of a folder without waiting; None if another process has it, or the folder is gone."""
        opened: list[int] = []
        try:
            for name, flags in ((path, os.O_RDONLY | os.O_DIRECTORY), (path / _LOCK, os.O_RDWR | os.O_CREAT)):
                opened.append(os.open(name, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
                try:
                    fcntl.flock(opened[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise
                except OSError:
                    if len(opened) > 1:  # some file systems lock files only
                        raise
            lock = cls(*opened)
            # If another process removed the folder meanwhile, the locked file no longer has a name.
            if lock.is_intact(path):
                opened.clear()
                return lock
        except (BlockingIOError, FileNotFoundError):
            pass
        finally:
            for descriptor in opened:
                os.close(descriptor)
        return None

    def is_intact(self, path: Path) -> bool:
        """Whether the locked folder and the locked file still have their names."""
        try:
            return all(
                os.path.samestat(os.fstat(descriptor), os.stat(name, follow_symlinks=False))
                for descriptor, name in ((self._folder, path), (self._file, f"{path}/{_LOCK}"))
            )
        except OSError:
            return False

    def is_folder(self, path: str) -> bool:
        """Whether the folder at ``path`` is the locked one."""
        try:
            return os.path.samestat(os.fstat(self._folder), os.stat(path, follow_symlinks=False))
        except OSError:
            return False

    def close(self) -> None:
        """Release the lock."""
        for descriptor in (self._file, self._folder):
            os.close(descriptor)


def _sweep(parent: Path, prefix: str, *, keep: str) -> None:
    """Remove the private folders that killed processes have left. Never waits, never fails."""
    import shutil

    with contextlib.suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            if not entry.name.startswith(prefix) or entry.name == keep:
                continue
            with contextlib.suppress(OSError):
                if entry.stat(follow_symlinks=False).st_uid != os.getuid() or not entry.is_dir(follow_symlinks=False):
                    continue
                if not os.path.exists(os.path.join(entry.path, _LOCK)):
                    # The process that made it died before it locked it, or has not locked it yet. In that case it makes
                    # another folder.
                    os.rmdir(entry.path)
                    continue
                lock = _Lock.take(Path(entry.path))
                if lock is not None:
                    shutil.rmtree(entry.path, ignore_errors=True)
                    lock.close()


def _end(lock: _Lock, path: str | None, owner: int) -> None:
    if process() != owner:  # a forked child inherits the finalizer, not the folder
        return
    if path is not None and lock.is_folder(path):
        import shutil

        shutil.rmtree(path, ignore_errors=True)
    lock.close()


def _boot_id() -> str | None:
    """Id of this boot of the machine; None if the system has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None
