"""temaki's own strategies pass the suite that it publishes for everyone's, on every kind of store.

These databases are files. ``test_strategies_pages.py`` has those in pages.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pony.orm import OptimisticCheckError

from temaki.store import Store
from temaki.stores.directory import DirectoryStore
from temaki.stores.memory import MemoryStore
from temaki.stores.s3.store import S3Store
from temaki.strategy import Strategy
from temaki.testing import Server, StrategyTests
from temaki_strategies import AlwaysDownload, EtagCached, LeaseLocked, ReadOnly


@pytest.fixture(scope="module")
def moto_client(moto: Server) -> Any:
    """One client for all tests on moto: it takes longer to make than most of them."""
    return moto.client()


@pytest.fixture(scope="module")
def seaweedfs_client(seaweedfs: Server) -> Any:
    """The same for SeaweedFS."""
    return seaweedfs.client()


class OnEveryStore(StrategyTests):
    """The suite on the store in memory, in a folder, and on two servers."""

    @pytest.fixture(
        params=[
            "memory",
            "folder",
            pytest.param("moto", marks=pytest.mark.server),
            pytest.param("seaweedfs", marks=pytest.mark.server),
        ]
    )
    def bucket(self, request: pytest.FixtureRequest, tmp_path: Path) -> Store:
        """An empty bucket on one of them."""
        if request.param == "memory":
            return MemoryStore("strategy-tests")
        if request.param == "folder":
            return DirectoryStore(tmp_path)
        self.rounds = 2  # SeaweedFS stalls contended uploads for up to two seconds
        client, name = request.getfixturevalue(f"{request.param}_client"), f"bucket-{uuid4().hex}"
        client.create_bucket(Bucket=name)
        return S3Store(name, client=client)


class TestAlwaysDownload(OnEveryStore):
    """always-download."""

    def make_strategy(self) -> Strategy:
        """As configured by its name."""
        return AlwaysDownload()


class TestEtagCached(OnEveryStore):
    """etag-cached."""

    def make_strategy(self) -> Strategy:
        """As configured by its name."""
        return EtagCached()


class TestReadOnly(OnEveryStore):
    """read-only."""

    def make_strategy(self) -> Strategy:
        """As configured by its name."""
        return ReadOnly()


class TestLeaseLocked(OnEveryStore):
    """lease-locked."""

    def make_strategy(self) -> Strategy:
        """As configured by its name."""
        return LeaseLocked()


class TestLeaseLockedOnHold(OnEveryStore):
    """lease-locked, keeping the lease between sessions."""

    def make_strategy(self) -> Strategy:
        """A second is longer than most of these tests."""
        return LeaseLocked(ttl=3, acquire_timeout=10, hold=0.2)


class TestLeaseLockedAsPony(OnEveryStore):
    """lease-locked, going on in the current version as Pony does on a shared SQLite file."""

    refusal = OptimisticCheckError

    def make_strategy(self) -> Strategy:
        """For applications without retry."""
        return LeaseLocked(isolation="pony")
