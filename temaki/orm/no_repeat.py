"""Preventing Pony's own ``retry`` from running a function again if its commit may be stored already.

Pony's ``@db_session(retry=N)`` runs a function again after *any* error that its commit raises, Ctrl-C included. At each
failure, Pony asks ``retry_exceptions`` whether to retry. Pony accepts a callable there, so :func:`guard` installs one.
It raises errors that must not be repeated, and asks the user's own ``retry_exceptions`` about all others.

A function may catch such an error and go on, so that Pony sees no error. Then the function's next use of the database,
in the same call, raises the same error. The frame of Pony's wrapper identifies the call: it is on the stack when the
commit fails, and it is on the stack again. So a later session of the thread, or a session without retry, is never
affected.

``temaki.db_session`` needs neither of these: see :mod:`temaki.orm.tries`.
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
    """Return the part of an error that forbids running its function again; None if nothing forbids it.

    Args:
        error: The error as the user gets it: an error of temaki, an error of Pony that wraps one or more, or any
            other.
    """
    return next((part for part in _all_of(error) if not _may_repeat(part)), None)


def _may_repeat(error: BaseException) -> bool:
    return error.may_repeat if isinstance(error, TemakiError) else isinstance(error, Exception)


def _all_of(error: BaseException) -> Iterator[BaseException]:
    yield error
    if isinstance(error, TransactionError):  # with several databases, each may have failed
        for _, inner, *_ in getattr(error, "exceptions", ()):
            yield inner


class _Guarded:
    """A wrapper of the user's ``retry_exceptions`` that raises errors that must not be repeated."""

    def __init__(self, retry_exceptions: Any, failed: Callable[[BaseException], None]) -> None:
        self._retry_exceptions, self._failed = retry_exceptions, failed

    def __call__(self, error: BaseException) -> bool:
        self._failed(error)
        reason = forbidden(error)
        if reason is error:
            return False
        if reason is not None:
            raise reason
        if callable(self._retry_exceptions):
            return bool(self._retry_exceptions(error))
        return isinstance(error, tuple(self._retry_exceptions))


def guard(session: DBSessionContextManager | None, failed: Callable[[BaseException], None]) -> None:
    """Prevent a ``db_session`` of Pony's own from repeating what must not be repeated. May be called again.

    Args:
        session: The session that is active in this thread; None if there is none.
        failed: Called with each error about which Pony asks.
    """
    if session is not None and session.retry and not isinstance(session.retry_exceptions, _Guarded):
        session.retry_exceptions = _Guarded(session.retry_exceptions, failed)


class NoRepeat(threading.local):
    """The failed commits that a retry must not repeat, one for each thread."""

    _pending: tuple[FrameType, BaseException] | None = None

    def remember(self, error: BaseException) -> None:
        """Remember a failed commit if it must not be repeated and Pony would repeat it.

        Args:
            error: The error of the commit.
        """
        if _may_repeat(error):
            return
        frame = retrying_frame()
        if frame is not None:
            self._pending = (frame, error)

    def remember_interrupt(self) -> None:
        """Remember the interrupt that made Pony roll back, if there is one: it may have come just after the commit."""
        error = sys.exc_info()[1]
        if error is not None and not isinstance(cause_of(error), Exception):
            self.remember(cause_of(error))

    def check(self) -> None:
        """Check that a session is not the retry of a remembered commit. Call this before it uses the database.

        Raises:
            BaseException: The error of the remembered commit.
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


# The retry loop is a function that DBSessionContextManager._wrap_function defines.
_WRAPPERS = _codes_within(DBSessionContextManager._wrap_function.__code__)  # noqa: SLF001
