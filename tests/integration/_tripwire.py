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
                sys.settrace(None)
                self._act()


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
