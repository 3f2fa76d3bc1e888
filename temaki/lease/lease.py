"""A lease in the bucket: who may write now, agreed on through conditional writes alone.

It is created once and never deleted: a released lease is a record that says so, and each time that somebody takes it
its **generation** grows by one. So a generation is a fencing token: a commit with a smaller one than the stored
version's comes from a holder who has lost the lease.

**When it expires.** No clock is compared with another machine's. The holder believes that it holds the lease for
``ttl`` seconds from the moment *before* it sent its last successful write; a waiter takes over only after it has
watched one and the same record for ``ttl`` seconds from the moment *after* it saw it. So the holder's span ends first,
if their clocks run at one rate. A waiter that came late may count the time for which the record had been there already,
by the store's own clock alone (``Date`` minus ``Last-Modified`` of one answer, less a second: these are whole seconds).

A waiter on the holder's own machine need not wait for that long if the holder has died: it sees that the process is
gone (``temaki.lease.owner``).

**Whose a record is.** The owner's token is drawn each time that the lease is taken, never before: processes that were
restored from one snapshot have the same memory. What a process knows to be its own it knows by the random ids of the
writes that it has sent, which is true of one of them only.

**What it does not guarantee.** A holder can be stopped between its last look at the clock and its write. That the write
is refused then is not the lease's doing but the compare-and-swap's on the database object, and the generation's. The
lease only keeps writers from wasting work.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import weakref
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from temaki.clock import Clock, Moment
from temaki.errors import LeaseLostError, LeaseTimeoutError, StoreError, SyncError
from temaki.lease.owner import Owner
from temaki.lease.record import ChangedError, LeaseObject, LeaseRecord, Seen, new_write_id
from temaki.lease.waiting import SLOT, courtesy, look, serve
from temaki.observe.reporter import Reporter
from temaki.process.exit import close_lease_at_exit, is_ending
from temaki.process.fork import look as look_for_fork
from temaki.process.fork import reset_in_child
from temaki.remote.retry import retry

_log = logging.getLogger(__name__)
_LONGEST_JOINT_USE: Final = 2.0
"""Seconds for which the threads of one process may go on handing the lease to each other while other processes wait."""
_PATIENCE: Final = 1.0  # seconds for which the end of the heartbeat is waited for
_LATEST_WRITES: Final = 32
_LATEST_EVICTIONS: Final = 4


class Lease:
    """One process's part in the lease. Its threads share it, counted by what they use it for.

    Args:
        record: Where the record is.
        url: The database's URL, for messages.
        clock: Time.
        rng: For jitter.
        ttl: Seconds after which a holder that has gone silent is no holder any more.
        acquire_timeout: Seconds for which to wait for others.
        hold: Seconds, from when it was taken, for which it is kept between uses.
        purpose: What it is held for; others see it.
        reporter: Is told when it comes and goes.
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
        self._reporter = reporter or Reporter(url)
        self._record = record
        self.url = url
        self._clock, self._rng = clock, rng
        self._ttl, self._acquire_timeout, self._hold, self._purpose = ttl, acquire_timeout, hold, purpose
        self._beats = heartbeat
        self.reset_after_fork()
        reset_in_child(self)

    def reset_after_fork(self) -> None:
        """In a forked child: another process, which holds nothing."""
        self._turn = _Turn()
        self._sent: deque[str] = deque(maxlen=_LATEST_WRITES)  # ids of the latest writes, landed or not
        self._loss = _Loss()
        self._taking = threading.Lock()  # one thread at a time talks to the store about taking it
        self._state = threading.Condition(threading.RLock())
        self._seen: Seen | None = None  # the record as this process wrote it last; None if it holds nothing
        self._written = Moment(0.0, 0.0)
        self._taken = Moment(0.0, 0.0)
        self._idle_until: float | None = None
        self._left: tuple[str, float] = ("", 0.0)  # the record that this process left when it gave it back, and when
        self._users: weakref.WeakSet[Any] = weakref.WeakSet()
        self._heart: threading.Thread | None = None
        self._is_left = False

    # -- for who wants to write -----------------------------------------------------------------------------------

    def acquire(self, user: object) -> int:
        """Wait for the lease, or join the threads of this process that have it.

        Args:
            user: What it is for. It uses the lease until :meth:`release`, or until it exists no more: what is
                interrupted on its way there would otherwise have it renewed for ever. Hashable, and can be referred
                to weakly.

        Returns:
            The generation.

        Raises:
            LeaseTimeoutError: Others held it for ``acquire_timeout`` seconds.
            LeaseRecordError: What is in its place is no lease.
            StoreError: A request failed.
        """
        look_for_fork()
        with self._taking:
            joined = self._join(user)
            if joined is not None:
                return joined
            begun = self._clock.monotonic()
            sent, seen = self._take()
            with self._state:
                self._seen, self._written, self._taken = seen, sent, sent
                self._users = weakref.WeakSet([user])
                self._idle_until = None
                self._wake_heart()
            close_lease_at_exit(self)
            generation = seen.record.generation
            self._reporter.lease_acquired(generation, self._clock.monotonic() - begun)
            return generation

    def rejoin(self, user: object) -> int | None:
        """Use the lease if this process still has it, from a hold or for a retry; without waiting or asking.

        Args:
            user: As for :meth:`acquire`.

        Returns:
            The generation; None if it would have to be taken.
        """
        look_for_fork()
        with self._state:
            if self._seen is None or not self._believes():
                return None
            self._users.add(user)
            self._idle_until = None
            self._wake_heart()
            return self._seen.record.generation

    def check(self, generation: int) -> None:
        """Make sure that the lease is still this process's; if in doubt, by renewing it.

        Raises:
            LeaseLostError: Somebody else has taken it.
            StoreError: In doubt, and the store cannot be asked.
        """
        look_for_fork()
        with self._state:
            if self._seen is not None and self._seen.record.generation == generation and self._believes():
                return
        self.renew(generation)

    def renew(self, generation: int) -> None:
        """Write the record anew, so that it lasts another ``ttl`` seconds. Raises what :meth:`check` does."""
        self._renew(generation, becomes=generation)

    def _renew(self, generation: int, *, becomes: int) -> None:
        look_for_fork()
        with self._state:
            seen = self._seen
            if seen is None or seen.record.generation != generation:
                raise self._lost(generation)
            try:
                self._rewrite(seen, held=True, generation=becomes)
            except _ReplacedError as error:
                self._loss = self._how_lost(generation, error.by)
                self._seen, self._idle_until, self._users = None, None, weakref.WeakSet()
                self._state.notify_all()
                self._reporter.lease_lost(generation)
                raise self._lost(generation) from None

    def outgrow(self, user: object, generation: int, stored: int) -> int:
        """Make sure that what is committed under this lease is not refused as older than what is stored.

        That happens to a lease whose record was moved away, and to a database that was copied from elsewhere: one
        begins at 1 again while the other remembers more.

        Args:
            user: What uses it.
            generation: What :meth:`acquire` returned.
            stored: The generation under which the stored version was made.

        Returns:
            The generation from now on. Other users in this process, with a smaller one, have lost it.

        Raises:
            LeaseLostError: Somebody else has taken it.
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
        """Give it back. The last user to do so lets others have it, unless it is held on to. Never raises.

        Args:
            user: What was given to :meth:`acquire`. Nothing happens if it uses the lease no more.
            keep: Seconds for which the next use by this process is expected all the same.
        """
        look_for_fork()
        with self._state:
            if user not in self._users:
                return
            self._users.discard(user)
            if self._users:
                return
            now = self._clock.monotonic()
            until = max(self._taken[0] + self._hold, now + keep)
            if until > now and self._believes() and not self._is_left and not is_ending():
                self._idle_until = until
                if self._wake_heart():
                    return
            self._give_back()  # nobody would do so later
            heart = self._heart
        # A thread that still waits for Python's interpreter lock while a program like uWSGI forks in C leaves that lock
        # unusable in the child. So there is none any more when the session is over.
        if heart is not None and heart is not threading.current_thread():
            heart.join(_PATIENCE)

    def close(self) -> None:
        """Give it back, whoever is using it, and end its thread."""
        look_for_fork()
        with self._state:
            self._users = weakref.WeakSet()
            self._give_back()
            heart = self._heart
        if heart is not None and heart is not threading.current_thread():
            heart.join(_PATIENCE)  # it has nothing to do any more

    def close_at_exit(self) -> None:
        """Give it back, whoever is using it: the process ends."""
        look_for_fork()
        with self._state:
            self._users = weakref.WeakSet()
            self._give_back()

    def leave(self) -> None:
        """Nobody will ask for it any more: have it given back as soon as nobody uses it, instead of at its hold's end.

        Makes no request and waits for nobody, so that a finalizer may call it.
        """
        self._is_left = True
        if self._state.acquire(blocking=False):  # else its heart is awake, and will see it
            try:
                self._state.notify_all()
            finally:
                self._state.release()

    # -- for operators --------------------------------------------------------------------------------------------

    def inspect(self) -> LeaseRecord | None:
        """The record as it is in the store; None if the lease has never been taken."""
        seen = self._record.read()
        return None if seen is None else seen.record

    def break_(self, shown: LeaseRecord) -> LeaseRecord:
        """Evict the holder, by taking the next generation and releasing it at once: the fence stays intact.

        A living holder goes on renewing its record while somebody makes up their mind, and is evicted all the same.

        Args:
            shown: The record as it was inspected. Only its owner is evicted, and only from its generation.

        Raises:
            LeaseLostError: The lease has changed hands since, or is free; nothing was done.
        """
        while True:
            seen = self._record.read()
            if (
                seen is None
                or not seen.record.held
                or (seen.record.owner, seen.record.generation) != (shown.owner, shown.generation)
            ):
                raise LeaseLostError(
                    f"The lease on {self.url} has changed hands since it was shown (generation {shown.generation}); "
                    "nobody was evicted. Look again who has it.",
                    url=self.url,
                    generation=shown.generation,
                )
            me = Owner.here(os.urandom(12).hex())
            evicted = {**seen.record.evicted, str(shown.generation): str(me)}
            record = replace(
                self._new(seen, owner=me, held=False),
                evicted=dict(list(evicted.items())[-_LATEST_EVICTIONS:]),
            )
            with suppress(ChangedError):  # renewed at this very moment
                return self._record.write(record, seen).record

    # -- taking it ------------------------------------------------------------------------------------------------

    def _join(self, user: object) -> int | None:
        """The generation that this process holds, with one user more; None if it has to be taken."""
        with self._state:
            if self._users and self._age(self._taken) >= max(self._hold, _LONGEST_JOINT_USE):
                self._state.wait_for(lambda: not self._users, self._acquire_timeout)
            if self._seen is None or (not self._users and not self._believes()):
                return None
            if not self._believes():
                try:
                    self.renew(self._seen.record.generation)
                except LeaseLostError:
                    return None
            self._users.add(user)
            self._idle_until = None
            self._wake_heart()
            return self._seen.record.generation

    def _take(self) -> tuple[Moment, Seen]:
        watch, waited = _Watch(self._clock), False
        deadline = self._clock.monotonic() + self._acquire_timeout

        def attempt() -> tuple[Moment, Seen]:
            nonlocal waited
            seen = self._record.read()
            if seen is not None:
                left = self._has_to_wait(seen, watch, deadline)
                waited = waited or seen.record.held
                if left > 0:
                    raise _HeldError(seen.record, left)
            sent = self._now()
            name = self._turn.name({} if seen is None else seen.record.served)
            record = self._new(seen, owner=Owner.here(name + os.urandom(8).hex()), held=True, waited=waited)
            self._sent.append(record.write)
            try:
                written = self._record.write(record, seen)
                self._turn.taken(record.generation)
                return sent, written
            except ChangedError:
                waited = True
                raise _HeldError(None, SLOT) from None  # by whom, nobody has looked yet; what was seen is over

        try:
            return retry(
                attempt,
                clock=self._clock,
                deadline=deadline,
                rng=self._rng,
                on=(_HeldError,),
                wait=lambda error: error.wait if isinstance(error, _HeldError) else SLOT,
            )
        except _HeldError as error:
            self._reporter.lease_timed_out(self._acquire_timeout)
            raise self._timeout(error.record) from None

    def _has_to_wait(self, seen: Seen, watch: _Watch, deadline: float) -> float:
        """Seconds after which to look again, at most; 0 if the lease can be taken now."""
        record, watched = seen.record, watch.seconds(seen)
        name = self._turn.name(record.served)
        if record.held:
            if record.write in self._sent:
                return 0.0  # what it wrote and gave up believing in
            if watched >= record.ttl:
                _log.warning("%s: taking the lease over from %s", self.url, record.owner)
                return 0.0
            if record.owner.is_gone():
                _log.warning("%s: taking the lease over from %s, which is gone", self.url, record.owner)
                return 0.0
            return look(record.served, name)
        now = self._clock.monotonic()
        left_etag, left_at = self._left
        others_first = 0.0
        if seen.etag == left_etag:
            watched = now - left_at
            others_first = min(SLOT, self._hold / 5)  # it is held for long, and free for a moment: others must see that
        if record.is_contended:
            others_first = max(others_first, courtesy(record.served, name))
        return min(others_first - watched, deadline - now)

    def _new(self, seen: Seen | None, *, owner: Owner, held: bool, waited: bool = False) -> LeaseRecord:
        generation = 1 if seen is None else seen.record.generation + 1
        served = {} if seen is None else seen.record.served
        return LeaseRecord(
            held=held,
            owner=owner,
            generation=generation,
            ttl=self._ttl,
            purpose=self._purpose,
            since=self._clock.time(),
            served=serve(served, owner.token, generation) if held else served,
            waited=generation if waited else 0 if seen is None else seen.record.waited,
            evicted={} if seen is None else seen.record.evicted,
        )

    # -- keeping it and giving it back; the state is locked -------------------------------------------------------

    def _rewrite(self, seen: Seen, *, held: bool, generation: int | None = None) -> None:
        """Write the record anew, in the same generation if none is given.

        Raises:
            _ReplacedError: It is somebody else's by now.
        """
        sent = self._now()
        while True:
            record = replace(
                seen.record, held=held, generation=generation or seen.record.generation, write=new_write_id()
            )
            self._sent.append(record.write)
            try:
                written = self._record.write(record, seen)
            except ChangedError:
                there = self._record.read()
                if there is None or not self._is_ours(there.record, seen.record.generation):
                    raise _ReplacedError(None if there is None else there.record) from None
                seen = there  # a late landing of an attempt of our own
                continue
            self._seen, self._written = (written if held else None), sent
            if not held:
                self._left = (written.etag, self._clock.monotonic())
            return

    def _is_ours(self, record: LeaseRecord, generation: int) -> bool:
        return record.write in self._sent and record.generation == generation

    def _give_back(self) -> None:
        seen, self._idle_until = self._seen, None
        if seen is not None:
            try:
                self._rewrite(seen, held=False)
                self._reporter.lease_released(seen.record.generation)
            except (StoreError, SyncError, ChangedError) as error:
                # It runs out by itself.
                _log.info("%s: the lease could not be given back: %s", self.url, error)
            self._seen = None
        self._state.notify_all()

    def _believes(self) -> bool:
        return self._seen is not None and self._age(self._written) < self._ttl

    def _age(self, moment: Moment) -> float:
        return moment.age(self._clock)

    def _now(self) -> Moment:
        return Moment.now(self._clock)

    # -- the heartbeat --------------------------------------------------------------------------------------------

    def tick(self) -> float | None:
        """Do what is due: renew a lease in use, give back an idle one.

        Returns:
            Seconds until something will be due again; None if nothing will.
        """
        look_for_fork()
        with self._state:
            if self._seen is None:
                return None
            if self._users:
                return self._keep_alive(self._seen)
            left = 0.0 if self._is_left else (self._idle_until or 0.0) - self._clock.monotonic()
            if left <= 0:
                self._give_back()
            return left if left > 0 else None

    def _keep_alive(self, seen: Seen) -> float | None:
        due = self._written[0] + self._ttl / 3 - self._clock.monotonic()
        if due > 0:
            return due
        try:
            self.renew(seen.record.generation)
        except LeaseLostError:
            _log.warning("%s: the lease was lost: %s", self.url, self._loss.how)
            return None
        except (StoreError, SyncError) as error:  # what is in its place may be no lease; that may be mended
            _log.info("%s: the lease could not be renewed: %s", self.url, error)  # no loss yet: tried again
            return self._ttl / 10
        return self._ttl / 3

    def _wake_heart(self) -> bool:
        """Have something done when it is due.

        Without a thread the lease is good for its ttl all the same, and :meth:`check` renews it before a commit. So
        that is no error: at a limit of threads, or while the interpreter shuts down (Python 3.12), sessions go on.

        Returns:
            False where there can be no thread: an idle lease has to be given back at once.
        """
        if not self._beats:
            return True
        if self._heart is None or not self._heart.is_alive():  # an interrupt may have come before it began
            heart = threading.Thread(target=self._beat, name="temaki-lease", daemon=True)
            try:
                self._heart = heart
                heart.start()
            except RuntimeError as error:
                self._heart = None
                _log.log(
                    logging.DEBUG if is_ending() else logging.WARNING,
                    "%s: no thread can be started to renew the lease (%s). A transaction that takes longer than its "
                    "ttl of %g s may lose it. Raise the limit of threads of this process or user.",
                    self.url,
                    error,
                    self._ttl,
                )
                return False
        self._state.notify_all()
        return True

    def _beat(self) -> None:
        with self._state:
            while self._heart is threading.current_thread():
                due = self.tick()
                if due is None:
                    self._heart = None
                    return
                self._state.wait(due)

    # -- errors ---------------------------------------------------------------------------------------------------

    def _lost(self, generation: int) -> LeaseLostError:
        loss = self._loss
        if loss.generation != generation:
            loss = _Loss(
                generation,
                "this process has given it back, as it was about to end"
                if self._seen is None
                else f"another thread of this process goes on under generation {self._seen.record.generation}",
            )
        return LeaseLostError(
            f"The lease on {self.url} (generation {generation}) was lost: {loss.how}. Nothing of this transaction was "
            "stored; run the function again (@db_session(retry=N) does so by itself).",
            url=self.url,
            generation=generation,
            evicted_by=loss.evicted_by,
        )

    def _how_lost(self, generation: int, there: LeaseRecord | None) -> _Loss:
        """What has become of a lease, by the record that is in the place of this process's own."""
        if there is None:
            return _Loss(generation, "its record was deleted or moved away")
        evicted_by = there.evicted.get(str(generation))
        if evicted_by is not None:
            return _Loss(generation, f"this process was evicted (`temaki lease break`, by {evicted_by})", evicted_by)
        if there.generation <= generation:
            found = f"generation {there.generation}, by {there.owner}"
            return _Loss(generation, f"an older record was put in the place of its own ({found})")
        age = self._age(self._written)
        if age >= self._ttl:
            return _Loss(
                generation,
                f"this process was silent for longer than its ttl of {self._ttl:g} s (for {age:.1f} s), and "
                f"{there.owner} has taken it since; where such pauses are normal, give it a longer ttl",
            )
        return _Loss(
            generation,
            f"{there.owner} has replaced its record, {age:.1f} s after this process had renewed it: an older temaki "
            "evicted it, or this machine runs a second time, as a clone",
        )

    def _timeout(self, holder: LeaseRecord | None) -> LeaseTimeoutError:
        who = "changing holders" if holder is None else f"{holder.owner} ({holder.purpose})"
        since = ""
        if holder is not None:
            with suppress(ValueError, OverflowError, OSError):  # another machine's clock may say anything
                since = f" since {datetime.fromtimestamp(holder.since, UTC):%Y-%m-%d %H:%M:%S} UTC"
        return LeaseTimeoutError(
            f"The lease on {self.url} could not be had within {self._acquire_timeout:g} s: it is held by "
            f"{who}{since}. Nothing was changed. Try again later, or give it a longer acquire_timeout.",
            url=self.url,
            holder=None if holder is None else str(holder.owner),
            since=None if holder is None else holder.since,
        )


class _HeldError(Exception):
    """Somebody else has the lease, or was faster."""

    def __init__(self, record: LeaseRecord | None, wait: float) -> None:
        super().__init__(record)
        self.record = record
        self.wait = wait  # seconds after which to look again, at most


@dataclass(frozen=True, slots=True)
class _Loss:
    """The generation that a process has lost, and how; who evicted it, if somebody did."""

    generation: int = 0
    how: str = ""
    evicted_by: str | None = None


class _ReplacedError(ChangedError):
    """The record is no longer the one that this process wrote."""

    def __init__(self, by: LeaseRecord | None) -> None:
        super().__init__(by)
        self.by = by


class _Turn:
    """What a process is called among those that take turns (``temaki.lease.waiting``).

    It keeps its name, or nobody could tell when it had its turn; but a process that was restored from the same snapshot
    has the name, too. Whoever finds that the name was used since takes another one.
    """

    def __init__(self) -> None:
        self._name = ""
        self._last = 0  # the generation that was taken last under this name

    def name(self, served: Mapping[str, int]) -> str:
        """The name, which is also how this process's next token begins."""
        if not self._name or served.get(self._name, self._last) != self._last:
            self._name, self._last = os.urandom(4).hex(), 0
        return self._name

    def taken(self, generation: int) -> None:
        """The lease was taken under the name."""
        self._last = generation


class _Watch:
    """How long one and the same record has been there, as far as this process can tell."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._etag = ""
        self._first = 0.0

    def seconds(self, seen: Seen) -> float:
        now = self._clock.monotonic()
        if seen.etag != self._etag:
            self._etag, self._first = seen.etag, now - seen.age
        return max(now - self._first, seen.age)
