"""The store in memory, beyond what every store promises."""

from __future__ import annotations

import hashlib
import os
import threading

from temaki.stores.memory import MemoryStore
from temaki.testing import ManualClock
from temaki.testing.stores import fetch


def test_the_etag_is_the_md5_of_the_contents() -> None:
    """As on S3, an ETag comes back when the contents do: what takes it for an identity fails here too."""
    store = MemoryStore()
    first = store.put("a", b"A")
    assert first == hashlib.md5(b"A").hexdigest()
    store.put("a", b"B")
    assert store.put("a", b"A") == first


def test_a_name_has_one_store() -> None:
    """Stores of one name are one, until they are forgotten; those of different names have nothing in common."""
    MemoryStore.forget()
    store = MemoryStore.named("one")
    store.put("a", b"1")
    assert MemoryStore.named("one") is store
    assert list(MemoryStore.named("two").list()) == []
    MemoryStore.forget("one")
    assert list(MemoryStore.named("one").list()) == []
    MemoryStore.forget()


def test_its_times_come_from_the_clock() -> None:
    """The store's clock is the one that it was given: the lease's credit can be tested without waiting."""
    clock = ManualClock(start=1_000.0)
    store = MemoryStore(clock=clock)
    store.put("a", b"1")
    clock.advance(30.0)
    info = store.head("a")
    assert info.date is not None
    assert info.last_modified is not None
    assert info.last_modified.timestamp() == 1_000.0
    assert (info.date - info.last_modified).total_seconds() == 30.0


def test_a_download_keeps_its_version() -> None:
    """What was opened is read to its end, whatever is written meanwhile."""
    store = MemoryStore()
    store.put("a", b"old" * 10)
    download = store.get("a")
    assert download is not None
    store.put("a", b"new")
    with download:
        assert download.read(100) == b"old" * 10


def test_a_child_can_use_a_lock_that_a_thread_of_its_parent_held() -> None:
    """A fork at the worst moment leaves the child a store that works."""
    store = MemoryStore()
    store.put("a", b"1")
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with store._lock():
            held.set()
            release.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    child = os.fork()
    if child == 0:
        os._exit(0 if fetch(store, "a") == b"1" else 1)
    release.set()
    holder.join()
    assert os.waitpid(child, 0)[1] == 0
