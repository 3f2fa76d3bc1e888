"""`temaki.testing.threads`: what the suites' racing threads rely on."""

from __future__ import annotations

import threading

import pytest

from temaki.testing.threads import in_parallel


def test_calls_run_side_by_side() -> None:
    """No call ends before all have begun; the results are in the calls' order."""
    everybody = threading.Barrier(4)

    def call(number: int) -> int:
        everybody.wait(30)
        return number

    assert in_parallel([lambda number=number: call(number) for number in range(4)]) == [0, 1, 2, 3]  # type: ignore[misc]


def test_an_error_is_raised_when_all_have_ended() -> None:
    """A failed call is not lost, and does not stop the others."""
    ended = []

    def fail() -> None:
        raise ConnectionError("no")

    with pytest.raises(ConnectionError):
        in_parallel([fail, lambda: ended.append(1), fail])
    assert ended == [1]
