"""How long something takes, and what is typical of that."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from time import perf_counter


def milliseconds(call: Callable[[], object]) -> float:
    """How long one call takes."""
    begin = perf_counter()
    call()
    return (perf_counter() - begin) * 1000


def quantiles(values: list[float]) -> tuple[float, float]:
    """The median and the 95th percentile (the nearest that was measured)."""
    ordered = sorted(values)
    return statistics.median(ordered), ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))]
