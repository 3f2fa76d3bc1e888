"""temaki's own strategies pass the suite that it publishes for everyone's."""

from pony.orm import OptimisticCheckError

from temaki.strategy import Strategy
from temaki.testing import StrategyTests
from temaki_strategies import AlwaysDownload, EtagCached, LeaseLocked, ReadOnly


class TestAlwaysDownload(StrategyTests):
    """always-download."""

    def make_strategy(self) -> Strategy:
        """As configured by its name."""
        return AlwaysDownload()


class TestEtagCached(StrategyTests):
    """etag-cached."""

    def make_strategy(self) -> Strategy:
        """As configured by its name."""
        return EtagCached()


class TestReadOnly(StrategyTests):
    """read-only."""

    def make_strategy(self) -> Strategy:
        """As configured by its name."""
        return ReadOnly()


class TestLeaseLocked(StrategyTests):
    """lease-locked."""

    def make_strategy(self) -> Strategy:
        """As configured by its name."""
        return LeaseLocked()


class TestLeaseLockedOnHold(StrategyTests):
    """lease-locked, keeping the lease between sessions."""

    def make_strategy(self) -> Strategy:
        """A second is longer than most of these tests."""
        return LeaseLocked(ttl=3, acquire_timeout=10, hold=0.2)


class TestLeaseLockedAsPony(StrategyTests):
    """lease-locked, going on in the current version as Pony does on a shared SQLite file."""

    refusal = OptimisticCheckError

    def make_strategy(self) -> Strategy:
        """For applications without retry."""
        return LeaseLocked(isolation="pony")
