"""Maintenance: fewer objects for a full pull, and the removal of what nothing refers to.

All of it replaces the head by one of the same commit, and loses nothing:

* A **fold** uploads a new base. A **merge** uploads one segment in place of several. Both claim the head first (see
  :mod:`temaki.formats.pages.claim`), and prove the checksum of what they have sent before the head names it.
* A **collection** deletes only what has been condemned in a head for ``grace`` seconds of the store's clock. What it
  lists and no head names is condemned first, and the head's collection number rises with it: whoever has uploaded
  objects for a head that is built on an older number has to upload them again.

A head that is replaced meanwhile is no error: maintenance gives up, and is tried another time.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from temaki.errors import NotFoundError
from temaki.formats.pages import gone, policy
from temaki.formats.pages.blame import BLAMED, blame
from temaki.formats.pages.checksum import plus
from temaki.formats.pages.claim import CLAIM_LIFETIME, MOST_SWAPS, Claim, Current, condemn, current, swap
from temaki.formats.pages.compose import new_base
from temaki.formats.pages.head import MOST_GONE, Head, Marked, Segment
from temaki.formats.pages.names import folder, is_name, key_of, new_name
from temaki.formats.pages.objects import Objects
from temaki.formats.pages.pageimage import pack
from temaki.formats.pages.pageone import canonical
from temaki.formats.pages.policy import KEPT
from temaki.formats.pages.pull import save
from temaki.formats.pages.removal import Presence, remove
from temaki.formats.pages.segment import write
from temaki.remote.transfer import Target, read_exactly
from temaki.replica.header import FormatError
from temaki.replica.image import Image

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from temaki.remote.fetch import Source

__all__ = [
    "CLAIM_LIFETIME",
    "GRACE",
    "KEPT",
    "Collected",
    "Copy",
    "ProofError",
    "collect",
    "downloaded",
    "fold",
    "fold_from",
    "merge_from",
]

GRACE: Final = 3600
"""Seconds for which an object stays after it was condemned: whoever reads a head older than that reads it again."""

_CHUNK: Final = 1 << 20  # bytes that are read at once


@dataclass(frozen=True, slots=True, eq=False)
class Copy:
    """A version that is here.

    Attributes:
        head: Its head, or a head of the same commit.
        image: Its pages. They do not change.
        folder: Where a large segment is kept while it is made; None for the system's place.
    """

    head: Head
    image: Image
    folder: Path | None = None


@dataclass(frozen=True, slots=True)
class Collected:
    """What a collection did, or would do.

    Attributes:
        deleted: Names of the objects that were removed.
        condemned: Names of the objects that will be.
        freed: Size of the removed objects, in bytes.
        waiting: Size of the objects that are condemned and not removed yet, in bytes.
    """

    deleted: tuple[str, ...] = ()
    condemned: tuple[str, ...] = ()
    freed: int = 0
    waiting: int = 0


# -- folds and merges --------------------------------------------------------------------------------------------------


def fold(source: Source, path: Path, *, force: bool = False) -> Head | None:
    """Upload a new base if it is due, from what is stored, and have the head name it.

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
    began = current(source)
    if began is None or not (force or _is_due(began.head)):
        return None
    claim = Claim.make(source, began)
    if claim is None:
        return None
    try:
        with downloaded(source, claim.head, path) as copy:
            return _fold(source, claim, copy)
    except BaseException:
        claim.withdraw([claim.name])
        raise


def _is_due(head: Head) -> bool:
    return policy.fold_is_due(head.base, head.live, head.size)


@contextmanager
def downloaded(source: Source, head: Head, path: Path) -> Iterator[Copy]:
    """The version of a head in a file, proved; the file goes at the end. Raises what :func:`fold` does."""
    target = Target(path, source.url)
    try:
        try:
            save(Objects(source, path.parent), head, target)
        except BLAMED as error:
            wrong = blame(source, head, error)
            if wrong is error:
                raise
            raise wrong from error
        with open(path, "rb") as file:
            yield Copy(head, Image.of_file(file.fileno(), head.sequence), path.parent)
    finally:
        target.discard()


def fold_from(source: Source, copy: Copy, began: Current) -> Head | None:
    """Upload a new base from a version that is here. As :func:`fold`, and whether or not it is due.

    Raises:
        ProofError: The pages that are here are not those of the version. Nothing was changed.
    """
    claim = _claimed(source, copy, began)
    if claim is None:
        return None
    try:
        return _fold(source, claim, copy)
    except BaseException:
        claim.withdraw([claim.name])
        raise


def _claimed(source: Source, copy: Copy, began: Current) -> Claim | None:
    if copy.head.commit not in began.version.lineage or copy.head.sequence < began.head.base.sequence:
        return None  # it is another history, or was overtaken by far
    return Claim.make(source, began)


def _fold(source: Source, claim: Claim, copy: Copy) -> Head | None:
    base, total = new_base(Objects(source, copy.folder), copy.image, claim.name, copy.head.sequence)
    _require(copy, total)

    def folded(now: Current) -> Head:
        dropped = policy.superfluous(base, now.head.segments, keep=KEPT)
        names = {segment.name for segment in dropped}
        head = replace(
            now.head,
            base=base,
            segments=tuple(segment for segment in now.head.segments if segment.name not in names),
            since=max([now.head.since, *(segment.last for segment in dropped)]),
            claim=None,
        )
        return condemn(source, head, [now.head.base.name, *(segment.name for segment in dropped)], now.now)

    return claim.end(folded, [base.name])


def merge_from(
    source: Source, copy: Copy, began: Current, chosen: Sequence[Segment], numbers: Mapping[str, Collection[int]]
) -> Head | None:
    """Upload one segment in place of several. As :func:`fold_from`.

    Args:
        source: The head's object.
        copy: A version that is here, not older than the segments.
        began: What is stored.
        chosen: Segments of that head.
        numbers: Which pages a segment has, by its name, as far as is known.
    """
    if not chosen or any(segment.last > copy.head.sequence for segment in chosen):
        return None
    claim = _claimed(source, copy, began)
    if claim is None:
        return None
    objects, image = Objects(source, copy.folder), copy.image
    uploaded: list[str] = []
    try:
        union: set[int] = set()
        for segment in chosen:
            known = numbers.get(segment.name)
            union.update(_numbers(source, objects, began.head, segment) if known is None else known)
        pages = sorted(number for number in union if number <= image.page_count)
        merged: list[Segment] = []
        if pages:
            name, last = new_name("seg"), max(segment.last for segment in chosen)
            with objects.temporary() as file:
                size = write(
                    file,
                    pages,
                    lambda number: pack(canonical(number, image.page(number))),
                    page_size=image.page_size,
                    last=last,
                )
                uploaded.append(name)
                objects.put(name, file)
            merged.append(Segment(name, last, len(pages), size))
        prove(copy)
        return claim.end(lambda now: _merged(source, now, chosen, merged), uploaded)
    except BaseException:
        claim.withdraw(uploaded)
        raise


def _numbers(source: Source, objects: Objects, head: Head, segment: Segment) -> Collection[int]:
    try:
        return objects.numbers(segment, head.page_size)
    except BLAMED as error:
        wrong = blame(source, head, error)
        if wrong is error:
            raise
        raise wrong from error


def _merged(source: Source, now: Current, chosen: Sequence[Segment], merged: Sequence[Segment]) -> Head | None:
    if not set(chosen) <= set(now.head.segments):
        return None  # a commit has merged one of them, or dropped it
    left = [segment for segment in now.head.segments if segment not in chosen]
    head = replace(now.head, segments=tuple(sorted([*left, *merged], key=lambda one: one.last)), claim=None)
    return condemn(source, head, [segment.name for segment in chosen], now.now)


class ProofError(Exception):
    """The pages that are here are not those of the version that they are taken for."""


def prove(copy: Copy) -> None:
    """Make sure that what was read from a copy is its version.

    It is called after everything was read: a copy that is right at the end was right before.

    Raises:
        ProofError: It is not.
    """
    image, total = copy.image, 0
    at_once = max(1, _CHUNK // image.page_size)
    image.seek(0)
    for first in range(1, image.page_count + 1, at_once):
        count = min(at_once, image.page_count + 1 - first)
        chunk = image.read(count * image.page_size)
        pages = (chunk[at * image.page_size : (at + 1) * image.page_size] for at in range(count))
        total = plus(total, enumerate(pages, first))
    _require(copy, total)


def _require(copy: Copy, total: int) -> None:
    if total != copy.head.checksum:
        raise ProofError(
            f"the working copy of version {copy.head.sequence} has the checksum {total:016x}, and its head says "
            f"{copy.head.checksum:016x}"
        )


# -- collections -------------------------------------------------------------------------------------------------------


def collect(source: Source, *, grace: int = GRACE, dry_run: bool = False) -> Collected:
    """Delete what has been condemned for long enough, and condemn what nothing refers to.

    Args:
        source: The head's object.
        grace: Seconds between the two, by the store's clock.
        dry_run: Whether to find out only what it would do.

    Raises:
        NotFoundError: There is no database.
        CorruptDatabaseError: The head is damaged, or an object that it names is missing. Nothing is collected.
        StoreError: A request failed.
    """
    prefix = folder(source.key)

    def listing() -> dict[str, int]:
        return {info.key.removeprefix(prefix): info.size for info in source.store.list(prefix)}

    presence = Presence(source)
    for _ in range(MOST_SWAPS):
        listed = source.retrying.run(listing)  # before the head: what is uploaded later is none of our business
        now = current(source)
        if now is None:
            return Collected()
        if not presence.is_whole(now.head, now.info.etag, listed):
            continue
        plan = _Plan(source, now, listed, grace)
        if not plan.has_work or dry_run:
            return plan.result
        if swap(source, now, plan.head()) is not None:
            return plan.done(remove(source, plan.result.deleted))
    return Collected()


class _Plan:
    """What is to be deleted and condemned under one head.

    Args:
        source: The head's object.
        now: The head.
        listed: What is in the folder: sizes in bytes by name.
        grace: As for :func:`collect`.
    """

    def __init__(self, source: Source, now: Current, listed: Mapping[str, int], grace: int) -> None:
        self._source, self._now, self._listed = source, now, listed
        head = now.head
        lists = {name: _read_list(source, name) for name in head.gone}
        # A list is dropped as a whole, when the last of its names is due.
        due = {name for name, marks in lists.items() if all(now.now - one.since >= grace for one in marks)}
        self._left = tuple(name for name in head.gone if name not in due)
        self._kept = tuple(one for one in head.condemned if now.now - one.since < grace)
        ripe = [one.name for one in head.condemned if one not in self._kept]
        for name in due:
            ripe += [*(one.name for one in lists[name]), name]
        known = (
            head.named | {one.name for one in head.condemned} | {one.name for marks in lists.values() for one in marks}
        )
        orphans = [name for name in listed if is_name(name, "base", "seg", "gone") and name not in known]
        room = gone.MOST_NAMES * (MOST_GONE - len(self._left) - 1)
        orphans = orphans[: max(room, 0)]
        # Whatever a head or a list says: nothing that is needed is ever deleted.
        needed = head.named - due
        deleted = tuple(name for name in dict.fromkeys(ripe) if name not in needed)
        waiting = {one.name for one in self._kept} | {one.name for name in self._left for one in lists[name]}
        self.result = Collected(
            deleted,
            tuple(orphans),
            sum(listed.get(name, 0) for name in deleted),
            sum(listed.get(name, 0) for name in {*waiting, *orphans} - needed),
        )

    @property
    def has_work(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.result.deleted or self.result.condemned)

    def done(self, deleted: Sequence[str]) -> Collected:
        """What was done, if these are the objects that could be deleted."""
        freed = sum(self._listed.get(name, 0) for name in deleted)
        return replace(self.result, deleted=tuple(deleted), freed=freed)

    def head(self) -> Head:
        """The head that replaces it. What it comes to name is uploaded here."""
        head, orphans = self._now.head, self.result.condemned
        head = replace(head, condemned=self._kept, gone=self._left, collection=head.collection + bool(orphans))
        return condemn(self._source, head, orphans, self._now.now)


def _read_list(source: Source, name: str) -> tuple[Marked, ...]:
    """What a list of condemned objects says; nothing if it is not there, or no list: its names are orphans then."""

    def attempt() -> tuple[Marked, ...]:
        try:
            download = source.store.get(key_of(source.key, name))
        except NotFoundError:
            return ()
        assert download is not None, "only if_none_match has no body"
        with download:
            if download.info.size > gone.LARGEST:
                return ()
            try:
                return gone.decode(read_exactly(download, download.info.size))
            except FormatError:
                return ()

    return source.retrying.run(attempt)
