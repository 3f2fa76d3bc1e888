"""A process with many sessions. See ``test_long_run.py``."""

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path
from typing import Any

from temaki.stores import open_store
from tests.integration._worker import Application, create, main

THREADS = 2


def run(url: str, cache_dir: str, strategy: str, first: int, then: int) -> dict[str, Any]:
    """Sessions in two threads, and what is open after the first and after all of them."""
    store, _ = open_store(url)
    app = Application(url, cache_dir=cache_dir, store=store, strategy=strategy)
    # One URL has one working copy in a process; under another URL the same bucket is another client.
    other = Application("memory://another-client/app.sqlite", store=store, strategy=strategy)
    barrier = threading.Barrier(THREADS + 1)  # the test has the patience
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for sessions in (first, then):
                for session in range(sessions // THREADS):
                    _session(app, other, session + number)
                barrier.wait()
                app.value()  # so that each thread has a connection to the same generation
                barrier.wait()
                barrier.wait()  # the main thread counts
        except BaseException as error:
            errors.append(error)
            barrier.abort()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    counts = []
    for _ in range(2):
        barrier.wait()
        other.value()
        barrier.wait()
        counts.append(_count(cache_dir))
        barrier.wait()
    for thread in threads:
        thread.join()
    for error in errors:
        raise error
    return {"counts": counts, "value": app.value(), "check": app.check()}


def _session(app: Application, other: Application, number: int) -> None:
    if number % 40 == 0:
        other.increment()
    elif number % 9 == 0:
        app.increment()
    else:
        app.value()


def _count(cache_dir: str) -> dict[str, int]:
    gc.collect()
    return {
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
        "files": sum(1 for _ in Path(cache_dir).rglob("*")),
        "objects": len(gc.get_objects()),
        "resident": int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"),
    }


if __name__ == "__main__":
    main(create, run)
