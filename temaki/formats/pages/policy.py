"""When pages leave the head, when segments are merged, and when a new base is due.

10,000 commits of one row each, to 79 MB: 32 to 40 KiB a commit with all merging, 1.11 to 1.18 PUT a commit, and a full
pull of 1.35 to 1.52 times the database. Everything here is arithmetic on sizes; nothing is read or written.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

from temaki.formats.pages.head import MOST_SEGMENTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

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


def next_merge(segments: Sequence[Segment], budget: int | None = COMMIT_BUDGET) -> tuple[Segment, ...]:
    """The segments to merge next; none if there is nothing to merge.

    Args:
        segments: What a head is to name.
        budget: Bytes that may be merged yet; None for no limit. The limit does not count where the head would name too
            many segments.
    """
    if len(segments) > MOST_SEGMENTS:
        return tuple(sorted(segments, key=lambda one: one.size)[:FAN])
    classes: dict[int, list[Segment]] = defaultdict(list)
    for one in segments:
        classes[size_class(one.size)].append(one)
    for _, members in sorted(classes.items()):
        chosen = tuple(sorted(members, key=lambda one: one.last)[:FAN])
        if len(chosen) == FAN and (budget is None or sum(one.size for one in chosen) <= budget):
            return chosen
    return ()


def fold_is_due(base: Base, live: Iterable[Segment]) -> bool:
    """Whether the segments that a full pull needs have grown beyond half of the base."""
    return 2 * sum(segment.size for segment in live) > base.size
