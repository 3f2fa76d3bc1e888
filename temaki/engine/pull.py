"""Brings the working copy up to the version that the store has now."""

from __future__ import annotations

import logging

from temaki.clock import Clock, Moment
from temaki.engine.flights import Flights
from temaki.errors import NotFoundError
from temaki.formats.choice import open_stored
from temaki.formats.format import ConvertedError, Stored
from temaki.observe.reporter import Reporter
from temaki.process.fork import look, reset_in_child
from temaki.remote.remote import Remote
from temaki.replica.generation import Generation
from temaki.replica.replica import Replica
from temaki.version import Version

_log = logging.getLogger(__name__)


class Puller:
    """Fetches versions from the remote into the replica. There is no other way into the replica.

    Args:
        remote: The database's object in the store.
        replica: The working copy.
        clock: Measures the age of the store's last answer.
        reporter: Gets the result of each request.
    """

    def __init__(self, remote: Remote, replica: Replica, clock: Clock, reporter: Reporter | None = None) -> None:
        self._remote = remote
        self._reporter = reporter or Reporter(replica.url)
        self._replica = replica
        self._clock = clock
        self._flights = Flights()
        self._validated: Moment | None = None
        reset_in_child(self)

    def revalidate(self, *, max_age: float = 0.0) -> None:
        """Ask the store whether there is a newer version, and fetch it if so. Threads that ask at once share this.

        Args:
            max_age: Seconds; no request if the last one is younger than this, by every clock.

        Raises:
            NotFoundError: There was a database, and now there is none.
            CorruptDatabaseError: The stored object is no database. The working copy stays as it is.
            StoreError: The request failed.
            WorkingCopyError: The new version cannot be kept on this machine.
        """
        look()
        if max_age > 0 and self.age() < max_age and self._replica.current is not None:
            return
        self._flights.share(self._revalidate)

    def download(self) -> None:
        """Fetch the whole object, whether or not it is newer. Raises what :meth:`revalidate` does."""
        look()
        self._pull(conditional=False)

    def moment(self) -> Moment:
        """The present moment."""
        return Moment.now(self._clock)

    def acknowledged(self, moment: Moment) -> None:
        """Note that the replica was current at ``moment``: the store accepted a commit that was sent then."""
        self._validated = moment

    def doubt(self) -> None:
        """The working copy's version is the stored one's, but not its ETag: the next session asks in any case."""
        self._validated = None

    def reset_after_fork(self) -> None:
        """Forget the parent's requests in a forked child: their answers never come here."""
        self._flights = Flights()
        self._validated = None

    def age(self) -> float:
        """Seconds since the store last confirmed the working copy; infinite if it never has."""
        look()
        return float("inf") if self._validated is None else self._validated.age(self._clock)

    def _revalidate(self) -> None:
        self._pull(conditional=True)

    def _pull(self, *, conditional: bool) -> None:
        while not self._pull_once(conditional=conditional):
            _log.debug("%s: the working copy changed while it was pulled; asking again", self._replica.url)

    def _pull_once(self, *, conditional: bool) -> bool:
        with self._replica.use():
            return self._pull_in_use(conditional=conditional)

    def _pull_in_use(self, *, conditional: bool) -> bool:
        replica = self._replica
        base = replica.base()
        version = None if base is None else base.version
        # Read before the request: the answer can only be older than this if the store went back.
        last = version or self._reporter.last
        known = replica.known
        sent = self.moment()
        try:
            etag = version.etag if conditional and version is not None else None
            stored = self._remote.fetch(open_stored, etag or None)
        except NotFoundError as error:
            return self._nothing_there(error, known=known)
        if stored is None:
            self._unchanged(sent)
            # Another thread may have moved the working copy on meanwhile. Then it is newer still.
            return replica.base() is not None
        with stored:
            # base() waits for a commit under way: the stored version may be this process's own.
            now = replica.base()
            is_here = now is not None and now.version == stored.version
            went_on = now is not base or (now is not None and now.version != version)
            if went_on or (conditional and is_here):
                if is_here:
                    self._unchanged(sent)
                return is_here  # if not, ask again: the answer may be older than the working copy is by now
            if not self._arrives(stored, base, version):
                return False
        is_same = version is not None and version.commit == stored.version.commit
        if is_same and base is not None and replica.base() is base:
            self._unchanged(sent)
            return True
        self._validated = sent
        received = stored.received
        self._reporter.pulled(
            stored.version,
            self._clock.monotonic() - sent.monotonic,
            received=received.size,
            is_catch_up=received.is_catch_up,
        )
        if last is not None and stored.version.went_back(last):
            self._reporter.went_back(stored.version, last)
        return True

    def _arrives(self, stored: Stored, base: Generation | None, version: Version | None) -> bool:
        try:
            return stored.arrive(self._replica, instead_of=base, at=version)
        except ConvertedError:
            return False

    def _unchanged(self, sent: Moment) -> None:
        self._validated = sent
        self._reporter.unchanged(self._clock.monotonic() - sent.monotonic)

    def _nothing_there(self, error: NotFoundError, *, known: bool) -> bool:
        replica = self._replica
        if replica.known and not known:
            return False  # another thread has created or pulled the database meanwhile: this answer is older
        if known:
            raise NotFoundError(
                f"{replica.url} is gone: the store had the object before, and has it no longer. Nothing was written. "
                "Restore the object; or, to start with an empty database on purpose, start a new process"
                + (f" and empty {replica.cache_dir}." if replica.cache_dir else "."),
                url=replica.url,
                status=error.status,
                code=error.code,
            ) from error
        base = replica.base()
        if base is not None:
            return True  # there was no database before, and there is none now
        return replica.install(replica.next_path(), None, instead_of=None, at=None)
