"""Says once that another format would upload less."""

from __future__ import annotations

import logging
from typing import Final

from temaki.process.fork import ProcessLock

_log = logging.getLogger(__name__)

LARGE: Final = 8 << 20
"""Bytes of an upload from which the hint is given."""
HEAD: Final = 40 << 10
"""Bytes that a commit in pages uploads beside the changed pages: its share of older ones, and of their merging."""

_told: set[str] = set()
_lock = ProcessLock()


def about_pages(size: int, changed: int) -> str | None:
    """What a commit in the format ``file`` would have saved in the format ``pages``.

    Args:
        size: Bytes that the commit uploaded.
        changed: Bytes of the pages that it changed.

    Returns:
        The rest of a sentence; None if it is not worth saying.
    """
    expected = changed + HEAD  # not compressed, so rather too much
    if size <= LARGE or 2 * expected > size:
        return None
    return f"uploads about {_size(expected)} in the format 'pages' instead of {_size(size)}"


def after_commit(url: str, size: int, changed: int) -> None:
    """Log how to convert, at the first commit to this URL in this process that would have saved much.

    Args:
        url: The database's URL. Its version is in the format ``file``.
        size: Bytes that the commit uploaded.
        changed: Bytes of the pages that it changed.
    """
    if size <= LARGE or url in _told:
        return
    found = about_pages(size, changed)
    if found is None:
        return
    with _lock():
        if url in _told:
            return
        _told.add(url)
    _log.info(
        "%s: a commit such as this one %s. To convert: temaki convert %s --to pages. Running processes go on.",
        url,
        found,
        url,
    )


def _size(count: int) -> str:
    return f"{count / (1 << 20):.1f} MiB" if count >= 1 << 20 else f"{count / 1024:.0f} KiB"
