"""The errors that Pony wraps, and errors that belong to both hierarchies."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from typing import Any

from pony.orm.core import CommitException, TransactionError

from temaki.errors import TemakiError


def cause_of(error: BaseException) -> BaseException:
    """Return the original error of a failed commit, which Pony wraps in an exception of its own.

    Returns:
        The original error, or ``error`` itself if it wraps none.
    """
    if isinstance(error, TransactionError):
        with suppress(AttributeError, IndexError, TypeError):
            inner = error.exceptions[0][1]
            if isinstance(inner, BaseException):
                return inner
    return error


def joined(error: CommitException) -> CommitException:
    """Return an error of a commit that both ``except CommitException`` and ``except ConflictError`` catch.

    Args:
        error: The error that Pony raised.

    Returns:
        An error of Pony's class and of its cause's class. ``error`` itself if its cause is not an error of temaki.
    """
    cause = cause_of(error)
    if not isinstance(cause, TemakiError) or isinstance(error, TemakiError):
        return error
    kind: Any = type(cause)
    joined_error = _joined_class(kind)(str(cause), error.exceptions)
    joined_error.__dict__.update(cause.__dict__)
    joined_error.__dict__.update(error.__dict__)  # includes notes
    joined_error.__cause__ = cause.__cause__
    joined_error.__suppress_context__ = True
    return joined_error.with_traceback(error.__traceback__)


@cache
def _joined_class(kind: Any) -> Any:
    def __init__(self: Any, message: str, exceptions: Any) -> None:  # noqa: N807
        CommitException.__init__(self, message, exceptions)

    def __reduce__(self: Any) -> Any:  # noqa: N807 - tracebacks cannot be pickled; the temaki error can
        return cause_of(self).__reduce__()

    members = {"__init__": __init__, "__reduce__": __reduce__, "__module__": kind.__module__, "__doc__": kind.__doc__}
    return type(kind.__name__, (kind, CommitException), members)
