"""The tries of one call of a retried function: which errors are worth another try, and how long to wait before it."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from pony.orm.core import IsolationError, PartialCommitException

from temaki.clock import Clock, SystemClock
from temaki.errors import ConflictError
from temaki.lease.turn import ENOUGH, Try
from temaki.orm.cause import cause_of
from temaki.orm.no_repeat import forbidden

if TYPE_CHECKING:
    from tenacity import RetryCallState

    from temaki.engine.engine import Engine

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

BASE_DELAY: Final = 0.05
"""The longest delay before the second try, in seconds. It doubles with each further try."""
LONGEST_DELAY: Final = 2.0
"""The longest delay before any try, in seconds."""


def delay(failed: int, rng: random.Random) -> float:
    """Seconds to wait after so many tries that failed."""
    most = min(LONGEST_DELAY, BASE_DELAY * 2.0 ** min(failed - 1, 10))
    return rng.uniform(most / 2, most)


class Attempt(Protocol[T_co]):
    """A function that makes one try, in a session of its own."""

    def __call__(self, *, immediate: bool) -> T_co:
        """Run the function.

        Args:
            immediate: Whether the session must write from its start, whatever option the user gave.
        """


class Tries:
    """All tries of one call of a function. Call :meth:`run` once, in one thread.

    The tries end when a try succeeds, when an error is not worth another try, when the function must not run again,
    after ``retry`` further tries, or at the timeout.

    Args:
        retry: How often to try again, at most.
        wants_retry: Returns whether an error is worth another try.
        timeout: Seconds after which no further try begins, counted from the first use of a database. None: the smallest
            ``timeout`` of the databases that the function uses.
        clock: The clock until the function uses a database, which has its own.
        rng: The source of the jitter between tries.

    Attributes:
        conflicts: The number of tries in a row that were refused because another writer came first.
        stored: Whether a transaction of this call was stored.
    """

    def __init__(
        self,
        retry: int,
        wants_retry: Callable[[BaseException], bool],
        *,
        timeout: float | None = None,
        clock: Clock | None = None,
        rng: random.Random,
    ) -> None:
        self._retry, self._wants_retry, self._rng = retry, wants_retry, rng
        self._clock = clock or SystemClock()
        self._begun = self._clock.monotonic()
        self._touched = False
        self._timeout = float("inf") if timeout is None else timeout
        self._own_timeout = timeout is not None
        self._repeats = False  # whether the try that failed last is worth another one
        self._from_elsewhere = False  # whether one of the conflicts was with another process
        self.conflicts = 0
        self.stored = False

    # -- called by the provider --------------------------------------------------------------------------------------

    def touch(self, engine: Engine) -> Try:
        """Note that the function uses a database.

        Returns:
            The current try: its conflicts so far and the seconds left.
        """
        shared = engine.shared
        if not self._touched:
            self._touched = True
            self._clock, self._begun = shared.clock, shared.clock.monotonic()
        if not self._own_timeout:
            self._timeout = min(self._timeout, shared.choices.timeout)
        # Between the threads of one process the writer lock is enough: see `_try`.
        return Try(self.conflicts if self._from_elsewhere else 0, self._left())

    def failed(self, error: BaseException) -> None:
        """Note that a commit of the function failed, even if the function catches the error."""
        if forbidden(error) is not None:
            self.stored = True  # it may be stored

    # -- running -----------------------------------------------------------------------------------------------------

    def run(self, attempt: Attempt[T]) -> T:
        """Make one try after another until the tries end.

        Returns:
            The result of the try that succeeded.

        Raises:
            BaseException: The error of the last try.
        """
        try:
            return self._try(attempt)
        except BaseException as error:
            if not self._repeats:
                raise
            first: list[BaseException] = [error]

        def again() -> T:
            if first:
                raise first.pop()  # tenacity only counts this try, which was made already
            return self._try(attempt)

        # The import takes 31 to 41 ms. A process without conflicts does not pay them.
        from tenacity import Retrying

        retrying = Retrying(
            sleep=self._clock.sleep,
            wait=self._delay,
            stop=self._is_over,
            retry=lambda _: self._repeats,
            reraise=True,
        )
        return retrying(again)

    def _try(self, attempt: Attempt[T]) -> T:
        self._repeats = False
        before, _active.tries = _active.tries, self
        try:
            # If the session holds the writer lock from its start, no other thread of this process can come first.
            return attempt(immediate=self.conflicts >= ENOUGH)
        finally:
            _active.tries = before

    def is_worth_another(self, error: BaseException) -> bool:
        """Whether the function may run again after this error, if tries and time are left. Call this once per error."""
        cause = cause_of(error)
        self.conflicts = self.conflicts + 1 if isinstance(cause, (ConflictError, IsolationError)) else 0
        self._from_elsewhere = bool(self.conflicts) and (self._from_elsewhere or isinstance(cause, ConflictError))
        self._repeats = (
            not self.stored
            and not isinstance(error, PartialCommitException)  # another try would repeat the stored part
            and forbidden(error) is None
            and (getattr(error, "should_retry", False) or self._wants_retry(error))
        )
        return self._repeats

    def _left(self) -> float:
        return self._begun + self._timeout - self._clock.monotonic()

    def _delay(self, state: RetryCallState) -> float:
        return max(0.0, min(delay(state.attempt_number, self._rng), self._left() / 2))

    def _is_over(self, state: RetryCallState) -> bool:
        why = ""
        if state.attempt_number > self._retry:
            why = f"retry={self._retry}"
        elif self._left() <= 0:
            why = f"its timeout of {self._timeout:g} s is over"
        error = None if state.outcome is None else state.outcome.exception()
        if why and error is not None:
            error.add_note(f"temaki.db_session gave up after try {state.attempt_number}: {why}.")
        return bool(why)


class _Active(threading.local):
    tries: Tries | None = None


_active = _Active()


def current_tries() -> Tries | None:
    """Return the tries of the call that is active in this thread; None if it is not retried."""
    return _active.tries
