"""The state of synchronisation: counters, events and bookmarks. ``Database.sync`` is a :class:`Sync`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from temaki.errors import BookmarkError, ConfigurationError
from temaki.events import Event
from temaki.formats.choice import by_number
from temaki.observe.metering import Request, Traffic
from temaki.process.fork import look

if TYPE_CHECKING:
    from temaki.engine.engine import Engine
    from temaki.formats.format import Layout
    from temaki.version import Version

_SHORTEST_WAIT: Final = 0.05  # seconds between two looks
_LONGEST_WAIT: Final = 1.0
_BOOKMARK: Final = re.compile(r"([0-9]{1,18})\.([0-9a-z-]{8,64})")


@dataclass(frozen=True, slots=True)
class Bookmark:
    """A reference to a version, for another process. ``str()`` gives its text, and :meth:`parse` reads the text.

    Attributes:
        sequence: Number of the version.
        commit: Commit id of the version.
    """

    sequence: int
    commit: str

    def __str__(self) -> str:
        return f"{self.sequence}.{self.commit}"

    @classmethod
    def parse(cls, text: str) -> Bookmark:
        """Read the text of a bookmark.

        Raises:
            ConfigurationError: The text is no bookmark.
        """
        match = _BOOKMARK.fullmatch(text)
        if match is None:
            raise ConfigurationError(
                f"{text!r} is no bookmark. Make a bookmark with db.sync.bookmark(), and its text with str()."
            )
        return cls(int(match[1]), match[2])


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Counters of one database in this process so far, over all ``Database`` objects that are bound to its URL.

    Attributes:
        url: URL of the database.
        sequence: Number of the version in the working copy; None if there is no version yet.
        commit: Commit id of the version in the working copy; None if there is no version yet.
        size: Size of the version in the working copy, in bytes; None if there is no version yet.
        age: Seconds since the store last confirmed that the working copy is current; None if it never has.
        sessions: Number of sessions that have begun.
        pulls: Number of times that another version was fetched: ``catch_ups + full_pulls``.
        catch_ups: Number of times that only what had changed was fetched.
        full_pulls: Number of times that a whole version was fetched.
        went_back: Number of times that the stored version was replaced by one without the commits that were known here.
        unchanged: Number of times that the store said that the working copy is current.
        commits: Number of commits that were stored.
        conflicts: Number of sessions that were refused because another writer came first.
        unknown: Number of commits for which the store never said whether it accepted them.
        failures: Number of pulls, beginnings of writes, and commits that failed in another way.
        leases: Number of times that the lease was acquired.
        retries: Number of retries of requests that got no usable answer.
        waits: Number of waits before another look at a lease that others hold, or at the queue for it.
        received: Bytes that the pulls fetched.
        sent: Bytes that the stored commits uploaded. Refused commits and compaction are in ``traffic`` alone.
        changed: Bytes of the pages that the stored commits changed. ``sent / changed`` is the price of a changed byte.
        segments: Number of segments of the version in the working copy; None in the format ``file``, or if that is not
            known here.
        tail: Bytes of pages in the database's own object, for the same version; None as above.
        seconds: Seconds spent, by name: ``pull``, ``begin`` and ``commit`` (including their requests), ``lease``
            (waiting for the lease), ``retry`` and ``wait`` (idle before another attempt).
        traffic: Requests to the store.
    """

    url: str
    sequence: int | None
    commit: str | None
    size: int | None
    age: float | None
    sessions: int
    pulls: int
    catch_ups: int
    full_pulls: int
    went_back: int
    unchanged: int
    commits: int
    conflicts: int
    unknown: int
    failures: int
    leases: int
    retries: int
    waits: int
    received: int
    sent: int
    changed: int
    segments: int | None
    tail: int | None
    seconds: Mapping[str, float]
    traffic: Traffic


class Sync:
    """The synchronisation of one bound database: its counters, its events, and its bookmarks.

    All databases of a process that are bound to one URL have one working copy. They share these numbers.

    Args:
        engine: The engine of the database's sessions.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._shared = engine.shared

    def snapshot(self) -> Snapshot:
        """Get the current numbers. Makes no request."""
        shared = self._shared
        counts, seconds = shared.reporter.counts()
        version, layout = self._version(), self._layout()
        age = shared.puller.age()
        return Snapshot(
            url=shared.replica.url,
            sequence=None if version is None else version.sequence,
            commit=None if version is None else version.commit,
            size=None if version is None else version.size,
            age=None if age == float("inf") else age,
            sessions=counts.get("session", 0),
            pulls=counts.get("Pulled", 0),
            catch_ups=counts.get("catch-up", 0),
            full_pulls=counts.get("full pull", 0),
            went_back=counts.get("WentBack", 0),
            unchanged=counts.get("Unchanged", 0),
            commits=counts.get("Published", 0),
            conflicts=counts.get("Conflict", 0),
            unknown=counts.get("CommitUnknown", 0),
            failures=counts.get("Failed", 0),
            leases=counts.get("LeaseAcquired", 0),
            retries=counts.get("retry", 0),
            waits=counts.get("wait", 0),
            received=counts.get("received", 0),
            sent=counts.get("sent", 0),
            changed=counts.get("changed", 0),
            segments=None if layout is None else layout.segments,
            tail=None if layout is None else layout.tail_size,
            seconds=seconds,
            traffic=shared.meter.traffic(),
        )

    def on_event(self, callback: Callable[[Event], object]) -> Callable[[], None]:
        """Call ``callback`` with each event on this URL in this process, from now on.

        temaki calls it in the thread of the event, in the middle of a session that waits for it. So the callback should
        hand work over to another thread, and must not begin a session. temaki logs the errors that it raises; they harm
        no commit.

        Returns:
            A function that ends the calls.
        """
        return self._shared.reporter.listen(callback)

    def on_request(self, callback: Callable[[Request], object]) -> Callable[[], None]:
        """Call ``callback`` with each request to the store, in the thread that makes it. Works as :meth:`on_event`."""
        return self._shared.meter.listen(callback)

    def bookmark(self) -> Bookmark:
        """Make a bookmark of the version in the working copy. After a commit, that version contains the commit.

        Hand the bookmark to another process, in a job's arguments or a response's header. With :meth:`wait_for`, that
        process then reads at least this version.

        Raises:
            ConfigurationError: This process has neither read nor written the database yet.
        """
        version = self._version() or self._shared.reporter.last
        if version is None:
            raise ConfigurationError(
                f"There is no bookmark for {self._shared.replica.url} yet: this process has neither read nor written "
                "the database. Make a bookmark after a db_session."
            )
        return Bookmark(version.sequence, version.commit)

    def wait_for(self, bookmark: Bookmark | str, timeout: float) -> None:
        """Wait until the working copy of this process is at the bookmark's version, or at one that contains it.

        Sessions that begin afterwards read at least that version, with ``max_age`` too. A version **contains** another
        one if the other one is in its lineage. If the lineage does not go back so far, the higher number decides.

        ``temaki restore`` makes a new version with a higher number. So an older bookmark is satisfied, although the
        restore may have undone its commit. If another tool copies an old object over the current one, the stored
        version has an old number. Then this method waits for the bookmark's version, or reports it as lost.

        Args:
            bookmark: The bookmark, or its text from ``str()``.
            timeout: Seconds for which to ask the store. It is asked at least once.

        Raises:
            BookmarkError: The store has no such version by then; ``lost`` if it can never have it.
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

    def _layout(self) -> Layout | None:
        replica = self._shared.replica
        with replica.state:
            current = replica.current
            if current is None or current.version is None:
                return None
            return by_number(current.version.format).layout(current)

    def _error(self, wanted: Bookmark, version: Version | None, *, lost: bool) -> BookmarkError:
        url = self._shared.replica.url
        stored = (
            "there is no database yet"
            if version is None
            else f"the stored version is {version.sequence}, {version.commit}"
        )
        if lost:
            advice = "Another object without that version in its history has replaced it: it will not come any more."
        else:
            advice = "It may come yet: wait longer. If the bookmark belongs to another database, it will never come."
        return BookmarkError(
            f"Version {wanted} of {url} is not in the store: {stored}. {advice}",
            url=url,
            bookmark=str(wanted),
            lost=lost,
        )


def _has(version: Version | None, wanted: Bookmark) -> bool:
    if version is None:
        return False
    if wanted.commit in version.lineage:
        return True
    return version.sequence > wanted.sequence and not _reaches(version, wanted)


def _is_lost(version: Version, wanted: Bookmark) -> bool:
    """Whether a version with a higher number proves that the wanted one is not in its history."""
    return version.sequence >= wanted.sequence and _reaches(version, wanted) and wanted.commit not in version.lineage


def _reaches(version: Version, wanted: Bookmark) -> bool:
    """Whether the lineage goes back to the wanted number. (Numbers may skip, which only brings that closer.)"""
    return version.complete or len(version.lineage) > version.sequence - wanted.sequence
