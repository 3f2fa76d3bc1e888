"""Processes that are interrupted, and what they can do afterwards. See ``test_interrupt.py``."""

from __future__ import annotations

import contextlib
import dis
import threading
import time
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from pony.orm import core, dbapiprovider
from pony.orm.dbproviders import sqlite

from temaki.stores.directory import _FileDownload
from tests.integration._worker import Application, Forked, Gate, Tripwire, create, hear, main, outcome_of, say


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
    """Interrupted while another thread uploads: that thread's commit is none of the signal's business."""
    app, gate = _bound(url, cache_dir, "before put")
    uploading, free = threading.Event(), threading.Event()

    def hold(_: str) -> None:
        uploading.set()
        assert free.wait(30)

    gate.wait = hold
    other = threading.Thread(target=app.increment, daemon=True)
    other.start()
    assert uploading.wait(20)
    say("waiting")
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


class Interrupts(Tripwire):
    """Raises ``KeyboardInterrupt`` where CPython may run a signal's handler, and nowhere else.

    That is after a call of something that is not Python code, at the start of a function, and at the end of a turn of
    a loop; not, for instance, between the last call in a ``with`` block and its ``__exit__``.

    Args:
        at: The place: file, line, and offset of the instruction.
    """

    homes = (
        *Tripwire.homes,
        contextlib.__file__,
        threading.__file__,
        *(module.__file__ for module in (core, dbapiprovider, sqlite)),
    )

    def __init__(self, at: str | None) -> None:
        super().__init__(self._interrupt, at)
        self._calls = 0

    @staticmethod
    def _interrupt() -> None:
        raise KeyboardInterrupt

    def _on_call(self, frame: FrameType, event: str, arg: Any) -> Any:
        self._calls += 1
        if super()._on_call(frame, event, arg) is None or frame.f_code.co_name == "__del__":
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        code, before, calls = frame.f_code, -1, self._calls

        def on_opcode(frame: FrameType, event: str, arg: Any) -> Any:
            nonlocal before, calls
            if event == "opcode":
                if before >= 0 and self._may_interrupt(code, before, frame.f_lasti, calls == self._calls):
                    self._pass(f"{Path(code.co_filename).name}:{frame.f_lineno}+{frame.f_lasti}")
                before, calls = frame.f_lasti, self._calls
            return on_opcode

        return on_opcode

    @staticmethod
    def _may_interrupt(code: CodeType, before: int, now: int, called_no_python: bool) -> bool:
        name = dis.opname[code.co_code[before]]
        if name not in {"RESUME", "JUMP_BACKWARD"} and not (name.startswith("CALL") and called_no_python):
            return False
        # The handler runs as a part of the instruction before, so the same ``except`` has to be in charge of both.
        entries = dis._parse_exception_table(code)  # type: ignore[attr-defined]
        return all((entry.start <= before < entry.end) == (entry.start <= now < entry.end) for entry in entries)


def at_places(url: str, cache_dir: str, first: int, stride: int) -> dict[str, Any]:
    """Interrupt a session at each place where a signal may, or one in so many; each in a process of its own."""
    Forked(create, url).result()
    Forked(increment, url).result()
    Forked(_interrupted_at, url, cache_dir, None).result()
    Forked(increment, url).result()
    places = Forked(_interrupted_at, url, cache_dir, None).result()["places"]
    report = {}
    for place in places[first::stride]:
        Forked(increment, url).result()
        code, result = Forked(_interrupted_at, url, cache_dir, place).end()
        report[place] = {"code": code, "result": result, "read": Forked(read, url, cache_dir).end()[1]}
    return report


def _interrupted_at(url: str, cache_dir: str, place: str | None) -> dict[str, Any]:
    app = Application(url, cache_dir=cache_dir)
    with Interrupts(place) as wire:
        outcome = outcome_of(lambda: app.increment(retry=5))
    return {"places": [] if place else list(wire.passed), **_go_on(app, outcome)}


if __name__ == "__main__":
    main(create, increment, in_session, at_point, in_pull, in_shared_pull, waiting_to_write, uncaught, read, at_places)
