"""A bucket of Amazon S3, or of a server that speaks its protocol.

ETags go into conditions without quotes: all servers that were tried accept that, and some (Ceph RGW 16, Hetzner) accept
nothing else. What S3 answers is kept without quotes too.

A HEAD that answers 404 has no body, so that nothing tells a missing object from a missing bucket or from a proxy's
page. It is asked again as a GET of one byte, whose answer does: that takes the same permission (s3:GetObject), where
asking for the bucket would take another. The same goes for 400, 401 and 403, which do not say what is wrong with the
credentials.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Self

from temaki.errors import AccessDeniedError, ConfigurationError, StoreError
from temaki.process.fork import ProcessLock, look, reset_in_child
from temaki.store import Download, ObjectInfo, ObjectVersion, ReadableBody
from temaki.stores.rules import (
    check_conditions,
    check_range,
    checked_key,
    checked_metadata,
    range_beyond_end,
)

if TYPE_CHECKING:
    from datetime import datetime

    from mypy_boto3_s3 import S3Client

    from temaki.stores.s3.client import Place, SharedClient
    from temaki.stores.s3.request import Request, Verb

_PIECE = 1 << 20
_NOT_MODIFIED, _NOT_FOUND = 304, 404  # HTTP statuses
_UNEXPLAINED = {400, 401, 403, _NOT_FOUND}
"""Statuses of a HEAD that say too little: why is in the body that the answer to a GET has."""


class S3Store:
    """One bucket.

    Args:
        bucket: Its name.
        client: A boto3 S3 client, used as it is. Its own retries do no harm to the data, but hide from temaki what
            happened: ``Config(retries={"total_max_attempts": 1})`` is the better choice. Without one, temaki makes a
            client from boto3's usual configuration when the first request is made; that one sends small bodies at once,
            without waiting for ``100 Continue``. All stores of a process with the same configuration share it. After
            an error of credentials the next request asks boto3 for credentials again; a given client keeps its own.
    """

    def __init__(self, bucket: str, *, client: Any = None) -> None:
        self.bucket = bucket
        self.url = f"s3://{bucket}"
        self._given: S3Client | None = client
        self._shared: SharedClient | None = None
        self._place: Place | None = None
        self._close_first = self._is_watched = False
        self._lock = ProcessLock()
        reset_in_child(self)

    def __repr__(self) -> str:
        return f"S3Store({self.bucket!r})"

    def reset_after_fork(self) -> None:
        """Share no connection with the parent: two processes on one TLS stream garble it."""
        self._shared = None
        self._close_first = self._given is not None

    @property
    def honours_conditions(self) -> bool:
        """True for AWS; other servers have to show it. Makes the client, but no request."""
        with self._translated("head", self.url) as request:
            return self._is_aws(self._connected(request))

    def get(
        self,
        key: str,
        *,
        if_none_match: str | None = None,
        if_match: str | None = None,
        byte_range: tuple[int, int] | None = None,
    ) -> Download | None:
        """See :meth:`temaki.store.Store.get`."""
        return self._get(key, {}, if_none_match=if_none_match, if_match=if_match, byte_range=byte_range)

    def _get(
        self,
        key: str,
        arguments: dict[str, Any],
        *,
        if_none_match: str | None,
        if_match: str | None,
        byte_range: tuple[int, int] | None,
    ) -> Download | None:
        url = self._url(key)
        check_conditions(if_match, if_none_match, url)
        check_range(byte_range, url)
        if if_none_match is not None:
            arguments["IfNoneMatch"] = if_none_match
        if if_match is not None:
            arguments["IfMatch"] = if_match
        if byte_range is not None:
            arguments["Range"] = f"bytes={byte_range[0]}-{byte_range[1] - 1}"
        with self._translated("get", url, if_match=if_match is not None) as request:
            client = self._connected(request)
            if self._is_aws(client):
                arguments["ChecksumMode"] = "ENABLED"
            try:
                answer = client.get_object(Bucket=self.bucket, Key=key, **arguments)
            except client.exceptions.ClientError as error:
                if if_none_match is not None and _status(error.response) == _NOT_MODIFIED:
                    return None
                raise
            body = answer["Body"]
            try:
                info = _info(key, answer, request)
                if info.etag == if_none_match:  # A server that ignores the condition, or wants it in quotes.
                    body.close()
                    return None
                _check_range(byte_range, answer, url)
            except StoreError:
                body.close()
                raise
            return _S3Download(body, info, answer["ContentLength"], request)

    def head(self, key: str) -> ObjectInfo:
        """See :meth:`temaki.store.Store.head`."""
        url = self._url(key)
        with self._translated("head", url) as request:
            client = self._connected(request)
            try:
                return _info(key, client.head_object(Bucket=self.bucket, Key=key), request)
            except client.exceptions.ClientError as error:
                # A service that gives credentials may have answered, and not S3.
                if _status(error.response) not in _UNEXPLAINED or error.operation_name != "HeadObject":
                    raise
        return self._head_by_get(key, url)

    def put(
        self,
        key: str,
        body: bytes | ReadableBody,
        *,
        metadata: Mapping[str, str] | None = None,
        if_match: str | None = None,
        if_none_match: bool = False,
    ) -> str:
        """See :meth:`temaki.store.Store.put`."""
        url = self._url(key)
        check_conditions(if_match, if_none_match, url)
        arguments: dict[str, Any] = {"Metadata": checked_metadata(metadata, url)}
        if if_match is not None:
            arguments["IfMatch"] = if_match
        if if_none_match:
            arguments["IfNoneMatch"] = "*"
        with self._translated("put", url, if_match=if_match is not None) as request:
            client = self._connected(request)
            if isinstance(body, (bytes, bytearray, memoryview)):
                body = bytes(body)
            else:
                body.seek(0)  # botocore sends from where the body stands
            if not self._is_aws(client):
                arguments["ContentMD5"] = _md5(body)
            answer = client.put_object(Bucket=self.bucket, Key=key, Body=body, **arguments)  # type: ignore[arg-type]
            etag = _unquoted(answer.get("ETag", ""))
            if not etag:
                from temaki.stores.s3.unsent import unavailable

                raise unavailable(
                    request, "the answer has no ETag, so that it was cut off or is not S3's. Check proxies on the way"
                )
            return etag

    def delete(self, key: str) -> None:
        """See :meth:`temaki.store.Store.delete`."""
        with self._translated("delete", self._url(key)) as request:
            client = self._connected(request)
            try:
                client.delete_object(Bucket=self.bucket, Key=key)
            except client.exceptions.ClientError as error:
                if error.response.get("Error", {}).get("Code") != "NoSuchKey":  # Some servers say so, S3 does not.
                    raise

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See :meth:`temaki.store.Store.list`."""
        with self._translated("list", self.url) as request:
            client = self._connected(request)
        if self._is_aws(client):
            yield from self._pages(client, prefix)
        else:  # Some servers list folder by folder ("a/b" before "a-b").
            yield from sorted(self._pages(client, prefix), key=lambda info: info.key.encode())

    def _pages(self, client: S3Client, prefix: str) -> Iterator[ObjectInfo]:
        pages = iter(client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix))
        while True:
            with self._translated("list", self.url) as request:
                self._connected(request)
                page = next(pages, None)
            if page is None:
                return
            for found in page.get("Contents", ()):
                key, etag, size = found["Key"], _unquoted(found["ETag"]), found["Size"]
                yield ObjectInfo(key, etag, size, {}, found.get("LastModified"), _date(page))

    def versioning(self) -> bool:
        """See :meth:`temaki.store.VersionedStore.versioning`."""
        with self._translated("list", self.url) as request:
            return self._connected(request).get_bucket_versioning(Bucket=self.bucket).get("Status") == "Enabled"

    def versions(self, key: str) -> Iterator[ObjectVersion]:
        """See :meth:`temaki.store.VersionedStore.versions`."""
        url = self._url(key)
        with self._translated("list", url) as request:
            client = self._connected(request)
        # One page can begin with versions and end with delete markers; both are newest first.
        pages = iter(client.get_paginator("list_object_versions").paginate(Bucket=self.bucket, Prefix=key))
        found: list[ObjectVersion] = []
        while True:
            with self._translated("list", url) as request:
                self._connected(request)
                page = next(pages, None)
            if page is None:
                break
            kept: list[Any] = [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]
            found += [_version(one) for one in kept if one["Key"] == key]
            if kept and all(one["Key"] > key for one in kept):
                break  # keys that begin with ours and go on; ours is complete
        # S3 gives them newest first; what it does not say is how a marker and a version of one second are ordered.
        yield from sorted(found, key=lambda one: (one.is_current, one.last_modified), reverse=True)

    def head_version(self, key: str, version_id: str) -> ObjectInfo:
        """See :meth:`temaki.store.VersionedStore.head_version`."""
        url = self._url(key)
        with self._translated("get", url) as request:
            client = self._connected(request)
            # As a GET of one byte: the answer to a HEAD would not tell what is missing.
            answer = client.get_object(Bucket=self.bucket, Key=key, VersionId=version_id, Range="bytes=0-0")
            answer["Body"].close()
            return _info(key, answer, request)

    def get_version(
        self,
        key: str,
        version_id: str,
        *,
        if_match: str | None = None,
        byte_range: tuple[int, int] | None = None,
    ) -> Download:
        """See :meth:`temaki.store.VersionedStore.get_version`."""
        arguments = {"VersionId": version_id}
        download = self._get(key, arguments, if_none_match=None, if_match=if_match, byte_range=byte_range)
        assert download is not None, "an unconditional GET has a body"
        return download

    def _url(self, key: str) -> str:
        return f"{self.url}/{checked_key(key, self.url)}"

    def _head_by_get(self, key: str, url: str) -> ObjectInfo:
        with self._translated("head", url) as request:
            client = self._connected(request)
            answer = client.get_object(Bucket=self.bucket, Key=key, Range="bytes=0-0")
            answer["Body"].close()
            return _info(key, answer, request)

    def _connected(self, request: Request) -> S3Client:
        """The client; the request gets to know where it goes."""
        look()
        client = self._given_client() if self._given is not None else self._own_client(request)
        from urllib.parse import urlsplit

        parts = urlsplit(client.meta.endpoint_url)
        request.client = client
        request.endpoint = parts.netloc.rpartition("@")[2]
        request.is_given = self._given is not None
        request.sdk_retries = _attempts(client) != 1
        return client

    def _given_client(self) -> S3Client:
        from temaki.stores.s3.client import watch

        assert self._given is not None
        with self._lock():
            if self._close_first:
                self._given.close()
                self._close_first = False
            if not self._is_watched:
                with suppress(AttributeError):  # a wrapper of one's own
                    watch(self._given)
                self._is_watched = True
        return self._given

    def _own_client(self, request: Request) -> S3Client:
        from temaki.stores.s3.client import place_of, shared_client

        shared = self._shared
        if shared is None or shared.is_given_up:
            shared = shared_client()
        client = shared.get()
        if shared is not self._shared:
            place = place_of(client)
            if self._place not in {None, place}:
                # The configuration says something else by now. A database does not move to another server for that.
                shared = shared_client(self._place)
                client = shared.get()
            else:
                self._place = place
            self._shared = shared
        request.shared = shared
        return client

    @staticmethod
    def _is_aws(client: S3Client) -> bool:
        from temaki.stores.s3.client import is_aws

        return is_aws(client)

    @contextmanager
    def _translated(self, verb: Verb, url: str, *, if_match: bool = False) -> Iterator[Request]:
        """Translate whatever boto3 raises. The imports are here because importing temaki must not import boto3."""
        try:
            from temaki.stores.s3.errors import translated
            from temaki.stores.s3.request import Request
        except ImportError as error:
            message = f"{url} needs boto3: {error}. Install it with: pip install boto3"
            raise ConfigurationError(message, url=url) from error
        request = Request(verb, self.url, url, if_match=if_match, earlier=sys.exception())
        try:
            with request.watched():
                yield request
        except Exception as error:
            found = translated(error, request)
            if found is None:
                raise
            if isinstance(found, AccessDeniedError) and request.shared is not None:
                # boto3 would keep these credentials, or that there are none, for the client's life.
                request.shared.is_given_up = True
            raise found from error


class _S3Download:
    """A body on its way. Its checksum is verified when the last byte is read, before it is handed out."""

    def __init__(self, body: Any, info: ObjectInfo, length: int, request: Request) -> None:
        self.info = info
        self.length = length
        self._body = body
        self._left = length
        self._request = request

    def read(self, size: int, /) -> bytes:
        from temaki.stores.s3.errors import translated
        from temaki.stores.s3.unsent import unavailable

        if size <= 0 or not self._left:
            return b""
        try:
            data: bytes = self._body.read(min(size, self._left))
            self._left -= len(data)
            # botocore compares the checksum when it is asked for more than there is.
            surplus = b"" if self._left else self._body.read(1)
        except Exception as error:
            found = translated(error, self._request)
            if found is None:
                raise
            raise found from error
        if not data or surplus:
            raise unavailable(self._request, "the body has another length than was announced", code="WrongLength")
        return data

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._body.close()


def _version(found: Any) -> ObjectVersion:
    is_deletion = "ETag" not in found
    return ObjectVersion(
        version_id=found["VersionId"],
        etag=_unquoted(found.get("ETag", "")),
        size=found.get("Size", 0),
        last_modified=found.get("LastModified"),
        is_current=bool(found.get("IsLatest")),
        is_deletion=is_deletion,
    )


def _md5(body: bytes | ReadableBody) -> str:
    """The value of ``Content-MD5`` (RFC 1864). A file is read, and left at its start.

    Without it a store may take a body for complete of which nothing has come: SeaweedFS 4.48 puts an object of 0 bytes
    in the database's place if the client dies between the head of its request and the body. Amazon's does not.
    """
    from base64 import b64encode
    from hashlib import md5

    found = md5(usedforsecurity=False)
    if isinstance(body, (bytes, bytearray, memoryview)):
        found.update(body)
    else:
        while piece := body.read(_PIECE):
            found.update(piece)
        body.seek(0)
    return b64encode(found.digest()).decode()


def _attempts(client: S3Client) -> int | None:
    config: Any = client.meta.config
    retries: Any = config.retries or {}
    attempts: int | None = retries.get("total_max_attempts")
    return attempts


def _status(response: Any) -> int:
    return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _unquoted(etag: str) -> str:
    return etag[1:-1] if len(etag) > 1 and etag[0] == etag[-1] == '"' else etag


def _date(answer: Any) -> datetime | None:
    from email.utils import parsedate_to_datetime  # botocore has it imported by now

    with suppress(KeyError, ValueError, TypeError):
        return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
    return None


def _info(key: str, answer: Any, request: Request) -> ObjectInfo:
    """What the headers of an answer say; a proxy's page does not look like this, nor half a head.

    A connection that ends in good order in the middle of the head looks to http.client like the end of the head.

    Raises:
        StoreUnavailableError: ETag or length are missing.
    """
    etag = _unquoted(answer.get("ETag", ""))
    if not etag or "ContentLength" not in answer:
        from temaki.stores.s3.unsent import unavailable

        what = "the answer has no ETag or no length, so that it was cut off or is not S3's. Check proxies on the way"
        raise unavailable(request, what, status=_status(answer))
    size = answer["ContentLength"]
    content_range = answer.get("ContentRange", "")
    if content_range:
        with suppress(ValueError):
            size = int(content_range.rpartition("/")[2])
    metadata = {name.lower(): value for name, value in answer.get("Metadata", {}).items()}
    return ObjectInfo(key, etag, size, metadata, answer.get("LastModified"), _date(answer))


def _check_range(byte_range: tuple[int, int] | None, answer: Any, url: str) -> None:
    if byte_range is None:
        return
    content_range = answer.get("ContentRange", "")
    if not content_range and answer["ContentLength"] == 0:  # Some servers answer 200 where S3 answers 416.
        raise range_beyond_end(byte_range, url)
    if not content_range.startswith(f"bytes {byte_range[0]}-"):
        message = f"{url}: asked for {byte_range}, the server sent {content_range or 'everything'}."
        raise StoreError(message, url=url, status=_status(answer), code="WrongRange")
