"""Work on many pages: on as many processors as there are, in order, and never far ahead of whoever takes the results.

Compressing and hashing leave other threads of Python alone.
"""

from __future__ import annotations

import os
from collections import deque
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

T = TypeVar("T")

BATCH: Final = 64
"""Pages that are worked on at once. Fewer are not worth a thread."""
_MOST_THREADS: Final = 4


def in_batches(numbers: Sequence[int], work: Callable[[Sequence[int]], T]) -> Iterator[T]:
    """What ``work`` gives for the first numbers, then for the next ones, and so on.

    Args:
        numbers: Numbers of pages. All of them go to ``work`` at once if they are few.
        work: Called from several threads if there are many.
    """
    threads = min(_MOST_THREADS, _processors())
    batches = [numbers[at : at + BATCH] for at in range(0, len(numbers), BATCH)]
    if threads == 1 or len(batches) < 2 * threads:
        yield from map(work, batches)
        return
    from concurrent.futures import ThreadPoolExecutor

    left = iter(batches)
    with ThreadPoolExecutor(threads, thread_name_prefix="temaki-pages") as pool:
        under_way: deque[Callable[[], T]] = deque()
        try:
            for batch in left:
                try:
                    under_way.append(pool.submit(work, batch).result)
                except RuntimeError:  # the system gives no more threads, or the interpreter shuts down
                    while under_way:
                        yield under_way.popleft()()
                    yield work(batch)
                if len(under_way) == 2 * threads:
                    yield under_way.popleft()()
            while under_way:
                yield under_way.popleft()()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _processors() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1
