"""What all databases of a process that are bound to one URL share: one working copy, one object, one lease."""

from __future__ import annotations

import gc
import logging
import weakref
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from temaki.clock import Clock, SystemClock
from temaki.engine.pull import Puller
from temaki.errors import ConfigurationError
from temaki.lease.shared import SharedLease
from temaki.observe.counted import CountedClock
from temaki.observe.metering import Meter, MeteredStore
from temaki.observe.reporter import Reporter, Watch
from temaki.process.fork import ProcessLock
from temaki.remote.remote import Remote
from temaki.replica.replica import Replica
from temaki.store import Store

if TYPE_CHECKING:
    from temaki.events import Operation

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Shared:
    """What all databases of a process that are bound to one URL share, each with its own strategy.

    Attributes:
        store: The bucket.
        given: The store or the client that the user passed; None if there was none.
        timeout: Seconds after which no new attempt of a request is made.
        remote: The database's object.
        replica: The working copy.
        puller: Brings the object's versions into the working copy.
        lease: The lease on the object, and the turns.
        meter: Counts requests.
        reporter: Counts and tells what happens.
        clock: Time.
        format: The name of the format that a new database gets.
        bindings: The engines of the databases.
    """

    store: Store
    given: object
    timeout: float
    remote: Remote
    replica: Replica
    puller: Puller
    lease: SharedLease
    meter: Meter
    reporter: Reporter
    clock: Clock
    format: str = "file"
    bindings: weakref.WeakSet[Any] = field(default_factory=weakref.WeakSet)

    def watch(self, operation: Operation) -> Watch:
        """Times a part of a session, and reports it if it fails."""
        return Watch(self.reporter, operation, self.clock.monotonic)

    def close(self) -> None:
        """Let go of the working copy and the lease, with its thread."""
        self.replica.close()
        self.lease.close()


_shared: weakref.WeakValueDictionary[str, Shared] = weakref.WeakValueDictionary()
_shared_lock = ProcessLock()


def share(
    url: str,
    key: str,
    store: Store,
    *,
    given: object = None,
    cache_dir: Path | None,
    timeout: float,
    clock: Clock | None = None,
    format: str = "file",  # noqa: A002 - what users call it
) -> Shared:
    """The remote and the replica of a URL: made at the first call, the same ones for every later one.

    They are made anew with other arguments if what was bound with the old ones is gone, as where a cell of a notebook
    is run again.

    Args:
        url: The database's URL, in its canonical form.
        key: The object's name in ``store``.
        store: The bucket.
        given: The store or the client that the user passed, so that another one under the same URL is a mistake.
        cache_dir: Where to keep the working copy between processes, or None.
        timeout: Seconds after which no new attempt of a request is made.
        clock: Time, for tests.
        format: The name of the format that a new database gets: ``"file"`` or ``"pages"``. What is stored already
            stays as it is.

    Raises:
        ConfigurationError: The URL is in use with another store or cache folder.
    """
    with _shared_lock():
        found = _shared.get(url)
    if found is not None and (found.timeout != timeout or _conflict(found, store, given, cache_dir) is not None):
        found = None
        gc.collect()  # a dropped Database refers to itself
    with _shared_lock():
        found = _shared.get(url)
        conflict = None if found is None else _conflict(found, store, given, cache_dir)
        if conflict is not None and found is not None and found.bindings:
            raise conflict
        if found is not None and conflict is None and (found.timeout == timeout or found.bindings):
            if found.timeout != timeout:
                _log.warning(
                    "%s is already bound in this process with timeout=%g, which stays; call unbind() of that Database "
                    "to have timeout=%g",
                    url,
                    found.timeout,
                    timeout,
                )
            return found
        _shared[url] = made = _make(url, key, store, given, cache_dir, timeout, clock or SystemClock(), format)
    if found is not None:  # somebody still refers to it, and nobody is bound to it
        found.close()
    return made


def _make(  # noqa: PLR0917 - one call, from share()
    url: str,
    key: str,
    store: Store,
    given: object,
    cache_dir: Path | None,
    timeout: float,
    clock: Clock,
    written_as: str,
) -> Shared:
    meter, reporter = Meter(), Reporter(url)
    metered = MeteredStore(store, meter)
    stored = Remote(metered, key, url=url, clock=CountedClock(clock, reporter, "retry"), timeout=timeout)
    replica = Replica(url, cache_dir)
    puller = Puller(stored, replica, clock, reporter)
    lease = SharedLease(metered, key, url=url, clock=CountedClock(clock, reporter, "wait"), reporter=reporter)
    return Shared(store, given, timeout, stored, replica, puller, lease, meter, reporter, clock, written_as)


def _conflict(found: Shared, store: Store, given: object, cache_dir: Path | None) -> ConfigurationError | None:
    """Why what is bound to the URL cannot be shared; None if it can."""
    url = found.replica.url
    other = "or call unbind() of the Database that is bound to it"
    if given is not found.given and store is not found.store:
        return ConfigurationError(
            f"{url} is already bound in this process, with another store or client. Pass the same one, use another "
            f"URL, {other}.",
            url=url,
        )
    if found.replica.cache_dir != cache_dir:
        return ConfigurationError(
            f"{url} is already bound in this process with cache_dir={str(found.replica.cache_dir)!r}, "
            f"not {str(cache_dir)!r}. One URL has one working copy per process: use the same cache_dir, {other}.",
            url=url,
        )
    return None


def leave(shared: Shared, engine: object) -> None:
    """One database has no part in the URL any more. The last one to leave closes what they shared."""
    shared.lease.forget(engine)
    shared.bindings.discard(engine)
    if shared.bindings:
        gc.collect()  # dropped ones refer to themselves
    url = shared.replica.url
    with _shared_lock():
        if shared.bindings:
            return
        if _shared.get(url) is shared:
            del _shared[url]
    shared.close()
