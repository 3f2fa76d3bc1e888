"""Keeps Pony's ``retry`` from running a function again whose commit may have landed.

``@db_session(retry=N)`` runs a function again after *any* error that its commit raises, Ctrl-C included. After one
that must not be repeated, the next touch of the database within that same retry raises the same error, before the
function can read or write a second time.

"That same retry" is the frame of Pony's own wrapper: the one found on the stack when the commit failed is on the stack
again. So a later session of the thread, or one without retry, is never affected.
"""

from __future__ import annotations

import sys
import threading
from types import CodeType, FrameType

from pony.orm.core import DBSessionContextManager

from temaki.errors import TemakiError
from temaki.orm.cause import cause_of


class NoRepeat(threading.local):
    """What each thread must not do again."""

    _pending: tuple[FrameType, BaseException] | None = None

    def remember(self, error: BaseException) -> None:
        """A commit has failed with ``error``; if it must not be repeated, and would be, keep it from that."""
        repeatable = error.may_repeat if isinstance(error, TemakiError) else isinstance(error, Exception)
        if repeatable:
            return
        frame = _retrying_frame()
        if frame is not None:
            self._pending = (frame, error)

    def remember_interrupt(self) -> None:
        """Pony rolls back: if that is because of an interrupt, it may have come just after the commit."""
        error = sys.exc_info()[1]
        if error is not None and not isinstance(cause_of(error), Exception):
            self.remember(cause_of(error))

    def check(self) -> None:
        """Call this before a session touches the database.

        Raises:
            BaseException: The error of the commit before, if this session is that commit's retry.
        """
        if self._pending is None:
            return
        frame, error = self._pending
        if _on_stack(frame):
            raise error
        self._pending = None


def _retrying_frame() -> FrameType | None:
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - the frames are the point
    while frame is not None:
        if frame.f_code in _WRAPPERS:
            manager = frame.f_locals.get("self")
            return frame if getattr(manager, "retry", 0) else None
        frame = frame.f_back
    return None


def _on_stack(wanted: FrameType) -> bool:
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - the frames are the point
    while frame is not None:
        if frame is wanted:
            return True
        frame = frame.f_back
    return False


def _codes_within(code: CodeType) -> set[CodeType]:
    return {const for const in code.co_consts if isinstance(const, CodeType)}


# The retry loop is the function that DBSessionContextManager._wrap_function defines within itself.
_WRAPPERS = _codes_within(DBSessionContextManager._wrap_function.__code__)  # noqa: SLF001
