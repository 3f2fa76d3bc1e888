"""How a process waits for the lease, and takes it: when it may, how often it looks, and whom it lets go first.

**When it takes over.** A record that stays the same for ``ttl`` seconds has lost its owner. The waiter measures that by
its own clock, from the moment *after* it saw the record. A waiter that came late may count the time for which the
record had been there already. The store's clock alone measures that: ``Date`` minus ``Last-Modified`` of one answer,
less a second, because these are whole seconds.

**The fair order.** A free lease goes to the first writer. Mostly that would be the process that has just given it back,
because it need not wait to see that. With a handful of contenders, such a lottery leaves somebody out for long. So each
record lists who has had the lease lately. A process that finds a contended lease free leaves it, for a moment, to those
that had it longer ago: the least recently served process goes first. No process announces that it waits, so the order
costs no request. A process that does not want the lease, or is gone, costs the others that moment. It is forgotten when
the others have been served twice.

The order is a courtesy, not a queue: it only decides who waits for how long.
"""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from temaki.clock import Clock, Moment
from temaki.errors import LeaseTimeoutError
from temaki.lease.owner import Owner
from temaki.lease.record import ChangedError, LeaseRecord, Seen, successor
from temaki.lease.tenure import Tenure
from temaki.observe.reporter import Reporter
from temaki.remote.retry import RetryPolicy

_log = logging.getLogger(__name__)

SLOT: Final = 0.1
"""Seconds for which a free lease is left to each process that comes first: time to look, and to take it."""
_MOST_SLOTS: Final = 5
_MOST_LISTED: Final = 16
_NAME: Final = 8  # characters of a token that tell a few processes apart

LONGEST_COURTESY: Final = SLOT * _MOST_SLOTS  # seconds
LONGEST_LOOK: Final = 1.0  # seconds between two looks of a waiter, at most


class Waiter:
    """A process that waits for the lease. One thread at a time uses it.

    Args:
        tenure: What the process holds of the lease, and where the record is.
        rng: Source of the jitter between looks.
        hold: Seconds for which the process keeps the lease between uses.
        purpose: What the lease is taken for; others see it.
        reporter: Is told if the wait was in vain.
    """

    def __init__(self, tenure: Tenure, *, rng: random.Random, hold: float, purpose: str, reporter: Reporter) -> None:
        self._tenure, self._record, self._url, self._clock = tenure, tenure.record, tenure.url, tenure.clock
        self._rng, self._hold, self._purpose, self._reporter = rng, hold, purpose, reporter
        self._name = Name()

    def take(self, timeout: float) -> tuple[Moment, Seen]:
        """Wait until the lease can be taken, and take it.

        Args:
            timeout: Seconds for which to wait for others.

        Returns:
            The moment before the write was sent, and the record that was written.

        Raises:
            LeaseTimeoutError: Others held it all the time.
            LeaseRecordError: The object in the record's place is no lease.
            StoreError: A request failed.
        """
        watch, waited = _Watch(self._clock), False
        attempts = RetryPolicy(self._clock, self._rng, timeout).begin()

        def attempt() -> tuple[Moment, Seen]:
            nonlocal waited
            seen = self._record.read()
            if seen is not None:
                left = self._has_to_wait(seen, watch, attempts.deadline)
                waited = waited or seen.record.held
                if left > 0:
                    raise _HeldError(seen.record, left)
            sent = self._tenure.now()
            record = self._draft(seen, waited=waited)
            self._tenure.sent.append(record.write)
            try:
                written = self._record.write(record, seen)
                self._name.taken(record.generation)
                return sent, written
            except ChangedError:
                waited = True
                raise _HeldError(None, SLOT) from None  # the winner is not known yet, and what was seen is outdated

        try:
            return attempts.run(
                attempt, on=(_HeldError,), wait=lambda error: error.wait if isinstance(error, _HeldError) else SLOT
            )
        except _HeldError as error:
            self._reporter.lease_timed_out(timeout)
            raise self._timed_out(timeout, error.record) from None

    def _draft(self, seen: Seen | None, *, waited: bool) -> LeaseRecord:
        """The record that takes the lease, in place of the one that was seen."""
        served = {} if seen is None else seen.record.served
        owner = Owner.here(self._name.among(served) + os.urandom(8).hex())
        record = successor(
            seen, owner=owner, held=True, ttl=self._tenure.ttl, purpose=self._purpose, since=self._clock.time()
        )
        return replace(
            record,
            served=serve(served, owner.token, record.generation),
            waited=record.generation if waited else record.waited,
        )

    def _has_to_wait(self, seen: Seen, watch: _Watch, deadline: float) -> float:
        """Seconds until the next look, at most; 0 if the lease can be taken now."""
        record, watched = seen.record, watch.seconds(seen)
        name = self._name.among(record.served)
        if record.held:
            if record.write in self._tenure.sent:
                return 0.0  # this process wrote it, and has stopped believing in it
            if watched >= record.ttl:
                _log.warning("%s: taking the lease over from %s", self._url, record.owner)
                return 0.0
            if record.owner.is_gone():
                _log.warning("%s: taking the lease over from %s, which is gone", self._url, record.owner)
                return 0.0
            return look(record.served, name)
        now = self._clock.monotonic()
        left_etag, left_at = self._tenure.left
        others_first = 0.0
        if seen.etag == left_etag:
            watched = now - left_at
            # This process holds the lease for long and leaves it free for a moment: others must be able to see that.
            others_first = min(SLOT, self._hold / 5)
        if record.is_contended:
            others_first = max(others_first, courtesy(record.served, name))
        return min(others_first - watched, deadline - now)

    def _timed_out(self, timeout: float, holder: LeaseRecord | None) -> LeaseTimeoutError:
        who = "changing holders" if holder is None else f"{holder.owner} ({holder.purpose})"
        since = ""
        if holder is not None:
            with suppress(ValueError, OverflowError, OSError):  # another machine's clock may say anything
                since = f" since {datetime.fromtimestamp(holder.since, UTC):%Y-%m-%d %H:%M:%S} UTC"
        return LeaseTimeoutError(
            f"The lease on {self._url} could not be taken within {timeout:g} s: it is held by "
            f"{who}{since}. Nothing was changed. Try again later, or give it a longer acquire_timeout.",
            url=self._url,
            holder=None if holder is None else str(holder.owner),
            since=None if holder is None else holder.since,
        )


class _HeldError(Exception):
    """Another process has the lease, or was faster.

    Attributes:
        record: The holder's record; None if nobody has looked yet.
        wait: Seconds until the next look, at most.
    """

    def __init__(self, record: LeaseRecord | None, wait: float) -> None:
        super().__init__(record)
        self.record = record
        self.wait = wait


class _Watch:
    """Measures how long one and the same record has been there, as far as this process can tell."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._etag = ""
        self._first = 0.0

    def seconds(self, seen: Seen) -> float:
        """Seconds for which the record has been there, at least."""
        now = self._clock.monotonic()
        if seen.etag != self._etag:
            self._etag, self._first = seen.etag, now - seen.age
        return max(now - self._first, seen.age)


class Name:
    """The name of a process among those that take turns.

    A process keeps its name, because otherwise nobody could tell when it had its turn. Two processes that were restored
    from one snapshot have the same name. A process that finds its name used by another one draws a new name.
    """

    def __init__(self) -> None:
        self._name = ""
        self._last = 0  # the generation that was taken last under this name

    def among(self, served: Mapping[str, int]) -> str:
        """The name. This process's next token begins with it.

        Args:
            served: By name, the generation that each process had last.
        """
        if not self._name or served.get(self._name, self._last) != self._last:
            self._name, self._last = os.urandom(4).hex(), 0
        return self._name

    def taken(self, generation: int) -> None:
        """Remember that this process took the lease under the name."""
        self._last = generation


def ahead(served: Mapping[str, int], token: str) -> int:
    """Number of processes that come before this one: they had the lease longer ago. 0 if this one never had it.

    Args:
        served: By part of a process's token, the generation that it had last.
        token: This process's token.
    """
    mine = served.get(token[:_NAME])
    return 0 if mine is None else sum(generation < mine for generation in served.values())


def courtesy(served: Mapping[str, int], token: str) -> float:
    """Seconds for which the process leaves a contended lease that is free to others."""
    return SLOT * min(ahead(served, token), _MOST_SLOTS)


def look(served: Mapping[str, int], token: str) -> float:
    """Seconds until the process looks again, at most. It looks seldom if others come first."""
    return min(SLOT * (1 + 3 * ahead(served, token)), LONGEST_LOOK)


def serve(served: Mapping[str, int], token: str, generation: int) -> dict[str, int]:
    """The list of those who have had the lease lately, when this process takes ``generation``."""
    listed = {**served, token[:_NAME]: generation}
    oldest = generation - 2 * len(listed)
    newest = sorted(listed.items(), key=lambda entry: entry[1], reverse=True)[:_MOST_LISTED]
    return {name: last for name, last in newest if last > oldest}
