"""What is closed when the process ends: by itself, as a ``multiprocessing`` worker, or by SIGTERM.

Handlers of ``atexit`` run in reverse order, so those that were registered before temaki was imported come after this
one. Their sessions still work. Whatever such a session opens, it closes at its own end: see :func:`is_ending`.
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

_PATIENCE: Final = 5.0  # seconds that SIGTERM waits for leases to be given back


class Closable(Protocol):
    """What can be given back."""

    def close_at_exit(self) -> None:
        """Give it back; neither raises nor waits for a session."""


_leases: weakref.WeakSet[Any] = weakref.WeakSet()
_copies: weakref.WeakSet[Any] = weakref.WeakSet()
_registered: set[int] = set()  # processes (temaki.process.fork): a forked child has to register anew
_ending: set[int] = set()  # likewise: a child that is forked by a handler of atexit is not ending


def is_ending() -> bool:
    """Whether this process is past the point at which everything is closed. From then on, nothing may stay open."""
    return process() in _ending


def close_lease_at_exit(lease: Closable) -> None:
    """Have a lease closed when this process ends, by SIGTERM too. Repeating it does nothing more."""
    _leases.add(lease)
    _register()


def close_copy_at_exit(replica: Closable) -> None:
    """Have a working copy closed when this process ends.

    SIGTERM does not wait for that: the next process removes what is left.
    """
    _copies.add(replica)
    _register()


def _register() -> None:
    here = process()
    if here in _registered:
        return
    _registered.add(here)
    # Workers of multiprocessing end with os._exit, and call its finalizers instead. Who has not imported it is none.
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util.Finalize(None, _end, exitpriority=0)


def _end() -> None:
    _ending.add(process())
    for closable in [*_leases, *_copies]:
        closable.close_at_exit()


# At the import, so that it runs after the handlers of every module that imports temaki first.
atexit.register(_end)


def _close_leases() -> None:
    for lease in list(_leases):
        lease.close_at_exit()


def close_on_sigterm() -> None:
    """Have SIGTERM give leases back before it ends the process, where it would otherwise just end it.

    Does nothing where the application has a handler of its own (its exit closes them), or outside the main thread.
    """
    with suppress(ValueError):  # not the main thread
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, _on_sigterm)


def _on_sigterm(number: int, _frame: object) -> None:
    # In a thread of its own: the main one may have been interrupted while it held a lock of the HTTP library's.
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
    """Give leases back in this thread. If that hangs on a lock, an alarm or another SIGTERM ends the process."""
    for fatal in (number, signal.SIGALRM):
        signal.signal(fatal, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, _PATIENCE)
    _close_leases()
    signal.setitimer(signal.ITIMER_REAL, 0)
