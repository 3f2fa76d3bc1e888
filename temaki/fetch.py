"""Getting a version out of the store and into a local file, and believing nothing that has not been checked."""

from __future__ import annotations

import contextlib
import os
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Self

from temaki.errors import CorruptDatabaseError, PreconditionFailedError, StoreUnavailableError, WorkingCopyError
from temaki.retry import retry
from temaki.version import SEQUENCE_KEY, MetadataError, NewerFormatError, Version, read_version
from temaki.wal import DATABASE_HEADER, FormatError, read_header

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator
    from pathlib import Path

    from temaki.clock import Clock
    from temaki.store import Download, ObjectInfo, Store
    from temaki.wal import DatabaseHeader

_CHUNK: Final = 1 << 20  # bytes that each stream holds in memory
_STREAMS: Final = 4
_WAL_MODE: Final = b"\x02\x02"
_WAL_MODE_AT: Final = 18


class Source:
    """Where fetches go to: one object, with the patience and the parallelism that its remote has.

    Args:
        store: The bucket.
        key: The object's key.
        url: The database's URL, for messages.
        clock: Time.
        timeout: Seconds after which no new attempt is made.
        rng: For the jitter between attempts.
        parallel_threshold: What each of several parallel streams has to carry at least, in bytes.
    """

    def __init__(  # noqa: PLR0917 - one call, from Remote
        self,
        store: Store,
        key: str,
        url: str,
        clock: Clock,
        timeout: float,
        rng: random.Random,
        parallel_threshold: int,
    ) -> None:
        self.store, self.key, self.url = store, key, url
        self.clock, self.timeout, self.rng = clock, timeout, rng
        self.parallel_threshold = parallel_threshold

    def open(self, etag: str | None) -> Fetched | None:
        """See :meth:`temaki.remote.Remote.fetch`."""
        deadline = self.deadline()
        started = retry(lambda: self.start(etag), clock=self.clock, deadline=deadline, rng=self.rng)
        return None if started is None else Fetched(self, started)

    def deadline(self) -> float:
        """For what begins now."""
        return self.clock.monotonic() + self.timeout

    def start(self, etag: str | None = None) -> Started | None:
        """One GET, as far as the header of the database; None where the object still has that ETag."""
        download = self.store.get(self.key, if_none_match=etag)
        if download is None:
            return None
        try:
            return Started(download, self.url)
        except BaseException:
            download.__exit__(None, None, None)
            raise


class Started:
    """A download of which the first bytes have come, and have been found good.

    Attributes:
        download: The rest of it.
        first: The database's header.
        version: What it is.

    Raises:
        CorruptDatabaseError: It is no database, or not all of one.
        StoreUnavailableError: The body ended early.
    """

    def __init__(self, download: Download, url: str) -> None:
        self.download = download
        self.first = b""
        wanted = min(DATABASE_HEADER, download.info.size)
        while len(self.first) < wanted:
            data = download.read(wanted - len(self.first))
            if not data:
                raise _ended_early(download, len(self.first))
            self.first += data
        self.version = _checked_version(download.info, self.first, url)


class Fetched:
    """A version that is on its way. Look at :attr:`version` first; :meth:`save` it, or leave it and drop the rest.

    Use it as a context manager.

    Attributes:
        version: What :meth:`save` will write, or has written: if the download has to begin again, it is what the
            store has by then.
    """

    def __init__(self, source: Source, started: Started) -> None:
        self._source = source
        self._started: Started | None = started
        self.version = started.version

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        started, self._started = self._started, None
        if started is not None:
            started.download.__exit__(*exc)

    def save(self, path: Path) -> None:
        """Write the version into a new file: the object's bytes, switched to WAL mode.

        (Bytes 18 and 19 of the header become 2, so that SQLite need not write in order to switch.) The file has mode
        0600. It is not flushed to the disk.

        Raises:
            CorruptDatabaseError: What the store has by now is no database.
            NotFoundError: It was deleted meanwhile.
            StoreError: The download failed, also when repeated.
            WorkingCopyError: The file exists, or cannot be written. In all cases, no new file is left.
        """
        source = self._source
        with _dressed(path, source.url):
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        target = _Target(fd, path, source.url)
        try:
            # PreconditionFailedError: replaced between two ranges. Another GET gives what is there now.
            retry(
                lambda: self._save_once(target),
                clock=source.clock,
                deadline=source.deadline(),
                rng=source.rng,
                on=(StoreUnavailableError, PreconditionFailedError),
            )
            target.close()
        except BaseException:
            target.discard()
            raise

    def _save_once(self, target: _Target) -> None:
        started, self._started = self._started, None
        if started is None:
            started = self._source.start()
            assert started is not None, "an unconditional GET has a body"
            self.version = started.version
        with contextlib.ExitStack() as stream:
            stream.enter_context(started.download)
            size = started.version.size
            streams = min(_STREAMS, size // max(1, self._source.parallel_threshold))
            target.begin()
            target.write(started.first, 0)
            if streams > 1:
                _Parts(self._source, target, started, streams).run(stream)
            else:
                _copy(started.download, target, len(started.first), size)
        target.finish()


class _Target:
    """The file that is being written. Only its errors are errors of the working copy."""

    def __init__(self, fd: int, path: Path, url: str) -> None:
        self._fd, self._path, self._url = fd, path, url

    def begin(self) -> None:
        """Take back what an attempt before this one has left, if there was one.

        A new file is not truncated: ext4 takes that for an old one being replaced, and starts to write all of it to
        the disk when it is closed (mount option ``auto_da_alloc``; 45 ms for 100 MB, where the download took 120).
        """
        with _dressed(self._path, self._url):
            if os.fstat(self._fd).st_size:
                os.ftruncate(self._fd, 0)

    def write(self, data: bytes, offset: int) -> None:
        with _dressed(self._path, self._url):
            view = memoryview(data)
            while view:
                count = os.pwrite(self._fd, view, offset)
                view, offset = view[count:], offset + count

    def finish(self) -> None:
        self.write(_WAL_MODE, _WAL_MODE_AT)

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        with _dressed(self._path, self._url):
            os.close(fd)

    def discard(self) -> None:
        with contextlib.suppress(OSError):
            if self._fd >= 0:
                os.close(self._fd)
        with contextlib.suppress(OSError):
            os.unlink(self._path)


class _Parts:
    """One download in several ranges at once, all bound to one ETag.

    The stream that is already open brings the first share and is then dropped.
    """

    def __init__(self, source: Source, target: _Target, started: Started, streams: int) -> None:
        self._source, self._target, self._started = source, target, started
        share = -(-started.version.size // streams)
        stops = [min(share * number, started.version.size) for number in range(1, streams + 1)]
        self._ranges = list(zip([0, *stops], stops, strict=False))
        self._deadline = source.deadline()
        self._stop = threading.Event()

    def run(self, stream: contextlib.ExitStack) -> None:
        """Write all parts. ``stream`` is closed as soon as it has brought its share."""
        from concurrent.futures import ThreadPoolExecutor

        # Leaving the pool waits for its threads: none of them may write to a descriptor that has been closed.
        with ThreadPoolExecutor(len(self._ranges) - 1, thread_name_prefix="temaki-fetch") as pool:
            try:
                others = [pool.submit(self._stopping_all, *bounds) for bounds in self._ranges[1:]]
                self._first_share(*self._ranges[0], stream)
            except BaseException:
                self._stop.set()
                raise
        for other in others:
            error = other.exception()
            if error is not None and not isinstance(error, _Stopped):
                raise error

    def _first_share(self, start: int, stop: int, stream: contextlib.ExitStack) -> None:
        with contextlib.suppress(_Stopped):  # another part failed, and says why
            try:
                _copy(self._started.download, self._target, len(self._started.first), stop, self._stop)
            except StoreUnavailableError:
                stream.close()
                self._fetch(start, stop)
            else:
                stream.close()

    def _stopping_all(self, start: int, stop: int) -> None:
        try:
            self._fetch(start, stop)
        except BaseException:
            self._stop.set()
            raise

    def _fetch(self, start: int, stop: int) -> None:
        source, etag = self._source, self._started.version.etag

        def attempt() -> None:
            download = source.store.get(source.key, if_match=etag, byte_range=(start, stop))
            assert download is not None, "only if_none_match has no body"
            with download:
                if download.info.etag != etag:  # a server that ignores the condition
                    message = f"{source.url} was replaced while it was read."
                    raise PreconditionFailedError(message, url=source.url, status=None, code=None)
                _copy(download, self._target, start, stop, self._stop)

        retry(attempt, clock=source.clock, deadline=self._deadline, rng=source.rng)


class _Stopped(Exception):  # noqa: N818 - no error of its own
    """Another part has failed."""


def _copy(download: Download, target: _Target, start: int, stop: int, stopped: threading.Event | None = None) -> None:
    """Write bytes ``start`` to ``stop`` of the object, the next ones to come, to where they belong."""
    while start < stop:
        if stopped is not None and stopped.is_set():
            raise _Stopped
        data = download.read(min(_CHUNK, stop - start))
        if not data:
            raise _ended_early(download, start)
        target.write(data, start)
        start += len(data)


def _ended_early(download: Download, at: int) -> StoreUnavailableError:
    """The store should have raised this itself."""
    info = download.info
    return StoreUnavailableError(f"{info.key}: its body ended early, at byte {at} of {info.size}.", url=info.key)


def _checked_version(info: ObjectInfo, first: bytes, url: str) -> Version:
    """The object's version, if its first bytes, its size and its metadata agree."""
    try:
        version = read_version(info)  # first: what a newer temaki stores need not begin with a SQLite header
        header = read_header(first)
        if version.is_adopted:
            version = replace(version, sequence=header.change_counter)
        _check_size(header, version)
    except NewerFormatError as error:
        raise CorruptDatabaseError(
            f"{url} cannot be read: {error}. Upgrade temaki here. Nothing was changed.",
            url=url,
            reason=str(error),
            size=info.size,
            etag=info.etag,
        ) from error
    except (FormatError, MetadataError) as error:
        raise CorruptDatabaseError(
            f"{url} is no database that temaki can use: {error}. (It has {info.size} bytes and the ETag {info.etag}.) "
            "Nothing was changed, and temaki never overwrites such an object. Restore an earlier version of it; or "
            "move it away, if it is something else; or use another key.",
            url=url,
            reason=str(error),
            size=info.size,
            etag=info.etag,
        ) from error
    return version


def _check_size(header: DatabaseHeader, version: Version) -> None:
    expected = header.page_count * header.page_size
    if version.is_adopted:
        if version.size % header.page_size or version.size < header.page_size:
            raise FormatError(f"truncated: its pages have {header.page_size} bytes, and it ends within one")
        if header.size_is_valid and version.size < expected:
            raise FormatError(f"truncated: its header says that it has {expected} bytes")
        return
    if not header.size_is_valid or version.size != expected:
        raise FormatError(f"truncated or changed: its header says that it has {expected} bytes")
    if header.change_counter != version.sequence % (1 << 32):
        raise MetadataError(
            f"its metadata say {SEQUENCE_KEY} {version.sequence}, its header {header.change_counter}: another tool "
            "changed it and kept the metadata (upload it without them, to have it adopted)"
        )


@contextlib.contextmanager
def _dressed(path: Path, url: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise WorkingCopyError(
            f"The working copy of {url} cannot be written to {path}: {error.strerror or error}. Free some space, or "
            "set cache_dir to a folder on another disk that this user may write to.",
            url=url,
            path=str(path),
        ) from error
