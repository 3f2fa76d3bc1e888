"""Finds the pages that a SQLite write-ahead log has committed.

The module knows two file formats and nothing else of temaki: "The Write-Ahead Log" in
https://www.sqlite.org/fileformat2.html (section 4), and "The WAL-Index File Format" in
https://www.sqlite.org/walformat.html (section 2).
"""

from __future__ import annotations

import os
import struct
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

from temaki.replica.header import LARGEST_PAGE, FormatError, is_page_size

if TYPE_CHECKING:
    from collections.abc import Iterator

_WAL_HEADER = struct.Struct(">4sIIIIIII")
WAL_HEADER_SIZE: Final = 32
FRAME_HEADER_SIZE: Final = 24
FORMAT_VERSION: Final = 3007000  # of the WAL and of the wal-index
MAGIC: Final = {"<": b"\x37\x7f\x06\x82", ">": b"\x37\x7f\x06\x83"}
"""How a WAL begins, by the byte order of its checksums."""
_CHUNK: Final = 1 << 20  # bytes of a file that are held in memory at a time
_MASK: Final = 0xFFFF_FFFF

# In the machine's own byte order, except for the salts, which are bytes of the WAL's header. A page of 64 KiB is a 1.
INDEX_HEADER = struct.Struct("=IIIBBHII8s8s8s")
BLOCK: Final = 1 << 15  # bytes; a header of 136 bytes takes the place of the first 34 of the 4,096 frames of a block
BLOCK_FRAMES: Final = 4096
FIRST_BLOCK_LACKS: Final = 34
UNSIGNED: Final = bytes(16)  # salts and checksum of a frame that SQLite has not signed yet
NATIVE: Final = "<" if sys.byteorder == "little" else ">"


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a WAL. All frames before it are accounted for.

    Attributes:
        salts: The 8 bytes that identify this run of the WAL; a restart changes them. Empty if no WAL is known yet.
        frames: Number of frames before the mark.
        last: Header of the last frame before the mark (24 bytes); empty if there is none.
    """

    START: ClassVar[Mark]

    salts: bytes = b""
    frames: int = 0
    last: bytes = b""


Mark.START = Mark()


@dataclass(frozen=True, slots=True)
class Scan:
    """The pages that a WAL has committed beyond a mark.

    Attributes:
        mark: The place just after the last commit.
        pages: Page number to the offset in the WAL of that page's latest bytes, in bytes. Only from frames beyond the
            given mark, and only pages that the committed database still has.
        page_count: Size of the database after the last commit, in pages; None if nothing was committed.
        page_size: Size of a page, in bytes; None if nothing was committed.
        restarted: True if the WAL began anew after the given mark was taken. SQLite does so only when the main file has
            everything before it. Then page offsets from earlier scans are no longer valid.
    """

    mark: Mark
    pages: dict[int, int]
    page_count: int | None = None
    page_size: int | None = None
    restarted: bool = False


def scan(wal_fd: int, index_fd: int, mark: Mark) -> Scan:
    """Find what was committed beyond ``mark``.

    The wal-index says where the last commit ends (``mxFrame``) and which page each frame holds. The checksums of the
    frames are not used. SQLite 3.40 leaves wrong checksums behind when a transaction overwrites a page that it had
    spilled and then rolls a statement back. (It then writes frames without salts and checksums, and fills them in at
    the commit; after the rollback it misses some, or all.) SQLite itself reads such frames by the index, while the WAL
    is in use. Only recovery after a crash uses the checksums.

    Args:
        wal_fd: Descriptor of the ``-wal`` file, open for reading; neither moved nor closed. Nothing may write to the
            file meanwhile.
        index_fd: Descriptor of the ``-shm`` file of the connections that use the WAL; neither moved nor closed.
        mark: Mark from an earlier scan of this file, or ``Mark.START`` to read from its start.

    Raises:
        FormatError: The index, the WAL's header and its frames contradict each other, or frames before the mark are
            gone: the files were truncated, overwritten or replaced. It cannot be known what was committed.
        OSError: A file cannot be read.
    """
    index = _read_index(index_fd)
    restarted = bool(mark.salts) and mark.salts != index.salts
    if not index.frames:  # the header of the WAL is only written with its first frame
        if mark.frames and not restarted:
            raise FormatError(f"the wal-index has no frames, with {mark.frames} accounted for")
        return Scan(Mark(index.salts), {}, restarted=restarted)
    _require_header(wal_fd, index)
    if mark.salts != index.salts:
        mark = Mark(index.salts)
    if index.frames < mark.frames:
        raise FormatError(f"the wal-index ends at frame {index.frames}, with {mark.frames} accounted for")
    if mark.frames and _frame_header(wal_fd, mark.frames, index.page_size) != mark.last:
        raise FormatError(f"frame {mark.frames} of the WAL was truncated or overwritten")
    if index.frames == mark.frames:
        return Scan(mark, {}, restarted=restarted)
    pages: dict[int, int] = {}
    committed_size = 0
    for number, committed_size, offset in _frames(wal_fd, index_fd, mark.frames, index):  # noqa: B007 - the last one's counts
        pages[number] = offset
    if committed_size != index.page_count:
        raise FormatError(
            f"the last frame of the WAL commits {committed_size} pages, and the wal-index says {index.page_count}"
        )
    return Scan(
        Mark(index.salts, index.frames, _frame_header(wal_fd, index.frames, index.page_size)),
        {number: offset for number, offset in pages.items() if number <= index.page_count},
        index.page_count,
        index.page_size,
        restarted,
    )


@dataclass(frozen=True, slots=True)
class _Index:
    """The header of a wal-index: the WAL's size in frames at the last commit, the database's in pages, the salts."""

    page_size: int
    frames: int
    page_count: int
    salts: bytes


def _read_index(index_fd: int) -> _Index:
    size = INDEX_HEADER.size
    raw = os.pread(index_fd, 2 * size, 0)
    if len(raw) < 2 * size:
        raise FormatError(f"the wal-index was truncated to {len(raw)} bytes")
    if raw[:size] != raw[size:]:
        raise FormatError("the two copies of the wal-index's header differ")
    version, _, _, initialised, _, page_size, frames, page_count, _, salts, checksum = INDEX_HEADER.unpack(raw[:size])
    if version != FORMAT_VERSION or not initialised:
        raise FormatError("the wal-index has no header: it was overwritten")
    if struct.pack("=II", *add_checksum(NATIVE, (0, 0), raw[: size - 8])) != checksum:
        raise FormatError("the header of the wal-index is damaged")
    return _Index(page_size_of(page_size), frames, page_count, salts)


def _require_header(wal_fd: int, index: _Index) -> None:
    """Make sure that the WAL is the one that the index is of."""
    raw = os.pread(wal_fd, WAL_HEADER_SIZE, 0)
    if len(raw) < WAL_HEADER_SIZE:
        raise FormatError(f"the WAL was truncated to {len(raw)} bytes, with {index.frames} frames committed")
    magic, version, page_size, _, _, _, first, second = _WAL_HEADER.unpack(raw)
    order = next((order for order, known in MAGIC.items() if known == magic), None)
    if order is None or version != FORMAT_VERSION or add_checksum(order, (0, 0), raw[:24]) != (first, second):
        raise FormatError(f"the WAL's header was overwritten, with {index.frames} frames committed")
    if raw[16:24] != index.salts:
        raise FormatError("the WAL and its wal-index have different salts: one of them was replaced")
    if page_size != index.page_size or not is_page_size(page_size):
        raise FormatError(f"page size {page_size} in the WAL, {index.page_size} in the wal-index")


def frame_offset(frame: int, page_size: int) -> int:
    """Where a frame begins in the WAL; the first one is number 1."""
    return WAL_HEADER_SIZE + (frame - 1) * (FRAME_HEADER_SIZE + page_size)


def _frame_header(wal_fd: int, frame: int, page_size: int) -> bytes:
    offset = frame_offset(frame, page_size)
    if not os.pread(wal_fd, 1, offset + FRAME_HEADER_SIZE + page_size - 1):
        raise FormatError(f"the WAL was truncated before the end of frame {frame}")
    return os.pread(wal_fd, FRAME_HEADER_SIZE, offset)


def _indexed_pages(index_fd: int, first: int, last: int) -> Iterator[int]:
    """Read the page numbers of frames ``first`` to ``last`` from the wal-index (section 2.2).

    The first block of 32 KiB has 4,062 of them, behind the header. Each of the others has 4,096.
    """
    while first <= last:
        block, within = divmod(first - 1 + FIRST_BLOCK_LACKS, BLOCK_FRAMES)
        count = min(BLOCK_FRAMES - within, last + 1 - first)
        raw = os.pread(index_fd, 4 * count, block * BLOCK + 4 * within)
        if len(raw) < 4 * count:
            raise FormatError(f"the wal-index was truncated: it has no frame {first + len(raw) // 4}")
        yield from struct.unpack(f"={count}I", raw)
        first += count


def _frames(wal_fd: int, index_fd: int, before: int, index: _Index) -> Iterator[tuple[int, int, int]]:
    """Read the committed frames after frame ``before``: page number, size after a commit or 0, offset of the page.

    Raises:
        FormatError: A frame is missing, or belongs to another run of the WAL.
    """
    layout = struct.Struct(f">II16s{index.page_size}x")
    indexed = _indexed_pages(index_fd, before + 1, index.frames)
    at_once = max(1, _CHUNK // layout.size)
    for first in range(before + 1, index.frames + 1, at_once):
        count = min(at_once, index.frames + 1 - first)
        start = frame_offset(first, index.page_size)
        chunk = os.pread(wal_fd, count * layout.size, start)
        if len(chunk) < count * layout.size:
            raise FormatError(f"the WAL ends in frame {first + len(chunk) // layout.size} of {index.frames} committed")
        for number, committed_size, signature in layout.iter_unpack(chunk):
            if number != next(indexed) or (signature[:8] != index.salts and signature != UNSIGNED):
                frame = 1 + (start - WAL_HEADER_SIZE) // layout.size
                raise FormatError(f"frame {frame} of {index.frames} committed was overwritten")
            yield number, committed_size, start + FRAME_HEADER_SIZE
            start += layout.size


def encoded_page_size(page_size: int) -> int:
    """A page size as two bytes hold it."""
    return 1 if page_size == LARGEST_PAGE else page_size


def page_size_of(encoded: int) -> int:
    """The page size that :func:`encoded_page_size` gave this for."""
    return LARGEST_PAGE if encoded == 1 else encoded


def add_checksum(order: str, running: tuple[int, int], data: bytes) -> tuple[int, int]:
    """Section 4.2, "Checksum Algorithm": two sums modulo 2^32, each of which feeds the other, over pairs of words.

    Args:
        order: Of the bytes in a word: ``"<"`` or ``">"``.
        running: The checksum of what comes before.
        data: A multiple of 8 bytes.
    """
    first, second = running
    for a, b in struct.iter_unpack(order + "2I", data):
        first = (first + a + second) & _MASK
        second = (second + b + first) & _MASK
    return first, second
