"""Test tools: suites for stores and strategies, faulty stores, a clock, servers, and tools for testing applications.

Each name is imported at its first use: a program that uses :class:`ManualClock` needs no pytest.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
    "Fault",
    "FaultyStore",
    "ManualClock",
    "Operation",
    "Outcome",
    "Server",
    "StoreTests",
    "StrategyTests",
    "anomalies",
    "check_seeds",
    "moto_server",
    "seaweedfs_server",
    "use_testing_rows",
]

_HOMES = {
    "Anomaly": "histories",
    "Operation": "histories",
    "Outcome": "histories",
    "anomalies": "histories",
    "check_seeds": "simulation",
    "Binder": "binding",
    "Call": "counting",
    "CountingStore": "counting",
    "Fault": "faulty",
    "FaultyStore": "faulty",
    "ManualClock": "clock",
    "Server": "servers",
    "StoreTests": "stores",
    "StrategyTests": "strategies",
    "moto_server": "servers",
    "seaweedfs_server": "servers",
    "use_testing_rows": "seeding",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    value: object = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
