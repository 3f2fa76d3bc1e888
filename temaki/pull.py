"""Bringing the working copy up to the version that the store has now."""

from __future__ import annotations

import copy
import logging
import threading
from collections.abc import Callable

from temaki.clock import Clock
from temaki.errors import NotFoundError, TemakiError
from temaki.fork import look, reset_in_child
from temaki.remote import Remote
from temaki.replica import Replica
from temaki.reporter import Reporter

_log = logging.getLogger(__name__)
_LOOK_AROUND = 0.2  # seconds


class Puller:
    """The one way from the store into the replica.

    Args:
        remote: Where versions come from.
        replica: Where they go.
        clock: Tells how old the last answer is.
        reporter: Is told what came of each request.
    """

    def __init__(self, remote: Remote, replica: Replica, clock: Clock, reporter: Reporter | None = None) -> None:
        self._remote = remote
        self._reporter = reporter or Reporter(replica.url)
        self._replica = replica
        self._clock = clock
        self._flights = Flights()
        self._validated: tuple[float, float] | None = None
        reset_in_child(self)

    def revalidate(self, *, max_age: float = 0.0) -> None:
        """Ask the store whether there is a newer version, and fetch it if so. Threads arriving together share this.

        Args:
            max_age: Skip the request if the last one is younger than so many seconds, by every clock.

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

    def moment(self) -> tuple[float, float]:
        """Now, by both clocks: what the age of an answer is counted from."""
        return (self._clock.monotonic(), self._clock.time())

    def acknowledged(self, moment: tuple[float, float]) -> None:
        """A commit that was sent at ``moment`` was accepted, so the replica was current then."""
        self._validated = moment

    def reset_after_fork(self) -> None:
        """In a forked child: no request of the parent's threads will ever be answered here."""
        self._flights = Flights()
        self._validated = None

    def age(self) -> float:
        """Seconds since the store last confirmed the working copy; infinite if it never has."""
        look()
        if self._validated is None:
            return float("inf")
        # Some machines' monotonic clock stands still while they are frozen; the wall clock may be set back.
        return max(now - then for now, then in zip(self.moment(), self._validated, strict=True))

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
        last = version or self._reporter.last  # before the request: the answer cannot be older, unless it went back
        known = replica.known
        sent = self.moment()
        try:
            fetched = self._remote.fetch(version.etag if conditional and version is not None else None)
        except NotFoundError as error:
            return self._nothing_there(error, known=known)
        if fetched is None:
            self._unchanged(sent)
            # Another thread may have gone on from there since; that is newer still.
            return replica.base() is not None
        with fetched:
            # Waits for a commit under way: the new version may turn out to be this process's own.
            now = replica.base()
            is_here = now is not None and now.version == fetched.version
            went_on = now is not base or (now is not None and now.version != version)
            if went_on or (conditional and is_here):
                if is_here:
                    self._unchanged(sent)
                return is_here  # else ask again: the answer may be older than what is here by now
            path = replica.next_path()
            fetched.save(path)
        if base is not None and version == fetched.version and replica.confirm(path, base, at=version):
            self._unchanged(sent)
            return True
        if replica.install(path, fetched.version, instead_of=base, at=version):
            self._validated = sent
            self._reporter.pulled(fetched.version, self._clock.monotonic() - sent[0])
            if last is not None and fetched.version.went_back(last):
                self._reporter.went_back(fetched.version, last)
            return True
        return False

    def _unchanged(self, sent: tuple[float, float]) -> None:
        self._validated = sent
        self._reporter.unchanged(self._clock.monotonic() - sent[0])

    def _nothing_there(self, error: NotFoundError, *, known: bool) -> bool:
        replica = self._replica
        if replica.known and not known:
            return False  # another thread has created or pulled it since: the answer is older than that
        if known:
            raise NotFoundError(
                f"{replica.url} is gone: it was there before, and now the store has no such object. Nothing was "
                "written. Restore the object; or, to start with an empty database on purpose, start a new process"
                + (f" and empty {replica.cache_dir}." if replica.cache_dir else "."),
                url=replica.url,
                status=error.status,
                code=error.code,
            ) from error
        base = replica.base()
        if base is not None:
            return True  # still as empty as before
        return replica.install(replica.next_path(), None, instead_of=None, at=None)


class _Flight:
    """One call, shared by all threads that came before it began.

    Attributes:
        done: Whether the call is over.
        error: What it raised.
        gate: Closed until then.
    """

    def __init__(self) -> None:
        self.done = False
        self.error: BaseException | None = None
        self.gate = threading.Lock()
        self.gate.acquire()

    def wait(self) -> None:
        """Until it is over. An interrupted waiter may leave the gate closed behind it, so the others look around."""
        while not self.done:
            if self.gate.acquire(timeout=_LOOK_AROUND):
                self.gate.release()


class Flights:
    """Lets threads share one call, but only a call that began after they arrived.

    Made of plain locks, whose ``with`` has no moment in which an interrupt could strike with the lock taken and nobody
    there to give it back; a ``threading.Condition`` has.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flying: _Flight | None = None
        self._next: _Flight | None = None

    def share(self, call: Callable[[], None]) -> None:
        """Run ``call``, or wait for another thread that begins to run it from now on.

        A failure is everybody's, as a copy of their own; an interrupt is only that of the thread it hit.
        """
        while True:
            mine = self._join_next()
            if self._fly_or_wait(mine, call) or mine.error is None:
                return
            if isinstance(mine.error, TemakiError):
                raise copy.copy(mine.error) from mine.error
            # The one who flew for us was interrupted, or met with something that is not ours to report: fly ourselves.

    def _join_next(self) -> _Flight:
        with self._lock:
            if self._next is None:
                self._next = _Flight()
            return self._next

    def _fly_or_wait(self, mine: _Flight, call: Callable[[], None]) -> bool:
        """Wait until ``mine`` is over; or, if it is this thread that finds nobody flying, run it. Whether it did."""
        while not mine.done:
            own: _Flight | None = None
            try:
                with self._lock:
                    flying = self._flying
                    if flying is None and not mine.done:
                        own = mine  # before anybody can see it: from here on it has to land, whatever happens
                        self._flying, self._next = mine, None
                if own is not None:
                    call()
                    return True
            except BaseException as error:
                if own is not None:
                    own.error = error
                raise
            finally:
                if own is not None:
                    # Not in a function of its own: an interrupt may strike at the start of one, before its first line.
                    with self._lock:
                        if self._flying is own:
                            self._flying = None
                        if self._next is own:
                            self._next = None
                        own.done = True
                        own.gate.release()
            (flying or mine).wait()
        return False
