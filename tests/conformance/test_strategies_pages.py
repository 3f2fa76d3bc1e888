"""temaki's own strategies pass their suite on databases in the format ``pages``, too."""

from __future__ import annotations

from tests.conformance import test_strategies as on_files
from tests.conformance.test_strategies import moto_client, seaweedfs_client

__all__ = ["moto_client", "seaweedfs_client"]  # fixtures


class TestAlwaysDownloadPages(on_files.TestAlwaysDownload):
    """always-download."""

    format = "pages"


class TestEtagCachedPages(on_files.TestEtagCached):
    """etag-cached."""

    format = "pages"


class TestReadOnlyPages(on_files.TestReadOnly):
    """read-only."""

    format = "pages"


class TestLeaseLockedPages(on_files.TestLeaseLocked):
    """lease-locked."""

    format = "pages"


class TestLeaseLockedOnHoldPages(on_files.TestLeaseLockedOnHold):
    """lease-locked, keeping the lease between sessions."""

    format = "pages"


class TestLeaseLockedAsPonyPages(on_files.TestLeaseLockedAsPony):
    """lease-locked, going on in the current version as Pony does on a shared SQLite file."""

    format = "pages"
