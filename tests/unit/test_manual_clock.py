"""The clock that tests move by hand."""

from __future__ import annotations

import subprocess
import sys

import pytest

from temaki.clock import Clock
from temaki.testing import ManualClock
from temaki.testing.threads import in_parallel


def test_it_stands_still() -> None:
    """Nothing but the test moves it, and it begins where the test says."""
    clock: Clock = ManualClock(start=500.0)
    assert clock.time() == clock.time() == 500.0
    assert clock.monotonic() == clock.monotonic()


def test_the_two_readings_differ() -> None:
    """Code that takes one reading for the other is found out."""
    clock = ManualClock()
    assert abs(clock.time() - clock.monotonic()) > 1_000_000


def test_advance_and_sleep_move_both() -> None:
    """Time that passes, passes for both readings; sleeping is remembered and takes none of the test's time."""
    clock = ManualClock(start=0.0)
    before = clock.monotonic()
    clock.advance(2.5)
    clock.sleep(3_600.0)
    assert clock.time() == clock.monotonic() - before == 3_602.5
    assert clock.slept == [3_600.0]


def test_skew_moves_the_wall_clock_alone() -> None:
    """A wall clock can be set, in both directions; the monotonic one cannot."""
    clock = ManualClock(start=100.0)
    before = clock.monotonic()
    clock.skew(-30.0)
    assert clock.time() == 70.0
    clock.skew(50.0)
    assert clock.time() == 120.0
    assert clock.monotonic() == before


def test_time_does_not_go_back() -> None:
    """Negative time is a mistake of the test, as it is for time.sleep."""
    clock = ManualClock()
    for move in (clock.advance, clock.sleep):
        with pytest.raises(ValueError, match="cannot move time back"):
            move(-1.0)
    assert clock.slept == []


def test_threads_lose_no_time() -> None:
    """Steps of many threads add up exactly."""
    clock = ManualClock(start=0.0)

    def step() -> None:
        for _ in range(2_000):
            clock.advance(1.0)

    in_parallel([step] * 4)
    assert clock.time() == 8_000.0


def test_importing_it_needs_no_pytest() -> None:
    """``from temaki.testing import ManualClock`` imports neither pytest nor boto3."""
    code = "import sys; from temaki.testing import ManualClock; sys.exit(bool({'pytest', 'boto3'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True)
