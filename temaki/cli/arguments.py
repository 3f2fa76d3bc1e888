"""The order of the arguments: a URL, and a switch, cannot be taken for anything else, so they may stand anywhere."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|(?:s3|file|memory):", re.IGNORECASE)
_SWITCHES: Final = frozenset({"--json", "--yes", "-y", "--quick", "--write", "--races"})
_GROUPS: Final = frozenset({"lease"})


def is_url(argument: str) -> bool:
    """Whether somebody means a URL by this: it has a scheme. A file of such a name is written with ``./`` before it."""
    return _URL.match(argument) is not None


def arranged(arguments: Sequence[str]) -> list[str]:
    """The arguments with the command first: ``--json s3://b/k status`` becomes ``status --json s3://b/k``."""
    left, words, moved = list(arguments), [], []
    while left:
        if is_url(left[0]) or left[0] in _SWITCHES:
            moved.append(left.pop(0))
            continue
        words.append(left.pop(0))
        if words[-1] not in _GROUPS or len(words) > 1:
            break
    return [*words, *moved, *left]
