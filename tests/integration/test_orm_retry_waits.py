"""Pony's own ``@db_session(retry=N)``: a conflict makes the next try of that call wait, and the engine hears of it."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any, cast

import pytest
from pony.orm import CommitException, commit, db_session

import temaki
from temaki.lease.turn import ENOUGH
from temaki.orm.tries import BASE_DELAY, LONGEST_DELAY
from temaki.stores.memory import MemoryStore
from temaki.strategy import Session
from temaki.testing.clock import ManualClock
from temaki.testing.strategies import Client
from temaki_strategies import EtagCached
from tests.threads import in_thread


class _Noting(EtagCached):
    """Takes no turn, but notes the number of conflicts with which each session begins."""

    def __init__(self) -> None:
        super().__init__()
        self.conflicts: list[int] = []

    def pull(self, session: Session) -> None:
        self.conflicts.append(session.conflicts)
        session.revalidate()


class _Counting:
    """A process whose clock does not pass by itself."""

    def __init__(self, bucket: MemoryStore) -> None:
        self.strategy, self.clock = _Noting(), ManualClock()
        self.client = Client(bucket, self.strategy)
        object.__setattr__(self.client.db.provider.engine.shared, "clock", self.clock)
        self.client.map()
        self.strategy.conflicts.clear()

    def overtaken(self, other: Client, times: int, *, session: Any = db_session, retry: int = 9) -> Callable[[], None]:
        """A function that adds one, and is refused so many times since another process comes first."""
        left = [times]

        @session(retry=retry)  # type: ignore[untyped-decorator, unused-ignore]
        def add() -> None:
            self.client.Counter[1].value += 1
            if left[0]:
                left[0] -= 1
                in_thread(other.increment)

        return cast("Callable[[], None]", add)


@pytest.fixture
def bucket() -> MemoryStore:
    """An empty bucket."""
    return MemoryStore("retry-waits")


@pytest.fixture
def other(bucket: MemoryStore) -> Client:
    """Another process, which has created the database with a counter at 0."""
    other = Client(bucket, EtagCached()).map(create_tables=True)
    with db_session:
        other.Counter(id=1, value=0)
    return other


@pytest.fixture
def mine(other: Client, bucket: MemoryStore) -> _Counting:
    """This process."""
    assert other
    return _Counting(bucket)


def test_it_waits_before_each_next_try(mine: _Counting, other: Client) -> None:
    """A little longer each time, with a random part, and never for longer than two seconds; not before the first."""
    mine.overtaken(other, 8)()
    bounds = [min(LONGEST_DELAY, BASE_DELAY * 2**number) for number in range(8)]
    assert len(mine.clock.slept) == 8
    assert all(most / 2 <= wait <= most for wait, most in zip(mine.clock.slept, bounds, strict=True))
    assert other.value() == 9


def test_the_engine_hears_of_it(mine: _Counting, other: Client) -> None:
    """So that after some refusals in a row the session takes a turn, as under temaki's own db_session."""
    mine.overtaken(other, ENOUGH)()
    assert mine.strategy.conflicts == list(range(ENOUGH + 1))


def test_a_conflict_at_the_first_write(mine: _Counting, other: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A strategy that refuses before anything is committed makes the next try wait, too: once for each refusal."""
    monkeypatch.setattr(_Noting, "begin", lambda _, session: session.require_current())
    mine.overtaken(other, 2)()
    assert (len(mine.clock.slept), mine.strategy.conflicts) == (2, [0, 1, 2])


def test_functions_that_it_calls_may_be_decorated(mine: _Counting, other: Client) -> None:
    """Pony ignores what these say about ``retry``: the call is the outer one's."""
    left = [2]

    @db_session
    def add() -> None:
        mine.client.Counter[1].value += 1
        if left[0]:
            left[0] -= 1
            in_thread(other.increment)
        commit()

    @db_session(retry=5)
    def outer() -> None:
        add()

    outer()
    assert (len(mine.clock.slept), mine.strategy.conflicts) == (2, [0, 1, 2])


def test_another_call_does_not_wait(mine: _Counting, other: Client) -> None:
    """The thread's next call is not the next try of one that gave up, whatever it calls."""
    failing, working = mine.overtaken(other, 9, retry=1), mine.overtaken(other, 0)
    with pytest.raises(CommitException):
        failing()
    assert len(mine.clock.slept) == 1
    working()
    assert mine.client.value() == 3
    assert len(mine.clock.slept) == 1
    assert mine.strategy.conflicts == [0, 1, 0, 0]


def test_without_retry_nothing_waits(mine: _Counting, other: Client) -> None:
    """There is no next try."""
    for _ in range(2):
        with pytest.raises(CommitException):
            mine.overtaken(other, 9, retry=0)()
    assert mine.clock.slept == []


def test_other_errors_do_not_wait(mine: _Counting) -> None:
    """What is not about another writer is none of this module's business."""
    runs: list[int] = []

    @db_session(retry=2, retry_exceptions=[ZeroDivisionError])
    def divide() -> None:
        runs.append(mine.client.Counter[1].value)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        divide()
    assert (len(runs), mine.clock.slept) == (3, [])


def test_a_conflict_after_another_error_is_the_first_one(mine: _Counting, other: Client) -> None:
    """They are counted in a row."""
    runs: list[int] = []

    @db_session(retry=5, retry_exceptions=lambda _: True)
    def work() -> None:
        runs.append(1)
        mine.client.Counter[1].value += 1
        if len(runs) == 2:
            raise ZeroDivisionError
        if len(runs) in {1, 3}:
            in_thread(other.increment)

    work()
    assert mine.strategy.conflicts == [0, 1, 0, 1]


def test_threads_of_one_process(mine: _Counting) -> None:
    """Pony's own check refuses these: the next try waits, and takes no turn, for which other processes would wait."""
    left = [2]

    @db_session(retry=5)
    def add() -> None:
        counter = mine.client.Counter[1]
        assert counter.value >= 0
        if left[0]:
            left[0] -= 1
            in_thread(lambda: mine.client.increment(retry=0))
        counter.value += 1

    add()
    assert len(mine.clock.slept) == 2
    assert set(mine.strategy.conflicts) == {0}


def test_it_writes_from_its_start_in_the_end(mine: _Counting) -> None:
    """After enough refusals the call's session is the process's only writer, so that no other thread comes first."""
    immediate: list[bool] = []

    @db_session(retry=9)
    def add() -> None:
        counter = mine.client.Counter[1]
        immediate.append(mine.client.db._get_cache().immediate)
        assert counter.value >= 0
        if not immediate[-1]:
            in_thread(lambda: mine.client.increment(retry=0))
        counter.value += 1

    add()
    assert immediate == [False] * ENOUGH + [True]


def test_temaki_s_own_waits_once(mine: _Counting, other: Client) -> None:
    """Its retry has waited already, also where the function calls one under Pony's."""
    mine.overtaken(other, 2, session=temaki.db_session)()
    assert len(mine.clock.slept) == 2


def test_nothing_is_kept_alive(mine: _Counting, other: Client) -> None:
    """A call that gave up leaves nothing of what it was called with behind."""

    class Argument:
        pass

    @db_session(retry=1)
    def add(argument: Argument) -> None:
        mine.client.Counter[1].value += 1
        in_thread(other.increment)

    argument = Argument()
    alive = weakref.ref(argument)
    with pytest.raises(CommitException):
        add(argument)
    del argument
    gc.collect()
    assert alive() is None
