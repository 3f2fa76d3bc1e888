"""What Pony's errors wrap."""

from __future__ import annotations

from contextlib import suppress

from pony.orm.core import TransactionError


def cause_of(error: BaseException) -> BaseException:
    """What really went wrong: Pony wraps every error of a commit in an exception of its own.

    Returns:
        The original error, or ``error`` itself if it wraps none.
    """
    if isinstance(error, TransactionError):
        with suppress(AttributeError, IndexError, TypeError):
            inner = error.exceptions[0][1]
            if isinstance(inner, BaseException):
                return inner
    return error
