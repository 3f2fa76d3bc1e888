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
from collections.abc import Callable, Iterator
from types import CodeType, FrameType
from typing import Any

from pony.orm import core
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

    def __init__(self, asked: Any, failed: Callable[[BaseException], None]) -> None:
        self._asked, self._failed = asked, failed

    def __call__(self, error: BaseException) -> bool:
        self._failed(error)
        reason = forbidden(error)
        if reason is error:
            return False
        if reason is not None:
            raise reason
        if callable(self._asked):
            return bool(self._asked(error))
        return isinstance(error, tuple(self._asked))


def guard(session: DBSessionContextManager | None, failed: Callable[[BaseException], None]) -> None:
    """Keep a ``db_session`` of Pony's own from repeating what must not be repeated. Again is no error.

    Args:
        session: The one that is active in this thread.
        failed: Is told of each error about which Pony asks.
    """
    if session is not None and session.retry and not isinstance(session.retry_exceptions, _Guarded):
        session.retry_exceptions = _Guarded(session.retry_exceptions, failed)


class NoRepeat(threading.local):
    """What each thread must not do again."""

    _pending: tuple[FrameType, BaseException] | None = None

    def remember(self, error: BaseException) -> None:
        """A commit has failed with ``error``; if it must not be repeated, and would be, keep it from that."""
        if _may_repeat(error):
            return
        frame = retrying_frame()
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


def retrying_frame() -> FrameType | None:
    """The frame of Pony's own wrapper that would run a function again in this thread; None if there is none.

    Functions that it calls may be decorated, too: Pony ignores their ``retry``, and has the first one's session go on.
    """
    active = core.local.db_session
    if active is None or not active.retry:
        return None
    found = None
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - the frames are the point
    while frame is not None:
        if frame.f_code in _WRAPPERS and frame.f_locals.get("self") is active:
            found = frame
        frame = frame.f_back
    return found


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
