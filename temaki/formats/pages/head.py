"""What a head says: a version as a base, segments, and the pages of its tail.

The head is the one object of a database that is compared and swapped. :mod:`temaki.formats.pages.manifest` has its
bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST_SEGMENTS: Final = 64
MOST_CONDEMNED: Final = 64
MOST_GONE: Final = 64


@dataclass(frozen=True, slots=True)
class Base:
    """An ordinary SQLite file of one version.

    Attributes:
        name: Of the object.
        size: In bytes.
        sequence: The version's number.
    """

    name: str
    size: int
    sequence: int


@dataclass(frozen=True, slots=True)
class Segment:
    """An object with pages that changed up to one version.

    Attributes:
        name: Of the object.
        last: Number of the last version whose changes it is needed for.
        pages: How many pages it has.
        size: In bytes.
    """

    name: str
    last: int
    pages: int
    size: int


@dataclass(frozen=True, slots=True)
class TailPage:
    """A page in the head itself.

    Attributes:
        number: From 1.
        sequence: Number of the version that changed it last.
        image: The page, as :mod:`temaki.formats.pages.pageimage` packs it.
    """

    number: int
    sequence: int
    image: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Marked:
    """A name with a moment.

    Attributes:
        name: A condemned object's, or that of the base which a fold is going to upload.
        since: The store's time when it was condemned or claimed, in seconds since 1970.
    """

    name: str
    since: int


@dataclass(frozen=True, slots=True)
class Head:
    """What a head says.

    Attributes:
        page_size: In bytes.
        page_count: The database's size, in pages.
        sequence: The version's number.
        commit: Id of the commit that made the version.
        base: Where a full pull begins.
        segments: At most :data:`MOST_SEGMENTS`, ascending by ``last``.
        since: The oldest version from which segments and tail reach this one.
        tail: The newest pages, ascending by number.
        checksum: Of the database; see :mod:`temaki.formats.pages.checksum`.
        collection: Rises when a collector condemns objects that no head names. A segment may be named only in a head
            with the number that was read before the segment's upload began. (``gc`` in the JSON.)
        condemned: At most :data:`MOST_CONDEMNED` objects that no head names any more.
        gone: Names of the objects with the condemned names that have no room here.
        claim: The base that a fold is working on; None where there is no fold.
        edition: How often the version has been maintained. It makes the bytes of every head its own, so that no ETag
            comes back: else an attempt that was given up for lost could land.
        unknown: Fields of a newer temaki, kept as they are.
        requires: Features that a reader must know.
    """

    page_size: int
    page_count: int
    sequence: int
    commit: str
    base: Base
    segments: tuple[Segment, ...]
    since: int
    tail: tuple[TailPage, ...]
    checksum: int
    collection: int = 0
    condemned: tuple[Marked, ...] = ()
    gone: tuple[str, ...] = ()
    claim: Marked | None = None
    edition: int = 0
    unknown: Mapping[str, Any] = field(default_factory=dict)
    requires: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Size of the database, in bytes."""
        return self.page_count * self.page_size

    @property
    def named(self) -> frozenset[str]:
        """Names of the objects that this head needs, or will need: none of them may be removed."""
        claimed = () if self.claim is None else (self.claim.name,)
        return frozenset({self.base.name, *(segment.name for segment in self.segments), *self.gone, *claimed})

    @property
    def live(self) -> tuple[Segment, ...]:
        """The segments that a full pull needs, ascending."""
        return tuple(segment for segment in self.segments if segment.last > self.base.sequence)

    def newer_than(self, sequence: int) -> tuple[Segment, ...]:
        """The segments that a catch-up from a version needs, ascending."""
        return tuple(segment for segment in self.segments if segment.last > sequence)

    def reaches(self, sequence: int, page_size: int) -> bool:
        """Whether a working copy of that version and page size can catch up with this one."""
        return self.page_size == page_size and self.since <= sequence <= self.sequence

    def without_tail(self) -> Head:
        """The manifest alone."""
        return replace(self, tail=())
