"""The findings of ``doctor``, and the advice for each kind of error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

from temaki.cli.results import Finding
from temaki.errors import (
    AccessDeniedError,
    BucketNotFoundError,
    ConfigurationError,
    CorruptDatabaseError,
    LeaseRecordError,
    ObjectArchivedError,
    StoreError,
    StoreUnavailableError,
    TemakiError,
    UnsafeStoreError,
)

State = Literal["ok", "warning", "failed", "skipped"]


class Findings:
    """The findings so far, in the order of the checks.

    Attributes:
        listed: The findings.
    """

    def __init__(self) -> None:
        self.listed: list[Finding] = []

    @property
    def works(self) -> bool:
        """Whether no check has failed."""
        return not _any_failed(self.listed)

    def check(self, name: str, look: Callable[[], None]) -> bool:
        """Run one check. An error of the check becomes a finding.

        Args:
            name: The name of the check.
            look: The check: it adds its findings, or raises.

        Returns:
            Whether the check did not fail, so that further checks can rely on it.
        """
        before = len(self.listed)
        try:
            look()
        except TemakiError as error:
            advice = _advice(error)
            self.add(name, "failed", str(error).removesuffix(advice).rstrip(), advice)
        return not _any_failed(self.listed[before:])

    def add(self, name: str, state: State, found: str, advice: str = "") -> None:
        """Add a finding.

        Args:
            name: The name of the check.
            state: The result of the check.
            found: What the check found.
            advice: What to do; empty if there is nothing to do.
        """
        self.listed.append(Finding(check=name, state=state, found=found, advice=advice))


def _any_failed(findings: list[Finding]) -> bool:
    return any(finding.state == "failed" for finding in findings)


_ADVICE: Final[tuple[tuple[type[TemakiError], str], ...]] = (
    (BucketNotFoundError, "Create the bucket, or correct its name in the URL."),
    (
        AccessDeniedError,
        (
            "Grant s3:GetObject, s3:PutObject and s3:DeleteObject on the key and what begins with it, and "
            "s3:ListBucket on the bucket; or use other credentials (AWS_PROFILE, a role)."
        ),
    ),
    (
        ObjectArchivedError,
        (
            "Restore the object from the archive (aws s3api restore-object), and copy it onto itself in the storage "
            "class STANDARD."
        ),
    ),
    (StoreUnavailableError, "Check the network, AWS_ENDPOINT_URL_S3 and AWS_DEFAULT_REGION; then run doctor again."),
    (
        UnsafeStoreError,
        "Use a store that implements If-Match and If-None-Match for PutObject, or strategy='read-only'.",
    ),
    (CorruptDatabaseError, "Bring back an earlier version with temaki restore, or use another key."),
    (LeaseRecordError, "Move the object away once no writer is running."),
    (ConfigurationError, "Correct the setting that is named."),
)


def _advice(error: TemakiError) -> str:
    """Return what to do about an error. The store's own advice comes first: every other command prints it, too."""
    if isinstance(error, StoreError) and error.advice:
        return error.advice
    return next((text for kind, text in _ADVICE if isinstance(error, kind)), "See the message.")
