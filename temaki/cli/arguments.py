"""The order of the arguments: URLs and switches may stand anywhere, since nothing else looks like them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|(?:s3|file|memory):", re.IGNORECASE)
_SWITCHES: Final = frozenset({"--json", "--yes", "-y", "--quick", "--write", "--races", "--dry-run"})
_GROUPS: Final = frozenset({"lease"})


def is_url(argument: str) -> bool:
    """Whether an argument is a URL: it has a scheme. A file with such a name needs ``./`` before it."""
    return _URL.match(argument) is not None


def arranged(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with the command first: ``--json s3://b/k status`` becomes ``status --json s3://b/k``."""
    left, words, moved = list(arguments), [], []
    while left:
        if is_url(left[0]) or left[0] in _SWITCHES:
            moved.append(left.pop(0))
            continue
        words.append(left.pop(0))
        if words[-1] not in _GROUPS or len(words) > 1:
            break
    return [*words, *moved, *left]
