"""Closes leases and working copies when the process ends: by itself, as a ``multiprocessing`` worker, or by SIGTERM.

Handlers of ``atexit`` run in reverse order. So the handlers that were registered before the import of temaki run after
temaki's. Sessions in them still work: such a session closes at its own end what it opens. See :func:`is_ending`.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import weakref
from contextlib import suppress
from typing import Any, Final, Protocol

from temaki.process.fork import process

_PATIENCE: Final = 5.0  # seconds that SIGTERM waits for leases to be released


class Closable(Protocol):
    """A lease or a working copy that can be closed at exit."""

    def close_at_exit(self) -> None:
        """Close it. Neither raises nor waits for a session."""


_work: weakref.WeakSet[Any] = weakref.WeakSet()
_leases: weakref.WeakSet[Any] = weakref.WeakSet()
_copies: weakref.WeakSet[Any] = weakref.WeakSet()
_registered: set[int] = set()  # processes (temaki.process.fork): a forked child has to register anew
_ending: set[int] = set()  # likewise: a child that is forked by a handler of atexit is not ending


def is_ending() -> bool:
    """Whether this process has already closed everything at its exit. From then on, nothing may stay open."""
    return process() in _ending


def close_lease_at_exit(lease: Closable) -> None:
    """Close a lease when this process ends, also by SIGTERM. Repeated calls have no further effect."""
    _leases.add(lease)
    _register()


def close_copy_at_exit(replica: Closable) -> None:
    """Close a working copy when this process ends.

    SIGTERM does not wait for that. The next process removes what is left.
    """
    _copies.add(replica)
    _register()


def stop_at_exit(work: Closable) -> None:
    """Close work in the background when this process ends, before leases and working copies. SIGTERM does not."""
    _work.add(work)
    _register()


def _register() -> None:
    here = process()
    if here in _registered:
        return
    _registered.add(here)
    # Workers of multiprocessing end with os._exit, and call its finalizers instead of atexit's handlers. A process that
    # has not imported the module is no worker.
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util.Finalize(None, _end, exitpriority=0)


def _end() -> None:
    _ending.add(process())
    for closable in [*_work, *_leases, *_copies]:
        closable.close_at_exit()


# At the import, so that it runs after the handlers of every module that imports temaki first.
atexit.register(_end)


def _close_leases() -> None:
    for lease in list(_leases):
        lease.close_at_exit()


def close_on_sigterm() -> None:
    """Make SIGTERM release leases before it ends the process.

    Does nothing outside the main thread. Does nothing either if the application has its own handler: then its exit
    releases the leases.
    """
    with suppress(ValueError):  # not the main thread
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, _on_sigterm)


def _on_sigterm(number: int, _frame: object) -> None:
    # In a thread of its own: the signal may have interrupted the main thread while it held a lock of the HTTP library.
    closing = threading.Thread(target=_close_leases, daemon=True)
    try:
        closing.start()
    except RuntimeError:  # the system gives no more threads
        _close_here(number)
    else:
        closing.join(_PATIENCE)
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _close_here(number: int) -> None:
    """Release leases in this thread. If that hangs on a lock, an alarm or another SIGTERM ends the process."""
    for fatal in (number, signal.SIGALRM):
        signal.signal(fatal, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, _PATIENCE)
    _close_leases()
    signal.setitimer(signal.ITIMER_REAL, 0)
