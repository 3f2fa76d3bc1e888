"""Page 1 without the fields that differ from version to version, or by the place where the file lies.

Format: "The Database Header" in https://www.sqlite.org/fileformat2.html (section 1.3). In the **canonical** page 1, the
format versions (bytes 18 and 19) are 1, and change counter, size (24-31) and version-valid-for (92-95) are 0. So page 1
is part of a commit only if SQLite changed it for another reason. The fields are filled in from the head.
"""

from __future__ import annotations

import struct
from typing import Final

from temaki.replica.header import MODES_AT, ROLLBACK_MODE, FormatError, read_header

_COUNTERS: Final = slice(24, 32)
_VALID_FOR: Final = slice(92, 96)
_MASK: Final = 0xFFFF_FFFF


def canonical(number: int, page: bytes) -> bytes:
    """The page as it is stored and summed: page 1 in its canonical form, every other one as it is."""
    if number != 1:
        return page
    raw = bytearray(page)
    raw[MODES_AT : MODES_AT + 2] = ROLLBACK_MODE
    raw[_COUNTERS] = bytes(8)
    raw[_VALID_FOR] = bytes(4)
    return bytes(raw)


def materialised(page: bytes, *, modes: bytes, sequence: int, page_count: int) -> bytes:
    """Page 1 of a database file, from its canonical form.

    Args:
        page: The canonical page 1.
        modes: :data:`~temaki.replica.header.WAL_MODE` for a working copy,
            :data:`~temaki.replica.header.ROLLBACK_MODE` for a file that any tool opens.
        sequence: The version's number; stored modulo 2^32.
        page_count: The database's size, in pages.

    Raises:
        FormatError: It is no first page of a database, or of one with another page size.
    """
    header = read_header(page)
    if header.page_size != len(page):
        raise FormatError(f"page 1 has {len(page)} bytes, and says that pages have {header.page_size}")
    raw = bytearray(page)
    raw[MODES_AT : MODES_AT + 2] = modes
    counter = struct.pack(">I", sequence & _MASK)
    raw[_COUNTERS] = counter + struct.pack(">I", page_count)
    raw[_VALID_FOR] = counter
    return bytes(raw)
