"""A folder that behaves as a bucket: conditional writes, versions and metadata, on plain files.

The object ``key`` is the file ``folder/key``. What a file cannot carry is beside it, in
``folder/.temaki/<hash of the key>/``: a lock, and one *sidecar* with ETag and metadata.

A writer prepares the new file and, from what ``fstat`` says of it, its sidecar. The rename of the file then puts both
in force at once: see :mod:`temaki.stores.sidecar`. A crash before it leaves the old version, a crash after it the new
one. What is left over goes with the next write.

Readers take no lock: they open the file and look for the sidecar of what they opened. A file without one was put there
by another tool; it gets an ETag from inode, time and size, and no metadata.

It does not protect from other tools that write at the same moment, and needs a file system with ``flock`` and with
times that stay as they are: any local one on Linux or macOS.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Self
from urllib.parse import quote

from temaki.errors import (
    BucketNotFoundError,
    NotFoundError,
    PreconditionFailedError,
    StoreError,
    StoreUnavailableError,
)
from temaki.store import Download, ObjectInfo, ReadableBody, Store
from temaki.stores.filesystem import PIECE, FileLocks, Progress, sync_folder, translated, write_durably
from temaki.stores.rules import check_conditions, check_range, checked_key, checked_metadata, cut_range, no_copy
from temaki.stores.sidecar import STATE, etag_of, name_of, read_sidecar, state_of, sweep, write_sidecar

_ATTEMPTS = 100


class DirectoryStore:
    """One folder as a bucket, shared by any number of threads and processes of one machine.

    Args:
        folder: An existing folder. A relative path is taken from the current working folder, now.
        lock_timeout: How long a write waits for other writers of the same key, in seconds.
    """

    honours_conditions = True

    def __init__(self, folder: str | os.PathLike[str], *, lock_timeout: float = 15.0) -> None:
        self.folder = Path(os.path.abspath(folder))
        self.url = "file://" + quote(str(self.folder))
        self._locks = FileLocks(lock_timeout)

    def __repr__(self) -> str:
        return f"DirectoryStore({str(self.folder)!r})"

    def get(
        self,
        key: str,
        *,
        if_none_match: str | None = None,
        if_match: str | None = None,
        byte_range: tuple[int, int] | None = None,
    ) -> Download | None:
        """See :meth:`temaki.store.Store.get`."""
        url = self._url(key)
        check_conditions(if_match, if_none_match, url)
        check_range(byte_range, url)
        with translated(url):
            handle, info = self._open(key)
            try:
                if if_match is not None and info.etag != if_match:
                    raise _refused(url, f"its ETag is {info.etag}, no longer {if_match}")
                if info.etag == if_none_match:
                    os.close(handle)
                    return None
                start, stop = cut_range(byte_range, info.size, url)
                return _FileDownload(handle, info, start, stop, url)
            except StoreError:
                os.close(handle)
                raise

    def head(self, key: str) -> ObjectInfo:
        """See :meth:`temaki.store.Store.head`."""
        with translated(self._url(key)):
            handle, info = self._open(key)
            os.close(handle)
            return info

    def put(
        self,
        key: str,
        body: bytes | ReadableBody,
        *,
        metadata: Mapping[str, str] | None = None,
        if_match: str | None = None,
        if_none_match: bool = False,
    ) -> str:
        """See :meth:`temaki.store.Store.put`. Durable when it returns: files and folders are synced."""
        url = self._url(key)
        check_conditions(if_match, if_none_match, url)
        checked = checked_metadata(metadata, url)
        etag = secrets.token_hex(16)
        progress = Progress()
        with self._writing(key, progress) as state:
            self._check(key, if_match, if_none_match=if_none_match)
            new = sidecar = state / f"new-{etag}"
            try:
                sidecar = state / name_of(write_durably(new, body))
                write_sidecar(sidecar, etag, checked)
                sync_folder(state)
                # Only other tools can have come in between; this makes the moment for that a short one.
                self._check(key, if_match, if_none_match=if_none_match)
                self._move_in(new, key, progress)
            except BaseException:
                if not progress.landed:
                    for path in {new, sidecar}:
                        with suppress(OSError):
                            path.unlink()
                raise
            for parent in self._path(key).relative_to(self.folder).parents:
                sync_folder(self.folder / parent)  # all of them: another writer may have made one, and not come so far
            sweep(state, keep=sidecar.name)
        return etag

    def delete(self, key: str) -> None:
        """See :meth:`temaki.store.Store.delete`."""
        progress = Progress()
        path = self._path(key)
        with self._writing(key, progress) as state:
            with suppress(FileNotFoundError):
                path.unlink()
                progress.landed = True
                sync_folder(path.parent)
            sweep(state, keep=None)
            # A folder that only this key made would stand in the way of an object with the folder's name.
            for parent in path.relative_to(self.folder).parents[:-1]:
                try:
                    (self.folder / parent).rmdir()
                except OSError:
                    break

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See :meth:`temaki.store.Store.list`. Not one moment: an object that is written meanwhile may be missed."""
        for key in sorted(self._keys(prefix), key=str.encode):
            with suppress(NotFoundError), translated(self._url(key)):
                handle, info = self._open(key)
                os.close(handle)
                yield ObjectInfo(info.key, info.etag, info.size, {}, info.last_modified, None)

    def can_copy(self, source: Store) -> bool:
        """See :meth:`temaki.store.CopyingStore.can_copy`: from any folder of this machine."""
        return isinstance(source, DirectoryStore)

    def copy(
        self,
        source: Store,
        info: ObjectInfo,
        key: str,
        *,
        metadata: Mapping[str, str] | None = None,
        if_none_match: bool = False,
    ) -> str:
        """See :meth:`temaki.store.CopyingStore.copy`. From disk to disk, without a request."""
        if not isinstance(source, DirectoryStore):
            raise no_copy(self.url, source)
        download = source.get(info.key, if_match=info.etag)
        assert download is not None, "only if_none_match has no body"
        with download:
            return self.put(key, _DownloadedBody(download), metadata=metadata, if_none_match=if_none_match)

    def _keys(self, prefix: str) -> Iterator[str]:
        def failed(error: OSError) -> None:
            if not isinstance(error, FileNotFoundError):
                raise error

        self._check_bucket()
        with translated(self.url):
            for parent, folders, names in os.walk(self.folder, onerror=failed):
                relative = Path(parent).relative_to(self.folder)
                if relative == Path():
                    folders[:] = [name for name in folders if name.casefold() != STATE]
                for name in names:
                    key = (relative / name).as_posix()
                    with suppress(UnicodeEncodeError, OSError):
                        key.encode()  # A name that is not UTF-8 is no key.
                        if key.startswith(prefix) and stat.S_ISREG((self.folder / key).stat().st_mode):
                            yield key

    def _url(self, key: str) -> str:
        return f"{self.url}/{quote(key)}" if key.isprintable() else f"{self.url}/{key!r}"

    def _path(self, key: str) -> Path:
        segments = checked_key(key, self.url).split("/")
        if {"", ".", ".."} & set(segments) or "\0" in key or segments[0].casefold() == STATE:
            message = (
                f"{self.url} cannot have an object named {key!r}: in a folder a key is a relative path without empty "
                f"parts, '.', '..' and NUL, and not under {STATE!r}."
            )
            raise StoreError(message, url=self.url, status=None, code="InvalidKey")
        return self.folder / key

    def _check_bucket(self) -> None:
        with translated(self.url):
            try:
                found = stat.S_ISDIR(self.folder.stat().st_mode)
            except (FileNotFoundError, NotADirectoryError):
                found = False
        if not found:
            message = (
                f"The folder of {self.url} does not exist. Create it (mkdir -p {str(self.folder)!r}), or mount it."
            )
            raise BucketNotFoundError(message, url=self.url, status=None, code="NoSuchBucket")

    @contextmanager
    def _writing(self, key: str, progress: Progress) -> Iterator[Path]:
        """The folder with the key's lock and sidecar, locked, with errors dressed."""
        url = self._url(key)
        self._path(key)
        state = state_of(self.folder, key)
        with translated(url, progress):
            self._check_bucket()
            for path in (state.parent, state):
                with suppress(FileExistsError):
                    path.mkdir(mode=0o700)
            with self._locks.hold(state / "lock", url) as lock:
                if os.fstat(lock).st_size == 0:  # Nobody has come as far as this since the folders were made.
                    sync_folder(state.parent)
                    sync_folder(self.folder)
                    os.write(lock, b"\n")
                yield state

    def _move_in(self, new: Path, key: str, progress: Progress) -> None:
        path = self._path(key)
        for attempt in range(_ATTEMPTS):
            try:
                _make_folders(path.parent, self.folder)
                new.replace(path)
            except FileNotFoundError:  # A delete of another key has just removed a folder that was empty.
                self._check_bucket()
                if attempt == _ATTEMPTS - 1:
                    raise
            else:
                progress.landed = True
                return

    def _check(self, key: str, if_match: str | None, *, if_none_match: bool) -> None:
        """Refuse a write whose condition does not hold."""
        if if_match is None and not if_none_match:
            return
        url = self._url(key)
        try:
            handle, current = self._open(key)
        except NotFoundError as error:
            if if_match is not None:
                raise _refused(url, "it does not exist") from error
            return
        os.close(handle)
        if if_none_match:
            raise _refused(url, f"it exists, with the ETag {current.etag}")
        if current.etag != if_match:
            raise _refused(url, f"its ETag is {current.etag}, no longer {if_match}")

    def _open(self, key: str) -> tuple[int, ObjectInfo]:
        """A descriptor of the object's file, and what is known of exactly that file."""
        path = self._path(key)
        for _ in range(_ATTEMPTS):
            try:
                # Opening a FIFO would wait for a writer.
                handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except FileNotFoundError as error:
                raise self._missing(key) from error
            except NotADirectoryError:
                self._check_bucket()
                raise
            try:
                info = self._info(key, path, os.fstat(handle))
            except BaseException:
                os.close(handle)
                raise
            if info is not None:
                return handle, info
            os.close(handle)
        url = self._url(key)
        message = f"{url} is being replaced faster than it can be opened ({_ATTEMPTS} attempts). Try again."
        raise StoreUnavailableError(message, url=url, status=None, code="Busy", ambiguous=False)

    def _info(self, key: str, path: Path, facts: os.stat_result) -> ObjectInfo | None:
        """What is known of an open file; None if it was replaced before its sidecar could be read."""
        if not stat.S_ISREG(facts.st_mode):
            url = self._url(key)
            raise StoreError(f"{url} is a folder, or no plain file. Choose another key.", url=url, code="NotAFile")
        name = name_of(facts)
        try:
            etag, metadata = read_sidecar(state_of(self.folder, key) / name, self._url(key))
        except FileNotFoundError:
            # A writer removes a sidecar after the rename: is the name still this file's, there never was one.
            try:
                if name_of(path.stat()) != name:
                    return None
            except FileNotFoundError:
                return None
            etag, metadata = etag_of(name), {}
        modified = datetime.fromtimestamp(facts.st_mtime_ns / 1e9, UTC)
        return ObjectInfo(key, etag, facts.st_size, metadata, modified, datetime.now(UTC))

    def _missing(self, key: str) -> StoreError:
        self._check_bucket()
        url = self._url(key)
        path = self._path(key)
        for name in (path, *path.parents):
            if name.is_symlink() and not name.exists():  # a volume that is not mounted, say: no "no such object"
                message = f"{url} cannot be found: {name} links to what does not exist. Mount or mend it."
                return StoreError(message, url=url, status=None, code="DanglingLink")
        return NotFoundError(f"{url} does not exist.", url=url, status=None, code="NoSuchKey")


class _FileDownload:
    def __init__(self, handle: int, info: ObjectInfo, start: int, stop: int, url: str) -> None:
        self.info = info
        self.length = stop - start
        self._file = open(handle, "rb", buffering=0)  # noqa: SIM115 - closed by __exit__, or with this object
        self._name = name_of(os.fstat(handle))
        self._left = self.length
        self._url = url
        self._file.seek(start)

    def read(self, size: int, /) -> bytes:
        if size <= 0 or not self._left:
            return b""
        with translated(self._url):
            data = self._file.read(min(size, self._left, PIECE)) or b""
            self._left -= len(data)
            changed = not data or (not self._left and name_of(os.fstat(self._file.fileno())) != self._name)
        if changed:
            message = f"{self._url} was changed by another program while it was read. Read it again."
            raise StoreUnavailableError(message, url=self._url, status=None, code="Changed", ambiguous=False)
        return data

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()


class _DownloadedBody:
    """A download as the body of a write, which reads it once, from its start to its end."""

    def __init__(self, download: Download) -> None:
        self._download, self._at = download, 0

    def read(self, size: int = -1, /) -> bytes:
        data = self._download.read(size)
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = 0, /) -> int:
        assert (offset, whence, self._at) == (0, 0, 0), "a write reads its body once"
        return 0

    def tell(self) -> int:
        return self._at


def _make_folders(path: Path, root: Path) -> None:
    if path != root and not path.is_dir():
        _make_folders(path.parent, root)
        with suppress(FileExistsError):
            path.mkdir(mode=0o700)


def _refused(url: str, why: str) -> PreconditionFailedError:
    message = f"The condition for {url} does not hold: {why}."
    return PreconditionFailedError(message, url=url, status=None, code="PreconditionFailed", in_flight=False)
