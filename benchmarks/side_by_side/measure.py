"""Workloads of one process: what is measured, and what is checked to be right."""

from __future__ import annotations

import json
import select
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from benchmarks.side_by_side.catalogue import Entry
from benchmarks.side_by_side.database import PAGE, Original, row
from benchmarks.side_by_side.pages import Elsewhere
from benchmarks.side_by_side.proxy import Proxy, Traffic

PATIENCE = 120.0
_CHECKED_UP_TO = 20_000_000


class FailedError(Exception):
    """A worker could not do what it was asked for; the text says why."""


@dataclass
class Bench:
    """Where everything happens.

    Attributes:
        client: A boto3 client that goes to the server directly, uncounted.
        bucket: For all databases.
        proxy: What the systems go through.
        folder: For files.
        environment: Of the workers.
        sources: A folder with the workers' package and nothing else, for their path.
        elsewhere: A database in pages that is in use, by its key.
    """

    client: Any
    bucket: str
    proxy: Proxy
    folder: Path
    environment: dict[str, str]
    sources: Path
    elsewhere: tuple[str, Elsewhere] | None = None

    def upload(self, entry: Entry, key: str, original: Original, *, renamed: str | None = None) -> None:
        """Store the database as the system wants it; or its last change, which has given row 1 a new name."""
        if entry.in_pages:
            if renamed is not None:
                self._elsewhere(key).rename(renamed)
                return
            path = self.folder / "made.sqlite"
            path.write_bytes(original.data)
            self._elsewhere(key).make(path)
            path.unlink()
            return
        if not entry.scattered:
            self.client.put_object(Bucket=self.bucket, Key=key, Body=bytes(original.data))
            return
        pages = original.changed_pages() if renamed is not None else range(len(original.data) // PAGE)
        for number in pages:
            body = bytes(original.data[number * PAGE : (number + 1) * PAGE])
            self.client.put_object(Bucket=self.bucket, Key=f"{key}/{number:010d}", Body=body)

    def stored(self, entry: Entry, key: str, number: int) -> tuple[str, int]:
        """A row of what is stored now."""
        path = self.folder / "stored.sqlite"
        if entry.in_pages:
            self._elsewhere(key).save(path)
            return row(path, number)
        if entry.scattered:
            names = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=f"{key}/")
            keys = [found["Key"] for answer in names for found in answer["Contents"]]
        else:
            keys = [key]
        with path.open("wb") as file:
            for name in keys:
                file.write(self.client.get_object(Bucket=self.bucket, Key=name)["Body"].read())
        return row(path, number)

    def _elsewhere(self, key: str) -> Elsewhere:
        if self.elsewhere is None or self.elsewhere[0] != key:
            self.let_go()
            self.elsewhere = key, Elsewhere(self.client, self.bucket, key)
        return self.elsewhere[1]

    def let_go(self) -> None:
        """End what runs beside the workers."""
        if self.elsewhere is not None:
            self.elsewhere[1].close()
            self.elsewhere = None


class Worker:
    """A process of a system."""

    def __init__(self, bench: Bench, entry: Entry, python: Path, key: str, file: Path, *, first: bool = False) -> None:
        self._folder = Path(tempfile.mkdtemp(dir=bench.folder))
        config = {
            "module": entry.module,
            "first": first,
            "bucket": bench.bucket,
            "key": key,
            "folder": str(self._folder),
            "file": str(file),
            "options": entry.options,
        }
        self._said = (self._folder / "said").open("w+")
        self._process = subprocess.Popen(
            [python, "-m", "benchmarks.side_by_side.worker", json.dumps(config)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            cwd=self._folder,
            env={**bench.environment, "TMPDIR": str(self._folder), "PYTHONPATH": str(bench.sources)},
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
            self._process.wait(20)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._said.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def ask(self, **what: Any) -> None:
        """Let it begin."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """Wait for it to end.

        Raises:
            FailedError: It failed.
        """
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], PATIENCE)
        line = self._process.stdout.readline() if ready else ""
        if not line:
            self._said.seek(0)
            last = (self._said.read().strip().splitlines() or ["no word"])[-1]
            raise FailedError(last[-200:] if ready else f"not done within {PATIENCE:.0f} s")
        found: dict[str, Any] = json.loads(line)
        if "error" in found:
            raise FailedError(found["error"])
        return found

    def run(self, workload: str, count: int, budget: float) -> dict[str, Any]:
        """Sessions one after the other."""
        self.ask(do="run", workload=workload, count=count, budget=budget)
        return self.answer()


@contextmanager
def database(bench: Bench, entry: Entry, original: Original) -> Iterator[tuple[str, Path]]:
    """The database, stored under a new key, and as a local file; both are gone at the end."""
    prefix = f"bench-{entry.module}-{time.monotonic_ns()}"
    key, file = f"{prefix}/app.sqlite", bench.folder / prefix
    if entry.module == "local":
        file.write_bytes(original.data)
    else:
        bench.upload(entry, key, original)
    bench.proxy.take()
    try:
        yield key, file
    finally:
        bench.let_go()
        file.unlink(missing_ok=True)
        for answer in bench.client.get_paginator("list_objects_v2").paginate(Bucket=bench.bucket, Prefix=prefix):
            for found in answer.get("Contents", ()):
                bench.client.delete_object(Bucket=bench.bucket, Key=found["Key"])


def measure(  # noqa: PLR0917
    bench: Bench, entry: Entry, python: Path, original: Original, counts: dict[str, int], budget: float
) -> list[dict[str, Any]]:
    """The workloads of a warm process: it has read and, before commits, written once."""
    cells: list[dict[str, Any]] = []
    with database(bench, entry, original) as (key, file), Worker(bench, entry, python, key, file) as worker:
        for workload, count in counts.items():
            try:
                if not cells:
                    worker.run("read", 1, 0)
                if workload == "commit":
                    worker.run("commit", 1, 0)
                bench.proxy.take()
                if workload == "read-after":
                    cells.append(_read_after(bench, entry, worker, (key, file), original, (count, budget)))
                else:
                    answer = worker.run(workload, count, budget)
                    cells.append(_cell(workload, answer["walls"], answer, bench.proxy.take()))
                    if workload.startswith("commit") and entry.module not in {"sdk", "local"}:
                        _check_stored(bench, entry, key, answer["value"], len(original.data), cells[-1])
            except FailedError as error:
                cells.append({"workload": workload, "error": str(error)})
    return cells


def _check_stored(  # noqa: PLR0917
    bench: Bench, entry: Entry, key: str, name: str, size: int, cell: dict[str, Any]
) -> None:
    if size <= _CHECKED_UP_TO:
        cell["lost"] = bench.stored(entry, key, 2)[0] != name


def _read_after(  # noqa: PLR0917
    bench: Bench,
    entry: Entry,
    worker: Worker,
    where: tuple[str, Path],
    original: Original,
    limits: tuple[int, float],
) -> dict[str, Any]:
    walls: list[float] = []
    answers, stale = [], 0
    begin = time.monotonic()
    for _ in range(limits[0]):
        name = original.change()
        if entry.module == "local":
            where[1].write_bytes(original.data)
        else:
            bench.upload(entry, where[0], original, renamed=name)
        answers.append(worker.run("read", 1, 0))
        walls += answers[-1]["walls"]
        stale += entry.module != "sdk" and answers[-1]["value"][0] != name
        if time.monotonic() - begin > limits[1]:
            break
    mean = statistics.fmean(answer["cpu"] for answer in answers)
    total = {"cpu": mean, "peak": max(answer["peak"] for answer in answers)}
    return {**_cell("read-after", walls, total, bench.proxy.take()), "stale": stale}


def measure_first(bench: Bench, entry: Entry, python: Path, original: Original, count: int) -> list[dict[str, Any]]:
    """New processes, one after the other; one more before them, which warms the disk's cache and is not counted."""
    walls, answers = [], []
    with database(bench, entry, original) as (key, file):
        try:
            for number in range(count + 1):
                with Worker(bench, entry, python, key, file, first=True) as worker:
                    answer = worker.answer()
                if number:
                    answers.append(answer)
                    walls.append(answer["wall"])
                else:
                    bench.proxy.take()
        except FailedError as error:
            return [{"workload": "first", "error": str(error)}]
        mean = statistics.fmean(answer["cpu"] for answer in answers)
        total = {"cpu": mean, "peak": max(answer["peak"] for answer in answers)}
        return [_cell("first", walls, total, bench.proxy.take())]


def _cell(workload: str, walls: list[float], answer: dict[str, Any], traffic: Traffic) -> dict[str, Any]:
    count = len(walls)
    return {
        "workload": workload,
        "n": count,
        "p50": round(statistics.median(walls), 6),
        "p95": round(sorted(walls)[min(count - 1, int(0.95 * count))], 6),
        "cpu": round(answer["cpu"], 6),
        "peak": answer["peak"],
        "requests": {kind: round(number / count, 3) for kind, number in sorted(traffic.requests.items())},
        "statuses": {status: round(number / count, 3) for status, number in sorted(traffic.statuses.items())},
        "connections": round(traffic.connections / count, 3),
        "bytes_up": round(traffic.bytes_up / count),
        "bytes_down": round(traffic.bytes_down / count),
    }
