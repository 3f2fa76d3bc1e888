"""Reads the header of a SQLite database file: its first 100 bytes.

Format: "The Database Header" in https://www.sqlite.org/fileformat2.html (section 1.3).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

DATABASE_HEADER: Final = 100  # bytes
MODES_AT: Final = 18
"""Offset of the two bytes with the modes for writing and reading: 1 for a rollback journal, 2 for a WAL."""
ROLLBACK_MODE: Final = b"\x01\x01"
WAL_MODE: Final = b"\x02\x02"

LOCK_BYTE_AT: Final = 1 << 30
"""SQLite locks the byte at this offset of a database file. It never writes the page that holds it."""

SMALLEST_PAGE: Final = 512  # bytes
LARGEST_PAGE: Final = 1 << 16  # bytes
_LEAST_USABLE: Final = 480  # bytes of a page
_NEWEST_FORMAT: Final = max(WAL_MODE)


class FormatError(ValueError):
    """The bytes are not what SQLite writes. The message is only a reason; the caller names the object."""


@dataclass(frozen=True, slots=True)
class DatabaseHeader:
    """The header of a database file. Section 1.3 of the file format.

    Attributes:
        page_size: Size of a page, in bytes.
        page_count: Size of the database in pages, as stored; correct only if ``size_is_valid`` (section 1.3.7).
        size_is_valid: True if the last writer wrote ``page_count``; false if an older writer left it.
        change_counter: Counter of transactions in rollback mode.
        write_version: Mode for writing: 1 for a rollback journal, 2 for a WAL.
        read_version: Mode for reading: 1 for a rollback journal, 2 for a WAL.
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
        FormatError: The bytes are no header of this format. The message is a short reason.
    """
    if not raw:
        raise FormatError("it is empty (0 bytes)")
    if not raw.startswith(b"SQLite format 3\0"[: len(raw)]):
        raise FormatError(f"not SQLite: it starts with {raw[:16]!r} (encrypted, compressed, or another kind of file)")
    if len(raw) < DATABASE_HEADER:
        raise FormatError(f"truncated: {len(raw)} bytes where the header alone takes {DATABASE_HEADER}")
    page_size = int.from_bytes(raw[16:18], "big")
    if page_size == 1:  # 65536 does not fit into two bytes
        page_size = LARGEST_PAGE
    if not is_page_size(page_size):
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


def is_page_size(value: int) -> bool:
    """Whether SQLite has pages of ``value`` bytes."""
    return SMALLEST_PAGE <= value <= LARGEST_PAGE and not value & (value - 1)


def lock_page(page_size: int) -> int:
    """The number of the page that SQLite never writes: "The Lock-Byte Page", section 1.4.

    Args:
        page_size: In bytes.
    """
    return LOCK_BYTE_AT // page_size + 1
