"""What is written can be read, under any name, until it is deleted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from temaki.errors import NotFoundError
from temaki.store import Store
from temaki.testing.stores.base import Suite
from temaki.testing.stores.tools import fetch


class Objects(Suite):
    """What is written can be read, under any name, until it is deleted."""

    def test_what_was_put_is_got(self, store: Store, key: str) -> None:
        """The bytes come back as they were, with their length, whatever the size of the pieces."""
        data = bytes(range(256)) * 300
        etag = store.put(key, data)
        download = store.get(key)
        assert download is not None
        with download:
            assert download.length == download.info.size == len(data)
            assert download.info.etag == etag
            assert download.info.key == key
            pieces = []
            while piece := download.read(7_000):
                assert len(piece) <= 7_000
                pieces.append(piece)
            assert b"".join(pieces) == data
            assert download.read(1) == b""

    def test_a_download_can_be_left_early(self, store: Store, key: str) -> None:
        """Whoever has seen enough leaves, and the store goes on working."""
        store.put(key, b"x" * 1_000_000)
        download = store.get(key)
        assert download is not None
        with download:
            assert download.read(10) == b"x" * 10
        assert fetch(store, key) == b"x" * 1_000_000

    def test_head_says_what_get_says(self, store: Store, key: str) -> None:
        """HEAD gives the same facts as GET, without the bytes."""
        etag = store.put(key, b"12345", metadata={"temaki-seq": "7"})
        info = store.head(key)
        assert (info.key, info.etag, info.size, dict(info.metadata)) == (key, etag, 5, {"temaki-seq": "7"})
        download = store.get(key)
        assert download is not None
        with download:
            got = download.info
        assert (got.etag, got.size, dict(got.metadata), got.last_modified) == (
            info.etag,
            info.size,
            dict(info.metadata),
            info.last_modified,
        )

    def test_times_are_aware_and_plausible(self, store: Store, key: str) -> None:
        """Where a store says when it wrote and answered, the times carry their zone, and are in order."""
        store.put(key, b"x")
        info = store.head(key)
        for moment in (info.last_modified, info.date):
            if moment is not None:
                assert moment.tzinfo is not None
                assert abs(datetime.now(UTC) - moment) < timedelta(days=2)
        if info.last_modified is not None and info.date is not None:
            assert info.date - info.last_modified > timedelta(seconds=-2)

    def test_an_overwrite_replaces_everything(self, store: Store, key: str) -> None:
        """Nothing of the old version is left: neither bytes, nor metadata, nor its ETag."""
        old = store.put(key, b"a longer old version", metadata={"old": "yes"})
        new = store.put(key, b"new", metadata={"new": "yes"})
        assert old != new
        assert fetch(store, key) == b"new"
        assert dict(store.head(key).metadata) == {"new": "yes"}
        assert store.head(key).etag == new

    def test_an_empty_object_is_an_object(self, store: Store, key: str) -> None:
        """Zero bytes are no missing object."""
        store.put(key, b"")
        assert fetch(store, key) == b""
        assert store.head(key).size == 0

    def test_a_deleted_object_is_gone(self, store: Store, key: str) -> None:
        """After a delete the key is missing; deleting it again, or what never was, is no error."""
        store.put(key, b"x")
        store.delete(key)
        with pytest.raises(NotFoundError):
            store.get(key)
        store.delete(key)
        store.put(key, b"again", if_none_match=True)
        assert fetch(store, key) == b"again"

    def test_a_missing_object_is_said_to_be_missing(self, store: Store, key: str) -> None:
        """GET and HEAD of a missing key, in a bucket that exists, raise NotFoundError and say which."""
        for ask in (store.get, store.head):
            with pytest.raises(NotFoundError, match=r"app\.sqlite") as caught:
                ask(key)
            assert caught.value.url.startswith(store.url)
        with pytest.raises(NotFoundError):
            store.get(key, if_none_match="0" * 32)

    def test_odd_keys(self, store: Store, key: str) -> None:
        """A key is any string: spaces, percent signs, plus signs and other scripts arrive as they are."""
        names = [f"{key}.d/{odd}" for odd in self.odd_keys]
        for number, name in enumerate(names):
            store.put(name, str(number).encode(), if_none_match=True)
        for number, name in enumerate(names):
            assert fetch(store, name) == str(number).encode(), name
            assert store.head(name).key == name
        assert {info.key for info in store.list(f"{key}.d/")} == set(names)
        for name in names:
            store.delete(name)
        assert list(store.list(f"{key}.d/")) == []
