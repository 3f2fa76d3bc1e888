"""A store that passes everything on to another one: the base of those that watch, delay or disturb."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Literal, Self, TypeVar

from temaki.store import Download, ObjectInfo, ReadableBody, Store

T = TypeVar("T")

Verb = Literal["get", "head", "put", "delete", "list"]
"""The methods of a store that make requests."""


class PassingStore:
    """Passes everything on to ``store``. Sub-classes override what they have to do with it.

    Args:
        store: The bucket.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    # -- for sub-classes ------------------------------------------------------------------------------------------

    def _pass(self, _verb: Verb, _key: str, request: Callable[[], T], /) -> T:
        """Make a request, and give its answer; of a listing, the key is the prefix."""
        return request()

    def _opened(self, _key: str, download: Download, /) -> Download:
        """What is given as the answer of a GET that has a body."""
        return download

    def _sending(self, body: bytes | ReadableBody, /) -> bytes | ReadableBody:
        """What is sent as the body of a PUT; called before the request is made."""
        return body

    # -- a store --------------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """See :attr:`temaki.store.Store.url`."""
        return self._store.url

    @property
    def honours_conditions(self) -> bool:
        """See :attr:`temaki.store.Store.honours_conditions`."""
        return self._store.honours_conditions

    def get(
        self,
        key: str,
        *,
        if_none_match: str | None = None,
        if_match: str | None = None,
        byte_range: tuple[int, int] | None = None,
    ) -> Download | None:
        """See :meth:`temaki.store.Store.get`."""
        download = self._pass(
            "get",
            key,
            lambda: self._store.get(key, if_none_match=if_none_match, if_match=if_match, byte_range=byte_range),
        )
        return None if download is None else self._opened(key, download)

    def head(self, key: str) -> ObjectInfo:
        """See :meth:`temaki.store.Store.head`."""
        return self._pass("head", key, lambda: self._store.head(key))

    def put(
        self,
        key: str,
        body: bytes | ReadableBody,
        *,
        metadata: Mapping[str, str] | None = None,
        if_match: str | None = None,
        if_none_match: bool = False,
    ) -> str:
        """See :meth:`temaki.store.Store.put`."""
        sent = self._sending(body)
        return self._pass(
            "put",
            key,
            lambda: self._store.put(key, sent, metadata=metadata, if_match=if_match, if_none_match=if_none_match),
        )

    def delete(self, key: str) -> None:
        """See :meth:`temaki.store.Store.delete`."""
        self._pass("delete", key, lambda: self._store.delete(key))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See :meth:`temaki.store.Store.list`."""
        return self._pass("list", prefix, lambda: self._store.list(prefix))


class PassingDownload:
    """Passes everything on to ``download``."""

    def __init__(self, download: Download) -> None:
        self._download = download
        self.info, self.length = download.info, download.length

    def read(self, size: int, /) -> bytes:
        """See :meth:`temaki.store.Download.read`."""
        return self._download.read(size)

    def __enter__(self) -> Self:
        self._download.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._download.__exit__(*exc)
