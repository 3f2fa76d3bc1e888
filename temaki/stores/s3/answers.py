"""What S3 answers, as the rest of temaki knows it: facts about an object, and its body.

ETags are kept without quotes.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from temaki.errors import StoreError
from temaki.store import ObjectInfo, ObjectVersion
from temaki.stores.rules import range_beyond_end

if TYPE_CHECKING:
    from datetime import datetime

    from temaki.store import ReadableBody
    from temaki.stores.s3.request import Request


_PIECE = 1 << 20  # bytes


class S3Download:
    """A body on its way. Its checksum is verified when the last byte is read, before it is handed out."""

    def __init__(self, body: Any, info: ObjectInfo, length: int, request: Request) -> None:
        self.info = info
        self.length = length
        self._body = body
        self._left = length
        self._request = request

    def read(self, size: int, /) -> bytes:
        """See :meth:`temaki.store.Download.read`."""
        from temaki.stores.s3.errors import translated
        from temaki.stores.s3.request import unavailable

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


def status_of(response: Any) -> int:
    """The HTTP status; 0 where there is none."""
    return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def unquoted(etag: str) -> str:
    """An ETag without its quotes."""
    return etag[1:-1] if len(etag) > 1 and etag[0] == etag[-1] == '"' else etag


def date_of(answer: Any) -> datetime | None:
    """When the store answered, by its own clock."""
    from email.utils import parsedate_to_datetime  # botocore has it imported by now

    with suppress(KeyError, ValueError, TypeError):
        return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
    return None


def info_of(key: str, answer: Any, request: Request) -> ObjectInfo:
    """What the headers of an answer say; a proxy's page does not look like this, nor half a head.

    A connection that ends in good order in the middle of the head looks to http.client like the end of the head.

    Raises:
        StoreUnavailableError: ETag or length are missing.
    """
    etag = unquoted(answer.get("ETag", ""))
    if not etag or "ContentLength" not in answer:
        from temaki.stores.s3.request import unavailable

        what = "the answer has no ETag or no length, so that it was cut off or is not S3's. Check proxies on the way"
        raise unavailable(request, what, status=status_of(answer))
    size = answer["ContentLength"]
    content_range = answer.get("ContentRange", "")
    if content_range:
        with suppress(ValueError):
            size = int(content_range.rpartition("/")[2])
    metadata = {name.lower(): value for name, value in answer.get("Metadata", {}).items()}
    return ObjectInfo(key, etag, size, metadata, answer.get("LastModified"), date_of(answer))


def check_content_range(byte_range: tuple[int, int] | None, answer: Any, url: str) -> None:
    """Refuse an answer with another range than was asked for.

    Raises:
        StoreError: It is one, or the object has no such bytes.
    """
    if byte_range is None:
        return
    content_range = answer.get("ContentRange", "")
    if not content_range and answer["ContentLength"] == 0:  # Some servers answer 200 where S3 answers 416.
        raise range_beyond_end(byte_range, url)
    if not content_range.startswith(f"bytes {byte_range[0]}-"):
        message = f"{url}: asked for {byte_range}, the server sent {content_range or 'everything'}."
        raise StoreError(message, url=url, status=status_of(answer), code="WrongRange")


def version_of(found: Any) -> ObjectVersion:
    """An entry of a listing of versions, or a delete marker."""
    is_deletion = "ETag" not in found
    return ObjectVersion(
        version_id=found["VersionId"],
        etag=unquoted(found.get("ETag", "")),
        size=found.get("Size", 0),
        last_modified=found.get("LastModified"),
        is_current=bool(found.get("IsLatest")),
        is_deletion=is_deletion,
    )


def etag_of(answer: Any, request: Request) -> str:
    """The ETag of what was written.

    Raises:
        StoreUnavailableError: The answer has none.
    """
    etag = unquoted(answer.get("ETag", ""))
    if not etag:
        from temaki.stores.s3.request import unavailable

        raise unavailable(
            request, "the answer has no ETag, so that it was cut off or is not S3's. Check proxies on the way"
        )
    return etag


def content_md5(body: bytes | ReadableBody) -> str:
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
