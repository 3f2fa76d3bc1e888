"""What the objects beside a head are called.

A name is used once and never again: it has 120 random bits. A head names objects relative to its own key, so a copy of
all of them under another key works. Names come from heads that anybody may have written, so nothing but these patterns
is taken for one.
"""

from __future__ import annotations

import os
import re
from typing import Final, Literal

Kind = Literal["base", "seg", "gone"]

_NAME: Final = re.compile(r"(base|seg|gone)-[0-9a-f]{30}")


def folder(key: str) -> str:
    """The prefix of the keys of everything beside the head with this key."""
    return f"{key}.pages/"


def key_of(key: str, name: str) -> str:
    """The key of an object that the head with key ``key`` names."""
    return folder(key) + name


def new_name(kind: Kind) -> str:
    """A name that no object has had, or will have."""
    return f"{kind}-{os.urandom(15).hex()}"


def is_name(value: object, *kinds: Kind) -> bool:
    """Whether it is a name as :func:`new_name` gives them, of one of these kinds."""
    match = _NAME.fullmatch(value) if isinstance(value, str) else None
    return match is not None and match[1] in kinds
