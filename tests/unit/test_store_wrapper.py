"""A store in front of another one: its hooks see every request, download and body."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pytest

from temaki.errors import NotFoundError
from temaki.store import Download, ReadableBody
from temaki.stores.memory import MemoryStore
from temaki.testing import DownloadWrapper, StoreWrapper
from temaki.testing.stores import fetch

T = TypeVar("T")


class Loud(DownloadWrapper):
    """Gives capitals."""

    def read(self, size: int, /) -> bytes:
        """See :meth:`temaki.store.Download.read`."""
        return super().read(size).upper()


class Noting(StoreWrapper):
    """Notes requests; sends bodies backwards, and gives downloads in capitals."""

    def __init__(self) -> None:
        super().__init__(MemoryStore())
        self.noted: list[tuple[str, str]] = []

    def handle_request(self, verb: str, key: str, request: Callable[[], T], /) -> T:
        """See :meth:`temaki.testing.StoreWrapper.handle_request`."""
        self.noted.append((verb, key))
        return request()

    def wrap_download(self, key: str, download: Download, /) -> Download:
        """See :meth:`temaki.testing.StoreWrapper.wrap_download`."""
        assert download.info.key == key
        return Loud(download)

    def wrap_body(self, body: bytes | ReadableBody, /) -> bytes | ReadableBody:
        """See :meth:`temaki.testing.StoreWrapper.wrap_body`."""
        assert isinstance(body, bytes)
        return body[::-1]


def test_the_hooks_see_everything() -> None:
    """Each of the five verbs is one request, refused ones included; bodies and downloads are what the hooks return."""
    store = Noting()
    etag = store.put("key", b"abc")
    assert fetch(store.wrapped, "key") == b"cba"
    assert fetch(store, "key") == b"CBA"
    assert store.get("key", if_none_match=etag) is None
    assert store.head("key").etag == etag
    assert [info.key for info in store.list("k")] == ["key"]
    store.delete("key")
    with pytest.raises(NotFoundError):
        store.get("key")
    expected = ["put key", "get key", "get key", "head key", "list k", "delete key", "get key"]
    assert [" ".join(one) for one in store.noted] == expected


def test_a_wrapper_without_hooks_is_the_store_behind_it() -> None:
    """Names and guarantees are the wrapped store's, and so is a download's length."""
    behind = MemoryStore("behind")
    store = StoreWrapper(behind)
    assert (store.url, store.honours_conditions, store.wrapped) == (behind.url, behind.honours_conditions, behind)
    store.put("key", b"abc")
    download = store.get("key")
    assert download is not None
    with DownloadWrapper(download) as wrapper:
        assert (wrapper.length, wrapper.info, wrapper.read(10)) == (3, download.info, b"abc")
