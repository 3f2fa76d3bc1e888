"""Compaction by somebody who does not use the database: ``temaki compact``.

It downloads the version if a fold or a merge is worthwhile, and nothing but the head otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from temaki.formats.pages import policy
from temaki.formats.pages.claim import current
from temaki.formats.pages.head import Base
from temaki.formats.pages.maintain import Collected, collect, downloaded, fold_from, merge_from

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from temaki.formats.pages.claim import Current
    from temaki.formats.pages.head import Head, Segment
    from temaki.formats.pages.maintain import Copy
    from temaki.remote.fetch import Source

_MOST_JOBS: Final = 16  # merges in a row


@dataclass(frozen=True, slots=True)
class Compacted:
    """What a compaction has done, or would do.

    Attributes:
        busy: Whether another process was at it, or was faster: something may be left to do.
        folded: Whether there is a new base.
        merged: Number of segments that were replaced by fewer ones.
        sent: Size of the uploads, in bytes.
        collected: What was deleted and condemned.
        before: Bytes of a full pull before.
        after: The same, after it.
    """

    busy: bool
    folded: bool
    merged: int
    sent: int
    collected: Collected
    before: int
    after: int


def compact(source: Source, path: Path, *, dry_run: bool = False) -> Compacted | None:
    """Fold or merge if that is worthwhile, then delete what nothing refers to any more.

    Args:
        source: The head's object.
        path: Where the version is kept meanwhile; nothing is there, before and after.
        dry_run: Whether to find out only what it would do.

    Returns:
        What was done; None if the database is in another format.

    Raises:
        NotFoundError: There is no database.
        CorruptDatabaseError: What is stored is damaged.
        StoreError: A request failed. Nothing is lost.
        WorkingCopyError: The file cannot be written.
    """
    began = current(source)
    if began is None:
        return None
    return _planned(source, began) if dry_run else _Compaction(source, began).run(path)


def _folds(head: Head) -> bool:
    return policy.fold_is_worthwhile(head.base, head.live, head.size)


def _merges(head: Head) -> tuple[Segment, ...]:
    return policy.next_merge(head.base, head.segments, budget=None)


def _pull_size(now: Current) -> int:
    return now.info.size + policy.pull_size(now.head.base, now.head.live)


def _planned(source: Source, began: Current) -> Compacted:
    head, before = began.head, _pull_size(began)
    collected = collect(source, dry_run=True)
    if began.is_claimed:
        return Compacted(busy=True, folded=False, merged=0, sent=0, collected=collected, before=before, after=before)
    if _folds(head):
        dropped = policy.superfluous(Base(head.base.name, head.size, head.sequence), head.segments, keep=policy.KEPT)
        left = _with(collected, [head.base.name, *(one.name for one in dropped)], head.base.size, dropped)
        after = began.info.size + head.size
        return Compacted(busy=False, folded=True, merged=0, sent=head.size, collected=left, before=before, after=after)
    chosen = _merges(head)
    sent = sum(one.size for one in chosen)  # at most
    left = _with(collected, [one.name for one in chosen], 0, chosen)
    return Compacted(
        busy=False, folded=False, merged=len(chosen), sent=sent, collected=left, before=before, after=before
    )


def _with(collected: Collected, names: Sequence[str], size: int, segments: Sequence[Segment]) -> Collected:
    return Collected(
        collected.deleted,
        (*collected.condemned, *names),
        collected.freed,
        collected.waiting + size + sum(one.size for one in segments),
    )


class _Compaction:
    """One call of :func:`compact`."""

    def __init__(self, source: Source, began: Current) -> None:
        self._source, self._began, self._now = source, began, began
        self._busy, self._folded, self._merged, self._sent = began.is_claimed, False, 0, 0
        self._condemned: list[str] = []

    def run(self, path: Path) -> Compacted:
        head = self._began.head
        if not self._busy and (_folds(head) or _merges(head)):
            with downloaded(self._source, head, path) as copy:
                self._work(copy)
        collected = collect(self._source)
        collected = Collected(
            collected.deleted, (*collected.condemned, *self._condemned), collected.freed, collected.waiting
        )
        after = current(self._source) or self._now
        return Compacted(
            self._busy,
            self._folded,
            self._merged,
            self._sent,
            collected,
            _pull_size(self._began),
            _pull_size(after),
        )

    def _work(self, copy: Copy) -> None:
        for _ in range(_MOST_JOBS):
            folds, chosen = _folds(self._now.head), _merges(self._now.head)
            if folds:
                new = fold_from(self._source, copy, self._now)
            elif chosen:
                new = merge_from(self._source, copy, self._now, chosen, {})
            else:
                return
            if new is None:
                self._busy = True
                return
            before = self._now.head
            names = {before.base.name, *(one.name for one in before.segments)}
            kept = {new.base.name, *(one.name for one in new.segments)}
            self._sent += sum(one.size for one in new.segments if one.name not in names)
            self._sent += 0 if new.base.name in names else new.base.size
            self._condemned += sorted(names - kept)
            self._folded = self._folded or folds
            self._merged += 0 if folds else len(chosen)
            now = current(self._source)
            if now is None:
                return
            self._now = now
