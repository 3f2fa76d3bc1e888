"""The checksum of bytes that pass by, and work on many pages at once: the same results as page by page."""

from __future__ import annotations

import io
import itertools
import os
import random
import threading
from collections.abc import Sequence

import pytest

from temaki.formats.pages import ahead, summing
from temaki.formats.pages.ahead import in_batches
from temaki.formats.pages.checksum import plus
from temaki.formats.pages.summing import Sum, SummedBody

SIZE, COUNT = 512, 300


@pytest.fixture(params=["a thread", "no thread"])
def _threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for small databases; or where the system gives none."""
    monkeypatch.setattr(summing, "_SMALL", 0)
    if request.param == "no thread":

        def refuse(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", refuse)


@pytest.fixture
def data() -> bytes:
    """The bytes of a database."""
    return os.urandom(SIZE * COUNT)


def expected(data: bytes) -> int:
    """The sum, page by page."""
    return plus(0, ((n + 1, data[n * SIZE : (n + 1) * SIZE]) for n in range(len(data) // SIZE)))


@pytest.mark.usefixtures("_threads")
class TestSum:
    """One sum, whatever pieces the bytes come in."""

    @pytest.mark.parametrize("seed", range(20))
    def test_pieces_in_any_order(self, data: bytes, seed: int) -> None:
        """Pieces that end within pages, in any order: what has not come whole is read again."""
        rng = random.Random(seed)
        cuts = sorted({0, len(data), *(rng.randrange(len(data)) for _ in range(40))})
        pieces = list(itertools.pairwise(cuts))
        rng.shuffle(pieces)
        with Sum(SIZE, COUNT) as found:
            for start, stop in pieces:
                found.add(data[start:stop], start)
            assert found.total(lambda count, offset: data[offset : offset + count]) == expected(data)

    def test_what_came_last_counts(self, data: bytes) -> None:
        """A page that is written again, whole or in part, is not counted with its old bytes."""
        old = os.urandom(len(data))
        with Sum(SIZE, COUNT) as found:
            found.add(old, 0)
            found.add(data[: 100 * SIZE + 7], 0)
            found.settle()
            found.add(data[100 * SIZE + 7 :], 100 * SIZE + 7)
            assert found.total(lambda count, offset: data[offset : offset + count]) == expected(data)

    def test_pages_beyond_the_end(self, data: bytes) -> None:
        """A base may have more pages than the version: they do not count."""
        with Sum(SIZE, COUNT) as found:
            found.add(data + b"x" * 5000, 0)
            assert found.total(_never) == expected(data)

    def test_a_failure_reaches_who_waits(self, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
        """The thread takes what is sent to it all the same, so that nobody waits for it for ever."""

        def fail(*_: object) -> None:
            raise MemoryError

        monkeypatch.setattr(summing, "values", fail)

        def add_and_ask() -> None:
            with Sum(SIZE, COUNT) as found:
                for _ in range(20):
                    found.add(data, 0)
                found.total(_never)

        with pytest.raises(MemoryError):
            add_and_ask()

    def test_a_body_that_is_read_twice(self, data: bytes) -> None:
        """A retry reads the body again, and the sum is that of its last reading."""
        body = io.BytesIO(os.urandom(len(data)))
        with Sum(SIZE, COUNT) as found:
            summed = SummedBody(body, found)
            assert summed.seek(0, 2) == len(data)
            summed.seek(0)
            summed.read(70_000)
            body.seek(0)
            body.write(data)
            summed.seek(0)
            while summed.read(10_000):
                pass
            assert summed.tell() == len(data)
            assert found.total(lambda count, offset: data[offset : offset + count]) == expected(data)


def _never(count: int, offset: int) -> bytes:
    raise AssertionError(f"{count} bytes at {offset} were read again")


@pytest.mark.parametrize("processors", [1, 2, 9])
@pytest.mark.parametrize("count", [0, 1, 64, 65, 5000])
def test_batches_come_in_order(monkeypatch: pytest.MonkeyPatch, processors: int, count: int) -> None:
    """Every number once, in order, on however many processors."""
    monkeypatch.setattr(ahead, "_processors", lambda: processors)
    threads: set[int] = set()

    def work(some: Sequence[int]) -> list[int]:
        threads.add(threading.get_ident())
        return [number * 2 for number in some]

    numbers = list(range(1, count + 1))
    assert [two for batch in in_batches(numbers, work) for two in batch] == [number * 2 for number in numbers]
    if count <= ahead.BATCH or processors == 1:
        assert threads <= {threading.get_ident()}


def test_batches_stay_near(monkeypatch: pytest.MonkeyPatch) -> None:
    """Results that nobody takes are not piled up; a failure ends the work."""
    monkeypatch.setattr(ahead, "_processors", lambda: 2)
    done: list[int] = []

    def work(some: Sequence[int]) -> int:
        done.append(some[0])
        if some[0] > 64 * 20:
            raise OSError("unreadable")
        return some[0]

    batches = in_batches(range(1, 64 * 100), work)
    assert next(batches) == 1
    assert len(done) <= 5
    with pytest.raises(OSError, match="unreadable"):
        list(batches)
    assert len(done) < 30
