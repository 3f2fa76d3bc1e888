"""How a head's version lies in the store, and what a commit or a pull of it costs: arithmetic on what the head says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from temaki.formats.format import Cost, Layout

if TYPE_CHECKING:
    from temaki.formats.pages.head import Head


def layout_of(head: Head, head_size: int) -> Layout:
    """The layout of a version.

    Args:
        head: Its head.
        head_size: Size of the head's object, in bytes.
    """
    return Layout(
        page_size=head.page_size,
        base_size=head.base.size,
        base_sequence=head.base.sequence,
        segments=len(head.segments),
        segments_size=sum(segment.size for segment in head.segments),
        tail_pages=len(head.tail),
        tail_size=sum(len(page.image) for page in head.tail),
        since=head.since,
        condemned=len(head.condemned) + len(head.gone),
        claimed=None if head.claim is None else head.claim.since,
        full_pull=Cost(2 + len(head.live), head_size + full_size(head)),
        compacted=Cost(2, head_size + head.size),
    )


def full_size(head: Head) -> int:
    """Bytes of the objects beside the head that a full pull fetches."""
    return head.base.size + sum(segment.size for segment in head.live)


def catch_up_size(head: Head, sequence: int) -> int:
    """Bytes of the objects beside the head that a catch-up from a version fetches."""
    return sum(segment.size for segment in head.newer_than(sequence))


def uploaded(before: Head | None, after: Head) -> dict[str, int]:
    """What a commit uploads beside the head: the base and the segments that only the new head names.

    Args:
        before: The head that is replaced; None if there is none.
        after: The new one.

    Returns:
        Sizes in bytes, by name.
    """
    known = frozenset[str]() if before is None else before.named
    sizes = {segment.name: segment.size for segment in after.segments}
    sizes[after.base.name] = after.base.size
    return {name: size for name, size in sizes.items() if name not in known}
