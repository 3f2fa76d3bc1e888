"""From a head to a working copy: all of it into a new file, or what is newer into the live one.

The checksum decides in both cases. A full pull whose sum is wrong is an error, and nothing of it is kept. A catch-up
computes the new sum from the old one before anything is written. If it is not the head's, the working copy comes from
another history (somebody put an old head back), and a full pull follows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from temaki.formats.pages import policy
from temaki.formats.pages.checksum import minus, plus
from temaki.formats.pages.objects import DamagedObjectError
from temaki.formats.pages.pageimage import unpack
from temaki.formats.pages.pageone import canonical, materialised
from temaki.formats.pages.summing import Sum
from temaki.replica.header import WAL_MODE, FormatError, lock_page

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from temaki.formats.pages.head import Head
    from temaki.formats.pages.objects import Objects
    from temaki.remote.transfer import Target


class Pages(Protocol):
    """A version that is here, page by page; see :class:`temaki.replica.image.Image`."""

    def page(self, number: int, /) -> bytes:
        """One page, from number 1 on."""


@dataclass(frozen=True, slots=True, eq=False)
class Newer:
    """What has changed since a version, for :func:`prove`.

    Attributes:
        head: The version that it leads to.
        pages: The newest bytes of each page that changed and that the version still has; page 1 is canonical.
    """

    head: Head
    pages: Mapping[int, bytes]


class MismatchError(Exception):
    """The working copy is no earlier version of the head's history."""


def can_catch_up(head: Head, known: Head) -> bool:
    """Whether a working copy of ``known`` can become ``head`` by what has changed, at a sensible price."""
    if not head.reaches(known.sequence, known.page_size):
        return False
    needed = sum(segment.size for segment in head.newer_than(known.sequence))
    return needed <= policy.REACH and needed < head.base.size + sum(segment.size for segment in head.live)


def collect(objects: Objects, head: Head, known: Head) -> Newer:
    """Fetch what has changed between two versions.

    Raises:
        MissingObjectError: A segment is not there.
        DamagedObjectError: A segment, or the head itself, is not what the head says.
        StoreError: A request failed, also when repeated.
    """
    pages: dict[int, bytes] = {}
    wanted = head.newer_than(known.sequence)
    with objects.segments(wanted, head.page_size) as readers:
        for segment, reader in zip(wanted, readers, strict=True):
            try:
                pages.update((number, page) for number, page in reader.pages() if number <= head.page_count)
            except FormatError as error:
                raise DamagedObjectError(segment.name, error) from error
    pages.update(_tail(head, known.sequence))
    return Newer(head, pages)


def prove(newer: Newer, known: Head, local: Pages) -> dict[int, bytes]:
    """Make sure that the pages lead from the working copy's version to the head's.

    Args:
        newer: From :func:`collect`.
        known: The working copy's version.
        local: The working copy's pages.

    Returns:
        The pages to write, page 1 among them, in WAL mode.

    Raises:
        MismatchError: They do not.
    """
    head, pages = newer.head, dict(newer.pages)
    lock = lock_page(head.page_size)
    for number in range(known.page_count + 1, head.page_count + 1):
        if number not in pages and number != lock:
            raise MismatchError(f"page {number} is new, and nothing has it")
    changed = sorted({*(n for n in pages if n <= known.page_count), *range(head.page_count + 1, known.page_count + 1)})
    total = minus(known.checksum, ((number, local.page(number)) for number in changed))
    if plus(total, pages.items()) != head.checksum:
        raise MismatchError("the checksum is another one")
    first = pages.get(1) or canonical(1, local.page(1))
    try:
        pages[1] = materialised(first, modes=WAL_MODE, sequence=head.sequence, page_count=head.page_count)
    except FormatError as error:
        raise MismatchError(str(error)) from error
    return pages


def save(objects: Objects, head: Head, target: Target) -> None:
    """Write a version into a new file, in WAL mode, and prove its checksum.

    Raises:
        MissingObjectError: The base or a segment is not there.
        DamagedObjectError: One of them, or the head itself, is not what the head says.
        StoreError: A request failed, also when repeated.
        WorkingCopyError: The file cannot be written.
    """
    size, live = head.page_size, head.live
    most = head.base.size // size + sum(segment.pages for segment in live) + len(head.tail) + 1
    if head.page_count > most:
        raise DamagedObjectError("", f"it has {head.page_count} pages, and its objects at most {most}")
    with Sum(size, head.page_count) as summed, target.watched(summed.add):
        with objects.segments(live, size) as readers:
            objects.base(head.base, size, target)
            summed.settle()  # page by page, a second thread would only be in the way
            target.resize(head.page_count * size)
            for segment, reader in zip(live, readers, strict=True):
                try:
                    for number, page in reader.pages():
                        if number <= head.page_count:
                            target.write(page, (number - 1) * size)
                except FormatError as error:
                    raise DamagedObjectError(segment.name, error) from error
        for number, page in _tail(head, 0):
            target.write(page, (number - 1) * size)
        total = summed.total(target.read)
    if total != head.checksum:
        raise DamagedObjectError("", f"its checksum is {total:016x}, and its head says {head.checksum:016x}")
    try:
        first = canonical(1, target.read(size, 0))
        page = materialised(first, modes=WAL_MODE, sequence=head.sequence, page_count=head.page_count)
    except FormatError as error:
        raise DamagedObjectError("", error) from error
    target.write(page, 0)


def _tail(head: Head, after: int) -> Iterator[tuple[int, bytes]]:
    """The pages of the tail that changed after a version."""
    for page in head.tail:
        if page.sequence > after:
            try:
                yield page.number, unpack(page.image, head.page_size)
            except FormatError as error:
                raise DamagedObjectError("", error) from error
