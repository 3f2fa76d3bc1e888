"""Listings: complete, and in order."""

from __future__ import annotations

import pytest

from temaki.store import Store
from temaki.testing.stores.base import Suite
from temaki.testing.stores.tools import split
from temaki.testing.threads import in_parallel


class Listings(Suite):
    """Listings: complete, and in order."""

    def test_a_listing_has_what_begins_with_the_prefix(self, store: Store, key: str) -> None:
        """A listing gives keys, sizes and ETags, in the order of the keys' bytes; a prefix is no folder."""
        names = [f"{key}/{name}" for name in ("a-b", "a/b", "a0", "b", "B", "é", "z")]
        etags = {name: store.put(name, b"x" * number) for number, name in enumerate(names)}
        found = list(store.list(f"{key}/"))
        assert [info.key for info in found] == sorted(names, key=str.encode)
        assert {info.key: info.etag for info in found} == etags
        assert {info.key: info.size for info in found} == {name: number for number, name in enumerate(names)}
        assert [info.key for info in store.list(f"{key}/a-")] == [f"{key}/a-b"]
        assert list(store.list(f"{key}/nothing")) == []

    def test_a_long_listing(self, store: Store, key: str) -> None:
        """A listing is complete, however many objects there are, and whatever fits on one of the store's pages."""
        if not self.listed:
            pytest.skip("listed = 0")
        names = [f"{key}.d/{number:05}" for number in range(self.listed)]
        in_parallel([lambda part=part: [store.put(name, b"") for name in part] for part in split(names, 4)])  # type: ignore[misc]
        assert [info.key for info in store.list(f"{key}.d/")] == names
