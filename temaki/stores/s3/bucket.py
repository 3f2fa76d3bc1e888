"""One bucket, the client that goes there, and the translation of whatever that client raises."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from temaki.errors import AccessDeniedError, ConfigurationError, StoreError
from temaki.process.fork import ProcessLock, look, reset_in_child
from temaki.store import Download
from temaki.stores.rules import check_conditions, check_range, checked_key
from temaki.stores.s3.answers import S3Download, check_content_range, info_of, status_of

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from temaki.stores.s3.client import Place, SharedClient
    from temaki.stores.s3.request import Request, Verb

_NOT_MODIFIED = 304  # HTTP status


class Bucket:
    """A bucket as far as all requests to it have something in common.

    Args:
        bucket: Its name.
        client: A boto3 S3 client, or None for the process's own. See :class:`temaki.stores.s3.store.S3Store`.
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

    def reset_after_fork(self) -> None:
        """Share no connection with the parent: two processes on one TLS stream garble it."""
        self._shared = None
        self._close_first = self._given is not None

    def _url(self, key: str) -> str:
        return f"{self.url}/{checked_key(key, self.url)}"

    def _get(
        self,
        key: str,
        arguments: dict[str, Any],
        *,
        if_none_match: str | None,
        if_match: str | None,
        byte_range: tuple[int, int] | None,
    ) -> Download | None:
        """GET an object, or a version of it that ``arguments`` names."""
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
                if if_none_match is not None and status_of(error.response) == _NOT_MODIFIED:
                    return None
                raise
            body = answer["Body"]
            try:
                info = info_of(key, answer, request)
                if info.etag == if_none_match:  # A server that ignores the condition, or wants it in quotes.
                    body.close()
                    return None
                check_content_range(byte_range, answer, url)
            except StoreError:
                body.close()
                raise
            return S3Download(body, info, answer["ContentLength"], request)

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
    def _translated(self, verb: Verb, url: str, *, if_match: bool = False, source: str = "") -> Iterator[Request]:
        """Translate whatever boto3 raises. The imports are here because importing temaki must not import boto3."""
        try:
            from temaki.stores.s3.errors import translated
            from temaki.stores.s3.request import Request
        except ImportError as error:
            message = f"{url} needs boto3: {error}. Install it with: pip install boto3"
            raise ConfigurationError(message, url=url) from error
        request = Request(verb, self.url, url, source=source, if_match=if_match, earlier=sys.exception())
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


def _attempts(client: S3Client) -> int | None:
    config: Any = client.meta.config
    retries: Any = config.retries or {}
    attempts: int | None = retries.get("total_max_attempts")
    return attempts
