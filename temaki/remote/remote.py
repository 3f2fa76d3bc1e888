"""The database as one object in a store: fetch the version that is there, publish the next one exactly once."""

from __future__ import annotations

import os
import random
import threading
from typing import TYPE_CHECKING, TypeVar

from temaki.errors import ConfigurationError
from temaki.process.fork import look, reset_in_child
from temaki.remote.fetch import Source
from temaki.remote.probe import probe_conditions
from temaki.remote.publish import Publication
from temaki.remote.retry import RetryPolicy
from temaki.remote.transfer import is_slow
from temaki.version import Published, Version, next_version

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from temaki.clock import Clock
    from temaki.remote.transfer import IsSlow
    from temaki.store import Download, ReadableBody, Store

T = TypeVar("T")


class Remote:
    """The stored object of one database. Safe to use from many threads.

    Requests that get no usable answer are repeated until a deadline; the store makes one attempt per call.

    Args:
        store: The bucket.
        key: The object's key in it.
        url: The database's URL, for messages.
        clock: Time.
        timeout: Seconds from the beginning of a fetch, save, publication or probe, after which it makes no new attempt
            (except that it always makes two).
        rng: For the jitter between attempts.
        parallel_threshold: A fetch uses up to four streams, each for at least so many bytes.
        is_slow: Whether a stream is so slow that it gets others beside it; see :func:`temaki.remote.transfer.is_slow`.

    Attributes:
        url: As above.
    """

    def __init__(
        self,
        store: Store,
        key: str,
        *,
        url: str,
        clock: Clock,
        timeout: float = 60.0,
        rng: random.Random | None = None,
        parallel_threshold: int = 8 << 20,
        is_slow: IsSlow = is_slow,
    ) -> None:
        self.url = url
        self._store, self._key = store, key
        # Drawn from the system: processes that began as one, by a fork or from a snapshot, must not go in step.
        self._retrying = RetryPolicy(clock, rng or random.SystemRandom(), timeout)
        self._source = Source(store, key, url, self._retrying, parallel_threshold, is_slow)
        self._probe_lock = threading.Lock()
        self._is_probed = False
        reset_in_child(self)

    def reset_after_fork(self) -> None:
        """In a forked child: the thread that held the lock is not here."""
        self._probe_lock = threading.Lock()

    def fetch(self, opened: Callable[[Source, Download], T], etag: str | None = None) -> T | None:
        """Ask for the current version, unless it is the known one.

        Args:
            opened: Reads the beginning of the answer, and closes it if it cannot; see
                :func:`temaki.formats.choice.open_stored`. It is called again if the answer breaks off meanwhile.
            etag: The known version's; None for the current version in any case.

        Returns:
            What ``opened`` gave; None where the object still has that ETag.

        Raises:
            NotFoundError: The store's definite answer: there is no such object.
            CorruptDatabaseError: The object is no database, not all of one, or of a newer format.
            StoreError: The request failed, also when repeated.
        """
        look()
        return self._source.open(opened, etag)

    def publish(
        self,
        body: ReadableBody,
        size: int,
        base: Version | None,
        *,
        sequence: int,
        commit_id: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Published:
        """Store the next version, if ``base`` is still the current one. See :mod:`temaki.remote.swap`.

        Args:
            body: The database. Its header has ``sequence`` in it, so that no two versions have equal bytes.
            size: Its length in bytes.
            base: What it was built on and is to replace; None to create the object.
            sequence: The new version's number, one more than that of ``base``.
            commit_id: The new version's identity: 8 to 64 of ``0-9a-z-``, unique for ever. Random if not given.
            metadata: More metadata for the object, ASCII. What it takes of S3's 2 KB is lost to the lineage.

        Raises:
            ConflictError: Another version came first. Nothing of this one is stored, or will be.
            NotFoundError: The base was deleted. Nothing of this one is stored, or will be.
            CommitUnknownError: The store never said; or an interrupt came in between.
            StoreError: The store refused, or could not be reached. Nothing of this one is stored, or will be.
        """
        look()
        if base is not None and not base.etag:
            raise ConfigurationError(f"{self.url}: a superseded version cannot be replaced. Fetch the current one.")
        version = next_version(
            base, commit=commit_id or os.urandom(12).hex(), sequence=sequence, size=size, extra=metadata or {}
        )
        attempts = self._retrying.begin()
        return Publication(self._store, self._key, self.url, body, version, base, attempts).run()

    def probe_conditions(self) -> None:
        """Before the first write: make sure that the store refuses writes whose condition is false.

        One probe per remote, and none where the store is known to do so. Threads wait for the one that probes. Only
        success is remembered.

        Raises:
            UnsafeStoreError: It does not.
            StoreError: It could not be found out.
        """
        look()
        if self._is_probed or self._store.honours_conditions:
            return
        with self._probe_lock:
            if not self._is_probed:
                probe_conditions(self._store, self._key, self._retrying.begin())
                self._is_probed = True
