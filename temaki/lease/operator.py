"""What an operator does with a lease (``temaki lease``): look at its record, and evict its holder."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from typing import Final

from temaki.clock import Clock
from temaki.errors import LeaseLostError
from temaki.lease.owner import Owner
from temaki.lease.record import ChangedError, LeaseObject, LeaseRecord, successor

_LATEST_EVICTIONS: Final = 4


class Operator:
    """An operator's view of one lease. It never takes the lease.

    Args:
        record: The record in its bucket.
        url: The database's URL, for messages.
        clock: Time.
        purpose: Purpose that the record of an eviction names, for people.
    """

    def __init__(self, record: LeaseObject, *, url: str, clock: Clock, purpose: str = "write") -> None:
        self._record, self._url, self._clock, self._purpose = record, url, clock, purpose

    def inspect(self) -> LeaseRecord | None:
        """The record as it is stored now; None if nobody has ever taken the lease."""
        seen = self._record.read()
        return None if seen is None else seen.record

    def break_(self, shown: LeaseRecord) -> LeaseRecord:
        """Evict the holder: take the next generation and release it at once, so that the fence stays intact.

        The holder may renew its record while the operator decides. It is evicted all the same.

        Args:
            shown: The record that the operator has seen. Only its owner is evicted, and only from its generation.

        Returns:
            The record that replaces the holder's.

        Raises:
            LeaseLostError: The lease has changed hands since, or is free. Nothing was done.
        """
        while True:
            seen = self._record.read()
            if (
                seen is None
                or not seen.record.held
                or (seen.record.owner, seen.record.generation) != (shown.owner, shown.generation)
            ):
                raise LeaseLostError(
                    f"The lease on {self._url} has changed hands since it was shown (generation {shown.generation}); "
                    "nobody was evicted. Look again who holds it.",
                    url=self._url,
                    generation=shown.generation,
                )
            me = Owner.here(os.urandom(12).hex())
            evicted = {**seen.record.evicted, str(shown.generation): str(me)}
            record = replace(
                successor(seen, owner=me, held=False, ttl=shown.ttl, purpose=self._purpose, since=self._clock.time()),
                evicted=dict(list(evicted.items())[-_LATEST_EVICTIONS:]),
            )
            with suppress(ChangedError):  # the holder renewed it at this very moment
                return self._record.write(record, seen).record
