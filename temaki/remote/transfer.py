"""A version's bytes on their way into a local file: out of one stream, or out of several where one is slow.

One connection carries a window of bytes for each round trip, however fast the network is, so several bring several
times as much. From a store that is near it is this machine that sets the pace, and further streams only take turns with
the first: 100 MB from a server on the same machine took 105 ms over one stream and 123 over four. So the first one
begins alone, and others come to its help when it is seen to be slow.
"""

from __future__ import annotations

import contextlib
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
_SAMPLE: Final = 0.05  # seconds; servers send in bursts, and what one does in less tells nothing
_FAST: Final = 128 << 20  # bytes per second; S3 gives one connection less


def is_slow(count: int, seconds: float) -> bool:
    """Whether a stream that brought so many bytes in so long has been waiting for the network rather than for us."""
    return seconds >= _SAMPLE and count < _FAST * seconds


class Target:
    """The file that is being written. Only its errors are errors of the working copy.

    Args:
        path: Must not exist. The file gets mode 0600.
        url: The database's URL, for messages.

    Raises:
        WorkingCopyError: It exists, or cannot be written; so do the methods.
    """

    def __init__(self, path: Path, url: str) -> None:
        self._path, self._url = path, url
        with self._dressed():
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def begin(self) -> None:
        """Take back what an attempt before this one has left, if there was one.

        A new file is not truncated: ext4 takes that for an old one being replaced, and starts to write all of it to
        the disk when it is closed (mount option ``auto_da_alloc``; 45 ms for 100 MB, where the download took 120).
        """
        with self._dressed():
            if os.fstat(self._fd).st_size:
                os.ftruncate(self._fd, 0)

    def write(self, data: bytes, offset: int) -> None:
        """Put all of it there."""
        with self._dressed():
            view = memoryview(data)
            while view:
                count = os.pwrite(self._fd, view, offset)
                view, offset = view[count:], offset + count

    def cut(self, size: int) -> None:
        """Remove what is beyond ``size`` bytes, if anything is."""
        with self._dressed():
            if os.fstat(self._fd).st_size > size:
                os.ftruncate(self._fd, size)

    def close(self) -> None:
        """It is complete."""
        fd, self._fd = self._fd, -1
        with self._dressed():
            os.close(fd)

    def discard(self) -> None:
        """Leave no file."""
        with contextlib.suppress(OSError):
            if self._fd >= 0:
                os.close(self._fd)
        with contextlib.suppress(OSError):
            os.unlink(self._path)

    @contextlib.contextmanager
    def _dressed(self) -> Iterator[None]:
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
    """One version into the file, from a download that has begun. :meth:`run` once.

    Args:
        store: Where further streams come from, bound to the download's ETag.
        download: It is closed as soon as it is not needed.
        first: What has been read of it.
        target: The file.
        url: The database's URL, for messages.
        attempts: Until when a part is fetched again.
        share: What each of several streams has to carry at least, in bytes.
        is_slow: Whether a stream is, by the bytes that it has brought and the seconds that it took.
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
        """Write all of it.

        Raises:
            PreconditionFailedError: The object was replaced between two parts.
            StoreError: A part could not be had; or the one stream failed on its last part, and nothing counts.
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
                # To the end of the object, where the store's checksum of all of it is compared. So a failure here may
                # be about any byte that has come, and everything begins again.
                copy(self._download, self._target, *first)

    def _worthwhile(self) -> int:
        """How many streams what is missing is worth."""
        return min(_STREAMS, (self._size - self._position) // self._share)

    def _go_alone(self) -> None:
        """Until this stream is seen to be slow, or breaks, or what is left is too little to be divided."""
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
        """All parts at once; one after the other, as far as there are no threads for them."""
        parts = _Parts(others, self._fetch, self._stop)
        try:
            parts.start()
            with contextlib.suppress(Stopped):  # another part failed, and says why
                self._go_on(*first, stream)
                parts.help()
        except BaseException:
            self._stop.set()
            raise
        finally:
            parts.wait()  # none of them may write to a descriptor that has been closed
        parts.raise_error()

    def _go_on(self, start: int, stop: int, stream: contextlib.ExitStack) -> None:
        """The stream that is open brings the next part, and is closed; if it breaks, that part is fetched."""
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


class _Parts:
    """The parts that threads of their own fetch.

    ``concurrent.futures`` refuses to work once the interpreter shuts down, where a thread or a handler of ``atexit``
    may still begin a session. Here a part without a thread is fetched by the thread that waits for it.

    Args:
        bounds: First byte of each part, and the byte after its last.
        fetch: Fetches one part.
        stop: Set if a part fails, so that the others need not go on.
    """

    def __init__(self, bounds: list[tuple[int, int]], fetch: Callable[[int, int], None], stop: threading.Event) -> None:
        self._left, self._fetch, self._stop = list(bounds), fetch, stop
        self._lock = threading.Lock()
        self._running: dict[int, threading.Lock] = {}  # by thread: a lock that it holds while it fetches
        self._error: BaseException | None = None

    def start(self) -> None:
        """One thread for each part, as far as there are threads to be had."""
        for number in range(len(self._left)):
            try:
                threading.Thread(target=self._run, name=f"temaki-fetch_{number}", daemon=True).start()
            except RuntimeError:  # a limit of the system's, or the interpreter shuts down (Python 3.12)
                return

    def help(self) -> None:
        """Fetch what no thread has begun with."""
        while (part := self._next()) is not None:
            self._fetch(*part)

    def wait(self) -> None:
        """Until no thread is fetching. None begins any more."""
        with self._lock:
            self._left.clear()
            running = list(self._running.values())
        for lock in running:
            with lock:
                pass

    def raise_error(self) -> None:
        """What the first thread that failed raised, if one did."""
        if self._error is not None:
            raise self._error

    def _next(self) -> tuple[int, int] | None:
        with self._lock:
            return self._left.pop(0) if self._left and not self._stop.is_set() else None

    def _run(self) -> None:
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
    """Another part has failed."""


def copy(download: Download, target: Target, start: int, stop: int, stopped: threading.Event | None = None) -> None:
    """Write bytes ``start`` to ``stop`` of the object, the next ones to come, to where they belong.

    Raises:
        Stopped: Somebody has set ``stopped``.
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


def ended_early(download: Download, at: int) -> StoreUnavailableError:
    """The store should have raised this itself."""
    info = download.info
    return StoreUnavailableError(f"{info.key}: its body ended early, at byte {at} of {info.size}.", url=info.key)
