"""Maintenance by a process that uses the database: from its working copy, beside its sessions.

It reads the acknowledged version under a transaction of its own, so nothing is downloaded but page numbers, and commits
and catch-ups go on meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from temaki.errors import WorkingCopyError
from temaki.formats.format import Maintained
from temaki.formats.pages import policy
from temaki.formats.pages.claim import current, is_claimed
from temaki.formats.pages.knowledge import PagesKnowledge
from temaki.formats.pages.maintain import GRACE, Copy, ProofError, collect, fold_from, merge_from

if TYPE_CHECKING:
    from temaki.formats.pages.claim import Current
    from temaki.formats.pages.compose import Known
    from temaki.formats.pages.head import Base, Head, Segment
    from temaki.remote.fetch import Source
    from temaki.replica.generation import Extent, Generation
    from temaki.replica.replica import Replica

_MOST_JOBS: Final = 8  # folds and merges in a row


def due(known: Known, now: float, idle: float) -> int | None:
    """See :meth:`temaki.formats.format.Format.is_due`."""
    head, now = known.head, now + known.ahead
    if not is_claimed(head, now):
        if _folds(head):
            return head.size
        chosen = _merges(head)
        if chosen:
            return sum(segment.size for segment in chosen)
    return 0 if _collects(head, now, idle) else None


def _folds(head: Head) -> bool:
    return not policy.folds_at_once(head.size) and policy.fold_is_due(head.base, head.live, head.size)


def _merges(head: Head) -> tuple[Segment, ...]:
    """The segments to merge, if there are too many bytes of them for a commit."""
    chosen = policy.next_merge(head.base, head.segments, budget=None)
    return chosen if sum(segment.size for segment in chosen) > policy.COMMIT_BUDGET else ()


def _collects(head: Head, now: float, idle: float) -> bool:
    """Whether there is something to delete. At most once in an hour: a listing costs as much as a PUT."""
    return idle >= GRACE and (bool(head.gone) or any(now - one.since >= GRACE for one in head.condemned))


class Upkeep:
    """Does what is due. Call :meth:`run` once.

    Args:
        source: The head's object.
        replica: The working copy.
        idle: Seconds since this process has last looked for objects to remove.
    """

    def __init__(self, source: Source, replica: Replica, idle: float) -> None:
        self._source, self._replica, self._idle = source, replica, idle
        self._sent = 0

    def run(self) -> Maintained:
        """See :meth:`temaki.formats.format.Format.maintain`."""
        began = after = current(self._source)
        if began is None:
            return Maintained()
        for _ in range(_MOST_JOBS):
            if after is None or not self._work(after):
                break
            after = current(self._source)
        freed = 0
        collects = self._idle >= GRACE and (self._sent > 0 or _collects(began.head, began.now, self._idle))
        if collects:
            freed = collect(self._source).freed
        after = after or began
        return Maintained(self._sent, freed, 1 + len(began.head.live), 1 + len(after.head.live), collects)

    def _work(self, found: Current) -> bool:
        """One fold, or one merge. False if there is nothing to do, or if it could not be done."""
        if found.is_claimed or not (_folds(found.head) or _merges(found.head)):
            return False
        heads: list[Known] = []

        def extent(generation: Generation) -> Extent | None:
            known = PagesKnowledge.of(generation)
            if known is None:
                return None
            heads.append(known)
            return known.head.page_count, known.head.page_size, known.head.sequence

        with self._replica.pinned(extent) as pinned:
            if pinned is None:
                return False
            copy = Copy(heads[-1].head, pinned.image, pinned.folder)
            # Asked for again: what is pinned may be newer than what was found, and never is than what is stored now.
            now = current(self._source)
            if now is None:
                return False
            try:
                if _folds(now.head):
                    new = fold_from(self._source, copy, now)
                else:
                    new = merge_from(self._source, copy, now, _merges(now.head), heads[-1].numbers)
            except (ProofError, OSError) as error:
                raise WorkingCopyError(
                    f"The working copy of {self._source.url} cannot be used for a new base: {error}. Nothing was "
                    "changed.",
                    url=self._source.url,
                ) from error
        if new is None:
            return False
        known_names = {now.head.base.name, *(one.name for one in now.head.segments)}
        objects: list[Base | Segment] = [new.base, *new.segments]
        self._sent += sum(one.size for one in objects if one.name not in known_names)
        return True
