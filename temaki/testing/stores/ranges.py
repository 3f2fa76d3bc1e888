"""A range of an object."""

from __future__ import annotations

import pytest

from temaki.errors import NotFoundError, PreconditionFailedError, StoreError
from temaki.store import Store
from temaki.testing.stores.base import Suite
from temaki.testing.stores.tools import fetch, read_all


class Ranges(Suite):
    """A range of an object."""

    @pytest.mark.parametrize(
        ("byte_range", "expected"),
        [
            ((0, 1), b"0"),
            ((0, 10), b"0123456789"),
            ((3, 6), b"345"),
            ((9, 10), b"9"),
            ((8, 100), b"89"),
            ((0, 1_000_000), b"0123456789"),
        ],
    )
    def test_a_range(self, store: Store, key: str, byte_range: tuple[int, int], expected: bytes) -> None:
        """A range gives its bytes, cut at the object's end; the facts are those of the whole object."""
        etag = store.put(key, b"0123456789", metadata={"a": "b"})
        download = store.get(key, byte_range=byte_range, if_match=etag)
        assert download is not None
        with download:
            assert download.length == len(expected)
            assert read_all(download.read) == expected
            assert (download.info.size, download.info.etag) == (10, etag)
            assert dict(download.info.metadata) == {"a": "b"}

    @pytest.mark.parametrize("data", [b"0123456789", b""])
    def test_a_range_beyond_the_end(self, store: Store, key: str, data: bytes) -> None:
        """A range that starts at or beyond the end is an error, and no empty body; an empty object has none at all."""
        store.put(key, data)
        for first in (len(data), len(data) + 5):
            with pytest.raises(StoreError) as caught:
                store.get(key, byte_range=(first, first + 10))
            assert not isinstance(caught.value, (NotFoundError, PreconditionFailedError))

    def test_a_range_of_an_unchanged_object(self, store: Store, key: str) -> None:
        """A range with the current ETag in if_none_match answers None as well."""
        etag = store.put(key, b"0123456789")
        assert store.get(key, byte_range=(0, 4), if_none_match=etag) is None
        assert fetch(store, key, byte_range=(0, 4), if_none_match="0" * 32) == b"0123"
