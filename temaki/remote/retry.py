"""Retries a request that got no usable answer, until a deadline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from temaki.errors import StoreUnavailableError

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from tenacity import RetryCallState

    from temaki.clock import Clock

T = TypeVar("T")

BASE_DELAY: Final = 0.05  # seconds before the first retry
LONGEST_DELAY: Final = 2.0  # seconds


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long requests are repeated, and by which clock.

    Attributes:
        clock: Measures the time and waits.
        rng: Source of the jitter between attempts.
        timeout: Seconds after which no new attempt starts.
    """

    clock: Clock
    rng: random.Random
    timeout: float

    def begin(self) -> Attempts:
        """The attempts of an operation that begins now. Requests that belong together share them."""
        return Attempts(self.clock, self.rng, self.clock.monotonic() + self.timeout)

    def run(self, call: Callable[[], T]) -> T:
        """Make one request that begins now. Raises what the last attempt raised; see :meth:`Attempts.run`."""
        return self.begin().run(call)


@dataclass(frozen=True, slots=True)
class Attempts:
    """The attempts of one operation, until its deadline.

    Attributes:
        clock: Measures the time and waits.
        rng: Source of the jitter between attempts.
        deadline: Moment of ``clock.monotonic()`` after which no new attempt starts.
    """

    clock: Clock
    rng: random.Random
    deadline: float

    @property
    def is_over(self) -> bool:
        """Whether the deadline has passed."""
        return self.clock.monotonic() >= self.deadline

    def run(
        self,
        call: Callable[[], T],
        *,
        on: tuple[type[Exception], ...] = (StoreUnavailableError,),
        wait: Callable[[BaseException | None], float] | None = None,
        on_failure: Callable[[Exception], None] | None = None,
    ) -> T:
        """Run ``call`` until it succeeds, raises an error that is not in ``on``, or the deadline has passed.

        The wait between attempts doubles each time, unless ``wait`` is given; up to half of it is left out at random.
        No attempt starts after the deadline, with one exception: there are always two attempts. The reason is a process
        that was frozen in the middle of a request (AWS Lambda between invocations). It wakes up on a dead connection,
        beyond any deadline, and only a second attempt tells what became of the first. An attempt under way is never cut
        short.

        Args:
            call: Makes one attempt.
            on: Errors that are worth another attempt. Every other error is raised at once.
            wait: Gives the longest wait after an error, in seconds. Default: twice as long each time.
            on_failure: Called with each error in ``on``, before anything else happens.

        Raises:
            Exception: The error of the last attempt.
        """

        def attempt() -> T:
            try:
                return call()
            except on as error:
                if on_failure is not None:
                    on_failure(error)
                raise

        try:
            return attempt()
        except on as error:
            first: list[Exception] = [error]

        def repeat() -> T:
            if first:
                raise first.pop()  # the attempt that has already been made: tenacity only counts it
            return attempt()

        # Imported here because it takes 31 to 41 ms: a process whose requests succeed does not need it.
        from tenacity import Retrying, retry_if_exception_type

        def delay(state: RetryCallState) -> float:
            most = min(LONGEST_DELAY, BASE_DELAY * 2.0 ** min(state.attempt_number - 1, 10))
            if wait is not None and state.outcome is not None:
                most = wait(state.outcome.exception())
            return max(0.0, min(self.rng.uniform(most / 2, most), self.deadline - self.clock.monotonic()))

        def is_over(state: RetryCallState) -> bool:
            return state.attempt_number > 1 and self.is_over

        retrying = Retrying(
            sleep=self.clock.sleep, wait=delay, stop=is_over, retry=retry_if_exception_type(on), reraise=True
        )
        return retrying(repeat)
