"""A segment: an object with the pages that changed between two versions.

Its bytes are, in this order:

* the line ``temaki segment 1``;
* a header of 16 bytes: page size (4), count of pages (4), number of the last version (8);
* an index: number (4) and length (4) of each page's image, ascending by number;
* the images, in the same order, as :mod:`temaki.formats.pages.pageimage` packs them.

All numbers are unsigned, most significant byte first. The index comes first, so that a merge learns from a short
request which pages a segment has. The head names a segment with its count of pages, its size and its last version: an
object that says something else is refused before anything of it is used.
"""

from __future__ import annotations

import struct
from array import array
from typing import TYPE_CHECKING, Final

from temaki.formats.pages.head import Segment
from temaki.formats.pages.pageimage import unpack
from temaki.replica.header import FormatError, lock_page

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import IO

    Read = Callable[[int], bytes]

_FIRST_LINE: Final = b"temaki segment 1\n"
_HEADER: Final = struct.Struct(">IIQ")
_PREFIX: Final = len(_FIRST_LINE) + _HEADER.size
_ENTRY: Final = struct.Struct(">II")
_ENTRIES_AT_ONCE: Final = 8192
_MOST_PAGES: Final = (1 << 32) - 2


def size_of(images: Iterable[int]) -> int:
    """The size in bytes of a segment with images of these lengths."""
    lengths = list(images)
    return _PREFIX + _ENTRY.size * len(lengths) + sum(lengths)


def index_size(pages: int) -> int:
    """How many bytes at a segment's beginning tell which pages it has."""
    return _PREFIX + _ENTRY.size * pages


def encode(pages: Iterable[tuple[int, bytes]], *, page_size: int, last: int) -> Iterator[bytes]:
    """The bytes of a segment, in pieces.

    Args:
        pages: Number and image of each page, ascending by number. It is gone through once.
        page_size: In bytes.
        last: Number of the last version whose changes the segment has.
    """
    index, images = bytearray(), []
    for number, image in pages:
        index += _ENTRY.pack(number, len(image))
        images.append(image)
    yield _FIRST_LINE + _HEADER.pack(page_size, len(images), last) + index
    yield from images


def write(file: IO[bytes], numbers: Sequence[int], image: Callable[[int], bytes], *, page_size: int, last: int) -> int:
    """Write a segment into a file, one page at a time: memory does not grow with it.

    Args:
        file: An empty file.
        numbers: The pages' numbers, ascending.
        image: Gives a page's image.
        page_size: In bytes.
        last: Number of the last version whose changes the segment has.

    Returns:
        Its size, in bytes.
    """
    index = bytearray(_FIRST_LINE + _HEADER.pack(page_size, len(numbers), last))
    file.seek(index_size(len(numbers)))
    for number in numbers:
        packed = image(number)
        index += _ENTRY.pack(number, len(packed))
        file.write(packed)
    size = file.tell()
    file.seek(0)
    file.write(index)
    return size


class SegmentReader:
    """Reads a segment from its beginning, and never holds more of it than its index and one page.

    Args:
        read: Gives exactly as many bytes as it is asked for, the next ones; or raises.
        segment: What the head says of it.
        size: The object's size, in bytes.
        page_size: That of the database, in bytes.

    Attributes:
        numbers: The pages' numbers, ascending.

    Raises:
        FormatError: The object is not this segment.
    """

    def __init__(self, read: Read, segment: Segment, size: int, page_size: int) -> None:
        self._read, self._page_size = read, page_size
        if size != segment.size:
            raise FormatError(f"it is truncated or changed: it has {size} bytes, and its head says {segment.size}")
        if size < index_size(segment.pages) + segment.pages:
            raise FormatError(f"it has {size} bytes, too few for {segment.pages} pages")
        first = read(_PREFIX)
        if not first.startswith(_FIRST_LINE):
            raise FormatError(f"it is no segment: it starts with {first[:16]!r}")
        found = _HEADER.unpack_from(first, len(_FIRST_LINE))
        if found != (page_size, segment.pages, segment.last):
            raise FormatError(
                "it is another segment: its page size, count of pages and version are "
                f"{found}, and its head says {(page_size, segment.pages, segment.last)}"
            )
        self.numbers, self._lengths = array("I"), array("I")
        self._read_index(segment.pages)
        if index_size(segment.pages) + sum(self._lengths) != size:
            raise FormatError("the lengths of its pages do not add up to its size")

    def _read_index(self, count: int) -> None:
        before = 0
        while count:
            some = min(count, _ENTRIES_AT_ONCE)
            for number, length in _ENTRY.iter_unpack(self._read(some * _ENTRY.size)):
                if not before < number <= _MOST_PAGES or number == lock_page(self._page_size):
                    raise FormatError(f"it has page {number} after page {before}")
                if not 0 < length <= self._page_size:
                    raise FormatError(f"the image of its page {number} has {length} bytes")
                self.numbers.append(number)
                self._lengths.append(length)
                before = number
            count -= some

    def images(self) -> Iterator[tuple[int, bytes]]:
        """Number and image of each page, ascending by number. To be gone through once."""
        for number, length in zip(self.numbers, self._lengths, strict=True):
            yield number, self._read(length)

    def pages(self) -> Iterator[tuple[int, bytes]]:
        """Number and bytes of each page, ascending by number. To be gone through once.

        Raises:
            FormatError: An image is none.
        """
        for number, image in self.images():
            yield number, unpack(image, self._page_size)
