"""`formats.pages`: the image of a page, the canonical page 1, and the checksum of a database."""

from __future__ import annotations

import random
import sqlite3
import struct
import zlib
from contextlib import closing, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from temaki.formats.pages.checksum import minus, page_value, plus
from temaki.formats.pages.pageimage import pack, unpack
from temaki.formats.pages.pageone import canonical, materialised
from temaki.replica import header
from temaki.replica.header import ROLLBACK_MODE, WAL_MODE, FormatError, lock_page, read_header

PAGE_SIZES = [512 << n for n in range(8)]


class TestImage:
    """`pageimage`: a page comes back exactly, and nothing else does."""

    @given(size=st.sampled_from(PAGE_SIZES), zeros=st.floats(0, 1), seed=st.integers())
    def test_a_page_comes_back(self, size: int, zeros: float, seed: int) -> None:
        """Whatever is in it, and the image is never longer than the page."""
        rng = random.Random(seed)
        page = rng.randbytes(size - int(size * zeros)) + bytes(int(size * zeros))
        assert unpack(pack(page), size) == page
        assert len(pack(page)) <= size

    def test_a_page_that_does_not_shrink_is_stored_as_it_is(self) -> None:
        """Random bytes become longer when compressed."""
        page = random.Random(1).randbytes(4096)
        assert pack(page) == page

    def test_text_shrinks(self) -> None:
        """Compression is on."""
        assert len(pack(b"a row of a table, " * 200 + bytes(496))) < 200

    @pytest.mark.parametrize(
        "image",
        [
            b"",
            b"x",
            zlib.compress(bytes(4095)),
            zlib.compress(bytes(4097)),
            zlib.compress(bytes(1 << 20)),
            zlib.compress(bytes(4096)) + b"x",
            zlib.compress(bytes(4096))[:-1],
            zlib.compress(bytes(4096))[:-4] + b"sum!",
            zlib.compress(bytes(2048)) * 2,
            bytes(4097),
        ],
    )
    def test_what_is_no_image_of_one_page(self, image: bytes) -> None:
        """Too short, too long, truncated, with something behind it, or with a wrong sum."""
        with pytest.raises(FormatError):
            unpack(image, 4096)

    def test_a_bomb_is_not_inflated(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """At most one byte beyond the page is asked for."""
        asked = []
        real = zlib.decompressobj

        class Watched:
            def __init__(self) -> None:
                self.inner = real()

            def decompress(self, data: bytes, most: int) -> bytes:
                asked.append(most)
                return self.inner.decompress(data, most)

            def __getattr__(self, name: str) -> object:
                return getattr(self.inner, name)

        monkeypatch.setattr("temaki.formats.pages.pageimage.zlib.decompressobj", Watched)
        with pytest.raises(FormatError):
            unpack(zlib.compress(bytes(1 << 21)), 4096)
        assert asked == [4097]

    @given(image=st.binary(max_size=600))
    def test_hostile_bytes(self, image: bytes) -> None:
        """A page of the right size, or a FormatError."""
        with suppress(FormatError):
            assert len(unpack(image, 512)) == 512


def database(path: Path, page_size: int = 4096) -> bytes:
    """A database file."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA page_size={page_size}")
        connection.execute("CREATE TABLE t (x)")
        connection.execute("INSERT INTO t VALUES (1)")
        connection.commit()
    return path.read_bytes()


class TestPageOne:
    """`pageone`: what is stored of page 1 does not depend on the version or on the file's mode."""

    @pytest.mark.parametrize("page_size", PAGE_SIZES)
    def test_a_materialised_page_is_a_header_with_these_facts(self, tmp_path: Path, page_size: int) -> None:
        """SQLite takes the size in pages for valid."""
        page = database(tmp_path / "a", page_size)[:page_size]
        made = materialised(canonical(1, page), modes=WAL_MODE, sequence=(1 << 32) + 7, page_count=9)
        found = read_header(made)
        assert (found.change_counter, found.page_count, found.size_is_valid) == (7, 9, True)
        assert (found.write_version, found.read_version) == (2, 2)

    def test_canonical_form_is_the_same_for_every_version_and_mode(self, tmp_path: Path) -> None:
        """It has the fields that the docstring names, and those alone, cleared."""
        page = database(tmp_path / "a")[:4096]
        form = canonical(1, page)
        for modes, sequence, count in ((WAL_MODE, 3, 4), (ROLLBACK_MODE, 99, 1)):
            assert canonical(1, materialised(form, modes=modes, sequence=sequence, page_count=count)) == form
        touched = {18, 19, *range(24, 32), *range(92, 96)}
        assert all(form[i] == page[i] for i in range(4096) if i not in touched)
        assert form[18:20] == b"\1\1"
        assert not any(form[24:32] + form[92:96])

    def test_other_pages_are_left_alone(self) -> None:
        """Only page 1 has a header."""
        page = bytes(range(256)) * 2
        assert canonical(2, page) == page

    def test_a_first_page_of_another_size(self, tmp_path: Path) -> None:
        """It would make SQLite read the file with the wrong page size."""
        page = canonical(1, database(tmp_path / "a", 1024)[:1024])
        with pytest.raises(FormatError, match="page 1"):
            materialised(page + bytes(1024), modes=WAL_MODE, sequence=1, page_count=1)
        with pytest.raises(FormatError):
            materialised(bytes(512), modes=WAL_MODE, sequence=1, page_count=1)


numbered = st.dictionaries(st.integers(1, 1 << 21), st.binary(min_size=512, max_size=512), max_size=6)


class TestChecksum:
    """`checksum`: adding and subtracting pages gives what summing the whole would give."""

    def test_the_definition(self) -> None:
        """The exact number, so that no release changes it by accident."""
        assert page_value(2, b"x" * 512) == 0xBD60_0235_FDF7_F9ED
        assert plus(0, [(2, b"x" * 512), (3, b"x" * 512)]) == (
            page_value(2, b"x" * 512) + page_value(3, b"x" * 512)
        ) % (1 << 64)

    @given(before=numbered, after=numbered)
    def test_incremental(self, before: dict[int, bytes], after: dict[int, bytes]) -> None:
        """From one set of pages to the next, by the pages that differ."""
        total = plus(0, before.items())
        gone = [(n, page) for n, page in before.items() if after.get(n) != page]
        new = [(n, page) for n, page in after.items() if before.get(n) != page]
        assert plus(minus(total, gone), new) == plus(0, after.items())
        assert 0 <= total < 1 << 64

    def test_swapped_pages_are_seen(self) -> None:
        """A sum over CRCs would miss this."""
        a, b = b"a" * 512, b"b" * 512
        assert plus(0, [(5, a), (6, b)]) != plus(0, [(5, b), (6, a)])

    def test_the_lock_page_does_not_count(self) -> None:
        """SQLite never writes it, so its bytes are nobody's business."""
        number = lock_page(4096)
        assert number == 262145
        assert page_value(number, b"?" * 4096) == 0
        assert page_value(number + 1, b"?" * 4096) != 0

    def test_the_lock_page_is_where_sqlite_has_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The offset is read at each call, for tests that move it."""
        monkeypatch.setattr(header, "LOCK_BYTE_AT", 1 << 17)
        assert page_value((1 << 17) // 512 + 1, bytes(512)) == 0

    def test_version_fields_do_not_count(self, tmp_path: Path) -> None:
        """A working copy in WAL mode has the sum of the file that was uploaded."""
        page = database(tmp_path / "a")[:4096]
        other = bytearray(page)
        other[18:20], other[24:28], other[92:96] = WAL_MODE, struct.pack(">I", 77), struct.pack(">I", 77)
        assert page_value(1, page) == page_value(1, bytes(other))
