"""What goes wrong is said as what it is."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from temaki.errors import AccessDeniedError, BucketNotFoundError, NotFoundError, StoreError
from temaki.store import Store
from temaki.testing.stores.base import Suite


class Refusals(Suite):
    """What goes wrong is said as what it is."""

    def test_a_missing_bucket_is_no_missing_object(self, missing_bucket_store: Store) -> None:
        """Reading says that the bucket is missing: a wrong name must not look like an empty database."""
        for ask in _reads(missing_bucket_store):
            with pytest.raises(BucketNotFoundError):
                ask()

    def test_nothing_is_written_to_a_missing_bucket(self, missing_bucket_store: Store) -> None:
        """Writing says that the bucket is missing, whatever the condition."""
        for ask in _writes(missing_bucket_store):
            with pytest.raises(BucketNotFoundError):
                ask()

    def test_wrong_credentials(self, denied_store: Store) -> None:
        """Each verb says that access is denied, and not that there is nothing."""
        for ask in _reads(denied_store) + _writes(denied_store):
            with pytest.raises(AccessDeniedError):
                ask()

    def test_a_bad_key_is_refused(self, store: Store) -> None:
        """An empty key, and one beyond S3's 1024 bytes, are errors of the store, and not "no such object"."""
        for key in ("", "x" * 1025):
            with pytest.raises(StoreError) as caught:
                store.put(key, b"x")
            assert not isinstance(caught.value, NotFoundError)


def _reads(store: Store) -> list[Callable[[], object]]:
    return [
        lambda: store.get("app.sqlite"),
        lambda: store.get("app.sqlite", if_none_match="0" * 32),
        lambda: store.get("app.sqlite", byte_range=(0, 10)),
        lambda: store.head("app.sqlite"),
        lambda: list(store.list()),
    ]


def _writes(store: Store) -> list[Callable[[], object]]:
    return [
        lambda: store.put("app.sqlite", b"x", if_match="0" * 32),
        lambda: store.put("app.sqlite", b"x", if_none_match=True),
        lambda: store.put("app.sqlite", b"x"),
        lambda: store.delete("app.sqlite"),
    ]
