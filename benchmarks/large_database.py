"""What a one-row commit costs on a database of 300 MB, beside the transfer; and what memory it takes.

The store is a file that bodies are streamed to, at the speed of the disk. Everything is measured in a process of its
own, so that the peak of its memory (read from Linux's /proc) is that of the commits. ``--server seaweedfs`` sends them
through boto3.

"Transfer" is all of ``Store.put``: it reads the image piece by piece while it sends, as any store does. "Everything
else" is the whole ``db_session`` less transfer and less the GET at its beginning.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

from pony.orm import Required, db_session

from benchmarks._common import Targets, make_database, median, mib, ms, s3_server, table
from temaki import Database
from temaki.engine.engine import Engine
from temaki.errors import NotFoundError, PreconditionFailedError
from temaki.replica.generation import Generation
from temaki.replica.replica import Replica
from temaki.store import Download, ObjectInfo, ReadableBody, Store
from temaki.stores import open_store

KEY = "large.sqlite"
PIECE = 1 << 20
TIME_TARGET = 0.020
MEMORY_TARGET = 64 << 20


class FileStore:
    """The least that a store can do: one object, streamed to and from one file, without flushing it to the disk."""

    honours_conditions = True
    url = "memory://file"

    def __init__(self, path: Path) -> None:
        self._path = path
        self._info = ObjectInfo(KEY, uuid4().hex, path.stat().st_size)

    def get(
        self,
        key: str,
        *,
        if_none_match: str | None = None,
        if_match: str | None = None,
        byte_range: tuple[int, int] | None = None,
    ) -> Download | None:
        """See :meth:`temaki.store.Store.get`."""
        info = self.head(key)
        assert if_match in {None, info.etag}, "there is one writer"
        if info.etag == if_none_match:
            return None
        start, stop = byte_range or (0, info.size)
        return _FileDownload(self._path, info, start, min(stop, info.size))

    def head(self, key: str) -> ObjectInfo:
        """See :meth:`temaki.store.Store.head`."""
        if key != KEY:
            raise NotFoundError(f"no {key}", url=key)
        return self._info

    def put(
        self,
        key: str,
        body: bytes | ReadableBody,
        *,
        metadata: Mapping[str, str] | None = None,
        if_match: str | None = None,
        if_none_match: bool = False,
    ) -> str:
        """See :meth:`temaki.store.Store.put`."""
        if if_none_match or if_match not in {None, self._info.etag}:
            raise PreconditionFailedError(f"{key} is another version", url=key)
        assert not isinstance(body, bytes)
        body.seek(0)
        with self._path.open("wb") as file:
            while piece := body.read(PIECE):
                file.write(piece)
        self._info = ObjectInfo(KEY, uuid4().hex, self._path.stat().st_size, dict(metadata or {}))
        return self._info.etag

    def delete(self, key: str) -> None:
        """Never asked."""
        raise NotImplementedError(key)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Never asked."""
        raise NotImplementedError(prefix)


class _FileDownload:
    def __init__(self, path: Path, info: ObjectInfo, start: int, stop: int) -> None:
        self.info, self.length = info, stop - start
        self._file = path.open("rb", buffering=0)
        self._file.seek(start)
        self._left = self.length

    def read(self, size: int, /) -> bytes:
        data = self._file.read(min(size, self._left))
        self._left -= len(data)
        return data

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()


class Stopwatch:
    """Sums up the seconds that named functions take, by putting itself around them."""

    def __init__(self) -> None:
        self.spent: defaultdict[str, float] = defaultdict(float)

    def around(self, owner: Any, method: str, name: str) -> None:
        """Measure ``owner.method`` from now on."""
        inner: Callable[..., Any] = getattr(owner, method)

        def measured(*args: Any, **kwargs: Any) -> Any:
            begin = time.perf_counter()
            try:
                return inner(*args, **kwargs)
            finally:
                self.spent[name] += time.perf_counter() - begin

        setattr(owner, method, measured)


def memory(field: str) -> int:
    """``VmRSS`` (now) or ``VmHWM`` (the peak) of this process, in bytes."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) << 10
    raise LookupError(field)


def forget_peak() -> None:
    """Make the peak start again from what is in use now. See ``/proc/pid/clear_refs`` in proc(5)."""
    with suppress(OSError):  # where it is not allowed, the growth comes out too large, never too small
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


STEPS = ("local commit", "WAL scan", "image build", "checkpoint")


def measure(store: Store, commits: int) -> None:
    """In a process of its own: pull, commit some rows, and print the breakdown."""
    watch = Stopwatch()
    watch.around(Replica, "commit_locally", STEPS[0])
    watch.around(Generation, "uncommitted_to_store", STEPS[1])
    watch.around(Generation, "image", STEPS[2])
    watch.around(Generation, "acknowledge", STEPS[3])
    watch.around(store, "put", "transfer")
    watch.around(store, "get", "GET")
    watch.around(Engine, "commit", "commit as a whole")

    db = Database()

    class Person(db.Entity):  # type: ignore[name-defined]
        name = Required(str)

    db.bind_s3(f"memory://large/{KEY}", store=store)
    begin = time.perf_counter()
    db.generate_mapping()  # pulls, to look at the tables
    first = time.perf_counter() - begin

    def commit(number: int) -> float:
        begin = time.perf_counter()
        with db_session:
            Person.get(id=1).name = f"renamed {number}"
        return time.perf_counter() - begin

    forget_peak()
    before = memory("VmRSS")
    commit(0)  # also imports what a first upload needs
    columns: list[dict[str, float]] = []
    for number in range(1, commits + 1):
        watch.spent.clear()
        whole = commit(number)
        parts = dict(watch.spent)
        in_commit = parts.pop("commit as a whole")
        parts["rest of the commit"] = in_commit - sum(parts[name] for name in (*STEPS, "transfer"))
        parts["rest of the session"] = whole - in_commit - parts["GET"]
        parts["the session"] = whole
        parts["everything else"] = whole - parts["transfer"] - parts["GET"]
        columns.append(parts)
    growth = memory("VmHWM") - before

    order = (*STEPS, "rest of the commit", "rest of the session", "everything else", "GET", "transfer", "the session")
    medians = {name: median(parts[name] for parts in columns) for name in order}
    table(
        ("one-row commit", "median", "worst"),
        [[name, ms(medians[name]), ms(max(parts[name] for parts in columns))] for name in order],
    )
    print(f"\n  Pulling all of it at first: {first:.2f} s. Memory in use before the first upload: {mib(before)}.")
    targets = Targets()
    else_ = medians["everything else"]
    targets.add("everything but the transfer (median)", ms(TIME_TARGET), ms(else_), met=else_ < TIME_TARGET)
    targets.add("growth of memory by uploading", mib(MEMORY_TARGET), mib(growth), met=growth < MEMORY_TARGET)
    targets.show()


@contextmanager
def large_file(size: int) -> Iterator[Path]:
    """A database of some ``size`` bytes in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="temaki-bench-") as name:
        path = Path(name, KEY)
        make_database(path, size)
        yield path


def main() -> None:
    """Make the database, and start the process that is measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", choices=("moto", "seaweedfs"), help="upload to such an S3 server instead")
    parser.add_argument("--megabytes", type=int, default=300)
    parser.add_argument("--commits", type=int, default=7)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        url = str(arguments.measure)
        measure(open_store(url)[0] if url.startswith("s3://") else FileStore(Path(url)), arguments.commits)
        return
    with ExitStack() as stack:
        path = stack.enter_context(large_file(arguments.megabytes * 1_000_000))
        where = str(path)
        if arguments.server:
            bucket = stack.enter_context(s3_server(arguments.server))
            where = f"s3://{bucket}/{KEY}"
            with path.open("rb") as file:
                open_store(where)[0].put(KEY, file)
        size = path.stat().st_size
        print(f"  Database of {size:,} bytes, {arguments.commits} commits, to {arguments.server or 'a file'}.\n")
        command = [sys.executable, __file__, "--measure", where, "--commits", str(arguments.commits)]
        subprocess.run(command, check=True, env={**os.environ, "TMPDIR": str(path.parent)})
        if not arguments.server:
            with closing(sqlite3.connect(path)) as database:
                (name,) = database.execute("SELECT name FROM Person WHERE id = 1").fetchone()
            assert name == f"renamed {arguments.commits}", name


if __name__ == "__main__":
    main()
