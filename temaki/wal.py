"""Which pages a SQLite write-ahead log has committed, and what a database file says of itself.

Knows two file formats and nothing else of temaki: "The Database Header" and "The Write-Ahead Log" in
https://www.sqlite.org/fileformat2.html (sections 1.3 and 4).
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

DATABASE_HEADER: Final = 100  # bytes

_WAL_HEADER = struct.Struct(">4sIIIIIII")
_WAL_HEADER_SIZE: Final = 32
_FRAME_HEADER_SIZE: Final = 24
_WAL_VERSION: Final = 3007000
_MAGIC_ORDER: Final = {b"\x37\x7f\x06\x82": "<", b"\x37\x7f\x06\x83": ">"}
_CHUNK: Final = 1 << 20  # bytes of a file that are held in memory at a time
_MASK: Final = 0xFFFF_FFFF
_NEWEST_FORMAT: Final = 2  # 1 is a rollback journal, 2 a WAL
_SMALLEST_PAGE, _LARGEST_PAGE, _LEAST_USABLE = 512, 1 << 16, 480  # bytes


class FormatError(ValueError):
    """The bytes are not what SQLite writes. The message says what was found; the caller knows in which object."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a WAL: everything before it is accounted for.

    Attributes:
        salts: The 8 bytes that name this run of the WAL; a restart changes them. Empty where no WAL is known yet.
        frames: How many frames are before the mark.
        checksum: The running checksum after those frames, from which the next one's is computed.
    """

    START: ClassVar[Mark]

    salts: bytes = b""
    frames: int = 0
    checksum: tuple[int, int] = (0, 0)


Mark.START = Mark()


@dataclass(frozen=True, slots=True)
class Scan:
    """What a WAL has committed beyond a mark.

    Attributes:
        mark: Just after the last commit. The given mark where nothing was committed and the WAL was not restarted.
        pages: Page number to the offset in the WAL of that page's latest bytes; only from frames beyond the given mark.
        page_count: The database's size after the last commit, in pages; None where nothing was committed.
        page_size: In bytes; None without a valid WAL.
        restarted: The WAL began anew after the given mark was taken. SQLite does so only once everything before is in
            the main file: offsets of pages that came from earlier scans no longer mean anything.
    """

    mark: Mark
    pages: dict[int, int]
    page_count: int | None = None
    page_size: int | None = None
    restarted: bool = False


def scan(wal_fd: int, mark: Mark) -> Scan:
    """Find what was committed beyond ``mark``. Sections 4.1 and 4.2 of the file format.

    Frames count as SQLite's own recovery counts them: salts equal to the header's, running checksum right, and only
    up to the last one that ends a transaction. What a rolled-back transaction spilled is left out in this way. The
    checksum is computed in Python at some 60 MB/s, so always pass the latest mark.

    Args:
        wal_fd: The ``-wal`` file, open for reading; neither moved nor closed. Nothing may write to it meanwhile.
        mark: From an earlier scan of this file, or ``Mark.START`` to read from its start.

    Raises:
        FormatError: The frames before ``mark`` are no longer there and the WAL was not restarted either, so that what
            is committed cannot be told. A file that is empty or has no valid header is this error too, except with
            ``Mark.START``, where it is a WAL with nothing in it, as for SQLite. (Whoever truncates a WAL on
            purpose starts again with ``Mark.START``.)
        OSError: The file cannot be read.
    """
    header = _wal_header(os.pread(wal_fd, _WAL_HEADER_SIZE, 0))
    if header is None:
        if mark.salts:
            raise FormatError(f"the WAL's header is gone or damaged, with {mark.frames} frames accounted for")
        return Scan(mark, {})
    order, page_size, start = header
    restarted = bool(mark.salts) and mark.salts != start.salts
    if mark.salts != start.salts:
        mark = start
    _require_frames(wal_fd, mark, page_size)

    pages: dict[int, int] = {}
    pending: dict[int, int] = {}
    page_count: int | None = None
    for frame, number, committed_size, checksum, offset in _valid_frames(wal_fd, mark, order, page_size):
        pending[number] = offset
        if committed_size:
            pages.update(pending)
            pending.clear()
            page_count = committed_size
            mark = Mark(mark.salts, frame, checksum)
    return Scan(mark, pages, page_count, page_size, restarted)


def _wal_header(raw: bytes) -> tuple[str, int, Mark] | None:
    """Byte order of the checksums, page size, and the mark before the first frame; None if it is no valid header."""
    if len(raw) < _WAL_HEADER_SIZE:
        return None
    magic, version, page_size, _, _, _, first, second = _WAL_HEADER.unpack(raw)
    order = _MAGIC_ORDER.get(magic)
    if order is None or version != _WAL_VERSION or not _is_page_size(page_size):
        return None
    if _checksum(order, (0, 0), raw[:24]) != (first, second):
        return None
    return order, page_size, Mark(raw[16:24], 0, (first, second))


def _require_frames(wal_fd: int, mark: Mark, page_size: int) -> None:
    """Make sure that the frame before the mark is still the one that the mark was taken from."""
    if not mark.frames:
        return
    last = _WAL_HEADER_SIZE + (mark.frames - 1) * (_FRAME_HEADER_SIZE + page_size)
    header = os.pread(wal_fd, _FRAME_HEADER_SIZE, last)
    found = len(os.pread(wal_fd, 1, last + _FRAME_HEADER_SIZE + page_size - 1))
    if not found or header[8:] != mark.salts + struct.pack(">II", *mark.checksum):
        raise FormatError(f"the WAL no longer has its first {mark.frames} frames: it was truncated or overwritten")


def _valid_frames(
    wal_fd: int, mark: Mark, order: str, page_size: int
) -> Iterator[tuple[int, int, int, tuple[int, int], int]]:
    """Frames beyond the mark until the first invalid one: count so far, page, size after commit, checksum, offset."""
    frame_size = _FRAME_HEADER_SIZE + page_size
    chunk_size = max(1, _CHUNK // frame_size) * frame_size
    frame, running, salts = mark.frames, mark.checksum, mark.salts
    while True:
        chunk_offset = _WAL_HEADER_SIZE + frame * frame_size
        chunk = memoryview(os.pread(wal_fd, chunk_size, chunk_offset))
        for start in range(0, len(chunk) - frame_size + 1, frame_size):
            number, committed_size, found_salts, first, second = struct.unpack_from(">II8sII", chunk, start)
            if found_salts != salts or not number:
                return
            running = _checksum(order, running, chunk[start : start + 8])
            running = _checksum(order, running, chunk[start + _FRAME_HEADER_SIZE : start + frame_size])
            if running != (first, second):
                return
            frame += 1
            yield frame, number, committed_size, running, chunk_offset + start + _FRAME_HEADER_SIZE
        if len(chunk) < chunk_size:
            return


def _checksum(order: str, running: tuple[int, int], data: bytes | memoryview) -> tuple[int, int]:
    """Section 4.2, "Checksum Algorithm": two sums modulo 2^32, each of which feeds the other, over pairs of words."""
    first, second = running
    unrolled = len(data) & ~31
    # Eight words a turn and one reduction at its end: half as much again as word by word (45 -> 65 MB/s). In between,
    # the sums outgrow 32 bits by no more than a factor of 2,584, for which Python's integers have room.
    for a, b, c, d, e, f, g, h in struct.iter_unpack(order + "8I", data[:unrolled]):
        first += a + second
        second += b + first
        first += c + second
        second += d + first
        first += e + second
        second += f + first
        first = (first + g + second) & _MASK
        second = (second + h + first) & _MASK
    for a, b in struct.iter_unpack(order + "2I", data[unrolled:]):
        first = (first + a + second) & _MASK
        second = (second + b + first) & _MASK
    return first, second


@dataclass(frozen=True, slots=True)
class DatabaseHeader:
    """What the first 100 bytes of a database file say. Section 1.3 of the file format.

    Attributes:
        page_size: In bytes.
        page_count: Size in pages as stored; only to be believed if ``size_is_valid`` (section 1.3.7).
        size_is_valid: The size was written by the last writer, and not left over from an older one.
        change_counter: Counts transactions in rollback mode.
        write_version: 1 for a rollback journal, 2 for a WAL.
        read_version: The same, for readers.
    """

    page_size: int
    page_count: int
    size_is_valid: bool
    change_counter: int
    write_version: int
    read_version: int


def read_header(raw: bytes | bytearray) -> DatabaseHeader:
    """Read a database file's header.

    Args:
        raw: The file's first 100 bytes or more.

    Raises:
        FormatError: It is no header that this SQLite format has; the message is a short reason.
    """
    if not raw:
        raise FormatError("it is empty (0 bytes)")
    if not raw.startswith(b"SQLite format 3\0"[: len(raw)]):
        raise FormatError(f"not SQLite: it starts with {raw[:16]!r} (encrypted, compressed, or another kind of file)")
    if len(raw) < DATABASE_HEADER:
        raise FormatError(f"truncated: {len(raw)} bytes where the header alone takes {DATABASE_HEADER}")
    page_size = int.from_bytes(raw[16:18], "big")
    if page_size == 1:  # 65536 does not fit into two bytes
        page_size = _LARGEST_PAGE
    if not _is_page_size(page_size):
        raise FormatError(f"bad page size: {page_size}")
    if max(raw[18], raw[19]) > _NEWEST_FORMAT:
        raise FormatError(f"unsupported format version: {raw[18]} to write, {raw[19]} to read")
    if raw[21:24] != b"\x40\x20\x20" or page_size - raw[20] < _LEAST_USABLE:
        raise FormatError("damaged header: payload fractions or reserved space are not SQLite's")
    change_counter, page_count = struct.unpack_from(">II", raw, 24)
    valid_for = int.from_bytes(raw[92:96], "big")
    return DatabaseHeader(
        page_size=page_size,
        page_count=page_count,
        size_is_valid=page_count > 0 and valid_for == change_counter,
        change_counter=change_counter,
        write_version=raw[18],
        read_version=raw[19],
    )


def _is_page_size(value: int) -> bool:
    return _SMALLEST_PAGE <= value <= _LARGEST_PAGE and not value & (value - 1)
