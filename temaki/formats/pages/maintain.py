"""Maintenance: a new base for a database that has many segments, and the removal of what nothing refers to.

Both replace the head by one of the same commit, and lose nothing:

* A fold claims its base's name in the head before it uploads. It replaces the head only if the claim, the base and the
  collection number are still those that it began with, and if its commit is in the lineage.
* A collector deletes only what has been condemned in a head for ``grace`` seconds of the store's clock. What it lists
  and no head names is condemned first, and the head's collection number rises with it: whoever has uploaded objects for
  a head that is built on an older number has to upload them again.

A head that is replaced meanwhile is no error: maintenance gives up, and is tried another time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from temaki.errors import PreconditionFailedError
from temaki.formats.pages import policy
from temaki.formats.pages.blame import BLAMED, blame
from temaki.formats.pages.head import MOST_CONDEMNED, Base, Head, Marked, encode
from temaki.formats.pages.names import folder, is_name, new_name
from temaki.formats.pages.objects import Objects
from temaki.formats.pages.pull import save
from temaki.formats.pages.read import read_stored
from temaki.formats.pages.removal import Presence, remove
from temaki.remote.transfer import Target
from temaki.replica.header import MODES_AT, ROLLBACK_MODE
from temaki.version import FORMAT_KEY, PAGES_FORMAT

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from temaki.formats.pages.head import Segment
    from temaki.remote.fetch import Source
    from temaki.store import ObjectInfo
    from temaki.version import Version


GRACE: Final = 3600
"""Seconds for which an object stays after it was condemned: whoever reads a head older than that reads it again."""
CLAIM_LIFETIME: Final = 3600
"""Seconds after which the claim of a fold counts no more: its process has probably ended."""
KEPT: Final = 8
"""Segments that stay listed although the base has their pages, for those who catch up."""

_MOST_SWAPS: Final = 8


@dataclass(frozen=True, slots=True)
class Collected:
    """What a collection did.

    Attributes:
        deleted: Names of the objects that were removed.
        condemned: Names of the objects that will be.
    """

    deleted: tuple[str, ...] = ()
    condemned: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Current:
    """What is stored now."""

    info: ObjectInfo
    version: Version
    head: Head
    now: int


def fold(source: Source, path: Path, *, force: bool = False) -> Head | None:
    """Upload a new base if it is due, and have the head name it.

    Args:
        source: The head's object.
        path: Where the version is kept meanwhile; nothing is there, before and after.
        force: Whether or not it is due.

    Returns:
        The new head; None if there was nothing to do, or if somebody else was faster.

    Raises:
        NotFoundError: There is no database.
        CorruptDatabaseError: What is stored is damaged.
        StoreError: A request failed.
        WorkingCopyError: The file cannot be written.
    """
    began = _current(source)
    if began is None or not (force or policy.fold_is_due(began.head.base, began.head.live)):
        return None
    claim = began.head.claim
    if claim is not None and began.now - claim.since < CLAIM_LIFETIME:
        return None
    name = new_name("base")
    claimed = _swap(source, began, replace(began.head, claim=Marked(name, began.now)))
    if claimed is None:
        return None
    size = _upload(source, claimed, name, path)
    base = Base(name, size, claimed.sequence)
    for _ in range(_MOST_SWAPS):
        current = _current(source)
        if current is None or current.head.claim is None or current.head.claim.name != name:
            return None
        is_ours = (
            current.head.base == claimed.base
            and current.head.collection == claimed.collection
            and claimed.commit in current.version.lineage
        )
        new = _folded(current, base) if is_ours else _given_up(current)
        swapped = _swap(source, current, new)
        if swapped is not None:
            return swapped if is_ours else None
    return None


def _upload(source: Source, head: Head, name: str, path: Path) -> int:
    """The version as an ordinary file, proved; its size in bytes."""
    objects = Objects(source, path.parent)
    target = Target(path, source.url)
    try:
        save(objects, head, target)
        target.write(ROLLBACK_MODE, MODES_AT)
        with open(path, "rb") as file:
            objects.put(name, file)
    except BLAMED as error:
        wrong = blame(source, head, error)
        if wrong is error:
            raise
        raise wrong from error
    finally:
        target.discard()
    return head.page_count * head.page_size


def _folded(current: _Current, base: Base) -> Head:
    head = current.head
    covered = [segment for segment in head.segments if segment.last <= base.sequence]
    dropped: Sequence[Segment] = covered[:-KEPT]  # the oldest: what stays has to reach from `since` to now
    gone = {segment.name for segment in dropped}
    return replace(
        head,
        base=base,
        segments=tuple(segment for segment in head.segments if segment.name not in gone),
        since=max([head.since, *(segment.last for segment in dropped)]),
        claim=None,
        condemned=_condemned(head, [head.base.name, *(segment.name for segment in dropped)], current.now),
    )


def _given_up(current: _Current) -> Head:
    claim = current.head.claim
    assert claim is not None
    return replace(current.head, claim=None, condemned=_condemned(current.head, [claim.name], current.now))


def _condemned(head: Head, names: Sequence[str], now: int) -> tuple[Marked, ...]:
    return (*head.condemned, *(Marked(name, now) for name in names))[-MOST_CONDEMNED:]


def collect(source: Source, *, grace: int = GRACE) -> Collected:
    """Delete what has been condemned for long enough, and condemn what nothing refers to.

    Args:
        source: The head's object.
        grace: Seconds between the two, by the store's clock.

    Raises:
        NotFoundError: There is no database.
        CorruptDatabaseError: The head is damaged, or an object that it names is missing. Nothing is collected.
        StoreError: A request failed.
    """
    prefix = folder(source.key)

    def names() -> list[str]:
        return [info.key.removeprefix(prefix) for info in source.store.list(prefix)]

    presence = Presence(source)
    for _ in range(_MOST_SWAPS):
        listed = source.retrying.run(names)  # before the head: what is uploaded later is none of our business
        current = _current(source)
        if current is None:
            return Collected()
        head = current.head
        if not presence.is_whole(head, current.info.etag, listed):
            continue
        ripe = [one.name for one in head.condemned if current.now - one.since >= grace]
        kept = [one for one in head.condemned if one.name not in set(ripe)]
        known = head.named | {one.name for one in head.condemned}
        orphans = [name for name in listed if is_name(name, "base", "seg", "gone") and name not in known]
        orphans = orphans[: MOST_CONDEMNED - len(kept)]
        if not ripe and not orphans:
            return Collected()
        new = replace(
            head,
            collection=head.collection + bool(orphans),
            condemned=(*kept, *(Marked(name, current.now) for name in orphans)),
        )
        if _swap(source, current, new):
            return Collected(remove(source, ripe), tuple(orphans))
    return Collected()


def _current(source: Source) -> _Current | None:
    """What is stored now; None if it is in another format: nothing of it is maintained."""

    def attempt() -> _Current | None:
        download = source.get()
        assert download is not None, "an unconditional GET has a body"
        info = download.info
        if info.metadata.get(FORMAT_KEY) != PAGES_FORMAT:
            download.__exit__(None, None, None)
            return None
        version, head = read_stored(download, source.url)
        now = source.retrying.clock.time() if info.date is None else info.date.timestamp()
        return _Current(info, version, head, int(now))

    return source.retrying.run(attempt)


def _swap(source: Source, current: _Current, new: Head) -> Head | None:
    """Replace the head by one of the same commit, and give it; None if somebody else has replaced it."""
    new = replace(new, edition=current.head.edition + 1)
    content = encode(new)

    def attempt() -> Head | None:
        try:
            source.store.put(source.key, content, metadata=current.info.metadata, if_match=current.info.etag)
        except PreconditionFailedError:
            found = _current(source)  # perhaps it was ours, whose answer was lost
            return new if found is not None and found.head == new else None
        return new

    return source.retrying.run(attempt)
