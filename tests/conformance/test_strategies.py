"""temaki's own strategies pass the suite that it publishes for everyone's."""

from temaki.strategy import Strategy
from temaki.testing import StrategyTests
from temaki_strategies import AlwaysDownload, EtagCached, ReadOnly


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
