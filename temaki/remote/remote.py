"""The database as one object in a store: fetches the current version, and publishes the next one exactly once."""

from __future__ import annotations

import os
import random
import threading
from typing import TYPE_CHECKING, TypeVar

from temaki.errors import ConfigurationError
from temaki.process.fork import look, reset_in_child
from temaki.remote.fetch import Source
from temaki.remote.probe import probe_conditions, probe_copies
from temaki.remote.publish import Publication
from temaki.remote.retry import RetryPolicy
from temaki.remote.transfer import is_slow
from temaki.store import CopyingStore
from temaki.version import FILE_FORMAT, Published, Version, next_version

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from temaki.clock import Clock
    from temaki.remote.swap import Rebuilt
    from temaki.remote.transfer import IsSlow
    from temaki.store import Download, ReadableBody, Store

T = TypeVar("T")


def new_commit() -> str:
    """A new random id for a commit."""
    return os.urandom(12).hex()


class Remote:
    """The stored object of one database. Safe to use from many threads.

    The remote retries requests that get no usable answer, until a deadline. The store makes one attempt per call.

    Args:
        store: The bucket.
        key: The object's key in the bucket.
        url: The database's URL, for messages.
        clock: The clock that measures and waits.
        timeout: Seconds from the beginning of a fetch, save, publication or probe after which no new attempt is made.
            There are always two attempts.
        rng: Random numbers for the jitter between attempts.
        parallel_threshold: Smallest part that one of several parallel streams carries, in bytes. A fetch uses up to
            four streams.
        is_slow: Decides whether a stream is slow enough to get others beside it; see
            :func:`temaki.remote.transfer.is_slow`.

    Attributes:
        url: URL of the database.
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
        # Random numbers of the system: processes that come from one fork or one snapshot must not retry in step.
        self._retrying = RetryPolicy(clock, rng or random.SystemRandom(), timeout)
        self._source = Source(store, key, url, self._retrying, parallel_threshold, is_slow)
        self._probe_lock = threading.Lock()
        self._is_probed = False
        reset_in_child(self)

    def reset_after_fork(self) -> None:
        """Make a new lock in a forked child: the thread that held the old one does not exist there."""
        self._probe_lock = threading.Lock()

    @property
    def source(self) -> Source:
        """Where requests for the object, and for those beside it, go."""
        return self._source

    def fetch(self, opened: Callable[[Source, Download], T], etag: str | None = None) -> T | None:
        """Ask for the current version, unless it is the known one.

        Args:
            opened: Reads the beginning of the answer, and closes the answer if it cannot; see
                :func:`temaki.formats.choice.open_stored`. It is called again if the answer breaks off meanwhile.
            etag: ETag of the known version; None to fetch the current version in any case.

        Returns:
            The result of ``opened``; None if the object still has that ETag.

        Raises:
            NotFoundError: There is no such object. This is the store's definite answer.
            CorruptDatabaseError: The object is no database, is truncated, or has a newer format.
            StoreError: The request failed, also when retried.
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
        written_as: str = FILE_FORMAT,
        rebuild: Callable[[Version], Rebuilt | None] | None = None,
    ) -> Published:
        """Store the next version, if ``base`` is still the current one. See :mod:`temaki.remote.swap`.

        Args:
            body: The database. Its header contains ``sequence``, so that no two versions have equal bytes.
            size: Size of the database, in bytes. In the format ``file`` it is the length of the body.
            base: The version that the new one was built on and replaces; None to create the object.
            sequence: Number of the new version: one more than that of ``base``.
            commit_id: Id of the commit: 8 to 64 of ``0-9a-z-``, unique for ever. Random if not given.
            metadata: More user metadata for the object, ASCII. It leaves less of S3's 2 KB to the lineage.
            written_as: Number of the format of the body.
            rebuild: Builds the body anew on ``base`` in other bytes; see :class:`temaki.remote.publish.Publication`.

        Raises:
            ConflictError: Another version came first. The new one is not stored, and never will be.
            NotFoundError: The base was deleted. The new version is not stored, and never will be.
            CommitUnknownError: The store never said whether it accepted the commit, or an interrupt came in between.
            StoreError: The store refused, or could not be reached. The version is not stored, and never will be.
        """
        look()
        if base is not None and not base.etag:
            raise ConfigurationError(
                f"{self.url}: a superseded version cannot be replaced. Fetch the current version, and replace that."
            )
        version = next_version(
            base,
            commit=commit_id or new_commit(),
            sequence=sequence,
            size=size,
            extra=metadata or {},
            written_as=written_as,
        )
        attempts = self._retrying.begin()
        return Publication(self._store, self._key, self.url, body, version, base, attempts, rebuild).run()

    def probe_conditions(self) -> None:
        """Make sure, before the first write, that the store refuses writes whose condition is false.

        A remote probes once, and not at all if the store is known to honour conditions. Threads wait for the one that
        probes. Only success is remembered.

        Raises:
            UnsafeStoreError: The store accepts such writes.
            StoreError: The probe failed.
        """
        look()
        if self._is_probed or self._store.honours_conditions:
            return
        with self._probe_lock:
            if not self._is_probed:
                probe_conditions(self._store, self._key, self._retrying.begin())
                self._is_probed = True

    def honours_copy_conditions(self) -> bool:
        """Whether the store's own copies keep their conditions. Probes it, unless it is known to honour conditions.

        Raises:
            StoreError: The probe failed.
        """
        look()
        store = self._store
        if not isinstance(store, CopyingStore):
            return False
        return store.honours_conditions or probe_copies(store, store, self._key, self._retrying.begin())
