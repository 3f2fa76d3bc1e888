"""A bucket of Amazon S3, or of a server that speaks its protocol.

ETags go into conditions without quotes: all servers that were tried accept that, and some (Ceph RGW 16, Hetzner) accept
nothing else.

A HEAD that answers 404 has no body, so that nothing tells a missing object from a missing bucket or from a proxy's
page. It is asked again as a GET of one byte, whose answer does: that takes the same permission (s3:GetObject), where
asking for the bucket would take another. The same goes for 400, 401 and 403, which do not say what is wrong with the
credentials.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from temaki.store import Download, ObjectInfo, ReadableBody
from temaki.stores.rules import body_size, check_conditions, checked_metadata
from temaki.stores.s3 import parts
from temaki.stores.s3.answers import content_md5, date_of, etag_of, info_of, status_of, unquoted
from temaki.stores.s3.copies import CopyingBucket

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_UNEXPLAINED = {400, 401, 403, 404}
"""HTTP statuses of a HEAD that say too little: why is in the body that the answer to a GET has."""


class S3Store(CopyingBucket):
    """One bucket.

    Args:
        bucket: Its name.
        client: A boto3 S3 client, used as it is. Its own retries do no harm to the data, but hide from temaki what
            happened: ``Config(retries={"total_max_attempts": 1})`` is the better choice. Without one, temaki makes a
            client from boto3's usual configuration when the first request is made; that one sends small bodies at once,
            without waiting for ``100 Continue``. All stores of a process with the same configuration share it. After
            an error of credentials the next request asks boto3 for credentials again; a given client keeps its own.
    """

    def __repr__(self) -> str:
        return f"S3Store({self.bucket!r})"

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

    def head(self, key: str) -> ObjectInfo:
        """See :meth:`temaki.store.Store.head`."""
        url = self._url(key)
        with self._translated("head", url) as request:
            client = self._connected(request)
            try:
                return info_of(key, client.head_object(Bucket=self.bucket, Key=key), request)
            except client.exceptions.ClientError as error:
                # A service that gives credentials may have answered, and not S3.
                if status_of(error.response) not in _UNEXPLAINED or error.operation_name != "HeadObject":
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
        if if_match is None and not if_none_match and not isinstance(body, (bytes, bytearray, memoryview)):
            size = body_size(body)
            if size > parts.LARGE:
                return parts.Upload(self, key, body, size, arguments["Metadata"]).run()
        with self._translated("put", url, if_match=if_match is not None) as request:
            client = self._connected(request)
            if isinstance(body, (bytes, bytearray, memoryview)):
                body = bytes(body)
            else:
                body.seek(0)  # botocore sends from where the body stands
            if not self._is_aws(client):
                arguments["ContentMD5"] = content_md5(body)
            answer = client.put_object(Bucket=self.bucket, Key=key, Body=body, **arguments)  # type: ignore[arg-type]
            return etag_of(answer, request)

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
                key, etag, size = found["Key"], unquoted(found["ETag"]), found["Size"]
                yield ObjectInfo(key, etag, size, {}, found.get("LastModified"), date_of(page))

    def _head_by_get(self, key: str, url: str) -> ObjectInfo:
        with self._translated("head", url) as request:
            client = self._connected(request)
            answer = client.get_object(Bucket=self.bucket, Key=key, Range="bytes=0-0")
            answer["Body"].close()
            return info_of(key, answer, request)
