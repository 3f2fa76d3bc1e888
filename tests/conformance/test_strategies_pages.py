"""temaki's own strategies pass their suite on databases in the format ``pages``, too."""

from __future__ import annotations

import pytest

from tests.conformance import test_strategies as on_files


@pytest.fixture(autouse=True)
def pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """New databases are made in pages."""
    monkeypatch.setenv("TEMAKI_FORMAT", "pages")


class TestAlwaysDownloadPages(on_files.TestAlwaysDownload):
    """always-download."""


class TestEtagCachedPages(on_files.TestEtagCached):
    """etag-cached."""


class TestReadOnlyPages(on_files.TestReadOnly):
    """read-only."""


class TestLeaseLockedPages(on_files.TestLeaseLocked):
    """lease-locked."""


class TestLeaseLockedOnHoldPages(on_files.TestLeaseLockedOnHold):
    """lease-locked, keeping the lease between sessions."""
