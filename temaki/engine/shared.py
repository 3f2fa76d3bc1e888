"""The objects that all databases on one URL share in a process: one working copy, one object, one lease."""

from __future__ import annotations

import gc
import logging
import weakref
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from temaki.clock import Clock, SystemClock
from temaki.engine.compaction import Compaction
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


class Choices(NamedTuple):
    """Settings of a URL that the first binding in the process decides.

    Attributes:
        timeout: Seconds after which no new attempt of a request is made.
        format: Name of the format that a new database gets: ``"file"`` or ``"pages"``. A stored database keeps its own.
        compact: ``"auto"`` if this process compacts a database in pages, ``"manual"`` if it leaves that to the command.
    """

    timeout: float
    format: str
    compact: str


@dataclass(frozen=True, eq=False)
class Shared:
    """The objects that all databases on one URL share in a process. Each database has its own strategy.

    Attributes:
        store: The bucket.
        given: The store or the client that the user passed; None if there was none.
        choices: Settings that all databases on the URL share.
        remote: The database's object in the store.
        replica: The working copy.
        puller: Brings the object's versions into the working copy.
        compaction: Maintains the stored version beside the sessions.
        lease: The lease on the object, and the turns.
        meter: Counts requests.
        reporter: Counts what happens, and tells the listeners.
        clock: The clock.
        bindings: The engines of the databases.
    """

    store: Store
    given: object
    choices: Choices
    remote: Remote
    replica: Replica
    puller: Puller
    compaction: Compaction
    lease: SharedLease
    meter: Meter
    reporter: Reporter
    clock: Clock
    bindings: weakref.WeakSet[Any] = field(default_factory=weakref.WeakSet)

    def watch(self, operation: Operation) -> Watch:
        """Measure a part of a session, and report its failure."""
        return Watch(self.reporter, operation, self.clock.monotonic)

    def close(self) -> None:
        """Close the working copy and the lease, with their threads."""
        self.compaction.close()
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
    format: str = "file",  # noqa: A002 - the setting's name
    compact: str = "auto",
) -> Shared:
    """Get the shared objects of a URL. The first call makes them; later calls return the same ones.

    If nothing is bound to the URL any more, a call with other arguments makes them anew. That happens when a cell of a
    notebook runs again.

    Args:
        url: The database's URL, in its canonical form.
        key: The object's key in ``store``.
        store: The bucket.
        given: The store or the client that the user passed. Another one under the same URL is an error.
        cache_dir: Folder that keeps the working copy between processes, or None.
        clock: Clock, for tests.
        timeout: See :class:`Choices`, as for ``format`` and ``compact``.
        format: As above.
        compact: As above.

    Raises:
        ConfigurationError: The URL is in use with another store or cache folder.
    """
    choices = Choices(timeout, format, compact)
    with _shared_lock():
        existing = _shared.get(url)
    if existing is not None and (
        existing.choices != choices or _conflict(existing, store, given, cache_dir) is not None
    ):
        existing = None
        gc.collect()  # a dropped Database refers to itself
    with _shared_lock():
        existing = _shared.get(url)
        conflict = None if existing is None else _conflict(existing, store, given, cache_dir)
        if conflict is not None and existing is not None and existing.bindings:
            raise conflict
        if existing is not None and conflict is None and (existing.choices == choices or existing.bindings):
            for name, before, now in zip(Choices._fields, existing.choices, choices, strict=True):
                if before != now:
                    _log.warning(
                        "%s is already bound in this process with %s=%s, which stays; call unbind() of that Database "
                        "to have %s=%s",
                        url,
                        name,
                        _shown(before),
                        name,
                        _shown(now),
                    )
            return existing
        _shared[url] = created = _make(url, key, store, given, cache_dir, choices, clock or SystemClock())
    if existing is not None:  # somebody still refers to it, but no database is bound to it
        existing.close()
    return created


def _make(  # noqa: PLR0917 - one call, from share()
    url: str,
    key: str,
    store: Store,
    given: object,
    cache_dir: Path | None,
    choices: Choices,
    clock: Clock,
) -> Shared:
    meter, reporter = Meter(), Reporter(url)
    metered = MeteredStore(store, meter)
    remote = Remote(metered, key, url=url, clock=CountedClock(clock, reporter, "retry"), timeout=choices.timeout)
    replica = Replica(url, cache_dir)
    puller = Puller(remote, replica, clock, reporter)
    compaction = Compaction(
        remote, metered, key, replica, clock, choices.timeout, reporter, enabled=choices.compact == "auto"
    )
    lease = SharedLease(metered, key, url=url, clock=CountedClock(clock, reporter, "wait"), reporter=reporter)
    return Shared(store, given, choices, remote, replica, puller, compaction, lease, meter, reporter, clock)


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else repr(value)


def _conflict(existing: Shared, store: Store, given: object, cache_dir: Path | None) -> ConfigurationError | None:
    """The reason why the existing objects cannot be shared; None if they can."""
    url = existing.replica.url
    other = "or call unbind() of the Database that is bound to it"
    if given is not existing.given and store is not existing.store:
        return ConfigurationError(
            f"{url} is already bound in this process, with another store or client. Pass the same one, use another "
            f"URL, {other}.",
            url=url,
        )
    if existing.replica.cache_dir != cache_dir:
        return ConfigurationError(
            f"{url} is already bound in this process with cache_dir={str(existing.replica.cache_dir)!r}, "
            f"not {str(cache_dir)!r}. One URL has one working copy per process: use the same cache_dir, {other}.",
            url=url,
        )
    return None


def leave(shared: Shared, engine: object) -> None:
    """Unbind one database from the URL. The last one to leave closes the shared objects."""
    shared.lease.forget(engine)
    shared.bindings.discard(engine)
    if shared.bindings:
        gc.collect()  # a dropped Database refers to itself
    url = shared.replica.url
    with _shared_lock():
        if shared.bindings:
            return
        if _shared.get(url) is shared:
            del _shared[url]
    shared.close()
