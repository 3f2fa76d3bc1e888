"""Giving leases back when the process ends: by itself, as a ``multiprocessing`` worker, or by SIGTERM."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import weakref
from contextlib import suppress
from typing import Any, Final, Protocol

from temaki.fork import process

_PATIENCE: Final = 5.0  # seconds that SIGTERM waits for leases to be given back


class Closable(Protocol):
    """What can be given back."""

    def close(self) -> None:
        """Give it back; never raises."""


_open: weakref.WeakSet[Any] = weakref.WeakSet()
_registered: set[int] = set()  # processes (temaki.fork): a forked child has to register anew


def close_at_exit(lease: Closable) -> None:
    """Have it closed when this process ends. Repeating it does nothing more."""
    here = process()
    _open.add(lease)
    if here in _registered:
        return
    _registered.add(here)
    atexit.unregister(_close_all)
    atexit.register(_close_all)
    # Workers of multiprocessing end with os._exit, and call its finalizers instead. Who has not imported it is none.
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util.Finalize(None, _close_all, exitpriority=0)


def _close_all() -> None:
    for lease in list(_open):
        lease.close()


def close_on_sigterm() -> None:
    """Have SIGTERM close what is open before it ends the process, where it would otherwise just end it.

    Does nothing where the application has a handler of its own (its exit closes them), or outside the main thread.
    """
    with suppress(ValueError):  # not the main thread
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, _on_sigterm)


def _on_sigterm(number: int, _frame: object) -> None:
    # In a thread of its own: the main one may have been interrupted while it held a lock of the HTTP library's.
    closing = threading.Thread(target=_close_all, daemon=True)
    closing.start()
    closing.join(_PATIENCE)
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
