"""The tries of one call: how many, how long between them, and after which errors."""

from __future__ import annotations

import random
import subprocess
import sys
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pony.orm.core import CommitException, OptimisticCheckError, PartialCommitException, TransactionError

from temaki.engine.engine import Engine
from temaki.engine.shared import Choices
from temaki.errors import (
    AccessDeniedError,
    CommitUnknownError,
    ConflictError,
    LeaseLostError,
    StoreUnavailableError,
    TemakiError,
)
from temaki.orm.tries import BASE_DELAY, LONGEST_DELAY, Tries, current_tries
from temaki.testing.clock import ManualClock


def committing(cause: BaseException, kind: type[CommitException] = CommitException) -> CommitException:
    """As Pony raises what a commit raised."""
    return cast("CommitException", kind(str(cause), [(type(cause), cause, None)]))


CONFLICT = ConflictError("another writer came first", url="u")
DOWN = committing(StoreUnavailableError("no answer", url="u", ambiguous=False))


def engine(clock: ManualClock, timeout: float = 60) -> Engine:
    """As far as tries look at one."""
    return cast(
        "Engine", SimpleNamespace(shared=SimpleNamespace(clock=clock, choices=Choices(timeout, "file", "manual")))
    )


class Call:
    """A function that takes a while, and raises what it is told to, in order; then it succeeds."""

    def __init__(
        self,
        clock: ManualClock,
        *errors: BaseException,
        retry: int = 100,
        takes: float = 0.0,
        database_timeout: float = 60,
        **options: Any,
    ) -> None:
        self.clock, self.errors, self.takes = clock, list(errors), takes
        self.immediate: list[bool] = []
        self.conflicts: list[int] = []
        self.engine = engine(clock, database_timeout)
        self.tries = Tries(
            retry, lambda error: isinstance(error, TransactionError), clock=clock, rng=random.Random(5), **options
        )

    def __call__(self, *, immediate: bool) -> str:
        """One try."""
        self.immediate.append(immediate)
        try:
            tries = current_tries()
            assert tries is self.tries
            self.conflicts.append(tries.touch(self.engine).conflicts)
            self.clock.advance(self.takes)
            self._fail()
        except BaseException as error:
            self.tries.is_worth_another(error)
            raise
        return "done"

    def _fail(self) -> None:
        if self.errors:
            raise self.errors.pop(0)

    def run(self) -> str:
        """All of them."""
        return self.tries.run(self)


@pytest.fixture
def clock() -> ManualClock:
    """Stands still, but for waits and for what takes a while."""
    return ManualClock()


class TestWaiting:
    """Between tries, and not for ever."""

    def test_longer_each_time(self, clock: ManualClock) -> None:
        """Twice as long each time, up to a limit; of which a random half is left out."""
        call = Call(clock, *[CONFLICT] * 12)
        assert call.run() == "done"
        most = [min(LONGEST_DELAY, BASE_DELAY * 2**n) for n in range(12)]
        assert all(limit / 2 <= slept <= limit for slept, limit in zip(clock.slept, most, strict=True))
        assert len(set(clock.slept)) == 12

    def test_success_waits_for_nothing(self, clock: ManualClock) -> None:
        """And leaves no trace in the thread."""
        assert Call(clock).run() == "done"
        assert not clock.slept
        assert current_tries() is None

    def test_tenacity_only_for_a_second_try(self) -> None:
        """A process without conflicts does not pay for its import."""
        code = (
            "import sys, random; from temaki.orm.tries import Tries\n"
            "tries = Tries(3, lambda e: True, rng=random.Random())\n"
            "tries.run(lambda *, immediate: None); assert 'tenacity' not in sys.modules\n"
        )
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60)

    def test_timeout_of_the_database(self, clock: ManualClock) -> None:
        """`retry=2, timeout=5` against a store that is down takes 5 s, not 10 or 15."""
        call = Call(clock, *[DOWN] * 9, retry=2, takes=5, database_timeout=5)
        begun = clock.monotonic()
        with pytest.raises(CommitException) as caught:
            call.run()
        assert clock.monotonic() == begun + 5
        assert caught.value.__notes__ == ["temaki.db_session gave up after try 1: its timeout of 5 s is over."]

    def test_no_wait_beyond_the_timeout(self, clock: ManualClock) -> None:
        """The last try begins before it is over."""
        call = Call(clock, *[CONFLICT] * 1000, retry=1000, takes=0.01, database_timeout=5)
        begun = clock.monotonic()
        with pytest.raises(ConflictError):
            call.run()
        assert begun + 4.9 < clock.monotonic() < begun + 5.02

    def test_own_timeout(self, clock: ManualClock) -> None:
        """It replaces the database's, in both directions."""
        assert Call(clock, *[CONFLICT] * 2, takes=50, timeout=500).run() == "done"
        with pytest.raises(ConflictError):
            Call(clock, *[CONFLICT] * 2, takes=2, timeout=1).run()

    def test_smallest_timeout(self, clock: ManualClock) -> None:
        """Of all databases that the function touches."""
        call = Call(clock, CONFLICT, takes=3)
        call.tries.touch(engine(clock, 2))
        with pytest.raises(ConflictError):
            call.run()

    def test_no_more_often_than_asked(self, clock: ManualClock) -> None:
        """`retry=2` is three tries, and the error says so."""
        call = Call(clock, *[CONFLICT] * 9, retry=2)
        with pytest.raises(ConflictError) as caught:
            call.run()
        assert len(call.immediate) == 3
        assert caught.value.__notes__[-1] == "temaki.db_session gave up after try 3: retry=2."


class TestWorthAnother:
    """Which errors."""

    @pytest.mark.parametrize(
        "error",
        [
            CONFLICT,
            LeaseLostError("lost", url="u"),
            committing(CONFLICT),
            DOWN,
            OptimisticCheckError("changed"),
            committing(ValueError("of a hook")),
        ],
    )
    def test_yes(self, clock: ManualClock, error: BaseException) -> None:
        """What Pony tries again, where nothing was stored."""
        assert Call(clock, error).run() == "done"

    @pytest.mark.parametrize(
        "error",
        [
            ZeroDivisionError(),
            KeyboardInterrupt(),
            StoreUnavailableError("no answer to a pull", url="u"),
            committing(KeyboardInterrupt()),
            committing(SystemExit()),
            committing(CommitUnknownError("?", url="u", commit_id="c")),
            committing(AccessDeniedError("no", url="u")),
            committing(CONFLICT, PartialCommitException),
            CommitException("two", [(ConflictError, CONFLICT, None), (KeyboardInterrupt, KeyboardInterrupt(), None)]),
        ],
    )
    def test_no(self, clock: ManualClock, error: BaseException) -> None:
        """What is the user's own, may have been stored in part or as a whole, or would fail again."""
        call = Call(clock, error)
        with pytest.raises(type(error)) as caught:
            call.run()
        assert caught.value is error
        assert len(call.immediate) == 1

    def test_after_something_was_stored(self, clock: ManualClock) -> None:
        """A function that has stored its first half is not run again for the second."""
        call = Call(clock, CONFLICT)
        call.tries.stored = True
        with pytest.raises(ConflictError):
            call.run()

    @pytest.mark.parametrize("swallowed", [CommitUnknownError("?", url="u", commit_id="c"), KeyboardInterrupt()])
    def test_after_a_swallowed_error(self, clock: ManualClock, swallowed: BaseException) -> None:
        """It does not matter what the function makes of an error that forbids another run."""
        call = Call(clock, CONFLICT)
        call.tries.failed(swallowed)
        with pytest.raises(ConflictError):
            call.run()


class TestHelp:
    """After three conflicts in a row."""

    def test_writes_from_the_start(self, clock: ManualClock) -> None:
        """No thread of the same process can come first then; and the strategy knows what to do about others."""
        call = Call(clock, *[CONFLICT] * 5)
        call.run()
        assert call.immediate == [False] * 3 + [True] * 3
        assert call.conflicts == [0, 1, 2, 3, 4, 5]

    def test_in_a_row(self, clock: ManualClock) -> None:
        """Another error in between begins a new row."""
        call = Call(clock, CONFLICT, CONFLICT, DOWN, CONFLICT, CONFLICT)
        call.run()
        assert not any(call.immediate)

    def test_between_threads(self, clock: ManualClock) -> None:
        """Where all conflicts were with this process's own threads, no lease is needed."""
        call = Call(clock, *[OptimisticCheckError("changed")] * 3)
        call.run()
        assert (call.immediate[-1], call.conflicts[-1]) == (True, 0)

    def test_errors_survive(self, clock: ManualClock) -> None:
        """What is raised in the end is what the last try raised."""
        last = ConflictError("the last one", url="u")
        with pytest.raises(TemakiError) as caught:
            Call(clock, CONFLICT, last, retry=1).run()
        assert caught.value is last
