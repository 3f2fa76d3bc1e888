"""Making several requests at once, which Ctrl-C can interrupt."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_parallel(call: Callable[[T], R], arguments: Sequence[T], *, at_once: int) -> list[R]:
    """Call a function for each argument, in threads.

    The threads are daemons, not those of a pool. Python waits for a pool's threads before it exits: after Ctrl-C, it
    would wait until the last request times out.

    Args:
        call: The function.
        arguments: The arguments, one for each call.
        at_once: The largest number of threads.

    Returns:
        The results, in the order of the arguments.

    Raises:
        BaseException: The error of the first call that failed. No further call begins after it.
    """
    waiting: queue.SimpleQueue[tuple[int, T]] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[int, R | None, BaseException | None]] = queue.SimpleQueue()
    stopped = threading.Event()
    for each in enumerate(arguments):
        waiting.put(each)

    def work() -> None:
        while not stopped.is_set():
            try:
                number, argument = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                done.put((number, call(argument), None))
            except BaseException as error:  # noqa: BLE001 - the calling thread raises it
                done.put((number, None, error))
                return

    for _ in range(min(at_once, len(arguments))):
        threading.Thread(target=work, name="temaki-request", daemon=True).start()
    results: dict[int, R] = {}
    try:
        while len(results) < len(arguments):
            number, result, failure = done.get()
            if failure is not None:
                raise failure
            results[number] = result  # type: ignore[assignment] # there was no failure
    finally:
        stopped.set()
    return [results[number] for number in range(len(arguments))]
