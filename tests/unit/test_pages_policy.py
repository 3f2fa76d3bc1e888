"""`formats.pages.policy`: what leaves the head, what is merged; and what that costs over many commits."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from temaki.formats.pages.head import MOST_SEGMENTS, Base, Segment, TailPage
from temaki.formats.pages.names import new_name
from temaki.formats.pages.policy import (
    COMMIT_BUDGET,
    FAN,
    KEPT,
    MOST_TAIL_PAGES,
    REACH,
    TAIL_KEEP,
    TAIL_LIMIT,
    UNIT,
    cut,
    fold_is_due,
    fold_is_worthwhile,
    folds_at_once,
    live,
    needs_base,
    next_merge,
    pull_size,
    size_class,
    superfluous,
)
from temaki.formats.pages.segment import size_of


def tail(*entries: tuple[int, int]) -> list[TailPage]:
    """Pages with these sequences and lengths."""
    return [TailPage(number, sequence, bytes(length)) for number, (sequence, length) in enumerate(entries, 1)]


def segment(size: int, last: int = 1) -> Segment:
    """A segment of that size."""
    return Segment(new_name("seg"), last, 1, size)


class TestCut:
    """Up to 32 KiB stay; then all but the newest 8 KiB leave."""

    def test_a_tail_that_fits_stays(self) -> None:
        """One request for a commit."""
        assert cut(tail((1, TAIL_LIMIT))) is None
        assert cut([]) is None

    def test_the_newest_stay(self) -> None:
        """Whoever is one commit behind needs the head alone."""
        assert cut(tail((1, 12 << 10), (2, 13 << 10), (3, 4 << 10), (4, 4 << 10))) == 2

    def test_a_commit_is_not_divided(self) -> None:
        """Pages of one version leave together: a segment has all of what it is the last for."""
        assert cut(tail((1, 12 << 10), (2, 13 << 10), (2, 4 << 10), (2, 4 << 10))) == 2
        assert cut(tail((1, 12 << 10), (2, 30 << 10))) == 2

    def test_many_tiny_pages(self) -> None:
        """Their index would make the head large."""
        entries = tail(*[(n, 10) for n in range(MOST_TAIL_PAGES + 1)])
        assert cut(entries[:-1]) is None
        assert cut(entries) == MOST_TAIL_PAGES

    @given(st.lists(st.tuples(st.integers(1, 20), st.integers(1, 4096)), max_size=60))
    def test_what_stays_is_little_and_new(self, entries: list[tuple[int, int]]) -> None:
        """At most 8 KiB, or everything; and nothing that leaves is newer than what stays."""
        pages = tail(*entries)
        last = cut(pages)
        if last is None:
            assert sum(length for _, length in entries) <= TAIL_LIMIT
        else:
            assert sum(length for sequence, length in entries if sequence > last) <= TAIL_KEEP
            assert any(sequence <= last for sequence, _ in entries)


BASE = Base(new_name("base"), 1 << 20, 0)


class TestMerge:
    """Eight of one class; the eight smallest where there are too many."""

    def test_classes(self) -> None:
        """Eight segments as they leave the head are one of the next class."""
        assert [size_class(size) for size in (1, UNIT, 48 << 10, (48 << 10) + 1, 8 * UNIT, 64 * UNIT)] == [
            0,
            0,
            0,
            1,
            1,
            2,
        ]

    def test_eight_of_one_class(self) -> None:
        """Neighbours or not, the oldest first."""
        small = [segment(UNIT, last=n) for n in range(1, 10)]
        large = [segment(9 * UNIT, last=n) for n in range(1, 8)]
        assert set(next_merge(BASE, [*small, *large])) == set(small[:8])
        assert next_merge(BASE, [*small[:7], *large]) == ()

    def test_budget(self) -> None:
        """A commit does not wait for a large merge; whoever has the time for it does it."""
        large = [segment(COMMIT_BUDGET // 8 + 1) for _ in range(8)]
        assert next_merge(BASE, large) == ()
        assert set(next_merge(BASE, large, budget=None)) == set(large)

    def test_too_many(self) -> None:
        """A head cannot name more than 64, whatever it takes."""
        segments = [segment((10 << 20) * 8 ** (n % 3) + n) for n in range(MOST_SEGMENTS + 1)]
        assert [one.size for one in next_merge(BASE, segments, budget=0)] == sorted(one.size for one in segments)[:FAN]
        assert next_merge(BASE, segments[:-1], budget=0) == ()

    def test_it_ends(self) -> None:
        """Merges can be chained; each leaves fewer segments."""
        segments = [segment(UNIT) for _ in range(512)]
        while chosen := next_merge(BASE, segments, budget=None):
            segments = [one for one in segments if one not in chosen]
            segments.append(segment(sum(one.size for one in chosen)))
        assert len(segments) == 1

    def test_what_the_base_has(self) -> None:
        """Covered segments are not uploaded once more, and no full pull fetches them for the sake of others."""
        segments = [segment(UNIT, last=n) for n in range(1, 17)]
        assert [one.last for one in next_merge(Base(BASE.name, 1 << 20, 8), segments)] == [*range(9, 17)]
        assert next_merge(Base(BASE.name, 1 << 20, 9), segments) == ()
        full = [segment(UNIT, last=n) for n in range(1, MOST_SEGMENTS + 2)]
        assert next_merge(Base(BASE.name, 1 << 20, 60), full, budget=0) == (), "they are dropped instead"

    def test_large_ones(self) -> None:
        """A pull fetches several objects at once, so nobody gains from fewer large ones."""
        parts = [segment(20 << 20) for _ in range(8)]
        assert next_merge(BASE, parts, budget=None) == ()
        assert set(next_merge(Base(BASE.name, 2 << 30, 0), parts, budget=None)) == set(parts)


def test_a_new_base() -> None:
    """If more than half of the database has changed."""
    assert not needs_base(50, 100)
    assert needs_base(51, 100)


class TestSuperfluous:
    """What the base has goes when it is in the way; the newest stay longest, for those who catch up."""

    def test_a_fold_keeps_some(self) -> None:
        """The newest eight, and everything that the base lacks."""
        segments = [segment(UNIT, last=n) for n in range(1, 21)]
        dropped = superfluous(Base(BASE.name, 1 << 20, 15), segments, keep=KEPT)
        assert [one.last for one in dropped] == [*range(1, 16 - KEPT)]
        assert superfluous(BASE, segments, keep=KEPT) == []

    def test_too_many(self) -> None:
        """The oldest go before anything is merged."""
        segments = [segment(UNIT, last=n) for n in range(1, MOST_SEGMENTS + 4)]
        assert superfluous(Base(BASE.name, 1 << 20, 30), segments) == segments[:3]
        assert superfluous(Base(BASE.name, 1 << 20, 2), segments) == segments[:2]
        assert superfluous(Base(BASE.name, 1 << 20, 30), segments[:MOST_SEGMENTS]) == []

    def test_beyond_reach(self) -> None:
        """Nobody catches up by more than 8 MiB, so what only they would need goes."""
        segments = [segment(REACH // 4, last=n) for n in range(1, 11)]
        assert superfluous(Base(BASE.name, 1 << 20, 10), segments) == segments[:6]
        assert superfluous(Base(BASE.name, 1 << 20, 3), segments) == segments[:3]


class TestFold:
    """If a full pull takes more than one and a half times the database."""

    def test_pages_that_change(self) -> None:
        """Then half of the base is in segments."""
        base = Base(new_name("base"), 1000, 1)
        assert not fold_is_due(base, [segment(500)], 1000)
        assert fold_is_due(base, [segment(500), segment(1)], 1000)
        assert pull_size(base, live(base, [segment(500, last=2), segment(1, last=1)])) == 1500

    def test_a_database_that_has_shrunk(self) -> None:
        """Most of the base is of no use any more."""
        assert fold_is_due(Base(new_name("base"), 1501, 1), [], 1000)

    def test_a_database_that_grows(self) -> None:
        """Segments are compressed, so a base would make a pull larger."""
        assert not fold_is_due(Base(new_name("base"), 1000, 1), [segment(4000)], 10_000)

    def test_once_a_night(self) -> None:
        """A tenth is enough."""
        base = Base(new_name("base"), 1000, 1)
        assert not fold_is_worthwhile(base, [segment(100)], 1000)
        assert fold_is_worthwhile(base, [segment(101)], 1000)

    def test_in_a_commit(self) -> None:
        """Where the database is no larger than what a commit may merge."""
        assert folds_at_once(COMMIT_BUDGET)
        assert not folds_at_once(COMMIT_BUDGET + 1)


@dataclass
class Costs:
    """A database to which the policy is applied, by sizes alone."""

    current: dict[int, int] = field(default_factory=dict)
    tail: dict[int, TailPage] = field(default_factory=dict)
    segments: list[tuple[Segment, set[int]]] = field(default_factory=list)
    uploaded: int = 0
    puts: int = 0
    most_segments: int = 0

    def commit(self, sequence: int, changed: dict[int, int]) -> None:
        """One commit with these pages and the sizes of their images."""
        self.current |= changed
        for number, length in changed.items():
            self.tail[number] = TailPage(number, sequence, bytes(length))
        last = cut(self.tail.values())
        if last is not None:
            out = {number for number, page in self.tail.items() if page.sequence <= last}
            self.tail = {number: page for number, page in self.tail.items() if number not in out}
            self.add(out, last)
            budget = COMMIT_BUDGET
            while chosen := next_merge(BASE, [one for one, _ in self.segments], budget):
                union = set().union(*(numbers for one, numbers in self.segments if one in chosen))
                self.segments = [(one, numbers) for one, numbers in self.segments if one not in chosen]
                budget -= self.add(union, max(one.last for one in chosen))
        self.most_segments = max(self.most_segments, len(self.segments))
        self.uploaded += 2600 + 110 * len(self.segments) + sum(len(page.image) + 30 for page in self.tail.values())
        self.puts += 1

    def add(self, numbers: set[int], last: int) -> int:
        """One more segment; its size."""
        size = size_of(self.current[number] for number in numbers)
        self.segments.append((Segment(new_name("seg"), last, len(numbers), size), numbers))
        self.uploaded += size
        self.puts += 1
        return size


def test_what_commits_cost() -> None:
    """3,000 commits of three pages each to 30,000 pages: under 48 KiB and 1.2 requests each, merges counted in."""
    rng, costs = random.Random(5), Costs()
    for sequence in range(1, 3001):
        changed = {int(30_000 * rng.random() ** 2) + 1: rng.randrange(1000, 1900) for _ in range(2)}
        changed[30_000 + sequence // 40] = 1500
        costs.commit(sequence, changed)
    assert costs.uploaded / 3000 < 48 << 10
    assert costs.puts / 3000 < 1.2
    assert costs.most_segments <= MOST_SEGMENTS
