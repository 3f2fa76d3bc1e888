"""How a database and its object have been kept in step: counters, events, and bookmarks. ``Database.sync`` is one."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from temaki.errors import BookmarkError, ConfigurationError
from temaki.events import Event
from temaki.observe.metering import Request, Traffic
from temaki.process.fork import look

if TYPE_CHECKING:
    from temaki.engine.engine import Engine
    from temaki.version import Version

_SHORTEST_WAIT: Final = 0.05  # seconds between two looks
_LONGEST_WAIT: Final = 1.0
_BOOKMARK: Final = re.compile(r"([0-9]{1,18})\.([0-9a-z-]{8,64})")


@dataclass(frozen=True, slots=True)
class Bookmark:
    """A version, as something to hand to another process: ``str()`` makes text of it, :meth:`parse` a bookmark again.

    Attributes:
        sequence: The version's number.
        commit: Its id.
    """

    sequence: int
    commit: str

    def __str__(self) -> str:
        return f"{self.sequence}.{self.commit}"

    @classmethod
    def parse(cls, text: str) -> Bookmark:
        """What ``str()`` made.

        Raises:
            ConfigurationError: It did not make this.
        """
        found = _BOOKMARK.fullmatch(text)
        if found is None:
            raise ConfigurationError(f"{text!r} is no bookmark. One is made by db.sync.bookmark(), as text by str().")
        return cls(int(found[1]), found[2])


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What happened to a database in this process so far, however many ``Database`` objects are bound to its URL.

    Attributes:
        url: The database's.
        sequence: Number of the version in the working copy; None where there is none (yet).
        commit: Its id.
        size: Its bytes.
        age: Seconds since the store last confirmed that it is current; None if it never has.
        sessions: How many have begun.
        pulls: How often another version was fetched.
        went_back: How often the stored version was replaced by one without the commits that were known here.
        unchanged: How often the store said that there is none.
        commits: How many were stored.
        conflicts: How many sessions were refused because another writer came first.
        unknown: How many commits of which the store never said what became of them.
        failures: How many pulls, beginnings and commits failed in another way.
        leases: How often the lease was taken.
        retries: How often a request was repeated that had no usable answer.
        waits: How often another look at a lease that others hold, or at the way to it, was waited for.
        seconds: Spent in: ``pull``, ``begin`` and ``commit`` (with the requests in them), ``lease`` (waiting for it),
            ``retry`` and ``wait`` (idle before another attempt).
        traffic: What was asked of the store.
    """

    url: str
    sequence: int | None
    commit: str | None
    size: int | None
    age: float | None
    sessions: int
    pulls: int
    went_back: int
    unchanged: int
    commits: int
    conflicts: int
    unknown: int
    failures: int
    leases: int
    retries: int
    waits: int
    seconds: Mapping[str, float]
    traffic: Traffic


class Sync:
    """See above. All databases of a process that are bound to one URL have one working copy, and share these numbers.

    Args:
        engine: Runs the database's sessions.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._shared = engine.shared

    def snapshot(self) -> Snapshot:
        """The numbers now. Makes no request."""
        shared = self._shared
        counts, seconds = shared.reporter.counts()
        version = self._version()
        age = shared.puller.age()
        return Snapshot(
            url=shared.replica.url,
            sequence=None if version is None else version.sequence,
            commit=None if version is None else version.commit,
            size=None if version is None else version.size,
            age=None if age == float("inf") else age,
            sessions=counts.get("session", 0),
            pulls=counts.get("Pulled", 0),
            went_back=counts.get("WentBack", 0),
            unchanged=counts.get("Unchanged", 0),
            commits=counts.get("Published", 0),
            conflicts=counts.get("Conflict", 0),
            unknown=counts.get("CommitUnknown", 0),
            failures=counts.get("Failed", 0),
            leases=counts.get("LeaseAcquired", 0),
            retries=counts.get("retry", 0),
            waits=counts.get("wait", 0),
            seconds=seconds,
            traffic=shared.meter.traffic(),
        )

    def on_event(self, callback: Callable[[Event], object]) -> Callable[[], None]:
        """Have ``callback`` called with each event on this URL in this process, from now on.

        It is called in the thread to which the event happens, in the middle of a session, which waits for it; so it
        hands work over rather than doing it, and begins no session. What it raises is logged and harms no commit.

        Returns:
            A function that ends it.
        """
        return self._shared.reporter.listen(callback)

    def on_request(self, callback: Callable[[Request], object]) -> Callable[[], None]:
        """As :meth:`on_event`, for each request to the store; in whatever thread makes it."""
        return self._shared.meter.listen(callback)

    def bookmark(self) -> Bookmark:
        """The version in the working copy: after a commit of this process, one that has that commit in it.

        Hand it to another process, in a job's arguments or a response's header, to have that read at least this
        version: see :meth:`wait_for`.

        Raises:
            ConfigurationError: This process has neither read nor written the database yet.
        """
        version = self._version() or self._shared.reporter.last
        if version is None:
            raise ConfigurationError(
                f"There is no bookmark for {self._shared.replica.url} yet: this process has neither read nor written "
                "it. Make one after a db_session."
            )
        return Bookmark(version.sequence, version.commit)

    def wait_for(self, bookmark: Bookmark | str, timeout: float) -> None:
        """Bring the working copy of this process to a version that has the bookmark's in it, or is it.

        Sessions that begin afterwards read at least that version, with ``max_age`` too. A version **has another in it**
        if that is in its lineage, or, where the lineage does not go back so far, if its number is higher.

        ``temaki restore`` makes a new version with a higher number: a bookmark from before it is satisfied, although
        what it stands for may have been undone. A version that was brought back by other means (another tool copied
        an old object over it) has an old number: that is waited for, or reported as lost.

        Args:
            bookmark: Or what ``str()`` made of it.
            timeout: Seconds for which to ask the store; at least once.

        Raises:
            BookmarkError: There is no such version until then; ``lost`` if there never will be.
            ConfigurationError: The database was unbound.
            StoreError, CorruptDatabaseError: The store could not be asked.
        """
        _ = self._engine.shared  # raises if the database was unbound
        wanted = Bookmark.parse(bookmark) if isinstance(bookmark, str) else bookmark
        clock, puller = self._shared.clock, self._shared.puller
        deadline = clock.monotonic() + timeout
        pause = _SHORTEST_WAIT
        if _has(self._version(), wanted):
            return
        while True:
            puller.revalidate()
            version = self._version()
            if _has(version, wanted):
                return
            if version is not None and _is_lost(version, wanted):
                raise self._error(wanted, version, lost=True)
            left = deadline - clock.monotonic()
            if left <= 0:
                raise self._error(wanted, version, lost=False)
            clock.sleep(min(pause, left))
            pause = min(2 * pause, _LONGEST_WAIT)

    def _version(self) -> Version | None:
        look()
        current = self._shared.replica.current
        return None if current is None else current.version

    def _error(self, wanted: Bookmark, version: Version | None, *, lost: bool) -> BookmarkError:
        url = self._shared.replica.url
        there = (
            "there is no database yet"
            if version is None
            else f"the stored version is {version.sequence}, {version.commit}"
        )
        if lost:
            said = "The object was replaced by one without it in its history: it will not come any more."
        else:
            said = "It may come yet: wait longer. If the bookmark is another database's, it will not."
        return BookmarkError(
            f"Version {wanted} of {url} is not there: {there}. {said}", url=url, bookmark=str(wanted), lost=lost
        )


def _has(version: Version | None, wanted: Bookmark) -> bool:
    if version is None:
        return False
    if wanted.commit in version.lineage:
        return True
    return version.sequence > wanted.sequence and not _reaches(version, wanted)


def _is_lost(version: Version, wanted: Bookmark) -> bool:
    """Whether a version that is newer by its number shows that the wanted one is not among those before it."""
    return version.sequence >= wanted.sequence and _reaches(version, wanted) and wanted.commit not in version.lineage


def _reaches(version: Version, wanted: Bookmark) -> bool:
    """Whether the lineage goes back to the wanted number. (Numbers may skip, which only brings it closer.)"""
    return version.complete or len(version.lineage) > version.sequence - wanted.sequence
