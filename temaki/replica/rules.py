"""What statements may do on a connection to the working copy: what is refused, and why.

SQLite asks its authorizer about each action of a statement, when it prepares the statement. Most actions are allowed
without a look. The guarded ones could end temaki's transaction, or change how the file is journalled.
"""

from __future__ import annotations

import os
from typing import Final

# https://www.sqlite.org/c3ref/c_alter_table.html; the sqlite3 module has names for them only in part.
_PRAGMA, _TRANSACTION, _ATTACH = 19, 22, 24
GUARDED: Final = frozenset({_PRAGMA, _TRANSACTION, _ATTACH})
"""Action codes of the authorizer that :func:`reason_to_refuse` is asked about."""

_PRAGMA_RULES: Final = {
    "journal_mode": "the working copy is journalled by temaki",
    "locking_mode": "the working copy is shared by temaki's own connections",
    "query_only": "write inside a db_session; temaki opens the working copy for writing there",
    "wal_autocheckpoint": "temaki checkpoints after each acknowledged commit",
    "wal_checkpoint": "temaki checkpoints after each acknowledged commit",
}
"""Pragmas that are refused, and why. All but ``wal_checkpoint`` only with a value: asking is harmless."""


def reason_to_refuse(action: int, first: str | None, second: str | None, *, folder: str) -> str | None:
    """Why a guarded action is refused; None if it is allowed.

    Args:
        action: The authorizer's code of the action.
        first: The authorizer's first argument for it.
        second: The authorizer's second argument for it.
        folder: The working copy's folder; nothing in it may be attached.
    """
    if action == _TRANSACTION:
        return f"{first} would bypass the upload: use db_session, commit() and rollback() of pony.orm"
    if action == _PRAGMA:
        name = (first or "").lower()
        rule = _PRAGMA_RULES.get(name)
        if rule is not None and (second is not None or name == "wal_checkpoint"):
            return f"PRAGMA {name} cannot be changed: {rule}"
        return None
    if first is None:
        return "ATTACH needs its file name as a literal, so that temaki can see that it is not the working copy"
    if first and os.path.realpath(_path_of(first)).startswith(folder + os.sep):
        return "ATTACH of temaki's own working copy: what is written there is never stored; query it as `main`"
    return None


def _path_of(name: str) -> str:
    """The file that ATTACH would open; see "URI Filenames", https://www.sqlite.org/uri.html section 3."""
    if not name.startswith("file:"):
        return name
    from urllib.parse import unquote

    rest = name.removeprefix("file:").partition("#")[0].partition("?")[0]
    if rest.startswith("//"):
        rest = "/" + rest[2:].partition("/")[2]
    return unquote(rest)
