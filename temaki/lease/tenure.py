"""A process's tenure of the lease: the record that it wrote last, and how long it may believe in it.

**How long it believes.** For ``ttl`` seconds from the moment *before* the write was sent. Both clocks of this machine
measure that, and the one that says more counts.

**Which record is its own.** Processes that were restored from one snapshot have the same memory. So a process draws the
owner's token each time that it takes the lease, never before. It recognises its own record by the random ids of the
writes that it has sent: that is true of one such process only.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Final

from temaki.clock import Clock, Moment
from temaki.errors import LeaseLostError
from temaki.lease.loss import Loss, given_up, replaced
from temaki.lease.record import ChangedError, LeaseObject, LeaseRecord, Seen, new_write_id

_LATEST_WRITES: Final = 32


class ReplacedError(ChangedError):
    """The stored record is no longer the one that this process wrote.

    Attributes:
        by: The record that is stored now; None if there is none.
    """

    def __init__(self, by: LeaseRecord | None) -> None:
        super().__init__(by)
        self.by = by


class Tenure:
    """What one process holds of the lease. Not safe to use from many threads: the lease locks it.

    Args:
        record: The record in its bucket.
        url: The database's URL, for messages.
        clock: Time.
        ttl: Seconds for which the process believes in the lease after each write.

    Attributes:
        record: The record in its bucket.
        url: The database's URL.
        clock: The clock.
        ttl: Seconds for which the process believes in the lease after each write.
        seen: The record as this process wrote it last; None if it holds nothing.
        written: The moment before that write was sent.
        taken: The moment before the write was sent that took the lease.
        left: ETag of the record with which this process gave the lease back last, and the monotonic time of that.
        loss: How this process lost the lease last.
        sent: Random ids of this process's latest writes, landed or not. They tell which record is its own.
    """

    def __init__(self, record: LeaseObject, *, url: str, clock: Clock, ttl: float) -> None:
        self.record, self.url, self.clock, self.ttl = record, url, clock, ttl
        self.seen: Seen | None = None
        self.written = Moment(0.0, 0.0)
        self.taken = Moment(0.0, 0.0)
        self.left: tuple[str, float] = ("", 0.0)
        self.loss = Loss()
        self.sent: deque[str] = deque(maxlen=_LATEST_WRITES)

    @property
    def generation(self) -> int | None:
        """The generation that this process holds; None if it holds none."""
        return None if self.seen is None else self.seen.record.generation

    def begin(self, sent: Moment, seen: Seen) -> None:
        """Hold what was taken.

        Args:
            sent: The moment before the write was sent.
            seen: The record that was written.
        """
        self.seen, self.written, self.taken = seen, sent, sent

    def believes(self) -> bool:
        """Whether this process may believe that it holds the lease, without asking."""
        return self.seen is not None and self.age(self.written) < self.ttl

    def rewrite(self, seen: Seen, *, held: bool, generation: int | None = None) -> None:
        """Write the record again, to renew the lease or to give it back.

        Args:
            seen: The record as this process wrote it last.
            held: False to give the lease back.
            generation: The record's new generation; None to keep it.

        Raises:
            ReplacedError: Another process has replaced the record.
        """
        sent = self.now()
        while True:
            record = replace(
                seen.record, held=held, generation=generation or seen.record.generation, write=new_write_id()
            )
            self.sent.append(record.write)
            try:
                written = self.record.write(record, seen)
            except ChangedError:
                current = self.record.read()
                if current is None or not self._is_ours(current.record, seen.record.generation):
                    raise ReplacedError(None if current is None else current.record) from None
                seen = current  # an earlier attempt of this process, which landed late
                continue
            self.seen, self.written = (written if held else None), sent
            if not held:
                self.left = (written.etag, self.clock.monotonic())
            return

    def lose(self, generation: int, current: LeaseRecord | None) -> None:
        """Hold nothing any more, and remember why.

        Args:
            generation: The generation that is lost.
            current: The record that is stored now; None if there is none.
        """
        self.loss = replaced(generation, current, age=self.age(self.written), ttl=self.ttl)
        self.seen = None

    def lost(self, generation: int) -> LeaseLostError:
        """The error for a transaction under a generation that this process holds no more."""
        loss = self.loss if self.loss.generation == generation else given_up(generation, self.generation)
        return loss.error(self.url)

    def _is_ours(self, record: LeaseRecord, generation: int) -> bool:
        return record.write in self.sent and record.generation == generation

    def age(self, moment: Moment) -> float:
        """Seconds since ``moment``, by the clock that says more."""
        return moment.age(self.clock)

    def now(self) -> Moment:
        """This moment by both clocks."""
        return Moment.now(self.clock)
