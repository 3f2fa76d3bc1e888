"""What the suites for stores have in common."""

from __future__ import annotations

import threading
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


def in_parallel(functions: list[Callable[[], T]]) -> list[T]:
    """The results of functions that run in a thread each; the first error, if there was one."""
    results: dict[int, T] = {}
    errors: list[BaseException] = []

    def run(number: int, function: Callable[[], T]) -> None:
        try:
            results[number] = function()
        except BaseException as error:  # noqa: BLE001 - handed to the caller
            errors.append(error)

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(functions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [results[number] for number in range(len(functions))]


def split(items: list[T], parts: int) -> list[list[T]]:
    """The items, dealt out."""
    return [items[number::parts] for number in range(parts)]
