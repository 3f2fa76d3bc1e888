"""The lease of a process, as its sessions come by it."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING

from temaki.clock import Clock
from temaki.errors import ConfigurationError
from temaki.fork import look, reset_in_child
from temaki.reporter import Reporter
from temaki.store import Store
from temaki.turn import Turns

if TYPE_CHECKING:
    from temaki.lease import Lease


class SharedLease:
    """The one lease of a process on one database, whatever number of ``Database`` objects are bound to it.

    Args:
        store: The bucket.
        key: The database's key in it.
        url: The database's URL, for messages.
        clock: Time.
        reporter: Is told when it comes and goes.

    Attributes:
        turns: Leases of another kind, on the same record; see :mod:`temaki.turn`.
    """

    def __init__(self, store: Store, key: str, *, url: str, clock: Clock, reporter: Reporter | None = None) -> None:
        self._store, self._key, self._url, self._clock, self._reporter = store, key, url, clock, reporter
        self._rng = random.SystemRandom()  # drawn from the system each time: forked processes must not go in step
        self.turns = Turns(store, key, url=url, clock=clock, rng=self._rng, reporter=reporter or Reporter(url))
        self.reset_after_fork()
        reset_in_child(self)

    def reset_after_fork(self) -> None:
        """In a forked child: the thread that held the lock is not here. The lease itself is reset on its own."""
        self._lock = threading.Lock()
        self._made: tuple[tuple[float, float, float], Lease] | None = getattr(self, "_made", None)

    def get(self, *, ttl: float, acquire_timeout: float, hold: float) -> Lease:
        """The lease, made at the first call.

        Raises:
            ConfigurationError: It was made with other options.
        """
        from temaki.lease import Lease  # with all that it needs, no part of the cold start of those who take none
        from temaki.lease_record import SUFFIX, LeaseObject

        look()
        options = (ttl, acquire_timeout, hold)
        with self._lock:
            if self._made is None:
                # A renewal that gets no answer must not take so long that the lease runs out meanwhile.
                record = LeaseObject(self._store, self._key + SUFFIX, clock=self._clock, rng=self._rng, timeout=ttl / 3)
                lease = Lease(
                    record,
                    url=self._url,
                    clock=self._clock,
                    rng=self._rng,
                    ttl=ttl,
                    acquire_timeout=acquire_timeout,
                    hold=hold,
                    reporter=self._reporter,
                )
                self._made = (options, lease)
            made, lease = self._made
        if made != options:
            raise ConfigurationError(
                f"{self._url} is already locked by this process with other options: (ttl, acquire_timeout, hold) = "
                f"{made}, not {options}. A process has one lease per database: use the same options.",
                url=self._url,
            )
        return lease
