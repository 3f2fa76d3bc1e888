"""Keeps Pony's own ``retry`` from running a function again whose commit may have landed.

Pony's ``@db_session(retry=N)`` runs a function again after *any* error that its commit raises, Ctrl-C included. What it
repeats, it asks ``retry_exceptions``, at each failure. So :func:`guard` puts a callable there, which Pony takes too: it
raises what must not be repeated, and asks the user's own ``retry_exceptions`` about everything else.

A function that catches such an error, and goes on, has left no error to ask about. Its next touch of the database, in
that same call, raises the same error. "That same call" is the frame of Pony's own wrapper: the one found on the stack
when the commit failed is on the stack again. So a later session of the thread, or one without retry, is never affected.

``temaki.db_session`` needs neither: see :mod:`temaki.orm.tries`.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from types import CodeType, FrameType
from typing import Any

from pony.orm.core import DBSessionContextManager, TransactionError

from temaki.errors import TemakiError
from temaki.orm.cause import cause_of


def forbidden(error: BaseException) -> BaseException | None:
    """What of an error forbids that its function runs again; None if nothing does.

    Args:
        error: As it reaches the user: temaki's own, Pony's around one or more of them, or anything else.
    """
    return next((one for one in _all_of(error) if not _may_repeat(one)), None)


def _may_repeat(error: BaseException) -> bool:
    return error.may_repeat if isinstance(error, TemakiError) else isinstance(error, Exception)


def _all_of(error: BaseException) -> Iterator[BaseException]:
    yield error
    if isinstance(error, TransactionError):  # of several databases, each may have failed
        for _, inner, *_ in getattr(error, "exceptions", ()):
            yield inner


class _Guarded:
    """Pony's ``retry_exceptions``: the user's own, except for what must not be repeated."""

    def __init__(self, asked: Any) -> None:
        self._asked = asked

    def __call__(self, error: BaseException) -> bool:
        reason = forbidden(error)
        if reason is error:
            return False
        if reason is not None:
            raise reason
        if callable(self._asked):
            return bool(self._asked(error))
        return isinstance(error, tuple(self._asked))


def guard(session: DBSessionContextManager | None) -> None:
    """Keep a ``db_session`` of Pony's own from repeating what must not be repeated. Again is no error.

    Args:
        session: The one that is active in this thread.
    """
    if session is not None and session.retry and not isinstance(session.retry_exceptions, _Guarded):
        session.retry_exceptions = _Guarded(session.retry_exceptions)


class NoRepeat(threading.local):
    """What each thread must not do again."""

    _pending: tuple[FrameType, BaseException] | None = None

    def remember(self, error: BaseException) -> None:
        """A commit has failed with ``error``; if it must not be repeated, and would be, keep it from that."""
        if _may_repeat(error):
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
