"""The versions that a bucket keeps: all of one key's, newest first, and nobody else's."""

from __future__ import annotations

import pytest

from temaki.errors import NotFoundError
from temaki.store import VersionedStore
from temaki.stores.directory import DirectoryStore
from temaki.stores.memory import MemoryStore
from temaki.stores.s3.store import S3Store
from temaki.testing import Server


@pytest.fixture
def store(moto: Server) -> S3Store:
    """A bucket with versioning."""
    bucket = moto.bucket()
    moto.client().put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    return S3Store(bucket, client=moto.client())


def test_versions_are_listed_and_read(store: S3Store) -> None:
    """Writes and deletions, newest first; neighbours whose names begin alike are left out."""
    for body in (b"one", b"two", b"three"):
        store.put("key", body, metadata={"n": body.decode()})
    for neighbour in ("ke", "key.lease", "key/below"):
        store.put(neighbour, b"another")
    store.delete("key")
    store.put("key", b"again")
    found = list(store.versions("key"))
    assert [(one.size, one.is_deletion, one.is_current) for one in found if not one.is_deletion] == [
        (5, False, True),
        (5, False, False),
        (3, False, False),
        (3, False, False),
    ]
    assert sum(one.is_deletion for one in found) == 1
    oldest = [one for one in found if not one.is_deletion][-1].version_id
    info = store.head_version("key", oldest)
    assert (info.size, info.metadata["n"]) == (3, "one")
    with store.get_version("key", oldest, byte_range=(1, 3)) as download:
        assert (download.read(10), download.info.size) == (b"ne", 3)
    assert list(store.versions("nothing")) == []


def test_a_listing_of_several_pages_is_complete(store: S3Store) -> None:
    """S3 gives a thousand on a page."""
    for number in range(7):
        store.put("key", b"x" * number)
    client = store._given
    assert client is not None
    paginate = client.get_paginator("list_object_versions").paginate
    pages = list(paginate(Bucket=store.bucket, Prefix="key", PaginationConfig={"PageSize": 3}))
    assert len(pages) == 3
    assert [one.size for one in store.versions("key")] == [6, 5, 4, 3, 2, 1, 0]


def test_versioning_is_told(moto: Server, store: S3Store) -> None:
    """On where it was turned on; other kinds of store are no versioned ones."""
    assert store.versioning()
    assert not S3Store(moto.bucket(), client=moto.client()).versioning()
    assert isinstance(store, VersionedStore)
    assert not issubclass(MemoryStore, VersionedStore)
    assert not issubclass(DirectoryStore, VersionedStore)


def test_a_version_that_is_not_there(store: S3Store) -> None:
    """It is not found, and that is no sign that the key is not there."""
    store.put("key", b"x")
    with pytest.raises(NotFoundError, match="no such version"):
        store.head_version("key", "11111111-2222-3333-4444-555555555555")
