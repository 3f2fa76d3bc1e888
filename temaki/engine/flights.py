"""Lets threads share one call: one request to the store for all threads that wait for its answer."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable

from temaki.errors import TemakiError

_LOOK_AROUND = 0.2  # seconds


class _Flight:
    """One call, shared by all threads that came before it began.

    Attributes:
        done: True if the call is over.
        error: The error that the call raised; None if there was none.
        gate: Lock that is held until the call is over.
    """

    def __init__(self) -> None:
        self.done = False
        self.error: BaseException | None = None
        self.gate = threading.Lock()
        self.gate.acquire()

    def wait(self) -> None:
        """Wait until the call is over. Check it now and then: an interrupted waiter may leave the gate closed."""
        while not self.done:
            if self.gate.acquire(timeout=_LOOK_AROUND):
                self.gate.release()


class Flights:
    """Lets threads share one call, but only a call that began after they arrived ("single flight").

    It uses plain locks, not a ``threading.Condition``. An interrupt inside of a condition can leave its lock taken
    for ever; the ``with`` of a plain lock has no such moment.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flying: _Flight | None = None
        self._next: _Flight | None = None

    def share(self, call: Callable[[], None]) -> None:
        """Run ``call``, or wait for another thread that begins to run it from now on.

        If the call fails, every waiting thread raises a copy of the error. An interrupt stops only the thread that it
        hits.
        """
        while True:
            mine = self._join_next()
            if self._fly_or_wait(mine, call) or mine.error is None:
                return
            if isinstance(mine.error, TemakiError):
                raise copy.copy(mine.error) from mine.error
            # The thread that ran the call was interrupted, or raised an error that is only its own. Try again here.

    def _join_next(self) -> _Flight:
        with self._lock:
            if self._next is None:
                self._next = _Flight()
            return self._next

    def _fly_or_wait(self, mine: _Flight, call: Callable[[], None]) -> bool:
        """Run the call in this thread if no thread is running one; else wait until ``mine`` is over.

        Returns:
            True if this thread ran the call.
        """
        while not mine.done:
            own: _Flight | None = None
            try:
                with self._lock:
                    flying = self._flying
                    if flying is None and not mine.done:
                        own = mine  # set before other threads can see the flight: from here on it must always land
                        self._flying, self._next = mine, None
                if own is not None:
                    call()
                    return True
            except BaseException as error:
                if own is not None:
                    own.error = error
                raise
            finally:
                if own is not None:
                    # Not in a function of its own: an interrupt may strike at the start of one, before its first line.
                    with self._lock:
                        if self._flying is own:
                            self._flying = None
                        if self._next is own:
                            self._next = None
                        own.done = True
                        own.gate.release()
            (flying or mine).wait()
        return False
