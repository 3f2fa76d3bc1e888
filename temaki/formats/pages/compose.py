"""The next head of a commit, and the objects that it needs, which are uploaded before it.

Nothing is ever uploaded under a name that was used before, and nothing is removed because a commit failed. An object
that no head came to name is an orphan, which a collector finds by listing.

A head may name an object only if its ``gc`` is the number that was read before the object's upload began. Whoever
composes a head on a newer head therefore composes it anew, and uploads everything again if ``gc`` has risen.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Protocol

from temaki.formats.pages import policy
from temaki.formats.pages.ahead import in_batches
from temaki.formats.pages.checksum import MASK, minus, page_value, plus
from temaki.formats.pages.gone import condemning
from temaki.formats.pages.head import Base, Head, Marked, Segment, TailPage
from temaki.formats.pages.names import new_name
from temaki.formats.pages.pageimage import pack
from temaki.formats.pages.pageone import canonical
from temaki.formats.pages.pull import Pages
from temaki.formats.pages.segment import write
from temaki.formats.pages.summing import Sum, SummedBody
from temaki.replica.header import FormatError, lock_page

if TYPE_CHECKING:
    from array import array
    from collections.abc import Callable, Collection, Iterator, Sequence
    from typing import IO

    from temaki.formats.pages.objects import Objects

LARGE: Final = 8 << 20
"""Bytes of changed pages above which a commit's pages are not held in memory."""
LARGE_UPLOAD: Final = 1 << 20
"""Bytes before whose upload it is worth a request to ask whether the commit is lost already."""


class Image(Pages, Protocol):
    """The database as the commit leaves it; see :class:`temaki.replica.image.Image`."""

    page_count: int
    page_size: int
    size: int
    changed: Collection[int]

    def read(self, size: int = -1, /) -> bytes:
        """As :meth:`io.RawIOBase.read`."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """As :meth:`io.IOBase.seek`."""

    def tell(self) -> int:
        """As :meth:`io.IOBase.tell`."""


@dataclass(eq=False)
class Known:
    """What is known of a version that is here.

    Attributes:
        head: Its head.
        numbers: Which pages a segment has, by the segment's name; for the segments that were read or written here.
        ahead: By how many seconds the store's clock is ahead of this machine's, as far as is known.
    """

    head: Head
    numbers: dict[str, array[int]] = field(default_factory=dict)
    ahead: float = 0.0


@dataclass(frozen=True, slots=True)
class Identity:
    """Which version a head is of.

    Attributes:
        sequence: Its number.
        commit: The id of its commit.
        now: This machine's time, in seconds since 1970.
    """

    sequence: int
    commit: str
    now: float


@dataclass(eq=False)
class Uploads:
    """What was uploaded for a commit that has yet to be stored: a head that is composed anew may name it again.

    The image decides what is in each of them, so it stays right on every head of the version that the commit is built
    on.

    Attributes:
        collection: The head's collection number before the uploads began.
        base: The new base, if one was uploaded.
        segments: The segments, by the numbers of their pages and by their last version.
    """

    collection: int = -1
    base: Base | None = None
    segments: dict[tuple[bytes, int], Segment] = field(default_factory=dict)

    def begin(self, collection: int) -> None:
        """Forget everything if a collector may have condemned it."""
        if self.collection != collection:
            self.collection, self.base, self.segments = collection, None, {}


def _nothing() -> None:
    pass


def first_head(objects: Objects, image: Image, identity: Identity) -> Known:
    """The head of a database that is created, or converted: one new base.

    Raises:
        OSError: The image cannot be read.
        StoreError: The base could not be uploaded.
    """
    base, total = new_base(objects, image, new_name("base"), identity.sequence)
    return Known(
        Head(
            page_size=image.page_size,
            page_count=image.page_count,
            sequence=identity.sequence,
            commit=identity.commit,
            base=base,
            segments=(),
            since=identity.sequence,
            tail=(),
            checksum=total,
        )
    )


def next_head(
    objects: Objects,
    image: Image,
    before: Pages,
    known: Known,
    identity: Identity,
    *,
    uploads: Uploads | None = None,
    before_large: Callable[[], None] = _nothing,
) -> Known:
    """The head of a commit, after the upload of the segments or the base that it needs.

    Args:
        objects: Where they go.
        image: The database as the commit leaves it.
        before: The database as it was before.
        known: The head that it is to replace.
        identity: Of the new version.
        uploads: What was uploaded for the same commit before; what is uploaded now comes to it.
        before_large: Called before megabytes are uploaded; raises if the commit is lost already.

    Raises:
        FormatError: SQLite has not logged a page that the database has grown by.
        OSError: The image cannot be read.
        MissingObjectError: A segment that is to be merged is not there.
        DamagedObjectError: It is not what the head says.
        StoreError: An object could not be read or uploaded.
    """
    return _Composition(objects, image, before, known, identity, uploads or Uploads(), before_large).run()


class _Composition:
    """One call of :func:`next_head`."""

    def __init__(  # noqa: PLR0917 - see next_head()
        self,
        objects: Objects,
        image: Image,
        before: Pages,
        known: Known,
        identity: Identity,
        uploads: Uploads,
        before_large: Callable[[], None],
    ) -> None:
        self._objects, self._image, self._before, self._identity = objects, image, before, identity
        self._before_large, self._old, self._ahead = before_large, known.head, known.ahead
        self._uploads = uploads
        self._pending: dict[str, IO[bytes]] = {}
        self._under_way: dict[str, Callable[[], object]] = {}  # by name: waits for the end of an upload
        self._has_asked = False
        self._numbers = dict(known.numbers)
        self._base, self._since = known.head.base, known.head.since
        self._segments = list(known.head.segments)
        self._condemned: list[str] = []

    def run(self) -> Known:
        self._uploads.begin(self._old.collection)
        try:
            known = self._composed()
            self._upload()
            return known
        finally:
            for sent in self._under_way.values():  # nobody closes a file that is being read
                with contextlib.suppress(Exception):
                    sent()
            for file in self._pending.values():
                file.close()

    def _composed(self) -> Known:
        old, image = self._old, self._image
        if old.page_size != image.page_size:
            return self._with_new_base(plus(0, self._all_pages()))
        changed, total = self._changed()
        large = len(changed) * image.page_size > LARGE
        if large and policy.needs_base(len(changed), image.page_count):
            return self._with_new_base(total)
        present = set(changed)
        tail = [page for page in old.tail if page.number <= image.page_count and page.number not in present]
        if large:
            self._add_parts(changed)
        else:
            tail += [TailPage(number, self._identity.sequence, self._image_of(number)) for number in changed]
        tail.sort(key=lambda page: page.number)
        last = policy.cut(tail)
        if last is not None:
            leaving = [page for page in tail if page.sequence <= last]
            if policy.needs_base(len(leaving), image.page_count):
                return self._with_new_base(total)
            tail = [page for page in tail if page.sequence > last]
            images = {page.number: page.image for page in leaving}
            self._add(sorted(images), last, images.__getitem__)
            self._fold()
        self._drop(policy.superfluous(self._base, self._segments))
        self._merge()
        return self._known(
            replace(old, base=self._base, tail=tuple(tail), segments=self._sorted(), since=self._since), total
        )

    def _changed(self) -> tuple[list[int], int]:
        """The pages that differ from the version before, and the new checksum.

        Raises:
            FormatError: A page of the grown part is not among the image's.
        """
        old, image = self._old, self._image
        lock = lock_page(image.page_size)
        candidates = {number for number in image.changed if number <= image.page_count and number != lock}
        missing = set(range(old.page_count + 1, image.page_count + 1)) - candidates - {lock}
        if missing:
            raise FormatError(f"page {min(missing)} of {image.page_count} is new, and SQLite has not logged it")
        total, changed = old.checksum, list[int]()
        for numbers, difference in in_batches(sorted(candidates), self._difference):
            changed += numbers
            total = (total + difference) & MASK
        truncated = range(image.page_count + 1, old.page_count + 1)
        return changed, minus(total, ((number, self._before.page(number)) for number in truncated if number != lock))

    def _difference(self, candidates: Sequence[int]) -> tuple[list[int], int]:
        """Which of these pages differ from the version before, and by how much the checksum does. From any thread."""
        difference, changed = 0, []
        for number in candidates:
            page = canonical(number, self._image.page(number))
            if number <= self._old.page_count:
                before = canonical(number, self._before.page(number))
                if before == page:  # as page 1, where only SQLite's counters moved
                    continue
                difference -= page_value(number, before)
            difference += page_value(number, page)
            changed.append(number)
        return changed, difference

    def _all_pages(self) -> Iterator[tuple[int, bytes]]:
        return ((number, self._image.page(number)) for number in range(1, self._image.page_count + 1))

    def _image_of(self, number: int) -> bytes:
        return pack(canonical(number, self._image.page(number)))

    # -- objects --------------------------------------------------------------------------------------------------

    def _with_new_base(self, total: int) -> Known:
        """Everything in one new object; nothing reaches back to earlier versions."""
        old, sequence = self._old, self._identity.sequence
        self._drop(self._segments)
        self._upload_base()
        return self._known(replace(old, base=self._base, segments=(), tail=(), since=sequence), total)

    def _fold(self) -> None:
        """A new base, if it is due and small: no more than what a commit may merge, and no work for others then.

        Tail and newest segments stay, as with any fold.
        """
        image, segments = self._image, policy.live(self._base, self._segments)
        if policy.folds_at_once(image.size) and policy.fold_is_due(self._base, segments, image.size):
            self._upload_base()
            self._drop(policy.superfluous(self._base, self._segments, keep=policy.KEPT))

    def _upload_base(self) -> None:
        if self._image.size > LARGE_UPLOAD:
            self._ask_before_large()
        uploads = self._uploads
        if uploads.base is None:
            uploads.base, _ = new_base(self._objects, self._image, new_name("base"), self._identity.sequence)
        self._condemned.append(self._old.base.name)
        self._base = uploads.base

    def _drop(self, segments: Sequence[Segment]) -> None:
        """Segments that the head names no more, although no other segment takes their place."""
        self._since = max([self._since, *(segment.last for segment in segments)])
        self._remove({segment.name for segment in segments})

    def _remove(self, names: Collection[str]) -> None:
        listed = {segment.name for segment in self._old.segments}
        self._condemned += [one.name for one in self._segments if one.name in names and one.name in listed]
        self._segments = [segment for segment in self._segments if segment.name not in names]
        for name in names:
            self._numbers.pop(name, None)
            if name in self._pending and name not in self._under_way:  # it was to leave the head in this very commit
                self._pending.pop(name).close()

    def _upload(self) -> None:
        """The segments that the head is to name, in parallel."""
        added = {one.name: one for one in self._segments if one.name in self._pending}
        left = {name: self._pending[name] for name in added if name not in self._under_way}
        if sum(added[name].size for name in left) > LARGE_UPLOAD:
            self._ask_before_large()
        self._objects.put_all(left)
        for sent in self._under_way.values():
            sent()
        for name, segment in added.items():
            self._uploads.segments[self._numbers[name].tobytes(), segment.last] = segment

    def _ask_before_large(self) -> None:
        """Once is enough: what follows takes no longer than the first part did."""
        if not self._has_asked:
            self._before_large()
            self._has_asked = True

    def _add_parts(self, numbers: Sequence[int]) -> None:
        """The pages of a large transaction, in segments of a bounded size; each is sent while the next one is made."""
        images: dict[int, bytes] = {}
        size = 0
        for batch in in_batches(numbers, lambda some: [(number, self._image_of(number)) for number in some]):
            for number, image in batch:
                if size + len(image) > policy.LARGEST_PART:
                    self._send(self._add([*images], self._identity.sequence, images.__getitem__))
                    images, size = {}, 0
                images[number] = image
                size += len(image)
        self._add([*images], self._identity.sequence, images.__getitem__)

    def _send(self, segment: Segment) -> None:
        """Begin to upload a segment, if there are threads for it."""
        name = segment.name
        if name not in self._pending:  # it was sent for an earlier attempt
            return
        self._ask_before_large()
        self._under_way[name] = self._objects.begin_put(name, self._pending[name])

    def _add(self, numbers: Sequence[int], last: int, image: Callable[[int], bytes]) -> Segment:
        """One more segment, with these pages."""
        from array import array

        pages = array("I", numbers)
        segment = self._uploads.segments.get((pages.tobytes(), last))
        if segment is None:
            file = self._objects.temporary()
            name = new_name("seg")
            self._pending[name] = file
            size = write(file, pages, image, page_size=self._image.page_size, last=last)
            segment = Segment(name, last, len(pages), size)
        self._segments.append(segment)
        self._numbers[segment.name] = pages
        return segment

    def _merge(self) -> None:
        """What is worth a merge is merged from the pages as they are now, so nothing but page numbers is downloaded."""
        budget = policy.COMMIT_BUDGET
        while chosen := policy.next_merge(self._base, self._segments, budget):
            union: set[int] = set()
            for segment in chosen:
                union.update(self._numbers_of(segment))
            numbers = sorted(number for number in union if number <= self._image.page_count)
            self._remove({segment.name for segment in chosen})
            if numbers:
                budget -= self._add(numbers, max(segment.last for segment in chosen), self._image_of).size

    def _numbers_of(self, segment: Segment) -> Collection[int]:
        found = self._numbers.get(segment.name)
        return self._objects.numbers(segment, self._image.page_size) if found is None else found

    def _sorted(self) -> tuple[Segment, ...]:
        return tuple(sorted(self._segments, key=lambda segment: segment.last))

    def _known(self, head: Head, total: int) -> Known:
        identity = self._identity
        now = max(0, math.ceil(identity.now + self._ahead))  # rather too late than too early
        head, lists = condemning(head, [Marked(name, now) for name in self._condemned])
        for name, content in lists.items():
            self._objects.put(name, content)
        head = replace(
            head,
            page_size=self._image.page_size,
            page_count=self._image.page_count,
            sequence=identity.sequence,
            commit=identity.commit,
            checksum=total,
            edition=0,
        )
        named = {segment.name for segment in head.segments}
        return Known(head, {name: numbers for name, numbers in self._numbers.items() if name in named}, self._ahead)


def new_base(objects: Objects, image: Image, name: str, sequence: int) -> tuple[Base, int]:
    """Upload the whole database.

    Args:
        objects: Where it goes.
        image: The database.
        name: The name of the new object.
        sequence: Number of the version.

    Returns:
        The base, and the checksum of what was sent.

    Raises:
        OSError: The image cannot be read.
        StoreError: The base could not be uploaded.
    """
    with Sum(image.page_size, image.page_count) as summed:
        image.seek(0)
        objects.put(name, SummedBody(image, summed))
        total = summed.total(lambda count, offset: image.page(offset // count + 1))
    return Base(name, image.size, sequence), total
