"""The checksum of a database whose bytes pass by: a download on its way to a file, or a file on its way to the store.

Computing it takes a second for each GiB. A thread of its own does that meanwhile, since hashing leaves other threads of
Python alone. It is handed what was written or read itself, so nothing is read a second time for the sum.
"""

from __future__ import annotations

import queue
import threading
from array import array
from typing import TYPE_CHECKING, Final

from temaki.formats.pages.checksum import MASK, values

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from temaki.store import ReadableBody

_WAITING: Final = 2
"""Pieces that wait for the thread. Whoever has more waits for it, so that memory stays bounded."""

_SMALL: Final = 1 << 20
"""Bytes of a database whose sum is not worth a thread."""


class Sum:
    """The sum of pages that come in pieces, in any order. What came last for a page counts. A context manager.

    Args:
        page_size: In bytes.
        page_count: How many pages count. What lies beyond them is ignored.
    """

    def __init__(self, page_size: int, page_count: int) -> None:
        self._page_size, self._page_count = page_size, page_count
        self._values = array("Q", [0]) * page_count
        self._known = bytearray(page_count)
        self._waiting: queue.Queue[tuple[bytes, int] | None] = queue.Queue(_WAITING)
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def __enter__(self) -> Self:
        if self._page_count * self._page_size <= _SMALL:
            return self
        thread = threading.Thread(target=self._work, name="temaki-sum", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the system gives no more threads, or the interpreter shuts down
            return self
        self._thread = thread
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.settle()

    def add(self, data: bytes, offset: int) -> None:
        """Count the pages that lie in ``data``, the database's bytes from ``offset`` on. From any thread.

        Pieces of one page have to come from one thread, or one after the other.
        """
        if self._thread is None:
            self._add(data, offset)
        else:
            self._waiting.put((data, offset))

    def settle(self) -> None:
        """Wait until everything is counted. What is added later is counted at once, by the thread that brings it."""
        thread = self._thread
        if thread is not None:
            self._waiting.put(None)
            thread.join()
            self._thread = None

    def total(self, read: Callable[[int, int], bytes]) -> int:
        """The sum of all pages.

        Args:
            read: Gives so many bytes of the database, from an offset on: for the pages that have not come in one piece.
        """
        self.settle()
        if self._error is not None:
            raise self._error
        size, number = self._page_size, self._known.find(0)
        while number >= 0:
            self._add(read(size, number * size), number * size)
            number = self._known.find(0, number + 1)
        return sum(self._values) & MASK

    def _work(self) -> None:
        while (piece := self._waiting.get()) is not None:
            if self._error is None:
                try:
                    self._add(*piece)
                except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
                    self._error = error

    def _add(self, data: bytes, offset: int) -> None:
        size = self._page_size
        first, stop = -(-offset // size), min((offset + len(data)) // size, self._page_count)  # from 0
        for torn in {offset // size, (offset + len(data)) // size} - set(range(first, stop)):
            if torn < self._page_count and offset < (torn + 1) * size and offset + len(data) > torn * size:
                self._known[torn] = 0
        if first >= stop:
            return
        whole = memoryview(data)[first * size - offset : stop * size - offset]
        self._values[first:stop] = array("Q", values(first + 1, whole, size))
        self._known[first:stop] = b"\1" * (stop - first)


class SummedBody:
    """A database file on its way to the store, which reads it from its start. A :class:`temaki.store.ReadableBody`.

    What was read last counts, so the sum is that of the bytes that were sent, also where a request was repeated.

    Args:
        body: The file.
        summed: What gets its bytes.
    """

    def __init__(self, body: ReadableBody, summed: Sum) -> None:
        self._body, self._sum = body, summed

    def read(self, size: int = -1, /) -> bytes:
        """As :meth:`io.RawIOBase.read`."""
        at = self._body.tell()
        data = self._body.read(size)
        self._sum.add(data, at)
        return data

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """As :meth:`io.IOBase.seek`."""
        return self._body.seek(offset, whence)

    def tell(self) -> int:
        """As :meth:`io.IOBase.tell`."""
        return self._body.tell()
