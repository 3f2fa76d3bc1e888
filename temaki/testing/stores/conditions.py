"""Conditions: create only if missing, swap only the version that was read, and read only what changed."""

from __future__ import annotations

import pytest

from temaki.errors import ConfigurationError, NotFoundError, PreconditionFailedError
from temaki.store import Store
from temaki.testing.stores.base import Suite
from temaki.testing.stores.tools import fetch


class Conditions(Suite):
    """Conditions: create only if missing, swap only the version that was read, and read only what changed."""

    def test_create_only_if_missing(self, store: Store, key: str) -> None:
        """if_none_match writes where nothing is, and nowhere else."""
        etag = store.put(key, b"first", if_none_match=True)
        with pytest.raises(PreconditionFailedError) as caught:
            store.put(key, b"second", if_none_match=True)
        assert not caught.value.in_flight
        assert fetch(store, key) == b"first"
        assert store.head(key).etag == etag

    def test_swap_only_the_version_that_was_read(self, store: Store, key: str) -> None:
        """if_match writes over the version that it names; once that is gone, it is refused."""
        first = store.put(key, b"first")
        second = store.put(key, b"second", if_match=first)
        with pytest.raises(PreconditionFailedError):
            store.put(key, b"third", if_match=first)
        assert fetch(store, key) == b"second"
        store.put(key, b"third", if_match=second)
        assert fetch(store, key) == b"third"

    def test_a_head_gives_the_etag_to_swap(self, store: Store, key: str) -> None:
        """The ETags of put, get, head and list all serve for conditions."""
        store.put(key, b"0")
        store.put(key, b"1", if_match=store.head(key).etag)
        download = store.get(key)
        assert download is not None
        with download:
            store.put(key, b"2", if_match=download.info.etag)
        (listed,) = store.list(key)
        store.put(key, b"3", if_match=listed.etag)
        assert fetch(store, key) == b"3"

    def test_a_missing_object_has_no_version_to_swap(self, store: Store, key: str) -> None:
        """if_match on a missing object is refused, and creates nothing; also after a delete."""
        with pytest.raises(PreconditionFailedError):
            store.put(key, b"x", if_match="0" * 32)
        etag = store.put(key, b"x")
        store.delete(key)
        with pytest.raises(PreconditionFailedError):
            store.put(key, b"y", if_match=etag)
        with pytest.raises(NotFoundError):
            store.head(key)

    def test_contents_that_come_back(self, store: Store, key: str) -> None:
        """An ETag decides by itself: where contents repeat it may too, and then the condition holds."""
        first = store.put(key, b"A", metadata={"version": "1"})
        store.put(key, b"B", metadata={"version": "2"})
        third = store.put(key, b"A", metadata={"version": "3"})
        assert store.head(key).metadata["version"] == "3"
        if first == third:
            store.put(key, b"C", if_match=first)
        else:
            with pytest.raises(PreconditionFailedError):
                store.put(key, b"C", if_match=first)
            store.put(key, b"C", if_match=third)
        assert fetch(store, key) == b"C"

    def test_unchanged_sends_nothing(self, store: Store, key: str) -> None:
        """A GET with the current ETag answers None; with an old one it answers the object."""
        first = store.put(key, b"first")
        assert store.get(key, if_none_match=first) is None
        second = store.put(key, b"second")
        assert fetch(store, key, if_none_match=first) == b"second"
        assert store.get(key, if_none_match=second) is None

    def test_get_of_one_version_only(self, store: Store, key: str) -> None:
        """A GET with if_match answers that version or is refused, also for a range and for a missing object."""
        first = store.put(key, b"first")
        assert fetch(store, key, if_match=first) == b"first"
        store.put(key, b"second")
        with pytest.raises(PreconditionFailedError):
            store.get(key, if_match=first)
        with pytest.raises(PreconditionFailedError):
            store.get(key, if_match=first, byte_range=(0, 2))

    def test_two_conditions_exclude_each_other(self, store: Store, key: str) -> None:
        """What no store defines is refused before it is sent."""
        with pytest.raises(ConfigurationError):
            store.put(key, b"x", if_match="0" * 32, if_none_match=True)
