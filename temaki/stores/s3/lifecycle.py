"""The lifecycle rules of a bucket, as far as they remove or archive objects.

Source: Amazon S3 API Reference, "GetBucketLifecycleConfiguration" and "LifecycleRule".
"""

from __future__ import annotations

from typing import Any, Final

from temaki.store import LifecycleRule
from temaki.stores.s3.versions import VersionedBucket

_ARCHIVES: Final = {"GLACIER", "DEEP_ARCHIVE"}
"""Storage classes from which S3 reads nothing. From GLACIER_IR, it does."""
_NONE: Final = "NoSuchLifecycleConfiguration"


class LifecycleBucket(VersionedBucket):
    """A :class:`temaki.store.LifecycleStore`."""

    def lifecycle(self) -> list[LifecycleRule]:
        """See :meth:`temaki.store.LifecycleStore.lifecycle`."""
        with self._translated("list", self.url) as request:
            client = self._connected(request)
            try:
                found: Any = client.get_bucket_lifecycle_configuration(Bucket=self.bucket)
            except client.exceptions.ClientError as error:
                if error.response.get("Error", {}).get("Code") == _NONE:
                    return []
                raise
        rules = [_rule(one) for one in found.get("Rules", ()) if one.get("Status") == "Enabled"]
        return [one for one in rules if one is not None]


def _rule(rule: dict[str, Any]) -> LifecycleRule | None:
    """The rule as temaki's type; None if it is for objects with tags, which temaki's have not."""
    only = rule.get("Filter") or {}
    both = only.get("And") or {}
    if only.get("Tag") or both.get("Tags"):
        return None
    expiration = rule.get("Expiration") or {}
    moves = [*rule.get("Transitions", ())]
    if "Transition" in rule:  # as older configurations have it
        moves.append(rule["Transition"])
    old = rule.get("NoncurrentVersionExpiration") or {}
    return LifecycleRule(
        name=str(rule.get("ID") or ""),
        prefix=str(only.get("Prefix") or both.get("Prefix") or rule.get("Prefix") or ""),
        expires="Days" in expiration or "Date" in expiration,
        archives=any(move.get("StorageClass") in _ARCHIVES for move in moves),
        old_versions_days=old.get("NoncurrentDays"),
    )
