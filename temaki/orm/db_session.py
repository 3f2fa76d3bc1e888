"""``temaki.db_session``: Pony's, with a retry that waits between tries and never repeats what may be stored."""

from __future__ import annotations

import copy
import functools
import inspect
import random
import types
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, Self, TypeVar, cast, overload

from pony.orm import core
from pony.orm.core import CommitException, DBSessionContextManager, PonyRuntimeWarning, TransactionError

from temaki.orm.cause import cause_of, joined
from temaki.orm.tries import Tries

P = ParamSpec("P")
R = TypeVar("R")

Exceptions = Iterable[type[BaseException]] | Callable[[Any], bool]
"""Classes of exceptions, or a function that takes an exception and returns whether it belongs to them."""

_rng = random.Random()  # noqa: S311 - jitter


class DBSession(DBSessionContextManager):
    """The class of :data:`temaki.db_session`. Call that object to make one with other options.

    Args:
        retry: How often to run a decorated function again, at most.
        immediate: As in Pony: whether the transaction writes from its start.
        ddl: As in Pony.
        serializable: As in Pony.
        strict: As in Pony.
        optimistic: As in Pony.
        retry_exceptions: As in Pony: exceptions that are worth another try, besides ``ConflictError`` and
            ``LeaseLostError``.
        allowed_exceptions: As in Pony: exceptions after which the transaction is committed all the same.
        sql_debug: As in Pony.
        show_values: As in Pony.
        timeout: Seconds after which no further try begins, counted from the function's first use of a database. The
            default is the ``timeout`` that the database was bound with.

    Raises:
        TypeError: The options cannot be combined, or ``timeout`` is not more than 0.
    """

    __slots__ = ("timeout",)

    def __init__(  # noqa: PLR0917 - in the order of Pony's own
        self,
        retry: int = 0,
        immediate: bool = False,
        ddl: bool = False,
        serializable: bool = False,
        strict: bool = False,
        optimistic: bool = True,
        retry_exceptions: Exceptions = (TransactionError,),
        allowed_exceptions: Exceptions = (),
        sql_debug: bool | None = None,
        show_values: bool | None = None,
        *,
        timeout: float | None = None,
    ) -> None:
        super().__init__(
            retry,
            immediate,
            ddl,
            serializable,
            strict,
            optimistic,
            retry_exceptions,
            allowed_exceptions,
            sql_debug,
            show_values,
        )
        if timeout is not None and not timeout > 0:
            raise TypeError(f"'timeout' parameter of db_session is a number of seconds, more than 0. Got: {timeout!r}")
        self.timeout = timeout

    @overload
    def __call__(self, func: Callable[P, R], /) -> Callable[P, R]: ...

    @overload
    def __call__(
        self,
        *,
        retry: int = ...,
        immediate: bool = ...,
        ddl: bool = ...,
        serializable: bool = ...,
        strict: bool = ...,
        optimistic: bool = ...,
        retry_exceptions: Exceptions = ...,
        allowed_exceptions: Exceptions = ...,
        sql_debug: bool | None = ...,
        show_values: bool | None = ...,
        timeout: float | None = ...,
    ) -> DBSession: ...

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Decorate a function, or return a ``db_session`` with other options.

        Raises:
            TypeError: The function is ``async``, or Pony refuses the options.
        """
        if len(args) == 1 and not kwargs:
            if not callable(args[0]):
                raise TypeError(
                    f"db_session decorates a function, or takes keyword arguments. Got: {args[0]!r}. "
                    "Write @db_session(retry=5)."
                )
            _refuse_async(args[0])
        return super().__call__(*args, **kwargs)

    def __enter__(self) -> None:
        """Begin a session, or join the session that is active in this thread."""
        super().__enter__()

    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc: BaseException | None = None,
        tb: types.TracebackType | None = None,
    ) -> None:
        """End the session: commit, or roll back.

        Raises:
            CommitException: The commit failed. The error has its cause's class, too.
        """
        with _errors_of_both_kinds(), _OwnEnd(depth=1):
            super().__exit__(exc_type, exc, tb)
            if isinstance(exc, CommitException):
                raise exc

    # Pony calls this for each function that it decorates, unless it is a generator function.
    def _wrap_function(self, func: Callable[..., R]) -> Callable[..., R]:
        checked = _without_coroutine(func)
        session = self._changed(retry=0)
        ponys = cast("Callable[..., R]", DBSessionContextManager._wrap_function(session, checked))  # noqa: SLF001

        @functools.wraps(ponys)
        def once(*args: Any, **kwargs: Any) -> R:
            with _errors_of_both_kinds(), _OwnEnd():
                return ponys(*args, **kwargs)

        @functools.wraps(ponys)
        def retried(*args: Any, **kwargs: Any) -> R:
            if not core.local.db_context_counter:
                with _errors_of_both_kinds(), _OwnEnd():
                    return self._run_again(session, lambda: checked(*args, **kwargs))
            warnings.warn(
                f"@db_session decorator with `retry={self.retry}` option is ignored for {_name(func)} function "
                "because it is called inside another db_session",
                PonyRuntimeWarning,
                stacklevel=2,
            )
            return once(*args, **kwargs)

        return retried if self.retry else once

    def _run_again(self, session: DBSession, run: Callable[[], R]) -> R:
        tries = Tries(self.retry, self._wants_retry, timeout=self.timeout, rng=_rng)

        def attempt(*, immediate: bool) -> R:
            with session._changed(immediate=True) if immediate else session:
                try:
                    result = run()
                    core.commit()
                except BaseException as error:
                    if tries.is_worth_another(error):
                        core.rollback()  # also for allowed_exceptions, which would commit
                    raise
                return result

        return tries.run(attempt)

    def _changed(self, **options: Any) -> Self:
        changed = copy.copy(self)
        for name, value in options.items():
            setattr(changed, name, value)
        return changed

    def _wants_retry(self, error: BaseException) -> bool:
        if callable(self.retry_exceptions):
            return bool(self.retry_exceptions(error))
        return isinstance(error, tuple(self.retry_exceptions))


db_session = DBSession()
"""Pony's ``db_session``, with a ``retry`` that waits between tries. Call it to set options."""


class _OwnEnd:
    """Ends the thread's session if an interrupt hit Pony's own code that ends it.

    Pony counts the nesting depth of each thread's sessions. If an interrupt prevents it from counting down, Pony treats
    every later session of the thread as a part of the interrupted one, and commits none of them.

    Args:
        depth: The nesting depth of sessions where the outermost one begins or ends.
    """

    def __init__(self, *, depth: int = 0) -> None:
        self._outermost = core.local.db_context_counter == depth

    def __enter__(self) -> None:
        pass

    def __exit__(self, exc_type: type[BaseException] | None, *_: object) -> None:
        local = core.local
        if exc_type is None or not self._outermost or (local.db_session is None and not local.db2cache):
            return
        local.db_context_counter = 0
        try:
            core.rollback()
        finally:
            local.db_session = None
            local.user_groups_cache.clear()
            local.user_roles_cache.clear()


@contextmanager
def _errors_of_both_kinds() -> Iterator[None]:
    try:
        yield
    except CommitException as error:
        cause = cause_of(error)
        if not isinstance(cause, Exception):
            raise cause from cause.__cause__  # Ctrl-C is no database error: `except Exception` must not catch it
        joined_error = joined(error)
        if joined_error is error:
            raise
        raise joined_error from joined_error.__cause__


def _without_coroutine(func: Callable[..., R]) -> Callable[..., R]:
    """Return the function with a check: it raises if it returns a coroutine, so it wraps an async function."""

    def checked(*args: Any, **kwargs: Any) -> R:
        result = func(*args, **kwargs)
        if isinstance(result, types.CoroutineType):
            result.close()
            raise _async_error(func)
        return result

    functools.update_wrapper(checked, func)
    return checked


def _refuse_async(func: Callable[..., object]) -> None:
    call = getattr(func, "__call__", None)  # noqa: B004 - of an object with `async def __call__`
    kinds = (inspect.iscoroutinefunction, inspect.isasyncgenfunction)
    if any(is_kind(candidate) for is_kind in kinds for candidate in (func, call)):
        raise _async_error(func)


def _async_error(func: Callable[..., object]) -> TypeError:
    return TypeError(
        f"db_session cannot be used on {_name(func)}, which is async: a session belongs to a thread, and the tasks of "
        "an event loop share one. Decorate a plain function, and call it with `await asyncio.to_thread(function, …)`."
    )


def _name(func: Callable[..., object]) -> str:
    name = getattr(func, "__name__", None)
    return f"{name}()" if name else repr(func)
