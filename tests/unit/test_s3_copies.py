"""Copies within S3: in one request or in parts, and to whom what goes wrong is attributed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from temaki.errors import (
    AccessDeniedError,
    BucketNotFoundError,
    ConfigurationError,
    NotFoundError,
    StoreError,
    StoreUnavailableError,
)
from temaki.store import CopyingStore, ObjectInfo
from temaki.stores.directory import DirectoryStore
from temaki.stores.memory import MemoryStore
from temaki.stores.s3 import copies
from temaki.stores.s3.store import S3Store
from temaki.testing import CountingStore, Server, StoreWrapper
from temaki.testing.stores import fetch

_PART = 5 << 20  # bytes: the smallest part that S3 takes


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of five megabytes, so that a test need not store hundreds."""
    monkeypatch.setattr(copies, "PART", _PART)


@pytest.fixture
def stores(moto: Server) -> tuple[S3Store, S3Store]:
    """Two buckets that one client reaches."""
    client = moto.client()
    return S3Store(moto.bucket(), client=client), S3Store(moto.bucket(), client=client)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("server", ["moto", "seaweedfs"])
def test_a_large_object_is_copied_in_parts(server: str, request: pytest.FixtureRequest) -> None:
    """Its bytes and the new metadata arrive in another bucket, and no upload is left unfinished."""
    running: Server = request.getfixturevalue(server)
    client = running.client()
    source, target = S3Store(running.bucket(), client=client), S3Store(running.bucket(), client=client)
    data = os.urandom(2 * _PART + 12_345)
    source.put("a b/ü", data, metadata={"old": "yes"})
    asked = _watched(client)
    etag = target.copy(source, source.head("a b/ü"), "copy", metadata={"new": "yes"})
    assert asked.count("UploadPartCopy") == 3
    assert not {"CopyObject", "GetObject", "PutObject"} & set(asked)
    info = target.head("copy")
    assert (info.etag, info.size, dict(info.metadata)) == (etag, len(data), {"new": "yes"})
    assert fetch(target, "copy") == data
    assert "Uploads" not in client.list_multipart_uploads(Bucket=target.bucket)


@pytest.mark.usefixtures("small_parts")
def test_a_copy_with_a_condition_is_one_request(stores: tuple[S3Store, S3Store]) -> None:
    """The end of a copy in parts is not atomic everywhere, and so has no condition."""
    source, target = stores
    source.put("key", b"x" * (2 * _PART))
    asked = _watched(source._given)
    target.copy(source, source.head("key"), "copy", if_none_match=True)
    assert asked.count("CopyObject") == 1
    assert "CreateMultipartUpload" not in asked


def test_an_old_boto3_does_not_drop_the_condition(stores: tuple[S3Store, S3Store]) -> None:
    """It cannot send it. The error is that of a server without such copies, so that the bytes are sent instead."""
    source, target = stores
    source.put("key", b"x")
    client: Any = source._given
    client.meta.service_model.operation_model("CopyObject").input_shape.members.pop("IfNoneMatch")
    with pytest.raises(StoreError, match="Upgrade boto3") as caught:
        target.copy(source, source.head("key"), "copy", if_none_match=True)
    assert caught.value.status == 501
    target.copy(source, source.head("key"), "copy")
    assert fetch(target, "copy") == b"x"


@pytest.mark.usefixtures("small_parts")
def test_a_part_that_fails_is_tried_again(stores: tuple[S3Store, S3Store]) -> None:
    """One part without an answer does not cost the others."""
    source, target = stores
    data = os.urandom(3 * _PART)
    source.put("key", data)
    failures = _failing(source._given, times=2)
    target.copy(source, source.head("key"), "copy")
    assert failures == []
    assert fetch(target, "copy") == data


@pytest.mark.usefixtures("small_parts")
def test_a_copy_that_fails_leaves_no_parts(stores: tuple[S3Store, S3Store]) -> None:
    """The upload is given up: nobody pays for its parts, and there is no object."""
    source, target = stores
    source.put("key", b"x" * (3 * _PART))
    _failing(source._given, times=1000)
    with pytest.raises(StoreUnavailableError, match="copy"):
        target.copy(source, source.head("key"), "copy")
    assert source._given is not None
    assert "Uploads" not in source._given.list_multipart_uploads(Bucket=target.bucket)
    with pytest.raises(NotFoundError):
        target.head("copy")


def test_a_copy_needs_one_client_for_both(moto: Server, tmp_path: Path) -> None:
    """Another client may have other credentials, so that nobody can copy from one to the other."""
    client = moto.client()
    store, other = S3Store("one", client=client), S3Store("two", client=moto.client())
    assert isinstance(store, CopyingStore)
    assert store.can_copy(S3Store("two", client=client))
    assert S3Store("one").can_copy(S3Store("two"))
    folder = DirectoryStore(tmp_path)
    for copying, stranger in ((store, other), (store, MemoryStore()), (MemoryStore(), folder), (folder, store)):
        assert not copying.can_copy(stranger)
        with pytest.raises(ConfigurationError, match="cannot copy from"):
            copying.copy(stranger, ObjectInfo("key", "etag", 1), "key")


def test_a_missing_bucket_is_named(stores: tuple[S3Store, S3Store]) -> None:
    """It is the copy's: whoever has the description of an object has found its bucket."""
    source, target = stores
    source.put("key", b"x")
    nowhere = S3Store("missing-bucket", client=target._given)
    with pytest.raises(BucketNotFoundError, match="missing-bucket"):
        nowhere.copy(source, source.head("key"), "copy")


def test_who_may_not_copy_is_told_both_names(stores: tuple[S3Store, S3Store]) -> None:
    """S3 does not say which of the two permissions is missing."""
    source, target = stores
    source.put("key", b"x")
    info = source.head("key")

    def deny(**_: Any) -> None:
        raise ClientError(
            {"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403}},  # type: ignore[typeddict-item]
            "CopyObject",
        )

    assert target._given is not None
    target._given.meta.events.register("before-call.s3.CopyObject", deny)
    with pytest.raises(AccessDeniedError) as caught:
        target.copy(source, info, "copy")
    assert f"{source.url}/key cannot be copied to {target.url}/copy" in str(caught.value)
    assert caught.value.url == f"{target.url}/copy"


def test_a_wrapper_copies_only_if_it_says_so() -> None:
    """One that changes bodies must not let a copy pass by it; nor is its object what the store behind it has."""

    class Changing(StoreWrapper):
        """Stores something else than it is given."""

    behind = MemoryStore()
    behind.put("key", b"abc")
    counting, changing = CountingStore(behind), Changing(behind)
    assert not changing.can_copy(behind)
    assert not counting.can_copy(changing)
    with pytest.raises(StoreError, match="by itself"):
        changing.copy(behind, behind.head("key"), "copy")
    assert counting.can_copy(CountingStore(counting))
    counting.copy(CountingStore(behind), behind.head("key"), "copy")
    assert (counting.count("copy"), counting.count(), counting.bytes_up, counting.bytes_down) == (1, 1, 0, 0)
    assert fetch(behind, "copy") == b"abc"


def _watched(client: Any) -> list[str]:
    """The operations that a client is asked for from now on."""
    asked: list[str] = []
    client.meta.events.register("before-call.s3", lambda model, **_: asked.append(model.name))
    return asked


def _failing(client: Any, *, times: int) -> list[int]:
    """Have copies of parts fail; gives those failures that are still to come."""
    left = list(range(times))

    def fail(**_: Any) -> None:
        if left:
            left.pop()
            raise ClientError(
                {"Error": {"Code": "SlowDown"}, "ResponseMetadata": {"HTTPStatusCode": 503}},  # type: ignore[typeddict-item]
                "UploadPartCopy",
            )

    client.meta.events.register("before-call.s3.UploadPartCopy", fail)
    return left
