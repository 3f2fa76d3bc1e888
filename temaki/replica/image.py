"""The database as a commit leaves it, ready to upload.

Formats: "The Database Header" and "The Lock-Byte Page" in https://www.sqlite.org/fileformat2.html (sections 1.3, 1.4).
"""

from __future__ import annotations

import errno
import io
import os
import struct
from bisect import bisect_left
from typing import TYPE_CHECKING, Final

from temaki.replica.header import DATABASE_HEADER, MODES_AT, ROLLBACK_MODE, FormatError, lock_page, read_header

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from _typeshed import WriteableBuffer

_CHUNK: Final = 1 << 20  # bytes that are read at once
_MASK: Final = 0xFFFF_FFFF


class Image(io.RawIOBase):
    """The database as its last commit leaves it: a seekable, read-only view that is never in memory as a whole.

    The view is the main file, overlaid with pages from the WAL, and cut or extended to the committed size. Four fields
    of its header (section 1.3) are rewritten:

    * 18 and 19, the format versions, to 1: a rollback-mode file, that any tool opens, in a read-only folder too;
    * 24-27 and 92-95, change counter and version-valid-for, to ``sequence``: no two versions have equal bytes;
    * 28-31, the size in pages, to ``page_count``. Making 92-95 equal to 24-27 declares this field valid, and a file
      that was last written by SQLite before 3.7.0 has a stale number there.

    Reads do not use the descriptors' positions. They share the image's own position, so only one thread may read at a
    time. The view is valid as long as neither file changes (no writer, no checkpoint). ``close`` leaves the descriptors
    open.

    Args:
        main_fd: Descriptor of the main file, open for reading.
        wal_fd: Descriptor of the WAL, open for reading; -1 if there is none.
        pages: Page number to offset in the WAL, for every page whose newest committed bytes may not be in the main
            file: the results of all scans since the last complete checkpoint. Later scans override earlier ones.
        page_count: Committed size of the database, in pages.
        page_size: Size of a page, in bytes.
        sequence: Number of the version; stored modulo 2^32.
        changed: Numbers of the pages that differ from the version before.
        pinned: Whether a transaction keeps what the view reads, so that both files may grow meanwhile. Whoever reads
            such an image proves its checksum.

    Attributes:
        page_count: Committed size of the database, in pages.
        page_size: Size of a page, in bytes.
        size: Size of the image, in bytes.
        changed: Numbers of the pages that differ from the version before.
        broken: The error of a read that failed; None if none did. HTTP libraries replace the errors of a body by their
            own, so an uploader has to look here.

    Raises:
        FormatError: There is no page, page 1 is no database header, or the header has another page size.
        OSError: A file cannot be read; or a page is in neither file, because the main file was truncated. (SQLite logs
            every page that it adds to a file, except the one with the lock byte, which reads as zeros here.)
    """

    def __init__(  # noqa: PLR0917 - two files, and what their bytes do not say
        self,
        main_fd: int,
        wal_fd: int,
        pages: Mapping[int, int],
        page_count: int,
        page_size: int,
        sequence: int,
        changed: Collection[int] = frozenset(),
        *,
        pinned: bool = False,
    ) -> None:
        super().__init__()
        if page_count < 1:
            raise FormatError(f"no database has {page_count} pages")
        self._main_fd, self._wal_fd, self._pages = main_fd, wal_fd, pages
        self._overlaid = sorted(pages)
        self._position = 0
        self.page_size = page_size
        self._header = b""
        self.page_count = page_count
        self.size = page_count * page_size
        self.changed = changed
        self.broken: OSError | None = None
        self._files = [(fd, _state(fd)) for fd in (main_fd, wal_fd) if fd >= 0 and not pinned]
        self._lock_page = lock_page(page_size)
        for number in range(os.fstat(main_fd).st_size // page_size + 1, page_count + 1):
            if number not in pages and number != self._lock_page:
                raise OSError(errno.EIO, f"page {number} of {page_count} is in neither the main file nor the WAL")
        self._header = self._rewritten_header(sequence)

    @classmethod
    def of_file(cls, fd: int, sequence: int) -> Image:
        """Make the image of a plain database file: all pages are in the main file, and all of them have changed.

        Args:
            fd: Descriptor of the file, open for reading. Nobody may write to the file meanwhile.
            sequence: Number of the version.

        Raises:
            FormatError: The file is no database.
            OSError: The file cannot be read.
        """
        header = read_header(os.pread(fd, DATABASE_HEADER, 0))
        pages = os.fstat(fd).st_size // header.page_size
        return cls(fd, -1, {}, pages, header.page_size, sequence, changed=range(1, pages + 1))

    def page(self, number: int) -> bytes:
        """Read one page of this version.

        Args:
            number: Number of the page, from 1 to :attr:`page_count`.

        Raises:
            OSError: The page cannot be read.
            ValueError: There is no such page.
        """
        if not 1 <= number <= self.page_count:
            raise ValueError(f"page {number} of {self.page_count}")
        raw = bytearray(self.page_size)
        try:
            self._fill(memoryview(raw), (number - 1) * self.page_size)
        except OSError as error:
            self.broken = error
            raise
        if number == 1:
            raw[: len(self._header)] = self._header
        return bytes(raw)

    def _rewritten_header(self, sequence: int) -> bytes:
        raw = bytearray(DATABASE_HEADER)
        self._fill(memoryview(raw), 0)
        if read_header(raw).page_size != self.page_size:
            raise FormatError(f"page size {read_header(raw).page_size} in the header, {self.page_size} in the WAL")
        counter = struct.pack(">I", sequence & _MASK)
        raw[MODES_AT : MODES_AT + 2] = ROLLBACK_MODE
        raw[24:28] = raw[92:96] = counter
        raw[28:32] = struct.pack(">I", self.page_count)
        return bytes(raw)

    def __len__(self) -> int:
        return self.size

    def readable(self) -> bool:
        """Return True: an image can always be read."""
        return True

    def seekable(self) -> bool:
        """Return True: an image can always be positioned."""
        return True

    def tell(self) -> int:
        """Get the position, in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move the position. A read beyond the end gives nothing."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        if base + offset < 0:
            raise ValueError(f"negative position {base + offset}")
        self._position = base + offset
        return self._position

    def read(self, size: int | None = -1, /) -> bytes:
        """Read up to ``size`` bytes, fewer only at the end. A negative size or None reads to the end."""
        left = max(0, self.size - self._position)
        buffer = bytearray(left if size is None or size < 0 else min(size, left))
        self.readinto(buffer)
        return bytes(buffer)

    def readall(self) -> bytes:
        """Read to the end."""
        return self.read()

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill ``buffer``, less only at the end. Returns the number of bytes."""
        view = memoryview(buffer).cast("B")[: max(0, self.size - self._position)]
        try:
            self._fill(view, self._position)
            if len(view) and self._position + len(view) == self.size:
                self._require_unchanged()  # checked before the last bytes: without them the upload cannot succeed
        except OSError as error:
            self.broken = error
            raise
        if self._position < DATABASE_HEADER:
            patch = self._header[self._position : self._position + len(view)]
            view[: len(patch)] = patch
        self._position += len(view)
        return len(view)

    def _require_unchanged(self) -> None:
        for fd, state in self._files:
            if _state(fd) != state:
                raise OSError(errno.EIO, "the files were overwritten under their reader")

    def _fill(self, view: memoryview, position: int) -> None:
        """Read ``len(view)`` bytes at ``position`` of the overlaid files, run by run."""
        done = 0
        while done < len(view):
            number, within = divmod(position + done, self.page_size)
            number += 1
            rest_of_page = self.page_size - within
            offset = self._pages.get(number)
            if offset is not None:
                run = view[done : done + rest_of_page]
                _read_exactly(self._wal_fd, run, offset + within, "WAL")
            elif number == self._lock_page:
                run = view[done : done + rest_of_page]
                run[:] = bytes(len(run))
            else:
                next_overlaid = self._stop_of_run(number)
                length = min((next_overlaid - number - 1) * self.page_size + rest_of_page, _CHUNK)
                run = view[done : done + length]
                _read_exactly(self._main_fd, run, position + done, "main file")
            done += len(run)

    def _stop_of_run(self, number: int) -> int:
        """The first page after ``number`` that is not to be read from the main file."""
        index = bisect_left(self._overlaid, number)
        following = self._overlaid[index] if index < len(self._overlaid) else self.page_count + 1
        return min(following, self._lock_page) if number < self._lock_page else following


def _state(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return (status.st_size, status.st_mtime_ns)


def _read_exactly(fd: int, view: memoryview, offset: int, what: str) -> None:
    done = 0
    while done < len(view):
        data = os.pread(fd, len(view) - done, offset + done)
        if not data:
            # Never zeros instead: that would upload a database with holes.
            raise OSError(errno.EIO, f"the {what} ends at {offset + done}: it was truncated under its reader")
        view[done : done + len(data)] = data
        done += len(data)
