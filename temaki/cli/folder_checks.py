"""Checks of ``doctor`` that a database in pages needs: its folder, its base, and the bucket's lifecycle rules."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from temaki.cli.findings import Findings
from temaki.cli.target import Target
from temaki.errors import AccessDeniedError, ConfigurationError, NotFoundError, StoreError
from temaki.formats.pages.names import folder
from temaki.store import LifecycleRule, LifecycleStore

_BODY: Final = b"temaki doctor"


class FolderChecks:
    """Checks beside the database's key. Each check adds its finding, or raises.

    Args:
        target: The database.
        findings: The findings of all checks.
    """

    def __init__(self, target: Target, findings: Findings) -> None:
        self._target, self._findings, self._store = target, findings, target.store
        self._folder = folder(target.key)
        self._key = f"{self._folder}temaki-doctor-{os.urandom(8).hex()}"
        self._denied: list[str] = []

    # -- the folder -----------------------------------------------------------------------------------------------

    def check_permissions(self) -> None:
        """Check that objects in the folder may be written, read, listed and deleted."""
        try:
            self._try("s3:PutObject", lambda: self._store.put(self._key, _BODY))
            if not self._denied:
                self._try("s3:GetObject", self._read)
            self._try("s3:ListBucket", lambda: next(iter(self._store.list(self._folder)), None))
            self._try("s3:DeleteObject", self._delete)
        finally:
            with suppress(StoreError, ConfigurationError):
                self._store.delete(self._key)
        if not self._denied:
            self._findings.add("pages", "ok", f"objects in {self._folder} may be written, read, listed and deleted")
            return
        missing = " and ".join(self._denied)
        works = {"s3:PutObject", "s3:GetObject"}.isdisjoint(self._denied)
        self._findings.add(
            "pages",
            "warning" if works else "failed",
            f"the permission {missing} is missing for {self._folder}"
            + (", so that nothing there is ever removed" if works else ""),
            f"Grant s3:GetObject, s3:PutObject and s3:DeleteObject for {self._folder}* too, and s3:ListBucket for the "
            "bucket: the format pages keeps its objects there.",
        )

    def _try(self, permission: str, request: Callable[[], object]) -> None:
        try:
            request()
        except AccessDeniedError as error:
            if not error.lacks_permission:
                raise
            self._denied.append(permission)

    def _read(self) -> None:
        download = self._store.get(self._key)
        assert download is not None, "an unconditional GET has a body"
        download.__exit__(None, None, None)

    def _delete(self) -> None:
        self._store.delete(self._key)
        with suppress(NotFoundError):
            self._store.head(self._key)
            self._findings.add(
                "pages",
                "warning",
                f"{self._key} is still there after its deletion",
                "Delete it, and find out what prevents deletions: nothing in this folder is ever removed.",
            )

    # -- the objects of the stored version ------------------------------------------------------------------------

    def check_objects(self) -> None:
        """Check that base and segments of the stored version can be read, by a GET of one byte of each."""
        count = self._target.check_objects()
        self._findings.add("objects", "ok", f"{count} objects in {self._folder} are there and can be read")

    # -- what the bucket does by itself ---------------------------------------------------------------------------

    def check_lifecycle(self, *, in_pages: bool) -> None:
        """Check that no lifecycle rule removes or archives what is still needed.

        Args:
            in_pages: Whether the database is in pages.
        """
        if not isinstance(self._store, LifecycleStore):
            self._findings.add("lifecycle", "skipped", "this kind of store has no lifecycle rules")
            return
        try:
            rules = self._store.lifecycle()
        except AccessDeniedError as error:
            if not error.lacks_permission:
                raise
            self._findings.add(
                "lifecycle",
                "skipped",
                "this user may not ask for the rules",
                "Grant s3:GetLifecycleConfiguration to find out with doctor.",
            )
            return
        except StoreError as error:
            self._findings.add("lifecycle", "skipped", str(error))
            return
        harmful = [
            rule for rule in rules if (rule.expires or rule.archives) and self._is_about(rule, in_pages=in_pages)
        ]
        for rule in harmful:
            self._findings.add(
                "lifecycle",
                "failed",
                f"{_described(rule)} {'removes' if rule.expires else 'archives'} current objects"
                + (": a base may be months old, and is still needed" if in_pages else " that are still needed"),
                f"Exempt {self._target.key} and {self._target.key}.* from the rule. A rule for versions that are not "
                "current any more (NoncurrentVersionExpiration) does no harm.",
            )
        if not harmful:
            self._check_old_versions(rules, in_pages=in_pages)

    def _is_about(self, rule: LifecycleRule, *, in_pages: bool) -> bool:
        key, prefix = self._target.key, rule.prefix
        if key.startswith(prefix):
            return True
        return f"{key}.lease".startswith(prefix) or (in_pages and self._overlaps(rule))

    def _overlaps(self, rule: LifecycleRule) -> bool:
        """Whether a rule is about the folder, or about a part of it."""
        return self._folder.startswith(rule.prefix) or rule.prefix.startswith(self._folder)

    def _check_old_versions(self, rules: list[LifecycleRule], *, in_pages: bool) -> None:
        """Whether an older version's objects are kept for as long as the version itself."""
        key = _shortest([rule for rule in rules if self._target.key.startswith(rule.prefix)])
        objects = _shortest([rule for rule in rules if self._overlaps(rule)])
        if in_pages and objects is not None and (key is None or objects < key):
            kept = "for ever" if key is None else f"for {key} days"
            self._findings.add(
                "lifecycle",
                "warning",
                f"old versions of {self._target.key} are kept {kept}, those of {self._folder} for {objects} days",
                "Use the same number of days for both: a version whose objects are gone cannot be restored.",
            )
            return
        self._findings.add("lifecycle", "ok", "no rule removes or archives what is needed")


def _shortest(rules: list[LifecycleRule]) -> int | None:
    """After how many days one of these rules removes old versions; None for never."""
    return min((rule.old_versions_days for rule in rules if rule.old_versions_days is not None), default=None)


def _described(rule: LifecycleRule) -> str:
    which = f"for {rule.prefix}*" if rule.prefix else "for the whole bucket"
    return f"the lifecycle rule {rule.name!r} {which}" if rule.name else f"a lifecycle rule {which}"
