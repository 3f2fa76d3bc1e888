"""What writers that contend for one database cost: optimistic with retry, against waiting for a lease.

Eight processes add one to a counter as fast as they can, each request after 20 ms. Under etag-cached whoever comes
second runs its function again; under lease-locked, with and without ``hold``, it waits for its turn. Compared are
commits per second, requests for each, work that was not stored, and how evenly the commits are spread.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sqlite3
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path

from pony.orm import Required, db_session

from benchmarks._common import SlowStore, Targets, make_database, median, mib, table
from temaki import Database
from temaki.stores.directory import DirectoryStore
from temaki.strategy import Strategy
from temaki.testing import CountingStore
from temaki_strategies import EtagCached, LeaseLocked

KEY = "app.sqlite"
SIZE = 1_000_000
RETRIES = 10_000
PATIENCE = 90.0
HEAD = (
    "strategy",
    "commits/s",
    "requests/commit",
    "of lease",
    "wasted runs",
    "wasted up",
    "writers min/med/max",
    "longest",
)


@dataclass(frozen=True, slots=True)
class Work:
    """What one process did.

    Attributes:
        commits: Functions that returned.
        in_time: Those within the seconds of the measurement. Each writer ends with one after them, however late.
        runs: How often the function ran for them.
        requests: All of them.
        lease_requests: Those for the lease.
        refused: Uploads of the database that were refused.
        longest: Seconds from one commit to the next, at most.
        elapsed: Seconds until the last one.
    """

    commits: int
    in_time: int
    runs: int
    requests: int
    lease_requests: int
    refused: int
    longest: float
    elapsed: float


def write(folder: Path, strategy: Strategy, limits: tuple[float, float], begin: Barrier, answer: Connection) -> None:
    """Commit for so many seconds, from the moment at which all are ready."""
    latency, seconds = limits
    store = CountingStore(SlowStore(DirectoryStore(folder), latency))
    db = Database()

    class Person(db.Entity):  # type: ignore[name-defined]
        name = Required(str)

    db.bind_s3(f"file://{folder}/{KEY}", store=store, strategy=strategy)
    db.generate_mapping(check_tables=False)
    with db_session:
        assert Person.get(id=1).name  # warm: what is measured begins with a working copy
    runs = 0

    @db_session(immediate=isinstance(strategy, LeaseLocked), retry=0 if isinstance(strategy, LeaseLocked) else RETRIES)
    def commit() -> None:
        nonlocal runs
        runs += 1
        person = Person.get(id=1)
        person.name = str(int(person.name) + 1)

    begin.wait(PATIENCE)
    store.reset()
    commits, in_time, longest = 0, 0, 0.0
    start = last = time.monotonic()
    while last - start < seconds:
        commit()
        commits += 1
        before, last = last, time.monotonic()
        in_time += last - start <= seconds
        longest = max(longest, last - before)
    answer.send(
        Work(
            commits,
            in_time,
            runs,
            store.count(),
            store.count(key=f"{KEY}.lease"),
            store.count("put", "refused", key=KEY),
            longest,
            last - start,
        )
    )


def contend(make: Callable[[], Strategy], latency: float, seconds: float, writers: int) -> list[Work]:
    """Run so many processes at once; the counter ends at exactly the number of their commits."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="temaki-bench-") as name:
        file = Path(name) / KEY
        make_database(file, SIZE)
        with closing(sqlite3.connect(file)) as database, database:
            database.execute('UPDATE "Person" SET "name" = \'0\' WHERE "id" = 1')
        begin = context.Barrier(writers)
        pipes = [context.Pipe(duplex=False) for _ in range(writers)]
        processes = [
            context.Process(target=write, args=(file.parent, make(), (latency, seconds), begin, sender))
            for _, sender in pipes
        ]
        for process in processes:
            process.start()
        try:
            done = []
            for process, (receiver, _) in zip(processes, pipes, strict=True):
                assert receiver.poll(seconds + PATIENCE), f"process {process.pid} did not end"
                done.append(receiver.recv())
                process.join(PATIENCE)
        finally:
            for process in processes:
                process.kill()
        with closing(sqlite3.connect(f"file:{file}?mode=ro&immutable=1", uri=True)) as database:
            ((counter,),) = database.execute('SELECT "name" FROM "Person" WHERE "id" = 1')
    assert int(counter) == sum(work.commits for work in done), "an update was lost"
    return done


def requests_per_commit(works: Sequence[Work]) -> float:
    """Over all writers."""
    return sum(work.requests for work in works) / sum(work.commits for work in works)


def row(name: str, works: Sequence[Work]) -> list[str]:
    """One row of the table."""
    commits = [work.commits for work in works]
    wasted = sum(work.runs for work in works) - sum(commits)
    in_time = [work.in_time for work in works]
    spread = f"{min(in_time)}/{median(in_time):g}/{max(in_time)}"
    return [
        name,
        f"{sum(commits) / max(work.elapsed for work in works):.2f}",
        f"{requests_per_commit(works):.1f}",
        f"{sum(work.lease_requests for work in works) / sum(commits):.1f}",
        f"{wasted} ({wasted / sum(commits):.2f}/commit)",
        mib(sum(work.refused for work in works) * SIZE),
        spread,
        f"{max(work.longest for work in works):.1f} s",
    ]


def main() -> None:
    """Measure the three in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--writers", type=int, default=8)
    parser.add_argument("--latency", type=float, default=20.0, help="milliseconds for each request")
    parser.add_argument("--hold", type=float, default=0.5, help="seconds, for lease-locked with hold")
    arguments = parser.parse_args()
    kinds: dict[str, Callable[[], Strategy]] = {
        "etag-cached, retry": EtagCached,
        "lease-locked": LeaseLocked,
        f"lease-locked, hold={arguments.hold:g}": lambda: LeaseLocked(hold=arguments.hold),
    }
    found = {
        name: contend(make, arguments.latency / 1000, arguments.seconds, arguments.writers)
        for name, make in kinds.items()
    }
    print(
        f"  {arguments.writers} processes for {arguments.seconds:g} s each, a database of {SIZE:,} bytes, "
        f"{arguments.latency:g} ms for each request.\n"
    )
    table(HEAD, [row(name, works) for name, works in found.items()])
    targets = Targets()
    (_, optimistic), *leased = found.items()
    for name, works in found.items():
        fewest = min(work.in_time for work in works)
        targets.add(f"{name}: nobody starves, commits of the last", "at least 1", str(fewest), met=fewest > 0)
    for name, works in leased:
        wasted = sum(work.runs - work.commits for work in works) + sum(work.refused for work in works)
        targets.add(f"{name}: runs and uploads that were not stored", "0", str(wasted), met=not wasted)
        most, cost = requests_per_commit(optimistic), requests_per_commit(works)
        targets.add(f"{name}: requests per commit", f"{most:.1f}", f"{cost:.1f}", met=cost < most)
    targets.show()


if __name__ == "__main__":
    main()
