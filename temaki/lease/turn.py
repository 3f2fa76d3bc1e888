"""A turn: a while in which the busy writers of a database let one slow session through.

Under a plain compare-and-swap the shortest session wins. The store refuses a session of 150 ms again and again beside a
writer that commits every 10 ms. The writer does not notice: a refused upload leaves no trace. So:

* A session whose function has been refused :data:`ENOUGH` times in a row **takes a turn**: the lease beside the
  database, under the purpose :data:`PURPOSE`. It then waits for :data:`SETTLE` seconds, and begins.
* A writer that may be the reason **looks** whether somebody has a turn, with one small GET, and waits until it is over.
  It looks if its process has stored :data:`BUSY` versions within :data:`RECENT` seconds since it looked last, or if its
  process has been refused since; and never twice within :data:`LOOK` seconds. A process that writes now and then never
  looks. A busy one spends at most one request more on every ten.

A turn is a courtesy and no lock: the compare-and-swap decides as ever. Nobody waits for longer than :data:`LONGEST`
seconds. A turn that nobody renews is over after :data:`TTL`. A process that cannot read or write the lease goes on
without turns.
"""

from __future__ import annotations

import logging
import random
import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from temaki.clock import Clock
from temaki.errors import AccessDeniedError, StoreError, SyncError
from temaki.observe.reporter import Reporter
from temaki.process.fork import reset_in_child
from temaki.store import Store

if TYPE_CHECKING:
    from temaki.lease.lease import Lease
    from temaki.lease.record import LeaseObject, LeaseRecord

_log = logging.getLogger(__name__)

PURPOSE: Final = "turn"
ENOUGH: Final = 3
"""Refusals in a row after which a function takes a turn."""
LOOK: Final = 0.5  # seconds
BUSY: Final = 5  # versions
RECENT: Final = 5.0  # seconds
SETTLE: Final = 0.6
"""Seconds between taking a turn and using it: :data:`LOOK`, and time for the session that was under way."""
LONGEST: Final = 10.0  # seconds
TTL: Final = 5.0  # seconds
_PAUSE: Final = 0.1  # seconds between two looks at a turn that lasts


@dataclass(frozen=True, slots=True)
class Try:
    """Which try of a retried function a session belongs to.

    Attributes:
        conflicts: Number of refusals of the function in a row, because another writer came first.
        left: Seconds until the function is not tried again.
    """

    conflicts: int = 0
    left: float = float("inf")


FIRST_TRY: Final = Try()


class _Thread(threading.local):
    """Whether a thread's last session was about to write. Then its next one may well be."""

    writes = False


class Turns:
    """One process's part in the turns of one database. Safe to use from many threads.

    Args:
        store: The bucket.
        key: The database's key in it.
        url: The database's URL, for messages.
        clock: Time.
        rng: For jitter.
        reporter: Is told of the lease that a turn is.

    Attributes:
        thread: Of the thread that asks: whether its last session was about to write.
    """

    def __init__(
        self, store: Store, key: str, *, url: str, clock: Clock, rng: random.Random, reporter: Reporter
    ) -> None:
        self._store, self._key, self._url = store, key, url
        self._clock, self._rng, self._reporter = clock, rng, reporter
        self.reset_after_fork()
        reset_in_child(self)

    def reset_after_fork(self) -> None:
        """Start anew in a forked child, which has stored nothing yet and has no thread that waits."""
        self._lock = threading.Lock()
        self.thread = _Thread()
        self._stored: deque[float] = deque(maxlen=BUSY)
        self._refused = False
        self._looked = float("-inf")
        self._waiting = False  # a thread watches a turn; the others wait for it
        self._over: tuple[str, int] | None = None  # a turn that has lasted for too long
        self._may_look = True

    # -- for who has been refused too often ----------------------------------------------------------------------------

    def take(self, user: object, patience: float) -> Lease | None:
        """Take a turn, and wait until the others have noticed.

        Args:
            user: As for :meth:`temaki.lease.lease.Lease.acquire`; give it to ``release`` at the end.
            patience: Seconds for which to wait for somebody else's turn.

        Returns:
            The lease; None if it cannot be taken. The session goes on without a turn then.
        """
        from temaki.lease.lease import Lease  # with all that it needs, no part of a cold start

        lease = Lease(
            self._record(),
            url=self._url,
            clock=self._clock,
            rng=self._rng,
            ttl=TTL,
            acquire_timeout=max(0.0, min(patience, LONGEST)),
            purpose=PURPOSE,
            reporter=self._reporter,
        )
        try:
            lease.acquire(user)
        except (StoreError, SyncError) as error:
            _log.info("%s: a session that is refused again and again goes on without a turn: %s", self._url, error)
            return None
        self._clock.sleep(SETTLE)
        return lease

    # -- for everybody who writes ----------------------------------------------------------------------------------

    def stored(self) -> None:
        """Note that this process has stored a version."""
        with self._lock:
            self._stored.append(self._clock.monotonic())

    def refused(self) -> None:
        """Note that the store refused this process: another one writes, too."""
        with self._lock:
            self._refused = True

    def give_way(self) -> bool:
        """If a look is due, and somebody has a turn, wait until it is over.

        Returns:
            Whether it has waited. If so, what the session has read may be old by now.
        """
        deadline = self._clock.monotonic() + LONGEST
        with self._lock:
            others_watch = self._waiting
            if not others_watch and not self._is_due():
                return False
        if others_watch:
            while self._waiting and self._clock.monotonic() < deadline:
                self._pause()
            return True
        try:
            return self._watch(deadline)
        finally:
            self._waiting = False

    def _is_due(self) -> bool:
        now = self._clock.monotonic()
        busy = len(self._stored) == BUSY and now - self._stored[0] <= RECENT
        if not self._may_look or not (busy or self._refused) or now - self._looked < LOOK:
            return False
        self._looked, self._refused = now, False
        self._stored.clear()
        return True

    def _watch(self, deadline: float) -> bool:
        record_object = self._record()
        write, since = "", 0.0
        while True:
            record = self._read(record_object)
            now = self._clock.monotonic()
            if record is None or not record.held or record.purpose != PURPOSE:
                return self._waiting
            turn = (record.owner.token, record.generation)
            if turn == self._over:
                return self._waiting
            if record.write != write:
                write, since = record.write, now
            if now >= min(deadline, since + record.ttl):
                _log.info("%s: the turn of %s lasts for too long; going on", self._url, record.owner)
                self._over = turn
                return True
            self._waiting = True
            self._pause()

    def _read(self, record: LeaseObject) -> LeaseRecord | None:
        try:
            seen = record.read()
        except AccessDeniedError as error:
            # It will be denied the next time, too. Without ListBucket that is what S3 says where there is no lease.
            self._may_look = False
            _log.info("%s: this process does not see when others take a turn: %s", self._url, error)
            return None
        except (StoreError, SyncError) as error:
            _log.info("%s: whether somebody has a turn is not known: %s", self._url, error)
            return None
        return None if seen is None else seen.record

    def _pause(self) -> None:
        self._clock.sleep(self._rng.uniform(_PAUSE / 2, _PAUSE))

    def _record(self) -> LeaseObject:
        from temaki.lease.record import SUFFIX, LeaseObject
        from temaki.remote.retry import RetryPolicy

        # A look or a renewal that gets no answer must not take long.
        return LeaseObject(self._store, self._key + SUFFIX, RetryPolicy(self._clock, self._rng, timeout=TTL / 3))
