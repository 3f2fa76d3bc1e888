"""Downloads the database's object, and parts of it, with retries."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from temaki.remote.transfer import Target, Transfer

if TYPE_CHECKING:
    from collections.abc import Callable

    from temaki.remote.retry import RetryPolicy
    from temaki.remote.transfer import IsSlow
    from temaki.store import Download, Store

T = TypeVar("T")


class Source:
    """One object to download, with its remote's settings for retries and parallel streams.

    Args:
        store: The bucket.
        key: The object's key.
        url: The database's URL, for messages.
        retrying: The policy by which requests are repeated.
        parallel_threshold: Smallest part that one of several parallel streams carries, in bytes.
        is_slow: Decides whether a stream is slow enough to get others beside it; see
            :func:`temaki.remote.transfer.is_slow`.
    """

    def __init__(  # noqa: PLR0917 - one call, from Remote
        self,
        store: Store,
        key: str,
        url: str,
        retrying: RetryPolicy,
        parallel_threshold: int,
        is_slow: IsSlow,
    ) -> None:
        self.store, self.key, self.url = store, key, url
        self.retrying = retrying
        self._parallel_threshold, self._is_slow = parallel_threshold, is_slow

    def open(self, opened: Callable[[Source, Download], T], etag: str | None) -> T | None:
        """See :meth:`temaki.remote.remote.Remote.fetch`."""

        def attempt() -> T | None:
            download = self.get(etag)
            return None if download is None else opened(self, download)

        return self.retrying.run(attempt)

    def get(self, etag: str | None = None) -> Download | None:
        """Make one GET, in one attempt; None if the object still has that ETag."""
        return self.store.get(self.key, if_none_match=etag)

    def transfer(self, download: Download, first: bytes, target: Target) -> Transfer:
        """Make the transfer of a download into a file; ``first`` has the bytes that were already read."""
        return Transfer(
            self.store,
            download,
            first,
            target,
            self.url,
            self.retrying.begin(),
            self._parallel_threshold,
            self._is_slow,
        )
