"""What a forked child does with what it inherits.

A child shares its parent's open files but none of its locks, and has none of its threads. So it must not close an
inherited SQLite connection (that would work on the parent's files), nor wait for a lock that a thread held which does
not exist on its side. It keeps the former for ever and makes the latter anew.

**Python does not see every fork.** Its hooks (``os.register_at_fork``) run in ``os.fork()`` alone. uWSGI forks in C,
after it has loaded the application, and so do other programs that embed Python. So everything that uses what belongs to
one process begins with :func:`look`, which notices that this is another process by now. The hooks only make it notice
sooner.

**What tells a child from its parent.** Its process id, and a page of memory that Linux empties in every child
(madvise(2), ``MADV_WIPEONFORK``, Linux 4.14). The page is there for process ids that repeat: in a pid namespace of its
own a child may have the very number that its parent has in another one, and a number is free again when its process has
ended. Where there is no such page, the process id alone decides.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from temaki.errors import ConflictError

if TYPE_CHECKING:
    from mmap import mmap

T = TypeVar("T")

_MADV_WIPEONFORK: Final = 18  # linux/mman.h; the mmap module has no name for it


class Resettable(Protocol):
    """Something with locks or open files that a forked child has to start anew."""

    def reset_after_fork(self) -> None:
        """Start anew: called in the child, before anything else of temaki's runs there.

        It takes no lock that it has not made itself.
        """


_fragile: weakref.WeakSet[object] = weakref.WeakSet()
_resettable: weakref.WeakSet[Resettable] = weakref.WeakSet()
_held: list[object] = []
_inherited: list[object] = []


class _Here:
    """Which process this is, as far as it has been noticed.

    Attributes:
        number: How many forks lie between the process that imported temaki and this one.
    """

    def __init__(self) -> None:
        self.number = 0
        self._page = _emptied_page()
        self._locks: dict[int, threading.RLock] = {}  # by process id: a parent's thread may hold the parent's
        self._mark()

    def _mark(self) -> None:
        self._pid = os.getpid()
        if self._page is not None:
            self._page[0] = 1

    def look(self) -> None:
        """See :func:`look`."""
        if os.getpid() != self._pid or (self._page is not None and not self._page[0]):
            self._notice()

    def _notice(self) -> None:
        lock = self._locks.setdefault(os.getpid(), threading.RLock())
        if lock._is_owned():  # type: ignore[attr-defined]  # noqa: SLF001 - what Condition asks of its lock, too
            return  # something that is reset below looks around, or a finalizer that runs meanwhile
        with lock:
            if os.getpid() == self._pid and (self._page is None or self._page[0]):
                return  # another thread was faster
            self.number += 1
            _inherited.extend([*_held, *_members(_fragile)])
            _held.clear()
            _fragile.clear()
            for thing in _members(_resettable):
                thing.reset_after_fork()
            self._mark()


def _emptied_page() -> mmap | None:
    """A page of memory that the kernel fills with zeros in every child; None if there is no such thing here."""
    if sys.platform != "linux":
        return None
    import mmap

    page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        page.madvise(_MADV_WIPEONFORK)
    except OSError:  # an older kernel, or what takes a kernel's place in some sandboxes
        page.close()
        return None
    return page


def _members(things: weakref.WeakSet[T]) -> list[T]:
    while True:
        try:
            return list(things)
        except RuntimeError:  # another thread added one at this moment
            continue


_here = _Here()


def look() -> None:
    """Notice if this process was forked since the last look, and then start anew what must not be shared.

    Call it before every use of what belongs to one process. It takes a fifth of a microsecond.
    """
    _here.look()


def process() -> int:
    """A number for this process, other than that of the processes from which it was forked."""
    _here.look()
    return _here.number


def require_own(owner: int, url: str) -> None:
    """Make sure that something was begun in this process.

    Args:
        owner: What :func:`process` said when it was begun.
        url: The database's URL, for the message.

    Raises:
        ConflictError: It was begun in a process from which this one was forked.
    """
    if owner != process():
        raise ConflictError(
            "This db_session began before a fork, in the parent process: begin another one in the child, where this "
            f"one cannot go on. Nothing was stored in {url}.",
            url=url,
        )


def never_close_in_child(thing: object) -> None:
    """Keep ``thing`` alive in every child that is forked while it lives here."""
    look()  # or the next look would take it for inherited
    _fragile.add(thing)


def keep_inherited(thing: object) -> None:
    """Keep ``thing`` alive for ever: it is the parent's, and its end would do something."""
    _inherited.append(thing)


def reset_in_child(thing: Resettable) -> None:
    """Call ``thing.reset_after_fork()`` in every child that is forked while it lives here."""
    look()
    _resettable.add(thing)


class ProcessLock:
    """A lock among the threads of one process, which a forked child finds free: ``with lock(): …``.

    Calling it gives a plain lock, whose ``with`` has no moment in which an interrupt could strike with the lock taken
    and nobody there to give it back.
    """

    def __init__(self) -> None:
        self.reset_after_fork()
        reset_in_child(self)

    def reset_after_fork(self) -> None:
        """In a forked child: the thread that held it is not here."""
        self._lock = threading.Lock()

    def __call__(self) -> threading.Lock:
        """The lock, as it is in this process."""
        look()
        return self._lock


def _before() -> None:
    # Held from before the fork on: by the time that the child could say so, Python has already dropped what belonged
    # to the parent's other threads, and with it their connections.
    _held[:] = _members(_fragile)


def _in_parent() -> None:
    _held.clear()


os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=look)
