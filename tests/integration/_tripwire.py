"""Doing something at a place in temaki's code that is named in advance: be killed there, or interrupted."""

from __future__ import annotations

import contextlib
import dis
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, ClassVar, Self

from pony.orm import core, dbapiprovider
from pony.orm.dbproviders import sqlite

import temaki

_TOOL = 3
"""A number of ``sys.monitoring`` that debuggers, coverage and profilers leave alone."""


class Tripwire:
    """Does something just before a line of temaki's own code runs in this thread for the first time.

    Args:
        act: What to do.
        at: The line, as ``file.py:17``. None: never, only note the lines.

    Attributes:
        passed: The places so far, in the order of their first time.
    """

    homes: ClassVar[tuple[str, ...]] = (str(Path(temaki.__file__).parent), "temaki_strategies")

    def __init__(self, act: Callable[[], object], at: str | None) -> None:
        self._act, self._at = act, at
        self.passed: dict[str, None] = {}

    def __enter__(self) -> Self:
        sys.settrace(self._on_call)
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop()

    def _stop(self) -> None:
        sys.settrace(None)

    def _on_call(self, frame: FrameType, event: str, arg: Any) -> Any:
        return self._on_line if any(home in frame.f_code.co_filename for home in self.homes) else None

    def _on_line(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == "line":
            self._pass(f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}")
        return self._on_line

    def _pass(self, place: str) -> None:
        if place not in self.passed:
            self.passed[place] = None
            if place == self._at:
                self._stop()
                self._act()


class Interrupts(Tripwire):
    """Raises ``KeyboardInterrupt`` where CPython may run a signal's handler, and nowhere else.

    That is after a call of something that is not Python code, at the start of a function, and at the end of a turn of
    a loop; not, for instance, between the last call in a ``with`` block and its ``__exit__``.

    From Python 3.12 on it uses ``sys.monitoring``: with ``sys.settrace``, which instructions of which frames are
    reported depends there on what was traced before, and differs between 3.12 and 3.13.

    Args:
        at: The place: file, function, line, and offset of the instruction.

    Attributes:
        entered: The functions that ran, by file and name, as the interpreter's profiler reports them; only if ``at`` is
            None. Each has a place of its own, or this class misses places.
    """

    homes = (
        *Tripwire.homes,
        contextlib.__file__,
        threading.__file__,
        *(module.__file__ for module in (core, dbapiprovider, sqlite)),
    )

    def __init__(self, at: str | None) -> None:
        super().__init__(self._interrupt, at)
        self.entered: dict[str, None] = {}
        self._function = at.rpartition(":")[0] if at else None
        self._calls = 0
        self._watched: dict[CodeType, bool] = {}
        self._thread = threading.get_ident()
        self._before: dict[int, tuple[int, int]] = {}

    @staticmethod
    def _interrupt() -> None:
        raise KeyboardInterrupt

    def __enter__(self) -> Self:
        if self._at is None:
            sys.setprofile(self._on_profile)
        if sys.version_info >= (3, 12):
            monitoring, events = sys.monitoring, sys.monitoring.events
            monitoring.use_tool_id(_TOOL, "temaki's tests")
            for event in (events.PY_START, events.PY_RESUME):
                monitoring.register_callback(_TOOL, event, self._on_start)
            monitoring.register_callback(_TOOL, events.PY_THROW, self._on_throw)
            monitoring.register_callback(_TOOL, events.INSTRUCTION, self._on_instruction)
            monitoring.set_events(_TOOL, events.PY_START | events.PY_RESUME | events.PY_THROW | events.INSTRUCTION)
            return self
        return super().__enter__()

    def __exit__(self, *exc: object) -> None:
        self._stop()

    def _stop(self) -> None:
        sys.setprofile(None)
        if sys.version_info >= (3, 12):
            if sys.monitoring.get_tool(_TOOL) is not None:
                sys.monitoring.set_events(_TOOL, 0)
                sys.monitoring.free_tool_id(_TOOL)
        else:
            sys.settrace(None)

    def _watches(self, code: CodeType) -> bool:
        """Whether the instructions of this code matter: of all code at home, or of the function with the place."""
        watches = self._watched.get(code)
        if watches is None:
            watches = self._watched[code] = self._is_home(code) and self._function in {None, _function(code)}
        return watches

    def _is_home(self, code: CodeType) -> bool:
        return code.co_name != "__del__" and any(home in code.co_filename for home in self.homes)

    def _on_profile(self, frame: FrameType, event: str, arg: Any) -> None:
        if event == "call" and self._is_home(frame.f_code):
            self.entered[_function(frame.f_code)] = None

    # From Python 3.12 on.

    def _on_start(self, code: CodeType, offset: int) -> None:
        if threading.get_ident() == self._thread:
            self._calls += 1
            self._before[id(sys._getframe(1))] = offset, self._calls

    def _on_throw(self, code: CodeType, offset: int, error: BaseException) -> None:
        if threading.get_ident() == self._thread:
            self._calls += 1
            self._before.pop(id(sys._getframe(1)), None)

    def _on_instruction(self, code: CodeType, offset: int) -> Any:
        if not self._watches(code):
            return sys.monitoring.DISABLE  # type: ignore[attr-defined]
        if threading.get_ident() == self._thread:
            frame = sys._getframe(1)
            self._step(frame, code, offset)
        return None

    # Up to Python 3.11.

    def _on_call(self, frame: FrameType, event: str, arg: Any) -> Any:
        self._calls += 1
        self._before[id(frame)] = frame.f_lasti, self._calls
        if not self._watches(frame.f_code):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return self._on_opcode

    def _on_opcode(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == "opcode":
            self._step(frame, frame.f_code, frame.f_lasti)
        return self._on_opcode

    def _step(self, frame: FrameType, code: CodeType, now: int) -> None:
        """An instruction is about to run in a frame, which has its number as long as it runs."""
        before, calls = self._before.get(id(frame), (-1, 0))
        self._before[id(frame)] = now, self._calls
        if before >= 0 and _may_interrupt(code, before, now, calls == self._calls):
            self._pass(f"{_function(code)}:{frame.f_lineno}+{now}")


def _function(code: CodeType) -> str:
    return f"{Path(code.co_filename).name}:{code.co_qualname}"


def _may_interrupt(code: CodeType, before: int, now: int, called_no_python: bool) -> bool:
    """Whether CPython looks for signals between two instructions: see ``CHECK_EVAL_BREAKER`` in its sources."""
    name, argument = dis.opname[code.co_code[before]], code.co_code[before + 1]
    if name == "RESUME":
        looks = argument & 3 < 2  # not behind `yield from` and `await`
    elif name in {"CALL", "CALL_KW", "CALL_FUNCTION_EX"}:
        looks = called_no_python  # else it has looked at the start of what was called
    else:
        looks = name == "JUMP_BACKWARD"
    if not looks:
        return False
    # The handler runs as a part of the instruction before, so the same ``except`` has to be in charge of both.
    entries = dis._parse_exception_table(code)  # type: ignore[attr-defined]
    return all((entry.start <= before < entry.end) == (entry.start <= now < entry.end) for entry in entries)
