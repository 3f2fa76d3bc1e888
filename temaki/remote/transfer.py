"""Downloads a version into a local file: over one stream, or over several if the first one is slow.

One connection carries one window of bytes per round trip, however fast the network is. So several connections carry
several times as much. With a store that is near, this machine is the bottleneck, and more streams only take turns: 100
MB from a server on the same machine took 105 ms over one stream and 123 ms over four. So the first stream begins alone.
Others join when it turns out to be slow.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from typing import TYPE_CHECKING, Final

from temaki.errors import PreconditionFailedError, StoreUnavailableError, WorkingCopyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from temaki.remote.retry import Attempts
    from temaki.store import Download, Store

    IsSlow = Callable[[int, float], bool]

_CHUNK: Final = 1 << 20  # bytes that each stream holds in memory
_STREAMS: Final = 4
_SAMPLE: Final = 0.05  # seconds; servers send in bursts, so a shorter measurement says nothing
_FAST: Final = 128 << 20  # bytes per second; S3 gives one connection less


def is_slow(count: int, seconds: float) -> bool:
    """True if throughput is below the threshold: the network is the bottleneck.

    Args:
        count: Bytes that the stream has brought.
        seconds: Seconds that it took.
    """
    return seconds >= _SAMPLE and count < _FAST * seconds


class Target:
    """The local file that a download is written to. All of its methods raise ``WorkingCopyError`` if it fails.

    Args:
        path: Path of the file, which must not exist. The file gets mode 0600.
        url: The database's URL, for messages.

    Raises:
        WorkingCopyError: The file exists, or cannot be written.
    """

    def __init__(self, path: Path, url: str) -> None:
        self._path, self._url = path, url
        self._written: Callable[[bytes, int], object] | None = None
        with self._errors_translated():
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def begin(self) -> None:
        """Remove the bytes that an earlier attempt has written, if any.

        A new file is not truncated. ext4 would take that for the replacement of an old file, and would write all of it
        to the disk at its close (mount option ``auto_da_alloc``; 45 ms for 100 MB, where the download took 120 ms).
        """
        with self._errors_translated():
            if os.fstat(self._fd).st_size:
                os.ftruncate(self._fd, 0)

    def write(self, data: bytes, offset: int) -> None:
        """Write all of ``data`` at ``offset``, in bytes."""
        at = offset
        with self._errors_translated():
            view = memoryview(data)
            while view:
                count = os.pwrite(self._fd, view, at)
                view, at = view[count:], at + count
        if self._written is not None:
            self._written(data, offset)

    @contextlib.contextmanager
    def watched(self, written: Callable[[bytes, int], object]) -> Iterator[None]:
        """Meanwhile, call ``written`` with the bytes and the offset of each write, in the thread that has written."""
        self._written = written
        try:
            yield
        finally:
            self._written = None

    def cut(self, size: int) -> None:
        """Remove the bytes beyond ``size``, if any."""
        with self._errors_translated():
            if os.fstat(self._fd).st_size > size:
                os.ftruncate(self._fd, size)

    def resize(self, size: int) -> None:
        """Cut the file, or extend it with zeros."""
        with self._errors_translated():
            os.ftruncate(self._fd, size)

    def read(self, count: int, offset: int) -> bytes:
        """So many bytes of what was written."""
        with self._errors_translated():
            data = bytearray(count)
            done = 0
            while done < count:
                piece = os.pread(self._fd, count - done, offset + done)
                if not piece:
                    raise OSError(errno.EIO, "the file was truncated while it was written")
                data[done : done + len(piece)] = piece
                done += len(piece)
            return bytes(data)

    def close(self) -> None:
        """Close the complete file."""
        fd, self._fd = self._fd, -1
        with self._errors_translated():
            os.close(fd)

    def discard(self) -> None:
        """Close and remove the file."""
        with contextlib.suppress(OSError):
            if self._fd >= 0:
                os.close(self._fd)
        with contextlib.suppress(OSError):
            os.unlink(self._path)

    @contextlib.contextmanager
    def _errors_translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise WorkingCopyError(
                f"The working copy of {self._url} cannot be written to {self._path}: {error.strerror or error}. Free "
                "some space, or set cache_dir to a folder on another disk that this user may write to.",
                url=self._url,
                path=str(self._path),
            ) from error


class Transfer:
    """Writes one version into a file, from a download that has begun. Call :meth:`run` once.

    Args:
        store: The bucket. Further streams come from it, bound to the download's ETag.
        download: The download that has begun. It is closed as soon as it is not needed.
        first: The bytes that have been read from it.
        target: The file.
        url: The database's URL, for messages.
        attempts: The attempts for each part, until their deadline.
        share: Smallest part that one of several streams carries, in bytes.
        is_slow: Decides whether a stream is slow, from its bytes and its seconds.
    """

    def __init__(  # noqa: PLR0917 - one call, from Fetched
        self,
        store: Store,
        download: Download,
        first: bytes,
        target: Target,
        url: str,
        attempts: Attempts,
        share: int,
        is_slow: IsSlow,
    ) -> None:
        self._store, self._download, self._first, self._target, self._url = store, download, first, target, url
        self._attempts = attempts
        self._share, self._is_slow = max(1, share), is_slow
        self._size, self._position = download.info.size, len(first)
        self._is_broken = False
        self._stop = threading.Event()

    def run(self) -> None:
        """Write the whole version.

        Raises:
            PreconditionFailedError: The object was replaced between two parts.
            StoreError: A part could not be fetched, or a single stream failed on its last part. Nothing counts then.
            WorkingCopyError: The file cannot be written.
        """
        with contextlib.ExitStack() as stream:
            stream.enter_context(self._download)
            self._target.begin()
            self._target.write(self._first, 0)
            self._go_alone()
            streams = max(1, self._worthwhile())
            share = -(-(self._size - self._position) // streams)
            stops = [min(self._position + share * number, self._size) for number in range(1, streams + 1)]
            first, *others = zip([self._position, *stops], stops, strict=False)
            if others:
                self._go_together(first, others, stream)
            elif self._is_broken:
                stream.close()
                self._fetch(*first)
            else:
                # The store's checksum of the whole object is compared at its end. So a failure here may concern any
                # byte, and the whole download begins again.
                copy(self._download, self._target, *first)

    def _worthwhile(self) -> int:
        """Number of streams that the missing bytes are worth."""
        return min(_STREAMS, (self._size - self._position) // self._share)

    def _go_alone(self) -> None:
        """Read from one stream until it is slow, or breaks, or too little is left to be divided."""
        clock = self._attempts.clock
        begin, first = clock.monotonic(), self._position
        while self._worthwhile() > 1:
            if self._is_slow(self._position - first, clock.monotonic() - begin):
                return
            stop = min(self._position + _CHUNK, self._size)
            try:
                copy(self._download, self._target, self._position, stop)
            except StoreUnavailableError:
                self._is_broken = True
                return
            self._position = stop

    def _go_together(self, first: tuple[int, int], others: list[tuple[int, int]], stream: contextlib.ExitStack) -> None:
        """Fetch all parts at once; one after the other if there are no threads for them."""
        Parts(others, self._fetch, self._stop).run(lambda: self._go_on(*first, stream))

    def _go_on(self, start: int, stop: int, stream: contextlib.ExitStack) -> None:
        """Read the next part from the open stream, and close it. If it breaks, fetch that part anew."""
        if not self._is_broken:
            try:
                copy(self._download, self._target, start, stop, self._stop)
            except StoreUnavailableError:
                self._is_broken = True
        stream.close()
        if self._is_broken:
            self._fetch(start, stop)

    def _fetch(self, start: int, stop: int) -> None:
        info = self._download.info

        def attempt() -> None:
            download = self._store.get(info.key, if_match=info.etag, byte_range=(start, stop))
            assert download is not None, "only if_none_match has no body"
            with download:
                if download.info.etag != info.etag:  # a server that ignores the condition
                    message = f"{self._url} was replaced while it was read."
                    raise PreconditionFailedError(message, url=self._url, status=None, code=None)
                copy(download, self._target, start, stop, self._stop)

        self._attempts.run(attempt)


class Parts:
    """The parts of a download, each fetched by a thread of its own.

    ``concurrent.futures`` refuses to work once the interpreter shuts down. But a thread or a handler of ``atexit`` may
    still begin a session then. So the thread that waits for the parts fetches those that have no thread.

    Args:
        bounds: First byte of each part, and the byte after its last one.
        fetch: Fetches one part.
        stop: Event that is set if a part fails, so that the others stop.
    """

    def __init__(self, bounds: list[tuple[int, int]], fetch: Callable[[int, int], None], stop: threading.Event) -> None:
        self._left, self._fetch, self._stop = list(bounds), fetch, stop
        self._lock = threading.Lock()
        self._running: dict[int, threading.Lock] = {}  # by thread: the lock that it holds while it fetches
        self._error: BaseException | None = None

    def run(self, first: Callable[[], None]) -> None:
        """Fetch all parts, with ``first`` as this thread's own. Returns or raises when no thread is fetching any more.

        Raises:
            Exception: The first error of a part.
        """
        try:
            self._start()
            with contextlib.suppress(Stopped):  # another part failed: its error follows
                first()
                self._help()
        except BaseException:
            self._stop.set()
            raise
        finally:
            self._wait()  # no thread may write to a descriptor that has been closed
        if self._error is not None:
            raise self._error

    def _start(self) -> None:
        """Start one thread for each part, as long as the system gives threads."""
        for number in range(len(self._left)):
            try:
                threading.Thread(target=self._fetch_one, name=f"temaki-fetch_{number}", daemon=True).start()
            except RuntimeError:  # the system gives no more threads, or the interpreter shuts down (Python 3.12)
                return

    def _help(self) -> None:
        """Fetch the parts that no thread has begun to fetch."""
        while (part := self._next()) is not None:
            self._fetch(*part)

    def _wait(self) -> None:
        """Wait until no thread is fetching. No thread begins another part."""
        with self._lock:
            self._left.clear()
            running = list(self._running.values())
        for lock in running:
            with lock:
                pass

    def _next(self) -> tuple[int, int] | None:
        with self._lock:
            return self._left.pop(0) if self._left and not self._stop.is_set() else None

    def _fetch_one(self) -> None:
        mine = threading.Lock()
        with mine:
            with self._lock:
                if not self._left or self._stop.is_set():
                    return
                part = self._left.pop(0)
                self._running[threading.get_ident()] = mine
            try:
                self._fetch(*part)
            except Stopped:
                pass
            except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
                self._error = self._error or error
                self._stop.set()


class Stopped(Exception):  # noqa: N818 - no error of its own
    """Raised in the threads of the other parts after one part has failed."""


def copy(download: Download, target: Target, start: int, stop: int, stopped: threading.Event | None = None) -> None:
    """Copy the bytes from ``start`` to ``stop`` of the object, which the download gives next, into the file.

    Raises:
        Stopped: ``stopped`` was set.
        StoreUnavailableError: The body ended early.
    """
    while start < stop:
        if stopped is not None and stopped.is_set():
            raise Stopped
        data = download.read(min(_CHUNK, stop - start))
        if not data:
            raise ended_early(download, start)
        target.write(data, start)
        start += len(data)


def read_exactly(download: Download, count: int) -> bytes:
    """Read the next ``count`` bytes of the download.

    Raises:
        StoreUnavailableError: The body ended early.
    """
    data = bytearray()
    while len(data) < count:
        piece = download.read(min(_CHUNK, count - len(data)))
        if not piece:
            raise ended_early(download, len(data))
        data += piece
    return bytes(data)


def ended_early(download: Download, at: int) -> StoreUnavailableError:
    """Make the error for a body that ended early, in case the store has not raised it itself."""
    info = download.info
    return StoreUnavailableError(f"The body of {info.key} ended early, at byte {at} of {info.size}.", url=info.key)
