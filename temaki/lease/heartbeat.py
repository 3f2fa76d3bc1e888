"""The heartbeat: a thread that renews a lease in use, and gives an idle one back.

The thread exists only while something will be due. A lease without it is good for its ttl all the same, and is renewed
before a commit.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from temaki.errors import LeaseLostError, StoreError, SyncError
from temaki.lease.tenure import Tenure
from temaki.process.exit import is_ending

_log = logging.getLogger(__name__)
_PATIENCE: Final = 1.0  # seconds for which the end of the thread is awaited

Tick = Callable[[], float | None]
"""Does what is due. Returns the seconds until something will be due again; None if nothing will."""


class Heartbeat:
    """The thread of one lease, and when it runs. The lease's lock is held by whoever calls.

    Args:
        state: The lease's lock. The thread waits on it.
        url: The database's URL, for messages.
        ttl: Seconds for which the lease is good without the thread, for messages.
        enabled: False if the owner of the lease calls tick by itself, and there is to be no thread.

    Attributes:
        thread: The thread; None if nothing is due.
    """

    def __init__(self, state: threading.Condition, *, url: str, ttl: float, enabled: bool) -> None:
        self._state, self._url, self._ttl, self._enabled = state, url, ttl, enabled
        self.thread: threading.Thread | None = None

    def wake(self, tick: Tick) -> bool:
        """Have the thread find out anew what is due; start it if there is none.

        It is no error if no thread can be started: sessions go on without it. That happens at a limit of threads, and
        while the interpreter shuts down (Python 3.12).

        Args:
            tick: Does what is due. Given here, so that an idle heartbeat does not keep its lease alive.

        Returns:
            False if there can be no thread. An idle lease has to be given back at once then.
        """
        if not self._enabled:
            return True
        if self.thread is None or not self.thread.is_alive():  # an interrupt may have come before it began
            thread = threading.Thread(target=self._beat, args=(tick,), name="temaki-lease", daemon=True)
            try:
                self.thread = thread
                thread.start()
            except RuntimeError as error:
                self.thread = None
                _log.log(
                    logging.DEBUG if is_ending() else logging.WARNING,
                    "%s: no thread can be started to renew the lease (%s). A transaction that takes longer than its "
                    "ttl of %g s may lose it. Raise the limit of threads of this process or user.",
                    self._url,
                    error,
                    self._ttl,
                )
                return False
        self._state.notify_all()
        return True

    def _beat(self, tick: Tick) -> None:
        with self._state:
            while self.thread is threading.current_thread():
                due = tick()
                if due is None:
                    self.thread = None
                    return
                self._state.wait(due)


def keep_alive(tenure: Tenure, renew: Callable[[int], None]) -> float | None:
    """Renew a lease in use, a third of its ttl after its last write.

    Args:
        tenure: What the process holds of the lease; it holds it.
        renew: Renews the lease in that generation.

    Returns:
        Seconds until something will be due again; None if the lease is lost.
    """
    due = tenure.written[0] + tenure.ttl / 3 - tenure.clock.monotonic()
    if due > 0:
        return due
    assert tenure.generation is not None, "the caller has looked, under the same lock"
    try:
        renew(tenure.generation)
    except LeaseLostError:
        _log.warning("%s: the lease was lost: %s", tenure.url, tenure.loss.how)
        return None
    except (StoreError, SyncError) as error:  # the object in the record's place may be no lease; that may be mended
        _log.info("%s: the lease could not be renewed: %s", tenure.url, error)  # no loss yet: tried again
        return tenure.ttl / 10
    return tenure.ttl / 3


def await_end(thread: threading.Thread | None) -> None:
    """Wait for a heartbeat that has nothing more to do. Call it without the lease's lock.

    A thread that still waits for Python's interpreter lock while a program like uWSGI forks in C leaves that lock
    unusable in the child. So no thread is left when a session is over.

    Args:
        thread: The thread, as it was under the lock; None if there was none.
    """
    if thread is not None and thread is not threading.current_thread():
        thread.join(_PATIENCE)
