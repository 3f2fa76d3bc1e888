"""The versions of an object that a bucket has kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from temaki.store import Download, ObjectInfo, ObjectVersion
from temaki.stores.s3.answers import info_of, version_of
from temaki.stores.s3.bucket import Bucket


class VersionedBucket(Bucket):
    """A :class:`temaki.store.VersionedStore`."""

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
            found += [version_of(one) for one in kept if one["Key"] == key]
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
            return info_of(key, answer, request)

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
