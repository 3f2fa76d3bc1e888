"""The folder that a process keeps its working copy in.

One process owns a folder, through a lock that it holds for its life; a second process on the same ``cache_dir`` gets
a private folder beside it. Without ``cache_dir`` the folder is private and temporary, and is removed at exit. Folders
of processes that were killed are removed by the next one to come.

A file in the folder is trusted by a later process only with a positive mark: the **clean record**. It is removed
before every local COMMIT and written again only when everything in the file is acknowledged and checkpointed. It names
the boot of the machine as well, since nothing here is ever flushed to the disk: after a power cut nothing is trusted.
(The absence of a WAL proves nothing: an interpreter that exits checkpoints whatever it finds.)
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

_log = logging.getLogger(__name__)
_LOCK = "owner.lock"
_RECORD = "clean.json"


class Folder:
    """One process's place for the generations of one database.

    Args:
        url: The database's URL; the folder's name derives from a hash of it.
        cache_dir: Where to keep it between processes, or None for a private temporary folder.

    Raises:
        WorkingCopyError: The folder cannot be made, or is not this user's own.
    """

    def __init__(self, url: str, cache_dir: Path | None) -> None:
        self.url = url
        import tempfile  # takes 2 ms to import, which binding alone need not pay

        digest = hashlib.sha256(url.encode()).hexdigest()[:24]
        with self.errors_named(cache_dir or Path(tempfile.gettempdir())):
            if cache_dir is None:
                parent, prefix = Path(tempfile.gettempdir()), f"temaki-{os.getuid()}-"
                self.path, self._lock_fd = _private(parent, prefix)
                self.reusable = False
            else:
                parent, prefix = cache_dir.expanduser().absolute(), f"{digest}-"
                parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self.path, self._lock_fd, self.reusable = _shared(parent, digest, prefix)
            # Both names are realpaths, so that an authorizer can compare them.
            self.path = Path(os.path.realpath(self.path))
            _sweep(parent, prefix, keep=self.path.name)
        # Not at exit, after which handlers of atexit may begin sessions: the replica closes it then (see lease_exit).
        self._removal = weakref.finalize(self, _remove, str(self.path), os.getpid()) if not self.reusable else None
        if self._removal is not None:
            self._removal.atexit = False
        self._numbers = itertools.count(1 + max((_number(entry.name) for entry in self.path.iterdir()), default=0))

    def next_path(self) -> Path:
        """The name of the next generation's file; nothing is there yet."""
        return self.path / f"{next(self._numbers)}.sqlite"

    def record(self, path: Path, version: Mapping[str, Any]) -> None:
        """Say that ``path`` holds exactly this version, acknowledged and checkpointed.

        Failing to say so only costs the next process a download, so it is logged and not raised.
        """
        boot = _boot_id()
        if not self.reusable or boot is None:
            return
        try:
            status = path.stat()
            text = json.dumps(
                {"format": 1, "boot": boot, "file": path.name, "size": status.st_size, "version": dict(version)}
            )
            temporary = self.path / f"{_RECORD}.new"
            with open(temporary, "w", encoding="utf-8", opener=_open_private) as file:
                file.write(text)
            temporary.replace(self.path / _RECORD)
        except OSError as error:
            _log.debug("No clean record for %s: %s", self.url, error)

    def forget(self) -> None:
        """Withdraw the clean record: from here on the file may hold what no store has accepted."""
        if self.reusable:
            (self.path / _RECORD).unlink(missing_ok=True)

    def reuse(self) -> tuple[Path, dict[str, Any]] | None:
        """The file that an earlier process left clean, with its version, or None. Everything else here is removed."""
        found = self._recorded() if self.reusable else None
        for entry in self.path.iterdir():
            if entry.name in {_LOCK, _RECORD} or (found and entry == found[0]):
                continue
            entry.unlink(missing_ok=True)
        return found

    def _recorded(self) -> tuple[Path, dict[str, Any]] | None:
        try:
            record = json.loads((self.path / _RECORD).read_text(encoding="utf-8"))
            path = self.path / Path(record["file"]).name
            status = path.lstat()
            clean = (
                record["format"] == 1
                and record["boot"] == _boot_id() is not None
                and stat.S_ISREG(status.st_mode)
                and status.st_size == record["size"]
            )
            version = record["version"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return (path, version) if clean and isinstance(version, dict) else None

    def close(self) -> None:
        """Give it up: a private folder is removed, another process may have the other kind. Do not use it again."""
        if self._removal is not None and self._removal.detach() is not None:
            _remove(str(self.path), os.getpid())  # a finalizer does nothing any more once the process ends
        lock, self._lock_fd = self._lock_fd, -1
        if lock >= 0:
            with contextlib.suppress(OSError):
                os.close(lock)

    @contextlib.contextmanager
    def errors_named(self, path: Path) -> Iterator[None]:
        """File system errors in here become :class:`WorkingCopyError`, naming ``path``."""
        try:
            yield
        except OSError as error:
            raise WorkingCopyError(
                f"The working copy of {self.url} cannot be kept in {path}: {error.strerror or error}. "
                "Free some space or set cache_dir to a folder of your own on another disk.",
                url=self.url,
                path=str(path),
            ) from error


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)  # whatever the umask


def _private(parent: Path, prefix: str) -> tuple[Path, int]:
    """A new folder with an unpredictable name, mode 0700, locked."""
    import tempfile

    while True:
        path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        lock = _lock(path)
        if lock is not None:  # else a sweep took it for a dead one's in the moment before it was locked
            return path, lock


def _shared(parent: Path, name: str, prefix: str) -> tuple[Path, int, bool]:
    """The folder that processes take over from each other, or a private one while another process owns it."""
    path = parent / name
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise PermissionError(0, f"{path} is not a folder of this user's own")
    path.chmod(0o700)
    lock = _lock(path)
    if lock is not None:
        return path, lock, True
    return (*_private(parent, prefix), False)


def _lock(folder: Path) -> int | None:
    """Take the folder's lock without waiting; the descriptor that holds it, or None."""
    name = folder / _LOCK
    try:
        lock = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The one who swept the folder away held the lock of a file that now has no name.
        if os.fstat(lock).st_ino == name.stat().st_ino:
            return lock
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(lock)
    return None


def _sweep(parent: Path, prefix: str, *, keep: str) -> None:
    """Remove the private folders of processes that ended without doing so. Never waits, never fails."""
    import shutil

    with contextlib.suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            if not entry.name.startswith(prefix) or entry.name == keep:
                continue
            with contextlib.suppress(OSError):
                if entry.stat(follow_symlinks=False).st_uid != os.getuid() or not entry.is_dir(follow_symlinks=False):
                    continue
                if not os.path.exists(os.path.join(entry.path, _LOCK)):
                    # Its maker died before it had locked it; or has yet to do so, and will make another one then.
                    os.rmdir(entry.path)
                    continue
                lock = _lock(Path(entry.path))
                if lock is not None:
                    shutil.rmtree(entry.path, ignore_errors=True)
                    os.close(lock)


def _remove(path: str, owner: int) -> None:
    import shutil

    if os.getpid() == owner:  # a forked child inherits the finalizer, not the folder
        shutil.rmtree(path, ignore_errors=True)


def _number(name: str) -> int:
    head = name.partition(".")[0]
    return int(head) if head.isdecimal() else 0


def _boot_id() -> str | None:
    """What tells one boot of this machine from the next, or None where there is nothing to tell it by."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None
