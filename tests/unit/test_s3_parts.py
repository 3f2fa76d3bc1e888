"""Uploads to S3 in parts: which objects, what arrives, and what is left when one fails."""

from __future__ import annotations

import io
import os
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from temaki.errors import NotFoundError, PreconditionFailedError, StoreError, StoreUnavailableError
from temaki.stores.s3 import parts
from temaki.stores.s3.store import S3Store
from temaki.testing import Server
from temaki.testing.stores import fetch

_PART = 5 << 20  # bytes: the smallest part that S3 takes


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of five megabytes, so that a test need not store hundreds."""
    monkeypatch.setattr(parts, "PART", _PART)
    monkeypatch.setattr(parts, "LARGE", _PART)


@pytest.fixture
def store(moto: Server) -> S3Store:
    """An empty bucket."""
    return S3Store(moto.bucket(), client=moto.client())


class Body(io.BytesIO):
    """Counts what is read of it, in pieces of at most a megabyte."""

    count = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """See :meth:`io.BytesIO.read`."""
        data = super().read(min(1 << 20, (1 << 30) if size is None or size < 0 else size))
        self.count += len(data)
        return data


@pytest.mark.parametrize("server", ["moto", "seaweedfs"])
@pytest.mark.parametrize("sums", ["AWS", "others"])
def test_a_large_body_is_sent_in_parts(
    server: str, sums: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its bytes and its metadata arrive, it is read once, and no upload is left unfinished; with either kind of sum."""
    running: Server = request.getfixturevalue(server)
    store = S3Store(running.bucket(), client=running.client())
    if sums == "AWS":
        monkeypatch.setattr(S3Store, "_is_aws", staticmethod(lambda _: True))
    data = os.urandom(3 * _PART + 12_345)
    body, asked = Body(data), _watched(store._given)
    etag = store.put("a b/ü", body, metadata={"new": "yes"})
    assert body.count == len(data)
    assert (asked.count("UploadPart"), asked.count("PutObject")) == (4, 0)
    info = store.head("a b/ü")
    assert (info.etag, info.size, dict(info.metadata)) == (etag, len(data), {"new": "yes"})
    assert fetch(store, "a b/ü") == data
    assert _unfinished(store) == []


def test_a_condition_takes_one_request(store: S3Store) -> None:
    """The end of an upload in parts is not atomic everywhere, and so has no condition."""
    asked = _watched(store._given)
    etag = store.put("key", Body(b"x" * (2 * _PART)), if_none_match=True)
    store.put("key", Body(b"y" * (2 * _PART)), if_match=etag)
    with pytest.raises(PreconditionFailedError):
        store.put("key", Body(b"z" * (2 * _PART)), if_match=etag)
    assert asked == ["PutObject"] * 3


def test_a_small_body_takes_one_request(store: S3Store) -> None:
    """Parts are for what is larger than one."""
    asked = _watched(store._given)
    store.put("key", Body(b"x" * _PART))
    assert asked == ["PutObject"]


def test_a_part_that_fails_is_tried_again(store: S3Store) -> None:
    """One part without an answer does not cost the others, and the body is not read again."""
    body = Body(os.urandom(3 * _PART))
    failures = _failing(store._given, times=2)
    store.put("key", body)
    assert failures == []
    assert body.count == 3 * _PART
    assert fetch(store, "key") == body.getvalue()


def test_an_upload_that_fails_leaves_no_parts(store: S3Store) -> None:
    """It is aborted: nobody pays for its parts, and there is no object."""
    _failing(store._given, times=1000)
    with pytest.raises(StoreUnavailableError, match="key"):
        store.put("key", Body(b"x" * (3 * _PART)))
    assert _unfinished(store) == []
    with pytest.raises(NotFoundError):
        store.head("key")


class Broken(Body):
    """Cannot be read beyond its first part; ``error`` is None where it ends there."""

    error: OSError | None = None

    def read(self, size: int | None = -1, /) -> bytes:
        """See :meth:`Body.read`."""
        if self.tell() >= _PART:
            if self.error is not None:
                raise self.error
            return b""
        return super().read(size)


@pytest.mark.parametrize("error", [OSError("unreadable"), None])
def test_a_body_that_cannot_be_read_leaves_no_parts(store: S3Store, error: OSError | None) -> None:
    """An error of the file stays what it is; a file that ends early is no object."""
    body = Broken(b"x" * (3 * _PART))
    body.error = error
    with pytest.raises(StoreError if error is None else OSError, match=r"ended|unreadable"):
        store.put("key", body)
    assert _unfinished(store) == []
    with pytest.raises(NotFoundError):
        store.head("key")


def _unfinished(store: S3Store) -> list[Any]:
    assert store._given is not None
    found: list[Any] = store._given.list_multipart_uploads(Bucket=store.bucket).get("Uploads", [])
    return found


def _watched(client: Any) -> list[str]:
    """The operations that a client is asked for from now on."""
    asked: list[str] = []
    client.meta.events.register("before-call.s3", lambda model, **_: asked.append(model.name))
    return asked


def _failing(client: Any, *, times: int) -> list[int]:
    """Have parts fail; gives those failures that are still to come."""
    left = list(range(times))

    def fail(**_: Any) -> None:
        if left:
            left.pop()
            raise EndpointConnectionError(endpoint_url="http://127.0.0.1")

    client.meta.events.register("before-call.s3.UploadPart", fail)
    return left
