"""A lease in the bucket: who may write now, agreed on through conditional writes alone.

The lease's record is created once and never deleted: a released lease is a record that says so. Each time that a
process takes the lease, its **generation** grows by one. So a generation is a fencing token: a commit with a smaller
one than the stored version's comes from a holder that has lost the lease.

**When it expires.** No clock is compared with another machine's. The holder believes that it holds the lease for
``ttl`` seconds from the moment *before* it sent its last successful write (:mod:`temaki.lease.tenure`). A waiter takes
over only after it has watched one and the same record for ``ttl`` seconds from the moment *after* it saw it
(:mod:`temaki.lease.waiting`). So the holder's span ends first, if both clocks run at one rate. A waiter on the holder's
own machine need not wait if the holder has died (:mod:`temaki.lease.owner`).

**What it does not guarantee.** A holder can be stopped between its last look at the clock and its write. That write is
refused by the compare-and-swap on the database object and by the generation, not by the lease. The lease only keeps
writers from wasting work.
"""

from __future__ import annotations

import logging
import random
import threading
import weakref
from typing import Any, Final

from temaki.clock import Clock
from temaki.errors import LeaseLostError, StoreError, SyncError
from temaki.lease.heartbeat import Heartbeat, await_end, keep_alive
from temaki.lease.record import ChangedError, LeaseObject
from temaki.lease.tenure import ReplacedError, Tenure
from temaki.lease.waiting import Waiter
from temaki.observe.reporter import Reporter
from temaki.process.exit import close_lease_at_exit, is_ending
from temaki.process.fork import look as look_for_fork
from temaki.process.fork import reset_in_child

_log = logging.getLogger(__name__)
_LONGEST_JOINT_USE: Final = 2.0
"""Seconds for which the threads of one process may go on handing the lease to each other while other processes wait."""


class Lease:
    """One process's part in the lease. Its threads share it. Safe to use from many threads.

    Args:
        record: The record in its bucket.
        url: The database's URL, for messages.
        clock: Time.
        rng: Source of the jitter between looks.
        ttl: Seconds after which a silent holder holds the lease no more.
        acquire_timeout: Seconds for which to wait for others.
        hold: Seconds, from when the lease was taken, for which it is kept between uses.
        purpose: What the lease is held for; others see it.
        reporter: Is told when the lease is taken, lost and given back.
        heartbeat: Whether a thread calls :meth:`tick` when something is due; else the caller does.
    """

    def __init__(
        self,
        record: LeaseObject,
        *,
        url: str,
        clock: Clock,
        rng: random.Random,
        ttl: float,
        acquire_timeout: float,
        hold: float = 0.0,
        purpose: str = "write",
        reporter: Reporter | None = None,
        heartbeat: bool = True,
    ) -> None:
        self._record, self.url, self._reporter = record, url, reporter or Reporter(url)
        self._clock, self._rng = clock, rng
        self._ttl, self._acquire_timeout, self._hold, self._purpose = ttl, acquire_timeout, hold, purpose
        self._beats = heartbeat
        self.reset_after_fork()
        reset_in_child(self)

    def reset_after_fork(self) -> None:
        """Start anew in a forked child: it is another process, and holds nothing."""
        self._tenure = Tenure(self._record, url=self.url, clock=self._clock, ttl=self._ttl)
        self._waiter = Waiter(
            self._tenure, rng=self._rng, hold=self._hold, purpose=self._purpose, reporter=self._reporter
        )
        self._taking = threading.Lock()  # one thread at a time talks to the store about taking it
        self._state = threading.Condition(threading.RLock())
        self._heart = Heartbeat(self._state, url=self.url, ttl=self._ttl, enabled=self._beats)
        self._idle_until: float | None = None
        self._users: weakref.WeakSet[Any] = weakref.WeakSet()
        self._is_left = False

    def acquire(self, user: object) -> int:
        """Wait for the lease, or join the threads of this process that have it.

        Args:
            user: Whatever needs the lease: hashable, and can be referred to weakly. It uses the lease until
                :meth:`release`, or until it is garbage: else an interrupt on the way there would leave a lease that is
                renewed for ever.

        Returns:
            The generation.

        Raises:
            LeaseTimeoutError: Others held it for ``acquire_timeout`` seconds.
            LeaseRecordError: The object in the record's place is no lease.
            StoreError: A request failed.
        """
        look_for_fork()
        with self._taking:
            joined = self._join(user)
            if joined is not None:
                return joined
            begun = self._clock.monotonic()
            sent, seen = self._waiter.take(self._acquire_timeout)
            with self._state:
                self._tenure.begin(sent, seen)
                self._users = weakref.WeakSet([user])
                self._idle_until = None
                self._heart.wake(self.tick)
            close_lease_at_exit(self)
            generation = seen.record.generation
            self._reporter.lease_acquired(generation, self._clock.monotonic() - begun)
            return generation

    def _join(self, user: object) -> int | None:
        """The generation that this process holds, with one user more; None if it has to be taken."""
        with self._state:
            if self._users and self._tenure.age(self._tenure.taken) >= max(self._hold, _LONGEST_JOINT_USE):
                self._state.wait_for(lambda: not self._users, self._acquire_timeout)
            if self._tenure.seen is None or (not self._users and not self._tenure.believes()):
                return None
            if not self._tenure.believes():
                try:
                    self.renew(self._tenure.seen.record.generation)
                except LeaseLostError:
                    return None
            return self._add(user)

    def rejoin(self, user: object) -> int | None:
        """Use the lease if this process still has it, from a hold or for a retry. Neither waits nor asks the store.

        Args:
            user: As for :meth:`acquire`.

        Returns:
            The generation; None if it would have to be taken.
        """
        look_for_fork()
        with self._state:
            return self._add(user) if self._tenure.believes() else None

    def _add(self, user: object) -> int:
        self._users.add(user)
        self._idle_until = None
        self._heart.wake(self.tick)
        assert self._tenure.seen is not None, "the caller has looked, under the same lock"
        return self._tenure.seen.record.generation

    def check(self, generation: int) -> None:
        """Make sure that this process still has the lease. Renew it if in doubt.

        Args:
            generation: The generation that :meth:`acquire` returned.

        Raises:
            LeaseLostError: Another process has taken it.
            StoreError: The process is in doubt, and the store cannot be asked.
        """
        look_for_fork()
        with self._state:
            if self._tenure.generation == generation and self._tenure.believes():
                return
        self.renew(generation)

    def renew(self, generation: int) -> None:
        """Write the record again, so that it lasts another ``ttl`` seconds. Raises what :meth:`check` does."""
        self._renew(generation, becomes=generation)

    def _renew(self, generation: int, *, becomes: int) -> None:
        look_for_fork()
        with self._state:
            seen = self._tenure.seen
            if seen is None or seen.record.generation != generation:
                raise self._tenure.lost(generation)
            try:
                self._tenure.rewrite(seen, held=True, generation=becomes)
            except ReplacedError as error:
                self._idle_until, self._users = None, weakref.WeakSet()  # first: nobody waits for users of a lost lease
                self._tenure.lose(generation, error.by)
                self._state.notify_all()
                self._reporter.lease_lost(generation)
                raise self._tenure.lost(generation) from None

    def outgrow(self, user: object, generation: int, stored: int) -> int:
        """Make sure that no commit under this lease is refused as older than the stored version.

        That would happen after the lease's record was moved away, or the database was copied from elsewhere: the lease
        begins at 1 again while the version remembers a greater generation.

        Args:
            user: The user of the lease.
            generation: The generation that :meth:`acquire` returned.
            stored: The generation under which the stored version was made.

        Returns:
            The generation from now on. Other users in this process, with a smaller one, have lost it.

        Raises:
            LeaseLostError: Another process has taken it.
            StoreError: A request failed.
        """
        look_for_fork()
        with self._state:
            if stored <= generation:
                return generation
            self._renew(generation, becomes=stored + 1)
            self._users = weakref.WeakSet([user])
            return stored + 1

    def release(self, user: object, *, keep: float = 0.0) -> None:
        """End the use. After the last user's, others can take the lease, unless it is kept. Never raises.

        Args:
            user: The user that was given to :meth:`acquire`. Nothing happens if it uses the lease no more.
            keep: Seconds within which this process expects to use the lease again.
        """
        look_for_fork()
        with self._state:
            if user not in self._users:
                return
            self._users.discard(user)
            if self._users:
                return
            now = self._clock.monotonic()
            until = max(self._tenure.taken[0] + self._hold, now + keep)
            if until > now and self._tenure.believes() and not self._is_left and not is_ending():
                self._idle_until = until
                if self._heart.wake(self.tick):
                    return
            self._give_back()  # nobody else would
            thread = self._heart.thread
        await_end(thread)

    def close(self) -> None:
        """Give the lease back, even if somebody uses it, and end its thread."""
        await_end(self._end())

    def close_at_exit(self) -> None:
        """Give the lease back, even if somebody uses it: the process ends."""
        self._end()

    def _end(self) -> threading.Thread | None:
        look_for_fork()
        with self._state:
            self._users = weakref.WeakSet()
            self._give_back()
            return self._heart.thread

    def leave(self) -> None:
        """Have the lease given back as soon as nobody uses it, without a hold: nobody will ask for it any more.

        Makes no request and waits for nobody, so that a finalizer may call it.
        """
        self._is_left = True
        if self._state.acquire(blocking=False):  # else its heart is awake, and will see it
            try:
                self._state.notify_all()
            finally:
                self._state.release()

    def _give_back(self) -> None:
        seen, self._idle_until = self._tenure.seen, None
        if seen is not None:
            try:
                self._tenure.rewrite(seen, held=False)
                self._reporter.lease_released(seen.record.generation)
            except (StoreError, SyncError, ChangedError) as error:
                # It runs out by itself.
                _log.info("%s: the lease could not be given back: %s", self.url, error)
            self._tenure.seen = None
        self._state.notify_all()

    def tick(self) -> float | None:
        """Do what is due: renew a lease in use, give back an idle one.

        Returns:
            Seconds until something will be due again; None if nothing will.
        """
        look_for_fork()
        with self._state:
            if self._tenure.seen is None:
                return None
            if self._users:
                return keep_alive(self._tenure, self.renew)
            left = 0.0 if self._is_left else (self._idle_until or 0.0) - self._clock.monotonic()
            if left <= 0:
                self._give_back()
            return left if left > 0 else None
