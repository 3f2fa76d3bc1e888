"""Durations of calls, and their quantiles."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from time import perf_counter


def milliseconds(call: Callable[[], object]) -> float:
    """Return the duration of one call, in milliseconds."""
    begin = perf_counter()
    call()
    return (perf_counter() - begin) * 1000


def quantiles(values: list[float]) -> tuple[float, float]:
    """Return the median and the 95th percentile. The percentile is a measured value."""
    ordered = sorted(values)
    return statistics.median(ordered), ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))]
