"""Condemned names that have no room in the head: an object of their own, which the head names.

Its bytes are the line ``temaki gone 1``, and a line of JSON: a list of ``[name, time]``, as in the head. A database
that is written to once a second condemns some hundred segments an hour, and each of them stays condemned for an hour.

Nobody but a collector reads such an object. It is dropped when everything that it names is due.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from temaki.formats.pages.head import MOST_CONDEMNED, MOST_GONE, Head, Marked
from temaki.formats.pages.names import is_name, new_name
from temaki.replica.header import FormatError

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_NAMES: Final = 4096
"""Names in one object."""
LARGEST: Final = 1 << 20
"""Bytes of an object that a reader accepts."""

_FIRST_LINE: Final = b"temaki gone 1\n"
_LARGEST_TIME: Final = (1 << 63) - 1


def condemning(head: Head, marks: Sequence[Marked]) -> tuple[Head, dict[str, bytes]]:
    """A head with more condemned objects.

    Args:
        head: The head so far.
        marks: What comes to those that it has condemned. One that is condemned already stays as it is.

    Returns:
        The head; and the objects to upload before it, by name.
    """
    already = {one.name for one in head.condemned}
    every = [*head.condemned, *(one for one in marks if one.name not in already)]
    gone, objects = list(head.gone), {}
    while len(every) > MOST_CONDEMNED and len(gone) < MOST_GONE:
        some = every[: min(MOST_NAMES, max(len(every) - MOST_CONDEMNED // 2, 1))]
        name = new_name("gone")
        gone.append(name)
        objects[name] = encode(some)
        every = every[len(some) :]
    # What has no room even so is named nowhere from here on: a collector finds it by listing, and condemns it anew.
    return replace(head, condemned=tuple(every[-MOST_CONDEMNED:]), gone=tuple(gone)), objects


def encode(marks: Sequence[Marked]) -> bytes:
    """The bytes of an object."""
    return _FIRST_LINE + json.dumps([[one.name, one.since] for one in marks], separators=(",", ":")).encode() + b"\n"


def decode(raw: bytes) -> tuple[Marked, ...]:
    """What an object says.

    Raises:
        FormatError: It is no such object.
    """
    if not raw.startswith(_FIRST_LINE):
        raise FormatError(f"it is no list of condemned objects: it starts with {raw[:16]!r}")
    try:
        found = json.loads(raw[len(_FIRST_LINE) :])
    except (ValueError, RecursionError) as error:
        raise FormatError(f"it is no list of condemned objects: {error}") from error
    if not isinstance(found, list) or len(found) > MOST_NAMES:
        raise FormatError(f"it is no list of at most {MOST_NAMES} condemned objects")
    return tuple(_mark(one) for one in found)


def _mark(value: object) -> Marked:
    if not isinstance(value, list) or len(value) != 2:  # noqa: PLR2004 - name and time
        raise FormatError("it has an entry that is none")
    name, since = value
    if not is_name(name, "base", "seg", "gone") or type(since) is not int or not 0 <= since <= _LARGEST_TIME:
        raise FormatError("it has an entry that is none")
    return Marked(name, since)
