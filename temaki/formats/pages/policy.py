"""When pages leave the head, when segments are merged, and when a new base is due.

10,000 commits of one row each, to 79 MB: 32 to 40 KiB a commit with all merging, 1.11 to 1.18 PUT a commit, and a full
pull of 1.35 to 1.52 times the database. Everything here is arithmetic on sizes; nothing is read or written.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

from temaki.formats.pages.head import MOST_SEGMENTS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from temaki.formats.pages.head import Base, Segment, TailPage

TAIL_LIMIT: Final = 32 << 10  # bytes of images
TAIL_KEEP: Final = 8 << 10
"""Bytes of the newest images that stay in the head. Without them, 4 to 7 % of all catch-ups need one request more."""
MOST_TAIL_PAGES: Final = 512
"""Pages in the head: the index of so many takes 15 KiB, whatever their images take."""

UNIT: Final = 32 << 10  # bytes: about what leaves the head at once
FAN: Final = 8
COMMIT_BUDGET: Final = 2 << 20
"""Bytes that one commit may merge."""
LARGEST_PART: Final = 32 << 20
"""Bytes of images in one segment of a large transaction."""

REACH: Final = 8 << 20
"""Bytes of segments up to which a catch-up is worthwhile: its pages are in memory until they are proved."""
KEPT: Final = 8
"""Segments that stay listed after a fold although the base has their pages, for those who catch up."""


def cut(tail: Iterable[TailPage]) -> int | None:
    """Up to which version the pages of a tail leave it; None if the tail may stay as it is."""
    entries = sorted((page.sequence, len(page.image)) for page in tail)
    left = sum(length for _, length in entries)
    if left <= TAIL_LIMIT and len(entries) <= MOST_TAIL_PAGES:
        return None
    last = None
    for sequence, length in entries:
        if left <= TAIL_KEEP:
            break
        left, last = left - length, sequence
    # Many tiny pages: the count alone is over the limit.
    return entries[-1][0] if last is None else last


def needs_base(pages: int, page_count: int) -> bool:
    """Whether so many pages, which do not fit into the head, are better uploaded as a new base."""
    return 2 * pages > page_count


def size_class(size: int) -> int:
    """Segments of one class are merged with each other; each class is eight times the one before."""
    number, limit = 0, UNIT * 3 // 2
    while size > limit:
        number, limit = number + 1, limit * FAN
    return number


def live(base: Base, segments: Iterable[Segment]) -> list[Segment]:
    """The segments that a full pull needs beside a base."""
    return [segment for segment in segments if segment.last > base.sequence]


def next_merge(base: Base, segments: Iterable[Segment], budget: int | None = COMMIT_BUDGET) -> tuple[Segment, ...]:
    """The segments to merge next; none if there is nothing to merge.

    Segments that the base covers are never merged: their pages would be uploaded once more, and every full pull would
    fetch them. :func:`superfluous` drops them instead.

    Args:
        base: What a head is to name.
        segments: The same.
        budget: Bytes that may be merged yet; None for no limit. The limit does not count where the head would name too
            many segments.
    """
    candidates = live(base, segments)
    if len(candidates) > MOST_SEGMENTS:
        return tuple(sorted(candidates, key=lambda one: one.size)[:FAN])
    # Nobody gains from fewer large objects: a pull fetches several at once. The parts of a large transaction are such.
    largest = max(LARGEST_PART // 2, base.size // MOST_SEGMENTS)
    classes: dict[int, list[Segment]] = defaultdict(list)
    for one in candidates:
        if one.size <= largest:
            classes[size_class(one.size)].append(one)
    for _, members in sorted(classes.items()):
        chosen = tuple(sorted(members, key=lambda one: one.last)[:FAN])
        if len(chosen) == FAN and (budget is None or sum(one.size for one in chosen) <= budget):
            return chosen
    return ()


def superfluous(base: Base, segments: Iterable[Segment], keep: int = MOST_SEGMENTS) -> list[Segment]:
    """The segments to drop: the base has their pages, and hardly anybody will need them to catch up.

    They are the oldest ones: what stays has to reach from some version to the present without a gap.

    Args:
        base: What a head is to name.
        segments: The same.
        keep: How many of those that the base covers may stay.
    """
    ordered = sorted(segments, key=lambda segment: segment.last)
    covered = [segment for segment in ordered if segment.last <= base.sequence]
    left = sum(segment.size for segment in ordered)
    drop = max(len(covered) - keep, len(ordered) - MOST_SEGMENTS, 0)
    for number, segment in enumerate(covered):
        if number >= drop and left <= REACH:
            return covered[:number]
        left -= segment.size
    return covered


def fold_is_due(base: Base, segments: Iterable[Segment], size: int) -> bool:
    """Whether a full pull fetches more than one and a half times the database.

    Where pages change, that is when the segments exceed half of the base. Where the database grows, the pages that are
    new are in segments only, and compressed: a base would make the pull larger.

    Args:
        base: What a head names.
        segments: Those of the segments that a full pull needs.
        size: The database's size, in bytes.
    """
    return 2 * pull_size(base, segments) > 3 * size


def fold_is_worthwhile(base: Base, segments: Iterable[Segment], size: int) -> bool:
    """Whether a full pull fetches more than 1.1 times the database: for those who compact once a night."""
    return 10 * pull_size(base, segments) > 11 * size


def pull_size(base: Base, segments: Iterable[Segment]) -> int:
    """Bytes that a full pull fetches, beside the head."""
    return base.size + sum(segment.size for segment in segments)


def folds_at_once(size: int) -> bool:
    """Whether a commit itself uploads the new base, once it is due: it is no larger than what a commit may merge."""
    return size <= COMMIT_BUDGET
