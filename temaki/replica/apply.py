"""Foreign pages enter a live database as one transaction of its WAL, and no connection is closed for it.

Formats: "The Write-Ahead Log" in https://www.sqlite.org/fileformat2.html (section 4), and "The WAL-Index File Format"
in https://www.sqlite.org/walformat.html (section 2). The order of the writes is SQLite's own: frames, then the entries
of the wal-index, then its header, second copy first. So whoever reads keeps its snapshot, and whoever begins to read
later sees all of the transaction.

A connection holds SQLite's write lock meanwhile (``BEGIN IMMEDIATE``), so no writer of SQLite's comes in between. That
connection must commit an empty transaction, not roll back: after a roll-back it would take its old page cache for the
new state.
"""

from __future__ import annotations

import mmap
import os
import struct
from typing import TYPE_CHECKING, Final

from temaki.replica.header import FormatError
from temaki.replica.wal import (
    BLOCK,
    BLOCK_FRAMES,
    FIRST_BLOCK_LACKS,
    FORMAT_VERSION,
    INDEX_HEADER,
    MAGIC,
    NATIVE,
    UNSIGNED,
    add_checksum,
    encoded_page_size,
    frame_offset,
    page_size_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST_SIGNED: Final = 256
"""Frames of a larger transaction get no checksums, which take 0.14 ms for 4 KiB in Python. Only a recovery after a
crash reads them, and temaki never recovers a WAL. SQLite itself leaves frames without checksums behind."""

_SLOTS: Final = 8192  # of the hash table in each block
_SLOTS_AT: Final = BLOCK_FRAMES * 4  # within a block
_SLOTS_START: Final = _SLOTS_AT // 2  # in units of 2 bytes
_HASH_PRIME: Final = 383
_CHUNK: Final = 1 << 20  # bytes that are written at once
_MASK: Final = 0xFFFF_FFFF


class WalIndex:
    """The wal-index of a live database, mapped for writing.

    The maps stay until :meth:`close`. Closing one closes a descriptor of the file, and POSIX then drops every lock that
    the process has on it.

    Args:
        fd: The ``-shm`` file, open for reading and writing.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._maps: list[mmap.mmap] = []

    def bytes(self, size: int) -> memoryview:
        """The file from its beginning, at least ``size`` bytes; it grows if it has to."""
        if not self._maps or len(self._maps[-1]) < size:
            present = os.fstat(self._fd).st_size
            wanted = -(-size // BLOCK) * BLOCK
            if self._maps:
                wanted = max(wanted, 2 * len(self._maps[-1]))
            if present < wanted:  # written, not only cut to size: on a full disk this raises, and a map would crash
                _write(self._fd, bytes(wanted - present), present)
            self._maps.append(mmap.mmap(self._fd, max(present, wanted)))
        return memoryview(self._maps[-1])

    def close(self) -> None:
        """Let go of the maps, after the last connection has closed."""
        for one in self._maps:
            one.close()
        self._maps.clear()


def append(wal_fd: int, index: WalIndex, pages: Mapping[int, bytes], page_count: int, page_size: int) -> None:
    """Append pages to the WAL as one committed transaction. The caller holds SQLite's write lock.

    Args:
        wal_fd: The ``-wal`` file, open for writing.
        index: Its wal-index.
        pages: The new bytes of pages by number; page 1 in WAL mode. At least one.
        page_count: The database's size after it, in pages.
        page_size: In bytes.

    Raises:
        FormatError: The wal-index is not as it is documented, or of another page size. Nothing was written.
        OSError: The disk is full. The database is as before, but what is in the files beyond it is not known.
    """
    assert pages, "a transaction has a page"
    header = index.bytes(BLOCK)[: 2 * INDEX_HEADER.size]
    raw = bytes(header)
    if raw[:48] != raw[48:]:
        raise FormatError("the two copies of the wal-index's header differ")
    version, unused, change, initialised, big, encoded, frames, _, sums, salts, own = INDEX_HEADER.unpack(raw[:48])
    if (
        version != FORMAT_VERSION
        or initialised != 1
        or own != struct.pack("=II", *add_checksum(NATIVE, (0, 0), raw[:40]))
    ):
        raise FormatError("the wal-index has no header that is known")
    if frames and page_size_of(encoded) != page_size:
        raise FormatError(f"the WAL has pages of {page_size_of(encoded)} bytes, not {page_size}")
    running = struct.unpack("=II", sums)
    if not frames:  # the header of the WAL is only written with its first frame
        big = int(NATIVE == ">")
        salts = os.urandom(8) if salts == bytes(8) else salts
        running = _write_header(wal_fd, page_size, salts)
    running = _write_frames(wal_fd, frames, pages, page_count, page_size, salts, (">" if big else "<", running))
    _enter(index, frames, sorted(pages))
    body = INDEX_HEADER.pack(
        version,
        unused,
        (change + 1) & _MASK,
        1,
        big,
        encoded_page_size(page_size),
        frames + len(pages),
        page_count,
        struct.pack("=II", *running),
        salts,
        b"",
    )[:40]
    body += struct.pack("=II", *add_checksum(NATIVE, (0, 0), body))
    header = index.bytes(BLOCK)
    header[48:96] = body
    header[:48] = body


def _write_header(wal_fd: int, page_size: int, salts: bytes) -> tuple[int, int]:
    """The WAL's own header; the checksum that the first frame continues."""
    raw = struct.pack(">4sIII", MAGIC[NATIVE], FORMAT_VERSION, page_size, 0) + salts
    running = add_checksum(NATIVE, (0, 0), raw)
    _write(wal_fd, raw + struct.pack(">II", *running), 0)
    return running


def _write_frames(  # noqa: PLR0917 - one call, from append()
    wal_fd: int,
    before: int,
    pages: Mapping[int, bytes],
    page_count: int,
    page_size: int,
    salts: bytes,
    signing: tuple[str, tuple[int, int]],
) -> tuple[int, int]:
    """Frames behind those that are there; the checksum that the next one continues."""
    order, running = signing
    last = max(pages)
    at = frame_offset(before + 1, page_size)
    chunk = bytearray()
    for number in sorted(pages):
        page = pages[number]
        assert len(page) == page_size, f"page {number} has {len(page)} bytes"
        first = struct.pack(">II", number, page_count if number == last else 0)
        signature = UNSIGNED
        if len(pages) <= MOST_SIGNED:
            running = add_checksum(order, add_checksum(order, running, first), page)
            signature = salts + struct.pack(">II", *running)
        chunk += first + signature + page
        if len(chunk) >= _CHUNK:
            _write(wal_fd, chunk, at)
            at += len(chunk)
            chunk.clear()
    _write(wal_fd, chunk, at)
    return running


def _enter(index: WalIndex, frames: int, numbers: list[int]) -> None:
    """Entries for frames that are not committed yet: section 2.2, and ``walIndexAppend`` of SQLite.

    Whoever reads meanwhile ignores entries beyond its snapshot. Each value is stored in one instruction, so that no
    reader sees half of one: that is what the casts are for.
    """
    for frame, number in enumerate(numbers, frames + 1):
        block, within = divmod(frame - 1 + FIRST_BLOCK_LACKS, BLOCK_FRAMES)
        entry = within + 1 - (0 if block else FIRST_BLOCK_LACKS)  # from 1, among those of its block
        view = index.bytes((block + 1) * BLOCK)[block * BLOCK : (block + 1) * BLOCK]
        words, slots = view.cast("I"), view.cast("H")
        if entry == 1:
            start = 4 * within
            view[start:] = bytes(BLOCK - start)
        elif words[within]:
            _remove_leftovers(words, slots, within, entry)
        slot = (number * _HASH_PRIME) % _SLOTS
        while slots[_SLOTS_START + slot]:
            slot = (slot + 1) % _SLOTS
        words[within] = number
        slots[_SLOTS_START + slot] = entry


def _remove_leftovers(words: memoryview, slots: memoryview, within: int, entry: int) -> None:
    """Remove the entries of a writer that was interrupted, as ``walCleanupHash`` of SQLite does."""
    for slot in range(_SLOTS_START, _SLOTS_START + _SLOTS):
        if slots[slot] >= entry:
            slots[slot] = 0
    for place in range(within, BLOCK_FRAMES):
        words[place] = 0


def _write(fd: int, data: bytes | bytearray, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, offset)
        view, offset = view[count:], offset + count
    view.release()
