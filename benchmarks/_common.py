"""What the measurements share: stores with a latency, databases of a size, medians, tables, and targets.

Machines differ and are busy: what counts is what is compared within one run, so that what belongs together is measured
in turns.
"""

from __future__ import annotations

import os
import sqlite3
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar

from temaki.store import Store
from temaki.stores.wrapper import StoreWrapper, Verb

T = TypeVar("T")


class SlowStore(StoreWrapper):
    """Passes everything on to ``store``, each request after ``latency`` seconds, as a network would."""

    def __init__(self, store: Store, latency: float) -> None:
        super().__init__(store)
        self._latency = latency

    def handle_request(self, _verb: Verb, _key: str, request: Callable[[], T], /) -> T:
        """See :meth:`temaki.testing.StoreWrapper.handle_request`."""
        if self._latency:
            time.sleep(self._latency)
        return request()


def make_database(path: Path, size: int) -> None:
    """Write a SQLite file of some ``size`` bytes, with the table of ``class Person(db.Entity): name = Required(str)``.

    The rows come before a filler, so that changing a row changes a page at the start and costs no search.
    """
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("PRAGMA page_size = 4096")
        database.execute('CREATE TABLE "Person" ("id" INTEGER PRIMARY KEY AUTOINCREMENT, "name" TEXT NOT NULL)')
        database.executemany('INSERT INTO "Person" ("name") VALUES (?)', [(f"Person {n}",) for n in range(100)])
        database.execute("CREATE TABLE filler (data BLOB)")
        piece = 1 << 20
        left = size - (32 << 10)
        while left > 0:
            database.execute("INSERT INTO filler VALUES (?)", (os.urandom(min(piece, left)),))
            left -= piece


def seconds(call: Callable[[], object]) -> float:
    """How long one call takes."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def in_turns(rounds: int, *calls: Callable[[], object]) -> list[list[float]]:
    """The seconds of each of the calls, measured one after the other, round after round; a first round is dropped."""
    measured = [[seconds(call) for call in calls] for _ in range(rounds + 1)][1:]
    return [list(column) for column in zip(*measured, strict=True)]


median = statistics.median


def ms(value: float) -> str:
    """Seconds, as milliseconds."""
    return f"{value * 1000:.2f} ms"


def mib(value: float) -> str:
    """Bytes, as MiB."""
    return f"{value / (1 << 20):.1f} MiB"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: the first column to the left, numbers to the right."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    for row in (head, ["-" * width for width in widths], *rows):
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        print("  " + "  ".join(cells).rstrip())


class Targets:
    """Collects what was aimed at and what was measured."""

    def __init__(self) -> None:
        self._rows: list[tuple[str, str, str, str]] = []

    def add(self, what: str, target: str, measured: str, *, met: bool) -> None:
        """One target."""
        self._rows.append((what, target, measured, "met" if met else "NOT MET"))

    def show(self) -> None:
        """Print them."""
        print()
        table(("target", "at most", "measured", ""), self._rows)


@contextmanager
def s3_server(name: str) -> Iterator[str]:
    """Start ``moto`` or ``seaweedfs``, for boto3 in this process and its children; gives the name of a new bucket."""
    from temaki.testing import moto_server, seaweedfs_server

    with {"moto": moto_server, "seaweedfs": seaweedfs_server}[name]() as server:
        os.environ.update(server.environment)
        yield server.bucket()
