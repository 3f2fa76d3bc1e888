"""Threads that share one call: a request to the store, made once for all that wait for its answer."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable

from temaki.errors import TemakiError

_LOOK_AROUND = 0.2  # seconds


class _Flight:
    """One call, shared by all threads that came before it began.

    Attributes:
        done: Whether the call is over.
        error: What it raised.
        gate: Closed until then.
    """

    def __init__(self) -> None:
        self.done = False
        self.error: BaseException | None = None
        self.gate = threading.Lock()
        self.gate.acquire()

    def wait(self) -> None:
        """Until it is over. An interrupted waiter may leave the gate closed behind it, so the others look around."""
        while not self.done:
            if self.gate.acquire(timeout=_LOOK_AROUND):
                self.gate.release()


class Flights:
    """Lets threads share one call, but only a call that began after they arrived.

    Made of plain locks, whose ``with`` has no moment in which an interrupt could strike with the lock taken and nobody
    there to give it back; a ``threading.Condition`` has.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flying: _Flight | None = None
        self._next: _Flight | None = None

    def share(self, call: Callable[[], None]) -> None:
        """Run ``call``, or wait for another thread that begins to run it from now on.

        A failure is everybody's, as a copy of their own; an interrupt is only that of the thread it hit.
        """
        while True:
            mine = self._join_next()
            if self._fly_or_wait(mine, call) or mine.error is None:
                return
            if isinstance(mine.error, TemakiError):
                raise copy.copy(mine.error) from mine.error
            # The one who flew for us was interrupted, or met with something that is not ours to report: fly ourselves.

    def _join_next(self) -> _Flight:
        with self._lock:
            if self._next is None:
                self._next = _Flight()
            return self._next

    def _fly_or_wait(self, mine: _Flight, call: Callable[[], None]) -> bool:
        """Wait until ``mine`` is over; or, if it is this thread that finds nobody flying, run it. Whether it did."""
        while not mine.done:
            own: _Flight | None = None
            try:
                with self._lock:
                    flying = self._flying
                    if flying is None and not mine.done:
                        own = mine  # before anybody can see it: from here on it has to land, whatever happens
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
