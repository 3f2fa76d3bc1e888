"""Copies within S3: the bytes do not pass through this machine.

One request copies up to 5 GB. A large object is copied in parts, several at once, since one request copies no faster
than one disk reads. A copy that must not replace anything is always made by one request: a condition on the end of a
copy in parts is not atomic in some servers.

Encryption and storage class of a copy are those that the bucket gives to a new object, as with every upload. Tags are
not copied: reading them takes a permission of its own.

Source: Amazon S3 API Reference, "CopyObject", "UploadPartCopy" and "CompleteMultipartUpload".
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from temaki.errors import PreconditionFailedError, StoreError, StoreUnavailableError
from temaki.store import ObjectInfo, Store
from temaki.stores.rules import checked_metadata, no_copy
from temaki.stores.s3.answers import etag_of
from temaki.stores.s3.lifecycle import LifecycleBucket

if TYPE_CHECKING:
    from temaki.stores.s3.request import Request

PART: Final = 64 << 20
"""Bytes of a part. An object that is not larger is copied by one request."""
_MOST_PARTS: Final = 10_000
_AT_ONCE: Final = 8
_PART_ATTEMPTS: Final = 3
"""How often one part is tried. A part that is lost would cost all the others."""


class CopyingBucket(LifecycleBucket):
    """A :class:`temaki.store.CopyingStore`."""

    def can_copy(self, source: Store) -> bool:
        """See :meth:`temaki.store.CopyingStore.can_copy`: from any bucket that the same client reaches."""
        return (
            isinstance(source, CopyingBucket)
            and source._given is self._given  # noqa: SLF001 - of the same class
            and (None in {self._place, source._place} or source._place == self._place)  # noqa: SLF001
        )

    def copy(
        self,
        source: Store,
        info: ObjectInfo,
        key: str,
        *,
        metadata: Mapping[str, str] | None = None,
        if_none_match: bool = False,
    ) -> str:
        """See :meth:`temaki.store.CopyingStore.copy`."""
        if not isinstance(source, CopyingBucket) or not self.can_copy(source):
            raise no_copy(self.url, source)
        copy = _Copy(self, source, info, key, checked_metadata(metadata, self._url(key)))
        try:
            return copy.at_once(if_none_match=if_none_match) if if_none_match or info.size <= PART else copy.in_parts()
        except PreconditionFailedError as refusal:
            if not refusal.in_flight:
                copy.require_unchanged(refusal)
            raise


class _Copy:
    """One object that is copied."""

    def __init__(
        self, bucket: CopyingBucket, source: CopyingBucket, info: ObjectInfo, key: str, metadata: dict[str, str]
    ) -> None:
        self._bucket, self._source, self._info, self._metadata = bucket, source, info, metadata
        self._url, self._source_url = bucket._url(key), source._url(info.key)  # noqa: SLF001 - the other half of it
        self._place = {"Bucket": bucket.bucket, "Key": key}
        self._from: dict[str, Any] = {
            "CopySource": {"Bucket": source.bucket, "Key": info.key},
            "CopySourceIfMatch": info.etag,
        }

    def at_once(self, *, if_none_match: bool) -> str:
        """By one request."""
        condition = {"IfNoneMatch": "*"} if if_none_match else {}
        with self._translated() as request:
            client = self._connected(request)
            if if_none_match and not _knows_condition(client):
                raise StoreError(
                    f"{self._url}: the installed boto3 does not know IfNoneMatch of CopyObject. Upgrade boto3.",
                    url=self._url,
                    status=501,
                    code="NotImplemented",
                )
            answer = client.copy_object(
                **self._place,
                **self._from,
                **condition,
                MetadataDirective="REPLACE",
                TaggingDirective="REPLACE",
                Metadata=self._metadata,
            )
            return etag_of(answer.get("CopyObjectResult", {}), request)

    def in_parts(self) -> str:
        """Part by part, several at once. What was copied of a copy that fails is dropped."""
        with self._translated() as request:
            begun = self._connected(request).create_multipart_upload(**self._place, Metadata=self._metadata)
        upload = {**self._place, "UploadId": begun["UploadId"]}
        try:
            parts = self._parts(upload)
            with self._translated() as request:
                answer = self._connected(request).complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
                return etag_of(answer, request)
        except BaseException:
            with suppress(StoreError), self._translated() as request:
                self._connected(request).abort_multipart_upload(**upload)
            raise

    def require_unchanged(self, refusal: PreconditionFailedError) -> None:
        """After a refusal: was it because of the object that should be copied? The answer does not say.

        Raises:
            PreconditionFailedError: It is another one by now.
            NotFoundError: It does not exist any more.
        """
        found = self._source.head(self._info.key)  # type: ignore[attr-defined]
        if found.etag != self._info.etag:
            message = f"{self._source_url} has changed: its ETag is {found.etag}, no longer {self._info.etag}."
            facts = {**refusal.facts, "url": self._source_url}
            raise PreconditionFailedError(message, **facts) from refusal

    def _parts(self, upload: dict[str, Any]) -> list[Any]:
        from concurrent.futures import ThreadPoolExecutor

        size = self._info.size
        part = max(PART, -(-size // _MOST_PARTS))
        starts = range(0, size, part)
        with ThreadPoolExecutor(min(_AT_ONCE, len(starts))) as pool:
            waiting = [
                pool.submit(self._part, upload, number, start, min(start + part, size))
                for number, start in enumerate(starts, 1)
            ]
            try:
                return [one.result() for one in waiting]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _part(self, upload: dict[str, Any], number: int, start: int, stop: int) -> dict[str, Any]:
        for attempt in range(1, _PART_ATTEMPTS + 1):
            try:
                with self._translated() as request:
                    answer: Any = self._connected(request).upload_part_copy(
                        **upload, **self._from, PartNumber=number, CopySourceRange=f"bytes={start}-{stop - 1}"
                    )
                    found = answer.get("CopyPartResult", {})
                    etag_of(found, request)
                    # The end of the copy has to repeat the checksums that S3 has computed.
                    sums = {name: value for name, value in found.items() if name.startswith("Checksum")}
                    return {"PartNumber": number, "ETag": found["ETag"], **sums}
            except StoreUnavailableError:
                if attempt == _PART_ATTEMPTS:
                    raise
        raise AssertionError("the last attempt returns or raises")

    def _translated(self) -> Any:
        return self._bucket._translated("copy", self._url, source=self._source_url)  # noqa: SLF001

    def _connected(self, request: Request) -> Any:
        return self._bucket._connected(request)  # noqa: SLF001


def _knows_condition(client: Any) -> bool:
    """Whether this boto3 can send the condition. S3 got it years after that of PutObject."""
    return "IfNoneMatch" in client.meta.service_model.operation_model("CopyObject").input_shape.members
