"""Ctrl-C loses nothing acknowledged, repeats nothing that may have landed, and leaves a process that can go on."""

from __future__ import annotations

import signal
import threading
from typing import Any

import pytest

from tests.integration._children import Place
from tests.integration._tripwire import Interrupts

PROGRAM = "_interrupt.py"


def _interrupt(place: Place, action: str, *arguments: Any, says: str) -> dict[str, Any]:
    """Run an action, interrupt it where it says so, and give what it returns."""
    place.run(PROGRAM, "create", place.url)
    child = place.start(PROGRAM, action, place.url, str(place.cache), *arguments)
    child.hear(says)
    child.signal(signal.SIGINT)
    result = child.result()
    assert isinstance(result, dict)
    return result


def _assert_goes_on(place: Place, found: dict[str, Any], *, value: int) -> None:
    """The process reads ``value``, in this thread and another, and commits on top of it; so does the next process."""
    assert found["after"] == [value, value]
    assert (found["next"], found["integrity"]) == (value + 1, "ok")
    assert place.stored() == value + 1
    assert place.run(PROGRAM, "read", place.url, str(place.cache)) == {
        "read": value + 1,
        "integrity": "ok",
        "next": value + 2,
    }
    assert place.private_folders() == []


def test_in_a_session(place: Place) -> None:
    """Interrupted between a query and the commit: nothing is stored, and the interrupt surfaces."""
    found = _interrupt(place, "in_session", says="in the session")
    assert (found["outcome"], found["runs"]) == ("KeyboardInterrupt", 1)
    _assert_goes_on(place, found, value=0)


@pytest.mark.parametrize(("point", "landed"), [("before put", False), ("after put", True)])
def test_in_an_upload(place: Place, point: str, landed: bool) -> None:
    """Interrupted when the upload may have landed: ``retry`` does not run the function again, and the error says so."""
    found = _interrupt(place, "at_point", point, says=point)
    assert (found["outcome"], found["runs"]) == ("CommitUnknownError", 1)
    _assert_goes_on(place, found, value=int(landed))


@pytest.mark.parametrize("point", ["before get", "in get", "in body"])
def test_in_a_pull(place: Place, point: str) -> None:
    """Interrupted while a newer version is on its way: the next session gets it, in every thread."""
    place.run(PROGRAM, "create", place.url)
    child = place.start(PROGRAM, "in_pull", place.url, str(place.cache), point)
    child.hear("bound")
    assert place.run(PROGRAM, "increment", place.url) == 1
    assert child.ask("go on") == point
    child.signal(signal.SIGINT)
    found = child.result()
    assert (found["outcome"], found["runs"]) == ("KeyboardInterrupt", 0)
    _assert_goes_on(place, found, value=1)


def test_in_a_pull_that_another_thread_waits_for(place: Place) -> None:
    """An interrupt is that of the thread it hit: the other one asks for itself."""
    found = _interrupt(place, "in_shared_pull", says="before get")
    assert found["outcome"] == "KeyboardInterrupt"
    _assert_goes_on(place, found, value=0)


def test_while_another_thread_uploads(place: Place) -> None:
    """Interrupted while it waits for what another thread is storing: that thread's commit stands."""
    found = _interrupt(place, "waiting_to_write", says="waiting")
    assert found["outcome"] == "KeyboardInterrupt"
    _assert_goes_on(place, found, value=1)


@pytest.mark.parametrize(("point", "landed"), [("before get", False), ("before put", False), ("after put", True)])
def test_process_that_ends_by_it(place: Place, point: str, landed: bool) -> None:
    """An interpreter that exits checkpoints what it finds; still no row that was not stored is in the cache folder."""
    place.run(PROGRAM, "create", place.url)
    child = place.start(PROGRAM, "uncaught", place.url, str(place.cache), point)
    child.hear(point)
    child.signal(signal.SIGINT)
    assert child.wait() != 0
    assert place.stored() == int(landed)
    assert place.run(PROGRAM, "read", place.url, str(place.cache))["read"] == int(landed)
    assert place.private_folders() == []


LEASE = {"TEMAKI_STRATEGY": "lease-locked", "TEMAKI_TTL": "1", "TEMAKI_ACQUIRE_TIMEOUT": "30"}


ENDS_A_SESSION = tuple(
    f"core.py:{one}"
    for one in (
        "DBSessionContextManager.__exit__",
        "DBSessionContextManager._commit_or_rollback",
        "SessionCache.close",
        "SessionCache.release",
    )
)


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("env", "stride", "thorough"),
    [
        pytest.param(
            {},
            24,
            ("replica.py", "pull.py", "flights.py", "commit.py", "threading.py", "filesystem.py", *ENDS_A_SESSION),
            id="etag-cached",
        ),
        pytest.param(
            LEASE,
            80,
            ("lease.py", "lease_locked.py", "shared.py", "tenure.py", "waiting.py", "heartbeat.py"),
            id="lease-locked",
        ),
    ],
)
def test_wherever_it_strikes(place: Place, env: dict[str, str], stride: int, thorough: tuple[str, ...]) -> None:
    """In a session with a pull and a commit, at any place where CPython lets a signal's handler run."""
    child = place.start(PROGRAM, "at_places", place.url, str(place.cache), stride, *thorough, env=env)
    report = child.result(patience=200)
    assert report["without place"] == [], "functions that run, and in which the places to interrupt are overlooked"
    struck = report["struck"]
    assert all(any(at.startswith(one) for at in struck) for one in thorough)
    stuck = [at for at, found in struck.items() if found["code"]]
    assert not stuck, f"interrupted there, the process could not go on: {stuck}"
    for at, found in struck.items():
        result = found["result"]
        value = result["after"][0]
        assert result["runs"] <= 1, (at, found)
        assert (result["after"], result["next"], result["integrity"]) == ([value] * 2, value + 1, "ok"), (at, found)
        assert result["lease users"] == 0, (at, "its lease would be renewed for ever")
        assert found["read"] == {"read": value + 1, "integrity": "ok", "next": value + 2}, (at, found)


class _Here(Interrupts):
    homes = (__file__,)


def _places(at: str | None = None) -> Interrupts:
    with _Here(at) as wire:
        _passes(threading.Lock())
    return wire


def _passes(lock: threading.Lock) -> int:
    total = len("a")  # a call of C code
    for number in (1, 2):  # the end of a turn
        total += _doubled(number)
    with lock:  # no place: nothing comes between taking the lock and the block
        return total


def _doubled(number: int) -> int:
    return number * 2


def test_places_are_those_at_which_python_looks_for_signals() -> None:
    """Calls of C code, ends of turns and starts of functions are places, on each Python; taking a lock is none."""
    wire = _places()
    first = _passes.__code__.co_firstlineno
    lines = {at.rpartition(":")[2].partition("+")[0] for at in wire.passed if ":_passes:" in at}
    assert set(wire.entered) <= {at.rpartition(":")[0] for at in wire.passed}
    assert any(":_doubled:" in at for at in wire.passed)
    assert {str(first + 1), str(first + 2)} <= lines
    assert str(first + 5) not in lines  # the first instruction after the lock is taken


def test_an_interrupt_strikes_at_its_place_and_once() -> None:
    """At the place that is named, and at no other; afterwards nothing is watched."""
    for at in _places().passed:
        with pytest.raises(KeyboardInterrupt):
            _places(at)
        assert _passes(threading.Lock()) == 7
