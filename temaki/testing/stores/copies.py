"""Copies that a store makes by itself, of stores that can: see :class:`temaki.store.CopyingStore`."""

from __future__ import annotations

import threading

import pytest

from temaki.errors import NotFoundError, PreconditionFailedError
from temaki.store import CopyingStore, Store
from temaki.testing.stores.base import Suite
from temaki.testing.stores.tools import fetch
from temaki.testing.threads import in_parallel


class Copies(Suite):
    """Copies that a store makes by itself."""

    @pytest.fixture
    def copying(self, store: Store) -> CopyingStore:
        """The store under test, if it can copy its own objects."""
        if not (isinstance(store, CopyingStore) and store.can_copy(store)):
            pytest.skip("this store does not copy by itself")
        return store

    def test_a_copy_has_the_bytes_and_metadata_of_its_own(self, store: Store, copying: CopyingStore, key: str) -> None:
        """The bytes are the object's, the metadata are those that were given, and the object stays as it is."""
        data = bytes(range(256)) * 300
        store.put(key, data, metadata={"temaki-seq": "7", "old": "yes"})
        info = store.head(key)
        etag = copying.copy(store, info, f"{key}-copy", metadata={"temaki-seq": "8"})
        assert fetch(store, f"{key}-copy") == data
        found = store.head(f"{key}-copy")
        assert (found.etag, found.size, dict(found.metadata)) == (etag, len(data), {"temaki-seq": "8"})
        assert (store.head(key).etag, dict(store.head(key).metadata)) == (info.etag, dict(info.metadata))
        store.put(f"{key}-copy", b"its ETag serves for conditions", if_match=etag)
        store.delete(key)
        assert fetch(store, f"{key}-copy") == b"its ETag serves for conditions"

    def test_a_copy_replaces_everything(self, store: Store, copying: CopyingStore, key: str) -> None:
        """Without a condition, nothing of what was there is left. A copy without metadata has none."""
        store.put(f"{key}-copy", b"a longer old object", metadata={"old": "yes"})
        store.put(key, b"new", metadata={"not": "copied"})
        copying.copy(store, store.head(key), f"{key}-copy")
        assert fetch(store, f"{key}-copy") == b"new"
        assert dict(store.head(f"{key}-copy").metadata) == {}

    def test_a_copy_under_odd_keys(self, store: Store, copying: CopyingStore, key: str) -> None:
        """The names of both objects arrive as they are."""
        for number, odd in enumerate(self.odd_keys):
            store.put(f"{key}.d/{odd}", str(number).encode())
            copying.copy(store, store.head(f"{key}.d/{odd}"), f"{key}.e/{odd}", if_none_match=True)
            assert fetch(store, f"{key}.e/{odd}") == str(number).encode(), odd

    def test_a_copy_of_nothing_is_refused(self, store: Store, copying: CopyingStore, key: str) -> None:
        """An object that was deleted is said to be missing, by its own name; and nothing is written."""
        store.put(key, b"x")
        info = store.head(key)
        store.delete(key)
        with pytest.raises(NotFoundError) as caught:
            copying.copy(store, info, f"{key}-copy")
        assert caught.value.url.endswith("app.sqlite")
        with pytest.raises(NotFoundError):
            store.head(f"{key}-copy")

    def test_a_copy_of_what_has_changed_is_refused(self, store: Store, copying: CopyingStore, key: str) -> None:
        """Only the object that was described is copied. The error names it, and nothing is written."""
        self._require_conditions()
        store.put(key, b"first")
        info = store.head(key)
        store.put(key, b"second")
        with pytest.raises(PreconditionFailedError) as caught:
            copying.copy(store, info, f"{key}-copy", if_none_match=True)
        assert caught.value.url.endswith("app.sqlite")
        with pytest.raises(NotFoundError):
            store.head(f"{key}-copy")

    def test_a_copy_only_if_missing(self, store: Store, copying: CopyingStore, key: str) -> None:
        """With if_none_match it is written where nothing is, and nowhere else. The error names the copy."""
        self._require_conditions()
        store.put(key, b"first")
        info = store.head(key)
        copying.copy(store, info, f"{key}-copy", metadata={"number": "1"}, if_none_match=True)
        with pytest.raises(PreconditionFailedError) as caught:
            copying.copy(store, info, f"{key}-copy", metadata={"number": "2"}, if_none_match=True)
        assert caught.value.url.endswith("app.sqlite-copy")
        assert dict(store.head(f"{key}-copy").metadata) == {"number": "1"}

    def test_of_many_copies_one_wins(self, store: Store, copying: CopyingStore, key: str) -> None:
        """Threads that create one object, by copies and by writes: exactly one is told that it did."""
        self._require_conditions()
        store.put(key, b"copied" * 10_000)
        info = store.head(key)
        for number in range(self.rounds):
            name, start = f"{key}-{number}", threading.Barrier(self.threads)

            def attempt(thread: int, name: str = name, start: threading.Barrier = start) -> int | None:
                start.wait()
                while True:
                    try:
                        if thread % 2:
                            store.put(name, b"put", metadata={"thread": str(thread)}, if_none_match=True)
                        else:
                            copying.copy(store, info, name, metadata={"thread": str(thread)}, if_none_match=True)
                    except PreconditionFailedError as error:
                        if error.in_flight:
                            continue
                        return None
                    return thread

            won = in_parallel([lambda thread=thread: attempt(thread) for thread in range(self.threads)])  # type: ignore[misc]
            assert [str(one) for one in won if one is not None] == [store.head(name).metadata["thread"]]

    def _require_conditions(self) -> None:
        if not self.honours_copy_conditions:
            pytest.skip("this server ignores the conditions of a copy")
