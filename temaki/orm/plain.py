"""The error of a plain Pony ``Database`` that a program uses as temaki's.

``from pony.orm import *`` after ``from temaki import *`` replaces ``Database`` and ``db_session``. The first sign is
that Pony's ``Database`` has no ``bind_s3``. Pony has no hook for a missing name. So each of temaki's names becomes a
descriptor on Pony's class, whose error explains what happened. ``hasattr``, and ``getattr`` with a default, still find
no such attribute.
"""

from __future__ import annotations

from typing import Any

from pony.orm import core

_INSTEAD = {
    "bind_s3": "temaki.bind_s3(db, …)",
    "unbind": "temaki.unbind(db)",
    "sync": "temaki.sync_of(db)",
    "seed": None,
}


class _Missing:
    """A name that temaki's ``Database`` has and Pony's does not."""

    def __init__(self, name: str, instead: str | None) -> None:
        self._name = name
        self._instead = instead

    def __get__(self, instance: Any, owner: type) -> Any:
        try:  # another base class of the user's may have the name
            return getattr(super(core.Database, owner if instance is None else instance), self._name)
        except AttributeError:
            raise self._error(owner) from None

    def _error(self, owner: type) -> AttributeError:
        kind = f"{owner.__module__}.{owner.__qualname__}"
        on_purpose = f" If it is Pony's on purpose, use {self._instead}." if self._instead else ""
        error = AttributeError(
            f"This Database is a {kind}, not temaki.Database: it has no {self._name}. If both are imported with '*', "
            "the later import replaces Database and db_session: write 'from pony.orm import *' first, and "
            f"'from temaki import *' after it.{on_purpose}"
        )
        error.name, error.obj = self._name, None  # else Python suggests a similar name of Pony's
        return error


def explain_missing_names() -> None:
    """Make Pony's ``Database`` explain that it lacks temaki's names. Names that it has stay as they are."""
    for name, instead in _INSTEAD.items():
        if name not in vars(core.Database):
            setattr(core.Database, name, _Missing(name, instead))
