"""`formats.pages.manifest`: what is written is what is read, and nothing impossible is believed."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from temaki.formats.pages import manifest
from temaki.formats.pages.head import Base, Head, Marked, Segment, TailPage
from temaki.formats.pages.manifest import NewerHeadError, decode, encode
from temaki.formats.pages.names import is_name, key_of, new_name
from temaki.replica.header import FormatError

HEX = st.text("0123456789abcdef", min_size=30, max_size=30)


@st.composite
def heads(draw: st.DrawFn) -> Head:
    """Heads of every shape that a writer may make."""
    page_size = draw(st.sampled_from([512, 4096, 65536]))
    page_count = draw(st.integers(1, 1 << 20))
    sequence = draw(st.integers(1, 1 << 40))
    base_sequence = draw(st.integers(0, sequence))
    names = iter(draw(st.lists(HEX, unique=True, min_size=14, max_size=14)))
    lasts = sorted(draw(st.lists(st.integers(0, sequence), max_size=4)))
    numbers = sorted(draw(st.sets(st.integers(1, min(page_count, 10_000)), max_size=6)))
    times = st.integers(0, 1 << 33)
    return Head(
        page_size=page_size,
        page_count=page_count,
        sequence=sequence,
        commit=draw(st.text("0123456789abcdef-", min_size=8, max_size=24)),
        base=Base(f"base-{next(names)}", page_size * draw(st.integers(1, 1000)), base_sequence),
        segments=tuple(
            Segment(f"seg-{next(names)}", last, draw(st.integers(1, 99)), draw(st.integers(1, 1 << 30)))
            for last in lasts
        ),
        since=draw(st.integers(0, base_sequence)),
        tail=tuple(
            TailPage(number, draw(st.integers(0, sequence)), draw(st.binary(min_size=1, max_size=512)))
            for number in numbers
        ),
        checksum=draw(st.integers(0, (1 << 64) - 1)),
        collection=draw(st.integers(0, 99)),
        edition=draw(st.integers(0, 99)),
        condemned=tuple(Marked(f"{kind}-{next(names)}", draw(times)) for kind in ("base", "seg", "gone")),
        gone=tuple(f"gone-{next(names)}" for _ in range(draw(st.integers(0, 2)))),
        claim=draw(st.none() | st.builds(Marked, st.just(f"base-{next(names)}"), times)),
        unknown=draw(
            st.dictionaries(st.text(min_size=1).map(lambda t: f"x{t}"), st.none() | st.text() | st.integers())
        ),
    )


def example(**changes: Any) -> Head:
    """An ordinary head."""
    rng = random.Random(1)
    made = Head(
        page_size=4096,
        page_count=100,
        sequence=50,
        commit="0123456789abcdef01234567",
        base=Base("base-" + "0" * 30, 4096 * 90, 20),
        segments=(Segment("seg-" + "1" * 30, 30, 5, 9000), Segment("seg-" + "2" * 30, 40, 6, 9001)),
        since=10,
        tail=(TailPage(1, 50, rng.randbytes(700)), TailPage(7, 45, rng.randbytes(4096))),
        checksum=(1 << 64) - 2,
        condemned=(Marked("seg-" + "3" * 30, 1_700_000_000),),
    )
    return replace(made, **changes)


def changed(head: Head, **changes: Any) -> bytes:
    """The bytes of a head with other fields in its manifest, whatever sense they make."""
    first, hint, text, rest = encode(head).split(b"\n", 3)
    fields = json.loads(text)
    for name, value in changes.items():
        if value is ...:
            del fields[name]
        else:
            fields[name] = value
    return b"\n".join([first, hint, json.dumps(fields).encode(), rest])


class TestBytes:
    """What a head's object looks like."""

    @given(head=heads())
    def test_a_head_comes_back(self, head: Head) -> None:
        """Every field, and those of a newer temaki too."""
        assert decode(encode(head)) == head

    def test_a_human_is_told_what_it_is(self) -> None:
        """Whoever opens it in a text viewer reads how to get a database out of it."""
        first, second, *_ = encode(example()).split(b"\n")
        assert first == b"temaki pages 1"
        assert b"temaki pull" in second

    def test_unknown_fields_are_kept(self) -> None:
        """A newer temaki's field survives a commit by this one."""
        raw = changed(example(), shape={"deep": [1, None, "\ud800"]})
        assert decode(encode(replace(decode(raw), sequence=51))).unknown == {"shape": {"deep": [1, None, "\ud800"]}}

    def test_the_largest_head_of_a_writer_fits(self) -> None:
        """64 segments, 64 condemned, 32 KiB of images: under 64 KiB, as the price of a commit wants it."""
        rng = random.Random(2)
        made = example(
            segments=tuple(Segment(new_name("seg"), 30 + n // 4, 10_000, 10_000_000) for n in range(64)),
            condemned=tuple(Marked(new_name("seg"), 1_700_000_000) for _ in range(64)),
            tail=tuple(TailPage(n + 1, 45, rng.randbytes(400)) for n in range(80)),
        )
        assert len(encode(made)) < 64 << 10

    def test_reading_imports_little(self) -> None:
        """A cold start reads a head: it needs only small modules of the standard library beside what is loaded."""
        code = (
            "import sys, temaki; before = set(sys.modules); import temaki.formats.pages.manifest; "
            "print(*(name for name in set(sys.modules) - before if not name.startswith('temaki')))"
        )
        run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        small = {"json", "hashlib", "zlib", "struct", "re", "encodings", "bisect", "secrets"}
        assert {name.lstrip("_").split(".")[0] for name in run.stdout.split()} <= small


class TestQuestions:
    """What a pull asks of a head."""

    def test_named(self) -> None:
        """A claim and the lists of condemned objects count as named; condemned objects do not."""
        made = example(claim=Marked("base-" + "4" * 30, 1), gone=("gone-" + "5" * 30,))
        assert {name[:5] + name[-1] for name in made.named} == {"base-0", "base-4", "seg-11", "seg-22", "gone-5"}

    def test_reach(self) -> None:
        """From `since` to the head's own version, with the same page size."""
        made = example()
        assert [made.reaches(sequence, 4096) for sequence in (9, 10, 50, 51)] == [False, True, True, False]
        assert not made.reaches(30, 1024)

    def test_segments(self) -> None:
        """A full pull leaves out what is in the base, a catch-up what is here."""
        made = example(base=replace(example().base, sequence=30))
        assert [segment.last for segment in made.live] == [40]
        assert [segment.last for segment in made.newer_than(29)] == [30, 40]


IMPOSSIBLE: dict[str, dict[str, Any]] = {
    "page size": {"page_size": 1000},
    "page size 0": {"page_size": 0},
    "huge count": {"page_count": 1 << 40},
    "no pages": {"page_count": 0},
    "float": {"sequence": 50.0},
    "bool": {"sequence": True},
    "negative": {"since": -1},
    "missing": {"checksum": ...},
    "short sum": {"checksum": "12"},
    "text for a list": {"segments": "seg"},
    "too many segments": {"segments": [[f"seg-{n:030x}", 30, 1, 100] for n in range(65)]},
    "too many condemned": {"condemned": [[f"seg-{n:030x}", 30] for n in range(65)]},
    "segments out of order": {"segments": [[f"seg-{n:030x}", 40 - n, 1, 100] for n in range(2)]},
    "segment twice": {"segments": [["seg-" + "1" * 30, 30, 1, 100]] * 2},
    "named and condemned": {"condemned": [["seg-" + "1" * 30, 1]]},
    "segment of the future": {"segments": [["seg-" + "1" * 30, 51, 1, 100]]},
    "segment without pages": {"segments": [["seg-" + "1" * 30, 30, 0, 100]]},
    "path in a name": {"base": ["base-../../other", 4096, 20]},
    "base of another page size": {"base": ["base-" + "0" * 30, 4096 + 512, 20]},
    "base out of reach": {"since": 21},
    "base of the future": {"base": ["base-" + "0" * 30, 4096, 51]},
    "a segment as a base": {"base": ["seg-" + "0" * 30, 4096, 20]},
    "tail beyond the end": {"tail": [[101, 50, 0, 700], [102, 50, 700, 4096]]},
    "tail out of order": {"tail": [[7, 50, 0, 700], [1, 45, 700, 4096]]},
    "tail twice": {"tail": [[7, 50, 0, 700], [7, 45, 700, 4096]]},
    "tail overlaps": {"tail": [[1, 50, 0, 700], [7, 45, 699, 4096]]},
    "tail too short": {"tail": [[1, 50, 0, 700]]},
    "tail too long": {"tail": [[1, 50, 0, 700], [7, 45, 700, 4096], [8, 45, 4796, 1]]},
    "tail of the future": {"tail": [[1, 51, 0, 700], [7, 45, 700, 4096]]},
    "image longer than a page": {"tail": [[1, 50, 0, 4796]]},
    "claim of a segment": {"fold": ["seg-" + "4" * 30, 1]},
    "claim of the base": {"fold": ["base-" + "0" * 30, 1]},
    "bad id": {"commit": "../x"},
    "infinite": {"later": float("inf")},
}


class TestHostile:
    """Whatever comes, it is a head or a FormatError; never an endless loop, a huge buffer or another exception."""

    @pytest.mark.parametrize("changes", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
    def test_impossible(self, changes: dict[str, Any]) -> None:
        """Each of these would have a reader fetch, inflate or write something wrong."""
        assert decode(changed(example()))
        with pytest.raises(FormatError, match="head"):
            decode(changed(example(), **changes))

    def test_a_lock_page(self) -> None:
        """Nobody may write it."""
        with pytest.raises(FormatError):
            decode(changed(example(page_count=1 << 20), tail=[[1, 50, 0, 700], [262145, 45, 700, 4096]]))

    @pytest.mark.parametrize(
        "raw",
        [
            b"",
            b"temaki pages 1",
            b"temaki pages 1\n",
            b"temaki pages 1\nhint\n{}",
            b"temaki pages 1\nhint\n{}\n",
            b"temaki pages 1\nhint\n[]\n",
            b"temaki pages 1\nhint\n" + b"[" * 100_000 + b"\n",
            b'temaki pages 1\nhint\n{"a":' + b"9" * 5000 + b"}\n",
            b"temaki pages 1\nhint\n\xff\n",
            b"temaki pages 1\n" + b"x" * 5000 + b"\n{}\n",
            b"SQLite format 3\0" + bytes(84),
        ],
    )
    def test_no_head(self, raw: bytes) -> None:
        """Truncated, nested without end, no UTF-8, another file."""
        with pytest.raises(FormatError):
            decode(raw)

    def test_too_large(self) -> None:
        """It is refused before anything in it is read."""
        with pytest.raises(FormatError, match="no head has more"):
            decode(bytes(manifest.LARGEST_HEAD + 1))

    def test_newer(self) -> None:
        """A newer layout, and a newer feature, are told apart from damage."""
        with pytest.raises(NewerHeadError, match="version 2"):
            decode(encode(example()).replace(b"temaki pages 1\n", b"temaki pages 2\n"))
        with pytest.raises(NewerHeadError, match="folded-space"):
            decode(changed(example(), requires=["folded-space"]))

    @given(data=st.data())
    def test_damaged(self, data: st.DataObject) -> None:
        """Bytes that were flipped, cut out or put in."""
        raw = bytearray(encode(example()))
        for _ in range(data.draw(st.integers(1, 3))):
            at = data.draw(st.integers(0, len(raw)))
            raw[at : at + data.draw(st.integers(0, 30))] = data.draw(st.binary(max_size=5))
        with suppress(FormatError):
            decode(bytes(raw))

    @pytest.mark.parametrize("changes", [{"since": 21}, {"commit": "X"}, {"unknown": {"x": float("nan")}}])
    def test_a_writer_makes_no_such_head(self, changes: dict[str, Any]) -> None:
        """What nobody could read is not uploaded."""
        with pytest.raises((FormatError, ValueError)):
            encode(example(**changes))


class TestNames:
    """`names`: what the objects beside a head are called."""

    def test_names(self) -> None:
        """New ones differ, have the pattern, and lie in the head's folder."""
        made = {new_name("seg") for _ in range(100)}
        assert len(made) == 100
        assert all(is_name(name, "seg") and not is_name(name, "base", "gone") for name in made)
        assert key_of("app.sqlite", "seg-1") == "app.sqlite.pages/seg-1"

    @pytest.mark.parametrize(
        "name", ["seg-", "seg-" + "0" * 31, "seg-" + "G" * 30, "x-" + "0" * 30, "seg-" + "0" * 30 + "\n", 5]
    )
    def test_no_names(self, name: object) -> None:
        """A head cannot make anybody read, or delete, what lies elsewhere."""
        assert not is_name(name, "seg", "base", "gone")
