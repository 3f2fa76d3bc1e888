"""Notices forks, and handles what a forked child inherits.

A child shares its parent's open files. It has none of the parent's threads, and its copies of locks stay as they were.
So it must not close an inherited SQLite connection: that would work on the parent's files. And it must not wait for an
inherited lock: the thread that holds it does not exist in the child. It keeps inherited connections for ever, and
makes new locks.

**Python does not see every fork.** Its hooks (``os.register_at_fork``) run in ``os.fork()`` alone. uWSGI forks in C
after it has loaded the application, and so do other programs that embed Python. So every use of something that belongs
to one process begins with :func:`look`, which notices that this is another process. The hooks only make it notice
sooner.

**Two things tell a child from its parent:** the process id, and a page of memory that Linux empties in every child
(madvise(2), ``MADV_WIPEONFORK``, Linux 4.14). The page is needed because process ids repeat. In its own pid namespace a
child may have the same number that its parent has in another one. And a number is free again when its process has
ended. Without such a page, the process id alone decides.
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
    """An object with locks or open files that a forked child has to reset."""

    def reset_after_fork(self) -> None:
        """Reset the object. Called in the child, before anything else of temaki runs there.

        The method takes no lock that it has not made itself.
        """


_fragile: weakref.WeakSet[object] = weakref.WeakSet()
_resettable: weakref.WeakSet[Resettable] = weakref.WeakSet()
_held: list[object] = []
_inherited: list[object] = []


class _Here:
    """The process in which this code runs, as far as it has noticed.

    Attributes:
        number: Number of forks between the process that imported temaki and this one.
    """

    def __init__(self) -> None:
        self.number = 0
        self._page = _emptied_page()
        self._locks: dict[int, threading.RLock] = {}  # by process id: a thread of the parent may hold the parent's lock
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
            return  # called by a reset below, or by a finalizer that runs meanwhile
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
    """A page of memory that the kernel fills with zeros in every child; None if this system has no such page."""
    if sys.platform != "linux":
        return None
    import mmap

    page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        page.madvise(_MADV_WIPEONFORK)
    except OSError:  # an older kernel, or a sandbox that replaces the kernel
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
    """Notice whether this process was forked since the last look. If so, reset everything that must not be shared.

    Call it before every use of something that belongs to one process. It takes a fifth of a microsecond.
    """
    _here.look()


def process() -> int:
    """Number of this process. The processes from which it was forked have other numbers."""
    _here.look()
    return _here.number


def require_own(owner: int, url: str) -> None:
    """Make sure that a session was begun in this process.

    Args:
        owner: Number from :func:`process` when the session began.
        url: The database's URL, for the message.

    Raises:
        ConflictError: The session was begun in a process from which this one was forked.
    """
    if owner != process():
        raise ConflictError(
            "This db_session began before a fork, in the parent process: begin another one in the child, where this "
            f"one cannot go on. Nothing was stored in {url}.",
            url=url,
        )


def never_close_in_child(thing: object) -> None:
    """Keep ``thing`` alive in every child that is forked while ``thing`` lives here."""
    look()  # without this, the next look would take it for inherited
    _fragile.add(thing)


def keep_inherited(thing: object) -> None:
    """Keep ``thing`` alive for ever: it belongs to the parent, and its finalizer would change the parent's files."""
    _inherited.append(thing)


def reset_in_child(thing: Resettable) -> None:
    """Call ``thing.reset_after_fork()`` in every child that is forked while ``thing`` lives here."""
    look()
    _resettable.add(thing)


class ProcessLock:
    """A lock among the threads of one process, which is free in a forked child: ``with lock(): …``.

    A call returns a plain lock. The ``with`` of a plain lock has no moment in which an interrupt could leave the lock
    taken for ever.
    """

    def __init__(self) -> None:
        self.reset_after_fork()
        reset_in_child(self)

    def reset_after_fork(self) -> None:
        """Make a new lock in a forked child: the thread that held the old one does not exist there."""
        self._lock = threading.Lock()

    def __call__(self) -> threading.Lock:
        """Get this process's lock."""
        look()
        return self._lock


def _before() -> None:
    # Held from before the fork. When the child could run this, Python has already dropped the objects of the parent's
    # other threads, with their connections.
    _held[:] = _members(_fragile)


def _in_parent() -> None:
    _held.clear()


os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=look)
