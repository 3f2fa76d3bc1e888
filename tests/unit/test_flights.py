"""`temaki.engine.flights.Flights`: threads share a request, but none that began before they asked."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from temaki.engine.flights import Flights, _Flight
from temaki.errors import StoreUnavailableError
from temaki.testing.threads import in_parallel
from tests.hooked import Gate
from tests.threads import Background, until


class Calls:
    """A call that counts, whose first run waits at a gate."""

    def __init__(self, then: Callable[[int], None] = lambda _: None) -> None:
        self.count = 0
        self.gate = Gate()
        self._then = then

    def __call__(self) -> None:
        """What threads share."""
        self.count += 1
        if self.count == 1:
            self.gate()
        else:
            self._then(self.count)


WAITING: set[int] = set()
"""The threads that wait for a flight."""


@pytest.fixture(autouse=True)
def _watch_waiters(monkeypatch: pytest.MonkeyPatch) -> None:
    wait = _Flight.wait

    def watched(flight: _Flight) -> None:
        WAITING.add(threading.get_ident())
        try:
            wait(flight)
        finally:
            WAITING.discard(threading.get_ident())

    monkeypatch.setattr(_Flight, "wait", watched)


def behind_a_flight(calls: Calls, number: int) -> tuple[Background[None], list[Background[None]]]:
    """One call under way, and so many threads that have arrived since."""
    flights = Flights()
    first = Background(lambda: flights.share(calls))
    calls.gate.wait()
    others = [Background(lambda: flights.share(calls)) for _ in range(number)]
    until(lambda: len(WAITING) == number)
    return first, others


def test_one_after_another_is_a_call_each() -> None:
    """Nothing is remembered."""
    flights, calls = Flights(), Calls()
    calls.gate.open()
    for expected in (1, 2, 3):
        flights.share(calls)
        assert calls.count == expected


def test_those_who_arrive_meanwhile_share_the_next_one() -> None:
    """The call under way may have been answered before they came; one more serves them all."""
    calls = Calls()
    first, others = behind_a_flight(calls, 5)
    assert calls.count == 1
    calls.gate.open()
    first.result()
    for other in others:
        other.result()
    assert calls.count == 2


def test_failure_is_everybodys() -> None:
    """As a copy of their own, so that tracebacks do not mix; its facts and its cause are there."""
    error = StoreUnavailableError("no answer", url="s3://bucket/key", status=503, code="SlowDown")

    def fail(_: int) -> None:
        raise error

    calls = Calls(fail)
    first, others = behind_a_flight(calls, 3)
    calls.gate.open()
    first.result()
    caught = []
    for other in others:
        with pytest.raises(StoreUnavailableError, match="no answer") as info:
            other.result()
        caught.append(info.value)
    assert calls.count == 2
    assert len({id(one) for one in caught}) == 3
    assert {(one.url, one.status, one.code) for one in caught} == {("s3://bucket/key", 503, "SlowDown")}
    assert sorted(one.__cause__ is error for one in caught) == [False, True, True]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, ZeroDivisionError])
def test_interrupt_is_only_the_leaders(kind: type[BaseException]) -> None:
    """Whoever waited for a thread that was interrupted asks again, and gets an answer."""

    def interrupt(count: int) -> None:
        if count == 2:
            raise kind

    calls = Calls(interrupt)
    first, others = behind_a_flight(calls, 4)
    calls.gate.open()
    first.result()
    interrupted = 0
    for other in others:
        try:
            other.result()
        except kind:
            interrupted += 1
    assert interrupted == 1
    assert calls.count >= 3


def test_next_flight_starts_after_a_failed_one() -> None:
    """A failure, or an interrupt, leaves nobody waiting for ever."""
    flights = Flights()

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        flights.share(interrupted)
    flights.share(lambda: None)


def test_every_thread_gets_a_call_that_began_after_it_came() -> None:
    """With many threads at once, and never two calls at a time."""
    flights = Flights()
    began, running, overlaps = [0], [0], [0]

    def call() -> None:
        began[0] += 1
        running[0] += 1
        overlaps[0] += running[0] > 1
        running[0] -= 1

    def session() -> None:
        for _ in range(50):
            before = began[0]
            flights.share(call)
            assert began[0] > before

    in_parallel([session] * 6)
    assert overlaps == [0]
    assert began[0] <= 300
