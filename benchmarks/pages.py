"""What the format ``pages`` costs: requests, bytes, time beside the transfer, and memory.

Everything is measured in processes of their own: a writer, a reader that catches up with it, and the commands
(``convert``, ``pull``, ``compact``). "Transfer" is the time in which at least one request is under way, its body
included. Requests and bytes are exact. A command's memory is compared with that of the same command on a database of
a few KiB.

The default takes a minute or two. ``--size 1000 --commits 1000`` measures a gigabyte, ``--rows 70000`` a database that
grows from nothing to 100 MB by commits of one row, with ``compact="auto"``.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

from pony.orm import Required, db_session

from benchmarks._common import Targets, median, mib, ms, s3_server, table
from benchmarks.large_database import forget_peak, memory
from temaki import Database
from temaki.engine.engine import Engine
from temaki.formats.pages.checksum import page_value
from temaki.formats.pages.head import Base, Head
from temaki.formats.pages.knowledge import PagesKnowledge
from temaki.formats.pages.manifest import decode
from temaki.formats.pages.pageimage import pack
from temaki.formats.pages.policy import pull_size
from temaki.replica.replica import Replica
from temaki.store import Download, Store
from temaki.stores import open_store
from temaki.stores.memory import MemoryStore
from temaki.stores.wrapper import DownloadWrapper, Verb
from temaki.testing import CountingStore

T = TypeVar("T")

KIB, MIB = 1 << 10, 1 << 20
TEXT = 1200
"""Characters of a row: about 1.3 KB with its indexes, which shrink by half."""


class TimedStore(CountingStore):
    """Counts requests and bytes, and the seconds in which at least one request is under way."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._mutex = threading.Lock()
        self._active = 0
        self._begun = 0.0
        self.seconds = 0.0

    @contextmanager
    def busy(self) -> Iterator[None]:
        """A request, or a piece of its body, is under way."""
        with self._mutex:
            self._active += 1
            if self._active == 1:
                self._begun = time.perf_counter()
        try:
            yield
        finally:
            with self._mutex:
                self._active -= 1
                if not self._active:
                    self.seconds += time.perf_counter() - self._begun

    def handle_request(self, verb: Verb, key: str, request: Callable[[], T], /) -> T:
        """See :meth:`temaki.testing.StoreWrapper.handle_request`."""
        with self.busy():
            return super().handle_request(verb, key, request)

    def wrap_download(self, key: str, download: Download, /) -> Download:
        """See :meth:`temaki.testing.StoreWrapper.wrap_download`."""
        return _TimedDownload(super().wrap_download(key, download), self)


class _TimedDownload(DownloadWrapper):
    def __init__(self, download: Download, store: TimedStore) -> None:
        super().__init__(download)
        self._store = store

    def read(self, size: int, /) -> bytes:
        with self._store.busy():
            return super().read(size)


class Process:
    """A mapped database, and what its sessions cost."""

    def __init__(self, url: str, store: Store | None = None, **options: Any) -> None:
        self.store = TimedStore(open_store(url)[0] if store is None else store)
        self.local = 0.0  # seconds in SQLite's own COMMIT
        self.committing = 0.0  # seconds in temaki's commit, all in all
        self.cpu: dict[str, float] = {}  # seconds of processor time in the same
        self._around(Replica, "commit_locally", "local")
        self._around(Engine, "commit", "committing")
        db = Database()

        class Item(db.Entity):  # type: ignore[name-defined]
            code = Required(str, unique=True)
            kind = Required(str, index=True)
            text = Required(str)

        db.bind_s3(url, store=self.store, **options)
        self.db, self.Item = db, cast("Any", Item)
        self.engine: Engine = db.provider.engine
        begin = time.perf_counter()
        db.generate_mapping(create_tables=store is not None)
        self.mapping = time.perf_counter() - begin

    def _around(self, owner: Any, method: str, name: str) -> None:
        inner = getattr(owner, method)

        def measured(*args: Any, **kwargs: Any) -> Any:
            begin, cpu = time.perf_counter(), time.process_time()
            try:
                return inner(*args, **kwargs)
            finally:
                self.cpu[name] = self.cpu.get(name, 0.0) + time.process_time() - cpu
                setattr(self, name, getattr(self, name) + time.perf_counter() - begin)

        setattr(owner, method, measured)

    @property
    def head(self) -> Head:
        """The head of the version that is here."""
        replica: Replica = self.engine.shared.replica
        with replica.state:
            assert replica.current is not None
            known = PagesKnowledge.of(replica.current)
            assert known is not None
            return known.head

    def costs(self, work: Callable[[], object]) -> dict[str, Any]:
        """What one piece of work costs: seconds, requests by kind, bytes, and memory in bytes."""
        self.store.reset()
        self.store.seconds = self.local = self.committing = 0.0
        self.cpu.clear()
        forget_peak()
        before = memory("VmRSS")
        begin = time.perf_counter()
        work()
        whole = time.perf_counter() - begin
        return {
            "whole": whole,
            "transfer": self.store.seconds,
            "local": self.local,
            "commit": self.committing,
            "cpu": self.cpu.get("committing", 0.0) - self.cpu.get("local", 0.0),
            "gets": self.store.count("get"),
            "puts": self.store.count("put"),
            "others": self.store.count() - self.store.count("get") - self.store.count("put"),
            "up": self.store.bytes_up,
            "down": self.store.bytes_down,
            "memory": memory("VmHWM") - before,
        }


def text() -> str:
    """The text of a row. It shrinks by half."""
    return os.urandom(TEXT // 2).hex()


def make_file(path: Path, size: int) -> int:
    """Write a SQLite file of ``size`` bytes, a fifth of it in rows; the count of the rows."""
    count = max(100, size // 5 // (TEXT + 150))
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("PRAGMA page_size = 4096")
        database.execute("PRAGMA synchronous = OFF")
        database.execute(
            'CREATE TABLE "Item" ("id" INTEGER PRIMARY KEY AUTOINCREMENT, "code" TEXT UNIQUE NOT NULL, '
            '"kind" TEXT NOT NULL, "text" TEXT NOT NULL)'
        )
        database.execute('CREATE INDEX "idx_item__kind" ON "Item" ("kind")')
        rows = ((os.urandom(8).hex(), f"kind {n % 97}", text()) for n in range(count))
        database.executemany('INSERT INTO "Item" ("code", "kind", "text") VALUES (?, ?, ?)', rows)
        database.execute("CREATE TABLE filler (data BLOB)")
        for number in range(max(0, size * 4 // 5 // MIB)):
            data = os.urandom(MIB) if number % 2 else os.urandom(MIB // 2).hex().encode()
            database.execute("INSERT INTO filler VALUES (?)", (data,))
    return count


# -- the process that reads ----------------------------------------------------------------------------------------


def read_on_request(url: str) -> None:
    """In a process of its own: pull everything, then read one row for each line of the input."""
    process = Process(url, strategy="read-only")

    def read() -> None:
        with db_session:
            assert process.Item[1].text

    first = {**process.costs(read), "mapping": process.mapping}
    print(json.dumps(first), flush=True)
    for _ in sys.stdin:
        print(json.dumps(process.costs(read)), flush=True)


class Reader:
    """The process that reads, from outside."""

    def __init__(self, url: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.pages", "--read", url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.first = self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        return found

    def read(self) -> dict[str, Any]:
        """What one read costs there."""
        assert self._process.stdin is not None
        print(file=self._process.stdin, flush=True)
        return self._answer()

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


# -- the process that writes ---------------------------------------------------------------------------------------


def write_and_report(url: str, commits: int, rows: int) -> None:
    """In a process of its own: commits of one row, a large transaction, a fold; a reader follows the first of them."""
    writer = Process(url, compact="manual")
    rng = random.Random(1)

    def change_one(number: int) -> None:
        with db_session:
            if number % 2:
                writer.Item(code=os.urandom(8).hex(), kind=f"kind {number % 97}", text=text())
            else:
                writer.Item[rng.randint(1, rows)].text = text()

    change_one(0)  # imports what a first upload needs
    reader = Reader(url)
    columns, caught_up = [], []
    for number in range(1, commits + 1):
        columns.append(writer.costs(lambda number=number: change_one(number)))  # type: ignore[misc]
        if number <= 100:
            caught_up.append(reader.read())
    reader.close()
    head = writer.head
    report: dict[str, Any] = {
        "reader": reader.first,
        "commits": columns,
        "catch-ups": caught_up,
        "size": head.size,
        "pull": pull_size(head.base, head.live),
    }

    def change_many() -> None:
        with db_session:
            connection = writer.db.get_connection()
            connection.execute(
                'UPDATE "Item" SET "text" = hex(randomblob(?)) WHERE id <= ?', (TEXT // 2, max(1, rows // 2))
            )

    report["large"] = writer.costs(change_many)
    head = writer.head
    report["pull after large"] = pull_size(head.base, head.live)
    report["floor"] = floor_of_a_page()
    report["pages of large"] = sum(one.pages for one in head.segments if one.last == head.sequence)
    engine = writer.engine
    from temaki.formats.pages import upkeep
    from temaki.remote.remote import Remote

    remote: Remote = engine.shared.remote
    upkeep._folds = lambda _: True  # type: ignore[assignment]  # noqa: SLF001 - whether or not it is due
    upkeep._MOST_JOBS = 1  # type: ignore[misc]  # noqa: SLF001
    report["fold"] = writer.costs(upkeep.Upkeep(remote.source, engine.shared.replica, 0.0).run)
    print(json.dumps(report))


def floor_of_a_page() -> dict[str, float]:
    """Seconds of a processor for a page: compressing one of these rows, and hashing an old and a new one."""
    pages = [os.urandom(2048).hex().encode() for _ in range(2000)]
    begin = time.process_time()
    for page in pages:
        pack(page)
    packed = time.process_time()
    for page in pages:
        page_value(2, page)
        page_value(3, page)
    return {"zlib": (packed - begin) / len(pages), "sha": (time.process_time() - packed) / len(pages)}


def command(*arguments: str) -> tuple[float, int]:
    """Run ``temaki``: its seconds, and the peak of its memory in bytes."""
    begin = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.pages", "--command", *arguments], stdout=subprocess.PIPE, text=True
    )
    output, _ = process.communicate()
    assert process.returncode == 0, arguments
    return time.perf_counter() - begin, int(output.strip().splitlines()[-1])


def run_command(arguments: list[str]) -> None:
    """In a process of its own: the command, and then the peak of its memory on the last line."""
    from temaki.cli import main as temaki
    from temaki.formats.pages import policy

    found: list[str] = []

    def is_first(base: Base, *_: object) -> bool:
        """Whether or not it is worthwhile: one fold, so that ``compact`` is measured at its dearest."""
        found.append(base.name)
        return base.name == found[0]

    policy.fold_is_worthwhile = is_first  # type: ignore[assignment]
    sys.argv = ["temaki", *arguments]
    try:
        temaki()
    except SystemExit as end:
        if end.code:
            raise
    print()
    print(memory("VmHWM"))


# -- a database that grows -----------------------------------------------------------------------------------------


def grow(rows: int, targets: Targets) -> None:
    """Commits of one row each, from nothing, with ``compact="auto"``."""
    store = MemoryStore()
    process = Process("memory://grow/app.sqlite", store, format="pages", compact="auto")
    largest = segments = whole = 0
    dearest = 0.0
    process.store.reset()
    for number in range(rows):
        with db_session:
            process.Item(code=os.urandom(8).hex(), kind=f"kind {number % 97}", text=text())
        head, stored = process.head, store.head("app.sqlite").size
        largest, segments = max(largest, stored), max(segments, len(head.segments))
        whole += head.size
        if head.size > MIB:
            dearest = max(dearest, (stored + pull_size(head.base, head.live)) / head.size)
    head = process.head
    up, puts = process.store.bytes_up, process.store.count("put")
    print(
        f"\n  {rows} commits of one row to {mib(head.size)}: {puts / rows:.3f} PUT, {up / rows / KIB:.1f} KiB up each."
    )
    targets.add("growing: the largest head", "64 KiB", f"{largest / KIB:.1f} KiB", met=largest < 64 * KIB)
    targets.add("growing: most segments", "64", str(segments), met=segments <= 64)
    targets.add("growing: dearest full pull above 1 MiB", "1.60", f"{dearest:.2f}", met=dearest < 1.6)
    print(f"  As versions, all of it takes 1/{whole // max(1, up)} of what as many whole files take.")


# -- all of it ------------------------------------------------------------------------------------------------------


def measure(  # noqa: PLR0915 - one list of measurements
    where: Callable[[str], str], folder: Path, arguments: argparse.Namespace, targets: Targets
) -> None:
    """One database of the given size, and a tiny one to compare the memory of commands with."""
    small, large = folder / "small.sqlite", folder / "large.sqlite"
    make_file(small, 0)
    rows = make_file(large, arguments.size * 1_000_000)
    url, tiny = where("large.sqlite"), where("small.sqlite")
    size = large.stat().st_size
    print(f"  Database of {size:,} bytes with {rows} rows, to {arguments.server or 'a folder'}.\n")
    for path, target in ((small, tiny), (large, url)):
        with path.open("rb") as file:
            open_store(target)[0].put(path.name, file)
    large.unlink()
    steps: list[list[str]] = []

    def timed(what: str, *words: str) -> None:
        floor = command(
            *[word.replace(url, tiny).replace("out.", "tiny.").replace("again.", "little.") for word in words]
        )
        took, peak = command(*words)
        grown = peak - floor[1]
        steps.append([f"temaki {what}", f"{took:.2f} s", "", "", "", mib(grown)])
        targets.add(f"temaki {what}: growth of memory", mib(64 * MIB), mib(grown), met=grown < 64 * MIB)

    timed("convert", "convert", url, "--to", "pages", "--yes")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.pages", "--write", url, str(arguments.commits), str(rows)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    report = json.loads(done.stdout.strip().splitlines()[-1])
    timed("pull", "pull", url, str(folder / "out.sqlite"))
    timed("compact", "compact", url)
    (folder / "out.sqlite").unlink()
    download = open_store(url)[0].get("large.sqlite")
    assert download is not None
    with download:
        head = decode(download.read(MIB))
    compacted = pull_size(head.base, head.live) / head.size
    targets.add("full pull, after temaki compact", "1.10", f"{compacted:.2f}", met=compacted <= 1.1)
    timed("pull, compacted", "pull", url, str(folder / "again.sqlite"))

    def row(what: str, cost: dict[str, Any]) -> list[str]:
        requests = f"{cost['gets']} GET, {cost['puts']} PUT"
        rest = cost["whole"] - cost["transfer"]
        return [what, f"{cost['whole']:.2f} s", f"{cost['transfer']:.2f} s", ms(rest), requests, mib(cost["memory"])]

    commits, caught_up, n = report["commits"], report["catch-ups"], len(report["commits"])
    reader, big, fold = report["reader"], report["large"], report["fold"]
    steps.insert(1, [f"first start of a reader: {reader['mapping']:.2f} s", "", "", "", "", ""])
    steps.insert(2, row(f"transaction of {mib(4096 * report['pages of large'])}", big))
    steps.insert(3, row("fold in the background", fold))
    table(("what", "seconds", "transfer", "beside it", "requests", "memory"), steps)
    put = sum(one["puts"] for one in commits) / n
    get = sum(one["gets"] for one in commits) / n
    up = sum(one["up"] for one in commits) / n
    else_ = median(one["whole"] - one["transfer"] for one in commits)
    grown = max(one["memory"] for one in commits)
    targets.add("one-row commit: PUT on average", "1.2", f"{put:.3f} (and {get:.3f} GET)", met=put <= 1.2)
    targets.add("one-row commit: up on average", "48 KiB", f"{up / KIB:.1f} KiB", met=up < 48 * KIB)
    targets.add("one-row commit: beside the transfer (median)", ms(0.010), ms(else_), met=else_ < 0.010)
    targets.add("one-row commit: growth of memory", mib(64 * MIB), mib(grown), met=grown < 64 * MIB)
    down = sum(one["down"] for one in caught_up) / len(caught_up)
    gets = sum(one["gets"] for one in caught_up) / len(caught_up)
    beyond = median(one["whole"] - one["transfer"] for one in caught_up)
    targets.add("catch-up: GET on average", "1.1", f"{gets:.3f}", met=gets <= 1.1)
    targets.add("catch-up: down on average", "48 KiB", f"{down / KIB:.1f} KiB", met=down < 48 * KIB)
    targets.add("catch-up: beyond the request (median)", ms(0.005), ms(beyond), met=beyond < 0.005)
    grown = max(one["memory"] for one in caught_up)
    targets.add("catch-up: growth of memory", mib(64 * MIB), mib(grown), met=grown < 64 * MIB)
    pull = max(report["pull"], report["pull after large"]) / report["size"]
    targets.add("full pull, nothing compacted", "2.30", f"{pull:.2f}", met=pull <= 2.3)
    rest = (big["commit"] - big["local"] - big["transfer"]) * 100e6 / max(1, 4096 * report["pages of large"])
    pages = 100e6 / 4096
    floor = {name: spent * pages for name, spent in report["floor"].items()}
    print(f"\n  100 MB of pages: zlib takes {floor['zlib']:.2f} s of a processor, SHA-256 of old and new pages")
    cpu = big["cpu"] * 100e6 / max(1, 4096 * report["pages of large"])
    print(
        f"  {floor['sha']:.2f} s. A commit of 100 MB takes {cpu:.2f} s of a processor beside SQLite, uploads included."
    )
    targets.add("100 MB changed: beside SQLite and transfer", "0.30 s", f"{rest:.2f} s", met=rest <= 0.3)
    targets.add("the same: growth of memory", mib(64 * MIB), mib(big["memory"]), met=big["memory"] < 64 * MIB)
    targets.add("fold: growth of memory", mib(64 * MIB), mib(fold["memory"]), met=fold["memory"] < 64 * MIB)
    store = open_store(url)[0]
    after = sum(one.size for one in store.list("large.sqlite.pages/base-"))
    print(f"\n  Whole files would have sent {size * n / max(1, up * n):.0f} times as much. Bases stored: {mib(after)}.")


def main() -> None:
    """Measure everything, in processes of their own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=100, help="megabytes of the database")
    parser.add_argument("--commits", type=int, default=300)
    parser.add_argument("--rows", type=int, default=2000, help="rows of the database that grows")
    parser.add_argument("--server", choices=("moto", "seaweedfs"), help="an S3 server instead of a folder")
    parser.add_argument("--read", help=argparse.SUPPRESS)
    parser.add_argument("--write", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--command", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.read:
        read_on_request(arguments.read)
        return
    if arguments.write:
        write_and_report(arguments.write[0], int(arguments.write[1]), int(arguments.write[2]))
        return
    if arguments.command:
        run_command(arguments.command)
        return
    targets = Targets()
    with ExitStack() as stack:
        name = stack.enter_context(tempfile.TemporaryDirectory(prefix="temaki-bench-"))
        folder = Path(name)
        os.environ["TMPDIR"] = name
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        if arguments.size:
            if arguments.server:
                bucket = stack.enter_context(s3_server(arguments.server))
                measure(f"s3://{bucket}/{{}}".format, folder, arguments, targets)
            else:
                (folder / "bucket").mkdir()
                measure(f"file://{folder}/bucket/{{}}".format, folder, arguments, targets)
        if arguments.rows:
            grow(arguments.rows, targets)
        shutil.rmtree(folder / "cache", ignore_errors=True)
    targets.show()


if __name__ == "__main__":
    main()
