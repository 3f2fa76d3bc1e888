"""Test tools: suites for stores and strategies, faulty stores, a clock, servers, and tools for testing applications.

Each name is imported at its first use: a program that uses :class:`ManualClock` needs no pytest.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from temaki.stores.wrapper import DownloadWrapper, StoreWrapper
    from temaki.testing.binding import Binder
    from temaki.testing.clock import ManualClock
    from temaki.testing.counting import Call, CountingStore
    from temaki.testing.faulty import Fault, FaultyStore
    from temaki.testing.histories import Anomaly, Operation, Outcome, anomalies
    from temaki.testing.seeding import use_testing_rows
    from temaki.testing.servers import Server, moto_server, seaweedfs_server
    from temaki.testing.simulation import check_seeds
    from temaki.testing.stores import StoreTests
    from temaki.testing.strategies import StrategyTests

__all__ = [
    "Anomaly",
    "Binder",
    "Call",
    "CountingStore",
    "DownloadWrapper",
    "Fault",
    "FaultyStore",
    "ManualClock",
    "Operation",
    "Outcome",
    "Server",
    "StoreTests",
    "StoreWrapper",
    "StrategyTests",
    "anomalies",
    "check_seeds",
    "moto_server",
    "seaweedfs_server",
    "use_testing_rows",
]

_HOMES = {
    "DownloadWrapper": "temaki.stores.wrapper",
    "StoreWrapper": "temaki.stores.wrapper",
    "Binder": "temaki.testing.binding",
    "ManualClock": "temaki.testing.clock",
    "Call": "temaki.testing.counting",
    "CountingStore": "temaki.testing.counting",
    "Fault": "temaki.testing.faulty",
    "FaultyStore": "temaki.testing.faulty",
    "Anomaly": "temaki.testing.histories",
    "Operation": "temaki.testing.histories",
    "Outcome": "temaki.testing.histories",
    "anomalies": "temaki.testing.histories",
    "use_testing_rows": "temaki.testing.seeding",
    "Server": "temaki.testing.servers",
    "moto_server": "temaki.testing.servers",
    "seaweedfs_server": "temaki.testing.servers",
    "check_seeds": "temaki.testing.simulation",
    "StoreTests": "temaki.testing.stores",
    "StrategyTests": "temaki.testing.strategies",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    value: object = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
