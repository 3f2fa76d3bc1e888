"""What the suites for stores have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from temaki.store import Store

T = TypeVar("T")


def fetch(store: Store, key: str, **conditions: object) -> bytes:
    """All bytes of an object."""
    download = store.get(key, **conditions)  # type: ignore[arg-type]
    assert download is not None
    with download:
        return read_all(download.read)


def read_all(read: Callable[[int], bytes]) -> bytes:
    """All that a download has left."""
    pieces = []
    while piece := read(65_536):
        pieces.append(piece)
    return b"".join(pieces)


def split(items: list[T], parts: int) -> list[list[T]]:
    """The items, dealt out."""
    return [items[number::parts] for number in range(parts)]
