"""The store that counts what is asked of it."""

from __future__ import annotations

import io
from contextlib import suppress

import pytest

from temaki.errors import NotFoundError, PreconditionFailedError, StoreUnavailableError
from temaki.stores.memory import MemoryStore
from temaki.testing import CountingStore, Fault, FaultyStore
from temaki.testing.stores import fetch
from temaki.testing.threads import in_parallel


def test_outcomes() -> None:
    """Each request is counted once, under the outcome that its caller saw."""
    faulty = FaultyStore(MemoryStore())
    store = CountingStore(faulty)
    etag = store.put("a", b"12345", if_none_match=True)
    with pytest.raises(PreconditionFailedError):
        store.put("a", b"123", if_none_match=True)
    assert store.get("a", if_none_match=etag) is None
    fetch(store, "a")
    with pytest.raises(NotFoundError):
        store.head("b")
    store.head("a")
    faulty.fail_next("put", Fault.LOST_REPLY)
    with pytest.raises(StoreUnavailableError):
        store.put("b", b"1")
    store.delete("a")
    assert [(call.verb, call.key, call.outcome) for call in store.calls] == [
        ("put", "a", "ok"),
        ("put", "a", "refused"),
        ("get", "a", "not_modified"),
        ("get", "a", "ok"),
        ("head", "b", "refused"),
        ("head", "a", "ok"),
        ("put", "b", "failed"),
        ("delete", "a", "ok"),
    ]
    assert store.count() == 8
    assert store.count("put") == 3
    assert store.count("put", "ok") == 1
    assert store.count(key="b") == 2
    store.reset()
    assert (store.count(), store.bytes_up, store.bytes_down) == (0, 0, 0)


def test_bytes() -> None:
    """Bytes up are those of the bodies, wherever they stood; bytes down are those that were read, and no more."""
    store = CountingStore(MemoryStore())
    body = io.BytesIO(b"x" * 1_000)
    body.seek(900)
    store.put("a", body)
    with suppress(PreconditionFailedError):
        store.put("a", b"y" * 10, if_none_match=True)
    assert store.bytes_up == 1_010
    fetch(store, "a", byte_range=(0, 100))
    download = store.get("a")
    assert download is not None
    assert store.bytes_down == 100
    with download:
        download.read(7)
    assert store.bytes_down == 107


def test_a_listing_is_one_request() -> None:
    """A listing counts when it ends, read to its end or not."""
    store = CountingStore(MemoryStore())
    for name in "abc":
        store.put(name, b"")
    assert len(list(store.list())) == 3
    listing = store.list("b")
    next(listing)
    del listing
    assert store.count("list", "ok") == 2


def test_threads_are_counted_exactly() -> None:
    """No request of any thread is lost."""
    store = CountingStore(MemoryStore())
    store.put("a", b"12")

    def ask() -> None:
        for _ in range(300):
            fetch(store, "a")

    in_parallel([ask] * 8)
    assert store.count("get", "ok") == 2_400
    assert store.bytes_down == 4_800
