"""Processes that are interrupted, and what they can do afterwards. See ``test_interrupt.py``."""

from __future__ import annotations

import gc
import threading
import time
from typing import Any

import temaki
from temaki.stores.directory import _FileDownload
from tests.integration._tripwire import Interrupts
from tests.integration._worker import Application, Forked, Gate, create, hear, main, outcome_of, say


def _signalled(point: str) -> None:
    """Say where we are, and wait for the signal."""
    say(point)
    time.sleep(60)
    raise AssertionError("no signal came")


def _bound(url: str, cache_dir: str, *points: str) -> tuple[Application, Gate]:
    gate = Gate(url)
    gate.wait = _signalled
    app = Application(url, cache_dir=cache_dir, store=gate)
    assert app.value() == 0
    gate.points = set(points)
    return app, gate


def _go_on(app: Application, outcome: str) -> dict[str, Any]:
    """What the process can still do, in this thread and in another."""
    after: list[int] = []
    thread = threading.Thread(target=lambda: after.append(app.value()), daemon=True)
    thread.start()
    thread.join(10)
    runs = app.runs
    return {
        "outcome": outcome,
        "runs": runs,
        "after": [*after, app.value()],
        "next": app.increment(),
        "integrity": app.check(),
    }


def in_session(url: str, cache_dir: str) -> dict[str, Any]:
    """Interrupted in the function, after a query and before the commit."""
    app, _ = _bound(url, cache_dir)
    return _go_on(app, outcome_of(lambda: app.increment(retry=5, then=lambda: _signalled("in the session"))))


def at_point(url: str, cache_dir: str, point: str) -> dict[str, Any]:
    """Interrupted in the store, in the first session that comes there."""
    app, _ = _bound(url, cache_dir, point)
    return _go_on(app, outcome_of(lambda: app.increment(retry=5)))


def in_pull(url: str, cache_dir: str, point: str) -> dict[str, Any]:
    """Interrupted while a newer version is on its way."""
    app, gate = _bound(url, cache_dir)
    say("bound")
    hear()
    if point == "in body":
        read = _FileDownload.read

        def blocked(self: _FileDownload, size: int, /) -> bytes:
            if size != 100:  # the header is there
                _FileDownload.read = read  # type: ignore[method-assign]
                _signalled(point)
            return read(self, size)

        _FileDownload.read = blocked  # type: ignore[method-assign]
    else:
        gate.points = {point}
    return _go_on(app, outcome_of(lambda: app.increment(retry=5)))


def increment(url: str) -> int:
    """Another client stores a newer version."""
    return Application(url).increment()


def in_shared_pull(url: str, cache_dir: str) -> dict[str, Any]:
    """Interrupted while another thread waits for the same answer: that thread asks by itself."""
    app, gate = _bound(url, cache_dir, "before get")
    seen: list[int] = []
    waiting = threading.Thread(target=lambda: seen.append(app.value()), daemon=True)

    def signalled(point: str) -> None:
        waiting.start()
        _signalled(point)

    gate.wait = signalled
    outcome = outcome_of(app.value)
    waiting.join(20)
    assert seen == [0]
    return _go_on(app, outcome)


def waiting_to_write(url: str, cache_dir: str) -> dict[str, Any]:
    """Interrupted while it waits for another thread's upload, which is none of the signal's business."""
    app, gate = _bound(url, cache_dir, "before put")
    uploading, free = threading.Event(), threading.Event()

    def hold(_: str) -> None:
        uploading.set()
        assert free.wait(30)

    gate.wait = hold
    other = threading.Thread(target=app.increment, daemon=True)
    other.start()
    assert uploading.wait(20)
    provider = app.db.provider
    connect = provider.connect

    def say_and_connect() -> Any:
        provider.connect = connect
        say("waiting")
        return connect()

    provider.connect = say_and_connect
    outcome = outcome_of(app.increment)
    free.set()
    other.join(20)
    app.runs -= 1
    return _go_on(app, outcome)


def uncaught(url: str, cache_dir: str, point: str) -> None:
    """Interrupted in the store; the process ends by it, with all that an interpreter does at its end."""
    app, _ = _bound(url, cache_dir, point)
    app.increment(retry=5)


def read(url: str, cache_dir: str) -> dict[str, Any]:
    """What a new process with the same cache folder reads."""
    app = Application(url, cache_dir=cache_dir)
    return {"read": app.value(), "integrity": app.check(), "next": app.increment()}


def at_places(url: str, cache_dir: str, stride: int, *thorough: str) -> dict[str, Any]:
    """Interrupt a session where a signal may do so, at one place in so many; each time in a process of its own.

    Args:
        url: The database's.
        cache_dir: For the working copy.
        stride: Of all places, one in so many.
        thorough: Files, and functions of files, in which no place is left out.

    Returns:
        What came of it for each place, and the functions for which no place was found: every function has one, at its
        start.
    """
    Forked(create, url).result()
    Forked(increment, url).result()
    Forked(_interrupted_at, url, cache_dir, None).result()
    Forked(increment, url).result()
    watched = Forked(_interrupted_at, url, cache_dir, None).result()
    places = watched["places"]
    functions = {place.rpartition(":")[0] for place in places}
    without_place = [function for function in watched["entered"] if function not in functions]
    struck = {}
    for place in [one for index, one in enumerate(places) if one.startswith(thorough) or not index % stride]:
        Forked(increment, url).result()
        code, result = Forked(_interrupted_at, url, cache_dir, place).end()
        struck[place] = {"code": code, "result": result, "read": Forked(read, url, cache_dir).end()[1]}
    return {"without place": without_place, "struck": struck}


class _Protected(Application):
    """One with temaki's sessions: Pony's own may stay open where an interrupt strikes in its last steps."""

    db_session = temaki.db_session


def _interrupted_at(url: str, cache_dir: str, place: str | None) -> dict[str, Any]:
    app = _Protected(url, cache_dir=cache_dir)
    with Interrupts(place) as wire:
        outcome = outcome_of(lambda: app.increment(retry=5))
    found = {"places": [] if place else list(wire.passed), "entered": list(wire.entered), **_go_on(app, outcome)}
    gc.collect()  # an interrupt's traceback refers to itself
    made = app.db.provider.engine.shared.lease._made
    return {**found, "lease users": len(made[1]._users) if made else 0}


if __name__ == "__main__":
    main(create, increment, in_session, at_point, in_pull, in_shared_pull, waiting_to_write, uncaught, read, at_places)
