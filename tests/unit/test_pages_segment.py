"""`formats.pages.segment`: what is written is what is read; what contradicts the head is refused."""

from __future__ import annotations

import io
import random
import struct
import tracemalloc
import zlib
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from temaki.formats.pages.head import Segment
from temaki.formats.pages.pageimage import pack
from temaki.formats.pages.segment import SegmentReader, encode, index_size, size_of
from temaki.replica.header import FormatError

NAME = "seg-" + "1" * 30


def written(pages: dict[int, bytes], *, page_size: int = 512, last: int = 9) -> tuple[bytes, Segment]:
    """A segment's object, and what a head says of it."""
    raw = b"".join(
        encode(((number, pack(page)) for number, page in sorted(pages.items())), page_size=page_size, last=last)
    )
    return raw, Segment(NAME, last, len(pages), len(raw))


def reader(raw: bytes, segment: Segment, page_size: int = 512) -> SegmentReader:
    """As a pull reads it."""
    stream = io.BytesIO(raw)

    def read(count: int) -> bytes:
        data = stream.read(count)
        if len(data) < count:
            raise FormatError("ended early")
        return data

    return SegmentReader(read, segment, len(raw), page_size)


@st.composite
def contents(draw: st.DrawFn) -> dict[int, bytes]:
    """Pages, some of which shrink."""
    rng = random.Random(draw(st.integers()))
    numbers = draw(st.sets(st.integers(1, 1 << 21), min_size=1, max_size=20))
    return {
        number: rng.randbytes(512) if rng.random() < 0.5 else bytes([rng.randrange(256)]) * 512 for number in numbers
    }


PAGES = {3: b"a" * 512, 5: random.Random(1).randbytes(512), 9: b"c" * 512}


class TestBytes:
    """What a segment's object looks like."""

    @given(pages=contents())
    def test_pages_come_back(self, pages: dict[int, bytes]) -> None:
        """All of them, in order, with the size that was foretold."""
        raw, segment = written(pages)
        assert list(reader(raw, segment).pages()) == sorted(pages.items())
        assert list(reader(raw, segment).numbers) == sorted(pages)
        assert size_of(len(pack(page)) for page in pages.values()) == len(raw)

    def test_the_index_can_be_read_alone(self) -> None:
        """A merge asks for so many bytes of it, and learns which pages it has."""
        raw, segment = written(PAGES)
        short = raw[: index_size(segment.pages)]
        stream = io.BytesIO(short)
        assert list(SegmentReader(stream.read, segment, len(raw), 512).numbers) == [3, 5, 9]
        assert stream.read() == b""

    def test_more_pages_than_are_read_at_once(self) -> None:
        """The index comes in parts."""
        pages = {number: bytes(512) for number in range(1, 10_001)}
        raw, segment = written(pages)
        assert len(list(reader(raw, segment).pages())) == 10_000

    def test_memory(self) -> None:
        """A reader holds the index and one page."""
        rng = random.Random(1)
        pages = {number: rng.randbytes(65536) for number in range(1, 129)}
        raw, segment = written(pages, page_size=65536)
        tracemalloc.start()
        count = sum(1 for _ in reader(raw, segment, 65536).pages())
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert count == 128
        assert peak < 1 << 20


class TestHostile:
    """A reader takes nothing from an object that is not exactly what the head says."""

    @pytest.mark.parametrize("changes", [{"last": 8}, {"pages": 2}, {"pages": 4}, {"size": 99}])
    def test_another_segment(self, changes: dict[str, Any]) -> None:
        """As after a swap of two objects."""
        raw, segment = written(PAGES)
        with pytest.raises(FormatError):
            reader(raw, replace(segment, **changes))

    def test_another_page_size(self) -> None:
        """Of another database."""
        raw, segment = written(PAGES)
        with pytest.raises(FormatError, match="another segment"):
            reader(raw, segment, 1024)

    def test_another_kind_of_object(self) -> None:
        """A base, say."""
        raw, segment = written(PAGES)
        with pytest.raises(FormatError, match="no segment"):
            reader(b"SQLite format 3\0" + raw[16:], segment)

    @pytest.mark.parametrize("count", [0xFFFF_FFFF, 1 << 20])
    def test_huge_count(self, count: int) -> None:
        """Neither the object nor the head makes a reader ask for more than the object has."""
        raw, segment = written(PAGES)
        with pytest.raises(FormatError, match="too few"):
            reader(raw, replace(segment, pages=count))
        changed = raw[:21] + struct.pack(">I", count) + raw[25:]
        with pytest.raises(FormatError, match="another segment"):
            reader(changed, segment)

    @pytest.mark.parametrize(
        ("entry", "number", "length"),
        [(0, 0, 12), (1, 3, 512), (1, 2, 512), (0, 3, 0), (1, 5, 513), (2, (1 << 30) // 512 + 1, 12), (0, 3, 400)],
    )
    def test_impossible_entry(self, entry: int, number: int, length: int) -> None:
        """Page 0, twice, out of order, empty, longer than a page, the lock page, lengths that do not add up."""
        raw, segment = written(PAGES)
        at = 33 + 8 * entry
        with pytest.raises(FormatError):
            reader(raw[:at] + struct.pack(">II", number, length) + raw[at + 8 :], segment)

    def test_a_bomb(self) -> None:
        """An image that inflates to more than a page."""
        image = zlib.compress(bytes(100_000))
        raw = b"".join(encode([(3, image)], page_size=512, last=9))
        with pytest.raises(FormatError, match="inflate"):
            list(reader(raw, Segment(NAME, 9, 1, len(raw))).pages())

    @given(data=st.data())
    def test_damaged(self, data: st.DataObject) -> None:
        """Bytes that were changed: pages of the right size, or a FormatError."""
        raw, segment = written(PAGES)
        damaged = bytearray(raw)
        for _ in range(data.draw(st.integers(1, 3))):
            damaged[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
        with suppress(FormatError):
            assert all(len(page) == 512 for _, page in reader(bytes(damaged), segment).pages())
