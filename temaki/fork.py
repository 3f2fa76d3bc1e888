"""What a forked child does with what it inherits.

A child shares its parent's open files but none of its locks, and has none of its threads. So it must not close an
inherited SQLite connection (that would work on the parent's files), nor wait for a lock that a thread held which does
not exist on its side. It keeps the former for ever and makes the latter anew.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Resettable(Protocol):
    """Something with locks or open files that a forked child has to start anew."""

    def reset_after_fork(self) -> None:
        """Start anew: called in the child, before anything else runs there."""


_fragile: weakref.WeakSet[object] = weakref.WeakSet()
_resettable: weakref.WeakSet[Resettable] = weakref.WeakSet()
_held: list[object] = []
_inherited: list[object] = []


def never_close_in_child(thing: object) -> None:
    """Keep ``thing`` alive in every child that is forked while it lives here."""
    _fragile.add(thing)


def reset_in_child(thing: Resettable) -> None:
    """Call ``thing.reset_after_fork()`` in every child that is forked while it lives here."""
    _resettable.add(thing)


def _before() -> None:
    # Held from before the fork on: by the time that the child could say so, Python has already dropped what belonged
    # to the parent's other threads, and with it their connections.
    while True:
        try:
            _held[:] = list(_fragile)
        except RuntimeError:  # another thread added one at this moment
            continue
        return


def _in_parent() -> None:
    _held.clear()


def _in_child() -> None:
    _inherited.extend(_held)
    _held.clear()
    _fragile.clear()
    for thing in list(_resettable):
        thing.reset_after_fork()


os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
