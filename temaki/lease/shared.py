"""The one lease of a process on a database, which all its sessions share."""

from __future__ import annotations

import gc
import random
import threading
import weakref
from typing import TYPE_CHECKING, Any

from temaki.clock import Clock
from temaki.errors import ConfigurationError
from temaki.lease.turn import Turns
from temaki.observe.reporter import Reporter
from temaki.process.fork import look, reset_in_child
from temaki.store import Store

if TYPE_CHECKING:
    from temaki.lease.lease import Lease


_Options = tuple[float, float, float]


class SharedLease:
    """The one lease of a process on one database, however many ``Database`` objects are bound to it.

    Args:
        store: The bucket.
        key: The database's key in it.
        url: The database's URL, for messages.
        clock: Time.
        reporter: Is told when the lease is taken, lost and given back.

    Attributes:
        turns: The process's turns, which are leases on the same record; see :mod:`temaki.lease.turn`.
    """

    def __init__(self, store: Store, key: str, *, url: str, clock: Clock, reporter: Reporter | None = None) -> None:
        self._store, self._key, self._url, self._clock, self._reporter = store, key, url, clock, reporter
        self._rng = random.SystemRandom()  # drawn from the system each time: forked processes must not go in step
        self.turns = Turns(store, key, url=url, clock=clock, rng=self._rng, reporter=reporter or Reporter(url))
        self.reset_after_fork()
        reset_in_child(self)

    def reset_after_fork(self) -> None:
        """Make the lock anew in a forked child, which has no thread that held it. The lease resets itself."""
        self._lock = threading.Lock()
        self._made: tuple[_Options, Lease] | None = getattr(self, "_made", None)
        self._users: weakref.WeakKeyDictionary[Any, _Options] = weakref.WeakKeyDictionary()

    def get(self, *, ttl: float, acquire_timeout: float, hold: float, user: object = None) -> Lease:
        """The lease. The first call makes it. Other options make a new one, if nobody uses it with the old ones.

        Args:
            ttl: Option of :class:`temaki.lease.lease.Lease`, in seconds.
            acquire_timeout: Option of the lease, in seconds.
            hold: Option of the lease, in seconds.
            user: Owner of these options, for as long as it exists or until :meth:`forget`.

        Raises:
            ConfigurationError: Another user has it with other options.
        """
        from temaki.lease.lease import Lease  # with all that it needs, no part of the cold start of those who take none
        from temaki.lease.record import SUFFIX, LeaseObject
        from temaki.remote.retry import RetryPolicy

        look()
        options = (ttl, acquire_timeout, hold)
        self._make_room(options, user)
        with self._lock:
            if user is not None:
                self._users[user] = options
            if self._made is None:
                # A renewal that gets no answer must not take so long that the lease runs out meanwhile.
                retrying = RetryPolicy(self._clock, self._rng, timeout=ttl / 3)
                record = LeaseObject(self._store, self._key + SUFFIX, retrying)
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
                weakref.finalize(self, lease.leave).atexit = False
            made, lease = self._made
        if made != options:
            raise ConfigurationError(
                f"{self._url} is already locked by this process with other options: (ttl, acquire_timeout, hold) = "
                f"{made}, not {options}. A process has one lease per database: use the same options, or call unbind() "
                "of the Database that has the others.",
                url=self._url,
            )
        return lease

    def forget(self, user: object) -> None:
        """Forget the options of a user that does not need the lease any more."""
        with self._lock:
            self._users.pop(user, None)

    def close(self) -> None:
        """Give the lease back, and end its thread. The next :meth:`get` makes another one."""
        with self._lock:
            made, self._made = self._made, None
        if made is not None:
            made[1].close()

    def _make_room(self, options: _Options, user: object) -> None:
        """Close a lease with other options if its users are gone, as after a notebook's cell is run again."""
        if user is None or not self._has_others(options, user=None):
            return
        gc.collect()  # a dropped Database refers to itself
        if self._has_others(options, user):
            return
        self.close()

    def _has_others(self, options: _Options, user: object) -> bool:
        """Whether the lease has other options; if a user is given, whether another user wants those."""
        with self._lock:
            if self._made is None or self._made[0] == options:
                return False
            return user is None or any(
                wanted == self._made[0] for one, wanted in list(self._users.items()) if one is not user
            )
