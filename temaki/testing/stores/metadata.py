"""Metadata come back as they were, or are refused."""

from __future__ import annotations

import pytest

from temaki.errors import NotFoundError, StoreError
from temaki.store import Store
from temaki.testing.stores.base import Suite
from temaki.testing.stores.tools import fetch


class Metadata(Suite):
    """Metadata come back as they were, or are refused."""

    def test_metadata_have_lower_case_names(self, store: Store, key: str) -> None:
        """Names are written in lower case, as S3 does; values stay as they are."""
        store.put(key, b"x", metadata={"Temaki-Commit": "AbC, d=e;f", "plain": "1"})
        assert dict(store.head(key).metadata) == {"temaki-commit": "AbC, d=e;f", "plain": "1"}

    def test_metadata_may_be_left_out(self, store: Store, key: str) -> None:
        """No metadata, and empty metadata, are both empty."""
        store.put(key, b"x")
        assert dict(store.head(key).metadata) == {}
        store.put(key, b"x", metadata={})
        assert dict(store.head(key).metadata) == {}

    def test_metadata_of_almost_2_kb(self, store: Store, key: str) -> None:
        """Up to S3's limit everything is kept; beyond it nothing is written."""
        metadata = {"lineage": "0123456789abcdef" * 120, "seq": "1"}
        store.put(key, b"x", metadata=metadata)
        assert dict(store.head(key).metadata) == metadata
        with pytest.raises(StoreError):
            store.put(key, b"y", metadata={"lineage": "x" * 2048})
        assert fetch(store, key) == b"x"

    @pytest.mark.parametrize("metadata", [{"a": "ü"}, {"a": "x\r\ny: z"}, {"a b": "c"}, {"": "c"}, {"a": " b"}])
    def test_metadata_that_no_header_can_carry(self, store: Store, key: str, metadata: dict[str, str]) -> None:
        """What would arrive changed, or as another header, is refused before anything is written."""
        with pytest.raises(StoreError):
            store.put(key, b"x", metadata=metadata)
        with pytest.raises(NotFoundError):
            store.head(key)
