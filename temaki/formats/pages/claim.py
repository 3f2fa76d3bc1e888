"""Replaces a head by one of the same commit: how maintenance reads, claims and swaps.

Maintenance that uploads something **claims** the head first, by a name that nothing else has. So not every process does
the same work at once. Every head that is built on a claimed one keeps the claim, until its owner ends it. So whoever
finds its claim in a head knows that the head is a later version of the one that it began with.

A claim expires, because its process may have ended.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from temaki.errors import PreconditionFailedError
from temaki.formats.pages.gone import condemning
from temaki.formats.pages.head import Head, Marked
from temaki.formats.pages.manifest import encode
from temaki.formats.pages.names import new_name
from temaki.formats.pages.objects import Objects
from temaki.formats.pages.read import read_stored
from temaki.version import FORMAT_KEY, PAGES_FORMAT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from temaki.remote.fetch import Source
    from temaki.store import ObjectInfo
    from temaki.version import Version

CLAIM_LIFETIME: Final = 3600
"""Seconds after which a claim counts no more: its process has probably ended."""

MOST_SWAPS: Final = 64
"""Attempts to replace the head. Each one that fails was another writer's success."""


@dataclass(frozen=True, slots=True)
class Current:
    """What is stored now.

    Attributes:
        info: The object.
        version: Its version.
        head: Its head.
        now: The store's time, in seconds since 1970.
    """

    info: ObjectInfo
    version: Version
    head: Head
    now: int

    @property
    def is_claimed(self) -> bool:
        """Whether somebody is maintaining it."""
        return is_claimed(self.head, self.now)

    def descends_from(self, head: Head) -> bool:
        """Whether a version is in the history of this one, as far as its lineage goes back."""
        reaches = self.version.complete or len(self.version.lineage) > self.version.sequence - head.sequence
        return head.commit in self.version.lineage or not reaches

    def continues(self, head: Head) -> bool:
        """Whether only commits have come to a head: base and collection number are the same, and so is the history."""
        return self.head.base == head.base and self.head.collection == head.collection and self.descends_from(head)


def is_claimed(head: Head, now: float) -> bool:
    """Whether somebody is maintaining a head, at a moment of the store's clock."""
    return head.claim is not None and now - head.claim.since < CLAIM_LIFETIME


def current(source: Source) -> Current | None:
    """What is stored now; None if it is in another format: nothing of it is maintained."""

    def attempt() -> Current | None:
        download = source.get()
        assert download is not None, "an unconditional GET has a body"
        info = download.info
        if info.metadata.get(FORMAT_KEY) != PAGES_FORMAT:
            download.__exit__(None, None, None)
            return None
        version, head = read_stored(download, source.url)
        now = source.retrying.clock.time() if info.date is None else info.date.timestamp()
        return Current(info, version, head, int(now))

    return source.retrying.run(attempt)


def swap(source: Source, before: Current, new: Head) -> Head | None:
    """Replace the head by one of the same commit, and give it; None if somebody else has replaced it."""
    new = replace(new, edition=before.head.edition + 1)
    content = encode(new)

    def attempt() -> Head | None:
        try:
            source.store.put(source.key, content, metadata=before.info.metadata, if_match=before.info.etag)
        except PreconditionFailedError:
            found = current(source)  # perhaps it was ours, whose answer was lost
            return new if found is not None and found.head == new else None
        return new

    return source.retrying.run(attempt)


def condemn(source: Source, head: Head, names: Sequence[str], now: int) -> Head:
    """The head with more condemned objects. The lists that it comes to name are uploaded here."""
    head, lists = condemning(head, [Marked(name, now) for name in names])
    for name, content in lists.items():
        Objects(source).put(name, content)
    return head


class Claim:
    """A claim on a head.

    Args:
        source: The head's object.
        name: What it is called: a base that may be uploaded under it is as good as named.
        head: The first head that has it.

    Attributes:
        name: As above.
        head: As above.
    """

    def __init__(self, source: Source, name: str, head: Head) -> None:
        self._source, self.name, self.head = source, name, head

    @classmethod
    def make(cls, source: Source, began: Current) -> Claim | None:
        """Claim the head; None if it is claimed, or if other maintenance or another history has replaced it.

        A commit that comes in between is no reason to give up: a database that is written to all the time needs
        maintenance most.
        """
        name = new_name("base")
        for _ in range(MOST_SWAPS):
            if began.is_claimed:
                return None
            claimed = swap(source, began, replace(began.head, claim=Marked(name, began.now)))
            if claimed is not None:
                return cls(source, name, claimed)
            found = current(source)
            if found is None:
                return None
            if _has(found.head, name):  # the answer was lost, and others have built on it
                return cls(source, name, found.head)
            if not found.continues(began.head):
                return None
            began = found
        return None

    def end(self, change: Callable[[Current], Head | None], uploaded: Sequence[str]) -> Head | None:
        """Replace the current head by one without the claim.

        It is changed only if it is a later version of the claimed one, with the same base and collection number.
        Otherwise what was uploaded is condemned.

        Args:
            change: Gives the new head, for the current one; None if it does not fit any more.
            uploaded: Names of the objects that ``change`` brings in.

        Returns:
            The changed head; None if nothing was changed.
        """
        for _ in range(MOST_SWAPS):
            now = current(self._source)
            if now is None or not _has(now.head, self.name):
                return None
            changed = change(now) if now.continues(self.head) else None
            new = condemn(self._source, now.head, uploaded, now.now) if changed is None else changed
            swapped = swap(self._source, now, replace(new, claim=None))
            if swapped is not None:
                return None if changed is None else swapped
        return None

    def withdraw(self, uploaded: Sequence[str]) -> None:
        """End the claim after a failure, if that is possible: otherwise it keeps others out until it expires."""
        with suppress(Exception):
            self.end(lambda _: None, uploaded)


def _has(head: Head, name: str) -> bool:
    return head.claim is not None and head.claim.name == name
