"""`temaki.remote.retry`: what is repeated, how long, and who hears of it."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from temaki.errors import AccessDeniedError, StoreUnavailableError
from temaki.remote.retry import BASE_DELAY, LONGEST_DELAY, RetryPolicy
from temaki.testing.clock import ManualClock


def unavailable(number: int = 0) -> StoreUnavailableError:
    """An error that is worth another attempt."""
    return StoreUnavailableError(f"attempt {number}", url="memory://test")


class Script:
    """A call that fails with these errors, one after the other, and then works. Each attempt takes its seconds."""

    def __init__(self, clock: ManualClock, *errors: BaseException, seconds: float = 0) -> None:
        self.clock, self.errors, self.seconds = clock, list(errors), seconds
        self.started: list[float] = []

    def __call__(self) -> str:
        """One attempt."""
        self.started.append(self.clock.monotonic())
        self.clock.advance(self.seconds)
        if self.errors:
            raise self.errors.pop(0)
        return "done"


@pytest.fixture
def clock() -> ManualClock:
    """A clock that nobody waits for."""
    return ManualClock()


def run(script: Script, timeout: float = 60, **options: object) -> str:
    """Retry it from now on."""
    attempts = RetryPolicy(script.clock, random.Random(1), timeout).begin()
    return attempts.run(script, **options)  # type: ignore[arg-type]


def test_success_is_returned_at_once(clock: ManualClock) -> None:
    """A request that works is made once, without any waiting."""
    script = Script(clock)
    assert run(script) == "done"
    assert (len(script.started), clock.slept) == (1, [])


def test_success_does_not_import_tenacity() -> None:
    """A process whose requests work does not pay for importing tenacity; the first failure does."""
    code = """
import random, sys
from temaki.clock import SystemClock
from temaki.errors import StoreUnavailableError
from temaki.remote.retry import Attempts
errors = []
def call():
    if errors: raise errors.pop()
attempts = Attempts(SystemClock(), random.Random(), deadline=1e9)
attempts.run(call)
print("tenacity" in sys.modules)
errors.append(StoreUnavailableError("once", url="x"))
attempts.run(call)
print("tenacity" in sys.modules)
"""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


def test_failures_are_repeated_with_growing_delays(clock: ManualClock) -> None:
    """Each delay is between half and all of a limit that doubles from 50 ms to 2 s."""
    script = Script(clock, *(unavailable(number) for number in range(9)))
    assert run(script) == "done"
    limits = [min(LONGEST_DELAY, BASE_DELAY * 2**number) for number in range(9)]
    assert len(clock.slept) == 9
    assert all(limit / 2 <= slept <= limit for slept, limit in zip(clock.slept, limits, strict=True))
    assert clock.slept != limits


def test_other_errors_are_raised_at_once(clock: ManualClock) -> None:
    """What another attempt cannot change is not repeated, neither at first nor later."""
    script = Script(clock, AccessDeniedError("no", url="x"))
    with pytest.raises(AccessDeniedError):
        run(script)
    later = Script(clock, unavailable(), AccessDeniedError("no", url="x"))
    with pytest.raises(AccessDeniedError):
        run(later)
    assert (len(script.started), len(later.started)) == (1, 2)


def test_interrupts_pass(clock: ManualClock) -> None:
    """Ctrl-C ends it, during any attempt and any wait."""
    with pytest.raises(KeyboardInterrupt):
        run(Script(clock, unavailable(), KeyboardInterrupt()))

    class Interrupted(ManualClock):
        def sleep(self, seconds: float) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(Script(Interrupted(), unavailable()))


def test_no_attempt_after_the_deadline(clock: ManualClock) -> None:
    """The last attempt starts at the deadline at the latest, and its error is the one that is raised."""
    script = Script(clock, *(unavailable(number) for number in range(1000)), seconds=1.5)
    with pytest.raises(StoreUnavailableError) as caught:
        run(script, timeout=10)
    deadline = script.started[0] + 10
    assert deadline - LONGEST_DELAY - 1.5 < script.started[-1] <= deadline
    assert str(caught.value) == f"attempt {len(script.started) - 1}"


def test_there_are_always_two_attempts(clock: ManualClock) -> None:
    """A process that was frozen during the first attempt makes a second one, without a wait, and no third."""
    script = Script(clock, *(unavailable(number) for number in range(5)), seconds=3600)
    with pytest.raises(StoreUnavailableError, match="attempt 1"):
        run(script, timeout=10)
    assert (len(script.started), clock.slept) == (2, [0.0])


def test_each_failure_is_reported(clock: ManualClock) -> None:
    """The caller hears of every failed attempt, in order, the last one included."""
    errors = [unavailable(number) for number in range(3)]
    heard: list[Exception] = []
    assert run(Script(clock, *errors), on_failure=heard.append) == "done"
    assert heard == errors


def test_other_errors_can_be_worth_repeating(clock: ManualClock) -> None:
    """What is repeated is the caller's choice."""
    assert run(Script(clock, OSError(), ValueError()), on=(OSError, ValueError)) == "done"
    with pytest.raises(StoreUnavailableError):
        run(Script(clock, unavailable()), on=(OSError,))


def test_equal_seeds_wait_equally(clock: ManualClock) -> None:
    """Jitter comes from the generator that is passed in, so that simulations repeat."""
    run(Script(clock, *(unavailable(number) for number in range(5))))
    other = ManualClock()
    run(Script(other, *(unavailable(number) for number in range(5))))
    assert clock.slept == other.slept


def test_calls_that_belong_together_share_a_deadline(clock: ManualClock) -> None:
    """Attempts that have begun end at one moment, whatever they are used for; a new beginning has all its time."""
    policy = RetryPolicy(clock, random.Random(1), timeout=10)
    attempts = policy.begin()
    attempts.run(Script(clock, seconds=9))
    late = Script(clock, *(unavailable(number) for number in range(1000)), seconds=1)
    with pytest.raises(StoreUnavailableError):
        attempts.run(late)
    assert len(late.started) == 2
    anew = Script(clock, unavailable(), unavailable(), seconds=1)
    assert policy.run(anew) == "done"
    assert len(anew.started) == 3
