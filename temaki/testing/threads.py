"""Runs calls in several threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def in_parallel(calls: Sequence[Callable[[], T]]) -> list[T]:
    """Run each call in a thread of its own, and return their results in order. All calls start together.

    Raises:
        BaseException: The first error of a call. It is raised after all calls have ended.
    """
    results: dict[int, T] = {}
    errors: list[BaseException] = []
    start = threading.Barrier(len(calls))

    def run(number: int, call: Callable[[], T]) -> None:
        start.wait()
        try:
            results[number] = call()
        except BaseException as error:  # noqa: BLE001 - handed to the caller
            errors.append(error)

    threads = [threading.Thread(target=run, args=pair, daemon=True) for pair in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [results[number] for number in range(len(calls))]
