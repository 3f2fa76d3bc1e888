"""Uploads in parts, for large objects that have a name of their own.

Several parts are sent at once, and each is read once, whatever sums are sent with it: an object of any size takes the
memory of a few parts. An object that is sent on a condition is always sent by one request: a condition on the end of an
upload in parts is not atomic in some servers.

An upload that fails is aborted. If this process dies, or S3 cannot be reached any more, the parts stay, and are no
object: a lifecycle rule (``AbortIncompleteMultipartUpload``) removes them.

Source: Amazon S3 API Reference, "CreateMultipartUpload", "UploadPart" and "CompleteMultipartUpload".
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from temaki.errors import StoreError, StoreUnavailableError
from temaki.stores.s3.answers import etag_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from concurrent.futures import Executor

    from temaki.store import ReadableBody
    from temaki.stores.s3.bucket import Bucket
    from temaki.stores.s3.request import Request

LARGE: Final = 64 << 20
"""Bytes of a body. A body that is not larger is sent by one request."""
PART: Final = 8 << 20
"""Bytes of a part."""
_MOST_PARTS: Final = 10_000
_AT_ONCE: Final = 3
_PART_ATTEMPTS: Final = 3
"""How often one part is tried. A part that is lost would cost all the others."""


class Upload:
    """One object that is sent in parts. Call :meth:`run` once.

    Args:
        bucket: Where it goes.
        key: Its key.
        body: Its bytes.
        size: How many there are.
        metadata: Its metadata.
    """

    def __init__(self, bucket: Bucket, key: str, body: ReadableBody, size: int, metadata: Mapping[str, str]) -> None:
        self._bucket, self._body, self._size, self._metadata = bucket, body, size, dict(metadata)
        self._url = bucket._url(key)  # noqa: SLF001 - the other half of it
        self._place = {"Bucket": bucket.bucket, "Key": key}
        self._part_size = max(PART, -(-size // _MOST_PARTS))

    def run(self) -> str:
        """Send it; its ETag.

        Raises:
            OSError: The body cannot be read.
            StoreError: A request failed. The parts that were sent are removed, if S3 can be reached.
        """
        # S3 compares a sum for the whole object that is made of the parts' sums. Others get the sum of each part alone.
        algorithm: dict[str, Any] = {}
        with self._translated() as request:
            client = self._connected(request)
            if self._bucket._is_aws(client):  # noqa: SLF001
                algorithm = {"ChecksumAlgorithm": "CRC32"}
            begun = client.create_multipart_upload(**self._place, Metadata=self._metadata, **algorithm)
        upload = {**self._place, "UploadId": begun["UploadId"]}
        try:
            parts = self._parts({**upload, **algorithm})
            with self._translated() as request:
                answer = self._connected(request).complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
                return etag_of(answer, request)
        except BaseException:
            with suppress(StoreError), self._translated() as request:
                self._connected(request).abort_multipart_upload(**upload)
            raise

    def _parts(self, upload: dict[str, Any]) -> list[Any]:
        """Read one part after the other, and send each beside its predecessors."""
        from concurrent.futures import ThreadPoolExecutor

        self._body.seek(0)
        left, number = self._size, 0
        sent: list[Any] = []
        under_way: deque[Any] = deque()
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="temaki-upload") as pool:
            try:
                while left:
                    data = self._read(min(self._part_size, left))
                    left, number = left - len(data), number + 1
                    under_way.append(self._begin(pool, upload, number, data))
                    del data
                    if len(under_way) == _AT_ONCE:
                        sent.append(under_way.popleft()())
                sent += [one() for one in under_way]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return sent

    def _begin(self, pool: Executor, upload: dict[str, Any], number: int, data: bytes) -> Any:
        """Begin to send a part; what is returned waits for its end."""
        try:
            return pool.submit(self._part, upload, number, data).result
        except RuntimeError:  # the system gives no more threads, or the interpreter shuts down
            part = self._part(upload, number, data)
            return lambda: part

    def _read(self, count: int) -> bytes:
        pieces: list[bytes] = []
        while count:
            piece = self._body.read(count)
            if not piece:
                message = f"{self._url}: the body to upload ended {count} bytes early. Nothing was stored."
                raise StoreError(message, url=self._url, status=None, code="WrongLength")
            pieces.append(piece)
            count -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _part(self, upload: dict[str, Any], number: int, data: bytes) -> dict[str, Any]:
        sums: dict[str, Any] = {}
        if "ChecksumAlgorithm" not in upload:
            from temaki.stores.s3.answers import content_md5

            sums["ContentMD5"] = content_md5(data)
        for attempt in range(1, _PART_ATTEMPTS + 1):
            try:
                with self._translated() as request:
                    answer = self._connected(request).upload_part(**upload, **sums, PartNumber=number, Body=data)
                    etag_of(answer, request)
                    # The end of the upload has to repeat the checksums.
                    found = {name: value for name, value in answer.items() if name in {"ETag", "ChecksumCRC32"}}
                    return {"PartNumber": number, **found}
            except StoreUnavailableError:
                if attempt == _PART_ATTEMPTS:
                    raise
        raise AssertionError("the last attempt returns or raises")

    def _translated(self) -> Any:
        return self._bucket._translated("put", self._url)  # noqa: SLF001

    def _connected(self, request: Request) -> Any:
        return self._bucket._connected(request)  # noqa: SLF001
