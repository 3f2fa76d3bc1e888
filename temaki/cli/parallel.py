"""Several requests at once, for which Ctrl-C need not wait."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_parallel(call: Callable[[T], R], arguments: Sequence[T], *, at_once: int) -> list[R]:
    """``call`` for each argument, in threads of its own; the results in the arguments' order.

    The threads are daemons, and not a pool's: Python waits for those of a pool before it exits, which after Ctrl-C
    would be until the last request has timed out.

    Raises:
        BaseException: What the first call raised that failed; no other one is begun after it.
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
            except BaseException as error:  # noqa: BLE001 - raised by whoever waits
                done.put((number, None, error))
                return

    for _ in range(min(at_once, len(arguments))):
        threading.Thread(target=work, name="temaki-request", daemon=True).start()
    found: dict[int, R] = {}
    try:
        while len(found) < len(arguments):
            number, result, failure = done.get()
            if failure is not None:
                raise failure
            found[number] = result  # type: ignore[assignment] # there was no failure
    finally:
        stopped.set()
    return [found[number] for number in range(len(arguments))]
