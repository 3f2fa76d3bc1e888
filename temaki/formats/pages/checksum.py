"""The checksum of a whole database, which a commit updates from the pages that it changed.

It is the sum, modulo 2^64, of one value for each page: the first 8 bytes of SHA-256 over the page's number (4 bytes,
most significant first) and its canonical bytes. SQLite's lock page counts 0. A sum of CRCs would not do: CRCs are
linear, and their sum does not show that two pages were swapped.
"""

from __future__ import annotations

import hashlib
import struct
from typing import TYPE_CHECKING, Final

from temaki.formats.pages.pageone import canonical
from temaki.replica.header import lock_page

if TYPE_CHECKING:
    from collections.abc import Iterable

_NUMBER = struct.Struct(">I")
MASK: Final = (1 << 64) - 1


def page_value(number: int, page: bytes) -> int:
    """What one page adds to the sum.

    Args:
        number: From 1.
        page: Its bytes, canonical or not.
    """
    if number == lock_page(len(page)):
        return 0
    digest = hashlib.sha256(_NUMBER.pack(number) + canonical(number, page)).digest()
    return int.from_bytes(digest[:8], "big")


def values(first: int, data: memoryview, page_size: int) -> list[int]:
    """What each of several consecutive pages adds to the sum. Most of it leaves other threads of Python alone.

    Args:
        first: Number of the first page.
        data: The pages.
        page_size: In bytes; ``data`` has a multiple of it.
    """
    if first == 1 or first <= lock_page(page_size) < first + len(data) // page_size:
        starts = range(0, len(data), page_size)
        return [page_value(n, bytes(data[at : at + page_size])) for n, at in enumerate(starts, first)]
    sha256, join, pack, number = hashlib.sha256, b"".join, _NUMBER.pack, int.from_bytes
    return [
        number(sha256(join((pack(n), data[at : at + page_size]))).digest()[:8], "big")
        for n, at in enumerate(range(0, len(data), page_size), first)
    ]


def plus(total: int, pages: Iterable[tuple[int, bytes]]) -> int:
    """The sum with some pages more, each with its number."""
    return (total + sum(page_value(number, page) for number, page in pages)) & MASK


def minus(total: int, pages: Iterable[tuple[int, bytes]]) -> int:
    """The sum without some pages that are in it, each with its number."""
    return (total - sum(page_value(number, page) for number, page in pages)) & MASK
