"""Workloads of several processes: eight that write, or one that writes and eight that read."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.side_by_side.catalogue import Entry
from benchmarks.side_by_side.database import Original, row
from benchmarks.side_by_side.measure import Bench, FailedError, Worker, database
from benchmarks.side_by_side.proxy import Link

PROCESSES = 8
_LEAD = 0.3  # seconds between the word and the start


def contest(  # noqa: PLR0917 - one call, from run
    bench: Bench, entry: Entry, python: Path, original: Original, what: str, rtt: float, seconds: float
) -> dict[str, Any]:
    """Run them for so long; what they were told to be stored is compared with what is stored.

    Returns:
        Sessions per second, and for writers the updates that were acknowledged and are not there; for readers the
        sessions that began after a commit was acknowledged and did not see it.
    """
    asked = ["increment"] * PROCESSES if what == "writers" else ["increment", *["read"] * PROCESSES]
    if what == "readers" and "commit" not in entry.workloads:
        asked = asked[1:]
    found: dict[str, Any] = {"system": entry.name, "what": what}
    bench.proxy.link = Link(rtt)
    with ExitStack() as stack:
        key, file = stack.enter_context(database(bench, entry, original))
        workers = [stack.enter_context(Worker(bench, entry, python, key, file)) for _ in asked]
        try:
            for worker in workers:  # all at once: they start side by side
                worker.ask(do="run", workload="read", count=1, budget=0)
            for worker in workers:
                worker.answer()
            bench.proxy.take()
            begin = time.monotonic() + _LEAD
            for worker, work in zip(workers, asked, strict=True):
                worker.ask(do="compete", what=work, until=begin + seconds)
            answers = [worker.answer() for worker in workers]
        except FailedError as error:
            return {**found, "error": str(error)}
        traffic = bench.proxy.take()
        count = row(file, 1)[1] if entry.module == "local" else bench.stored(entry, key, 1)[1]
    writing = [answer for answer, work in zip(answers, asked, strict=True) if work == "increment"]
    reading = [answer for answer, work in zip(answers, asked, strict=True) if work == "read"]
    commits = [len(answer["sessions"]) for answer in writing]
    end = max((session[1] for answer in answers for session in answer["sessions"]), default=begin + seconds)
    found |= {
        "elapsed": round(end - begin + _LEAD, 3),
        "commits": sum(commits),
        "lost": sum(commits) - count,
        "fewest": min(commits, default=0),
        "most": max(commits, default=0),
        "errors": dict(sum((Counter(answer["errors"]) for answer in answers), Counter[str]())),
        "requests": dict(sorted(traffic.requests.items())),
        "bytes_up": traffic.bytes_up,
        "bytes_down": traffic.bytes_down,
    }
    if reading:
        reads = [session for answer in reading for session in answer["sessions"]]
        written = [session for answer in writing for session in answer["sessions"]]
        found["reads"] = len(reads)
        found["stale"] = sum(value < _acknowledged(written, start) for start, _, value in reads)
    return found


def _acknowledged(written: list[tuple[float, float, int]], before: float) -> int:
    """The last value that the only writer was told to be stored, at that moment."""
    return max((value for _, end, value in written if end < before), default=0)
