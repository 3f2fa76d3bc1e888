"""Several processes with random SQL on one database in pages, and a plain SQLite file that has the same done to it.

Everything that a process does goes through ``db_session``. After each commit the stored objects are read by the program
of the page about the bytes, which knows nothing of temaki, and compared with the file. What a process reads is compared
with the file too, and its working copy with the checksum that is stored.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import sqlite3
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

from pony.orm import CommitException, db_session, rollback

from temaki import Database
from temaki.cli.target import Target
from temaki.errors import ConflictError
from temaki.formats.choice import NAMES, by_number
from temaki.formats.pages import maintain
from temaki.formats.pages.checksum import plus
from temaki.formats.pages.claim import CLAIM_LIFETIME
from temaki.formats.pages.compact import compact
from temaki.formats.pages.head import Head
from temaki.formats.pages.knowledge import PagesKnowledge, local_pages
from temaki.formats.pages.manifest import decode
from temaki.formats.pages.names import new_name
from temaki.orm.cause import cause_of
from temaki.remote.fetch import Source
from temaki.replica import header
from temaki.stores.memory import MemoryStore
from temaki.testing.clock import ManualClock
from temaki_strategies import EtagCached
from tests.docs.pages import ROOT, snippets
from tests.hooked import HookedStore
from tests.threads import PATIENCE, Background, in_thread

KEY = "app.sqlite"
COUNTS: Counter[str] = Counter()
"""What was done in this process, in all runs."""

Statement = tuple[str, tuple[Any, ...]]
Content = list[Any]

_NUMBERS = itertools.count()


def stranger() -> Callable[[Path], bytes]:
    """The reader of the page about the bytes, which is told where SQLite has its lock page in this process."""
    page = ROOT / "docs" / "reference" / "pages-format.md"
    ((text, _),) = snippets(page)
    assert text.count("1 << 30") == 1
    names: dict[str, Any] = {"__name__": "block"}
    exec(compile(text.replace("1 << 30", str(header.LOCK_BYTE_AT)), str(page), "exec"), names)
    read: Callable[[Path], bytes] = names["read"]
    return read


# -- SQL ---------------------------------------------------------------------------------------------------------------

TABLES = ("t0", "t1", "t2", "w0")


def make_tables(connection: sqlite3.Connection, page_size: int, auto_vacuum: int, rows: int) -> None:
    """The tables of a new database: with and without rowids, with several indexes."""
    connection.execute(f"PRAGMA page_size = {page_size}").close()
    connection.execute(f"PRAGMA auto_vacuum = {auto_vacuum}").close()
    connection.execute("CREATE TABLE t0 (id INTEGER PRIMARY KEY, a TEXT UNIQUE, b BLOB)").close()
    connection.execute("CREATE TABLE t1 (id INTEGER PRIMARY KEY, a TEXT UNIQUE, b BLOB)").close()
    connection.execute("CREATE INDEX by_b ON t1 (b, a)").close()
    connection.execute("CREATE TABLE w0 (id INTEGER PRIMARY KEY, a TEXT UNIQUE, b BLOB) WITHOUT ROWID").close()
    rng = random.Random(rows)
    connection.executemany("INSERT INTO t0 (a, b) VALUES (?, ?)", [(str(i), rng.randbytes(200)) for i in range(rows)])


def statement(rng: random.Random) -> list[Statement]:
    """One statement, or the few that belong together."""
    table, other = rng.choice(TABLES), rng.choice(TABLES)
    row, step, count = rng.randint(1, 200), rng.randint(2, 9), rng.randint(1, 80)
    blob = _blob(rng)
    numbers = f"WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})"
    many = f"{numbers} INSERT OR REPLACE INTO {table} (id, a, b) SELECT {row} + i, {rng.random()} || i, ? FROM n"
    one = f"UPDATE {table} SET b = ? WHERE id = {row}"
    last_fails = f"CASE WHEN i < {count} THEN {rng.random()} || i ELSE (SELECT a FROM {table} LIMIT 1) END"
    return rng.choice(
        [
            [(many, (blob,))],
            [(many, (blob[:300],))],
            [(one, (blob,))],
            [(one, (blob[:60],))],
            [(one, (blob[:60],))],
            [(f"UPDATE {table} SET b = ? WHERE id % {step} = 0", (blob[:900],))],
            [(f"UPDATE {table} SET b = b", ())],
            [(f"DELETE FROM {table} WHERE id % {step} = 1", ())],
            [(f"DELETE FROM {table} WHERE id > {row}", ())],
            [(f"DELETE FROM {table}", ())],
            [
                (
                    f"REPLACE INTO {table} (id, a, b) SELECT id, a || 'x', ? FROM {other} WHERE id < {count}",
                    (blob[:300],),
                )
            ],
            # These fail: in the last row, when pages of the statement were spilled; at once; and half-way for good.
            [
                (
                    f"{numbers} INSERT INTO {table} (a, b) SELECT {last_fails}, ? FROM n",
                    (blob[:2000],),
                )
            ],
            [(f"INSERT INTO {table} (id, a, b) SELECT id, a, b FROM {table}", ())],
            [(f"UPDATE OR FAIL {table} SET a = 'same' WHERE id > {row}", ())],
            [(f"INSERT OR IGNORE INTO {table} (id, a, b) SELECT id, a, b FROM {other}", ())],
            [(f"SAVEPOINT s{step}", ())],
            [(f"ROLLBACK TO s{step}", ())],
            [(f"RELEASE s{step}", ())],
            [("SAVEPOINT s0", ()), (many, (blob,)), ("ROLLBACK TO s0", ()), (one, (blob[:60],))],
            [("CREATE TABLE more AS SELECT * FROM t0", ())],
            [("CREATE UNIQUE INDEX more_by_a ON more (a)", ())],
            [("DROP TABLE more", ())],
            [("DROP INDEX by_b", ())],
            [("CREATE INDEX by_b ON t1 (b, a)", ())],
            [(f"ALTER TABLE more ADD COLUMN c{step} DEFAULT {row}", ())],
            [(f"PRAGMA incremental_vacuum({step})", ())],
            [(f"PRAGMA user_version = {row}", ())],
            [(f"PRAGMA cache_size = {rng.choice([1, 5, 12, 2000])}", ())],
            [(f"INSERT INTO {table} (id, b) VALUES ({row}, zeroblob({len(blob)}))", ())],
        ]
    )


def _blob(rng: random.Random) -> bytes:
    size = rng.choice([0, 20, 300, 900, 5000, 30_000])
    return rng.randbytes(size) if rng.random() < 0.6 else bytes([rng.randrange(256)]) * size


def transaction(seed: int, length: int) -> list[Statement]:
    """The statements of one transaction."""
    rng = random.Random(seed)
    return [one for _ in range(length) for one in statement(rng)]


def run(connection: Any, statements: Sequence[Statement]) -> list[str]:
    """Carry them out; what became of each."""
    results = []
    for sql, values in statements:
        try:
            connection.execute(sql, values).close()
            results.append("")
        except (sqlite3.IntegrityError, sqlite3.OperationalError) as error:
            results.append(f"{type(error).__name__}: {error}")
    return results


def content(select: Callable[[str], Sequence[Any]]) -> Content:
    """Everything in a database, its shape, and SQLite's own opinion of it."""
    schema = [tuple(row) for row in select("type, name, sql FROM sqlite_master ORDER BY type, name")]
    rows = {
        name: [tuple(row) for row in select(f'* FROM "{name}" ORDER BY id')]
        for kind, name, _ in schema
        if kind == "table"
    }
    assert list(select("* FROM pragma_integrity_check")) in (["ok"], [("ok",)])
    return [schema, rows, [number if isinstance(number, int) else number[0] for number in select(_VERSION)]]


_VERSION = "user_version FROM pragma_user_version"


def content_of(connection: sqlite3.Connection) -> Content:
    """The same, of a connection of SQLite's."""
    return content(lambda sql: connection.execute(f"SELECT {sql}").fetchall())


# -- processes ---------------------------------------------------------------------------------------------------------


class Process:
    """What acts as one process: a database and a working copy of its own, which outlives it.

    Args:
        world: The world.
        cache: Pages in the cache of SQLite; fewer than a transaction changes make it spill.
    """

    def __init__(self, world: World, cache: int) -> None:
        self.world, self._cache = world, cache
        number = next(_NUMBERS)
        self.folder = world.folder / f"process-{number}"
        self.url = f"memory://process-{number}/{KEY}"
        self.hooked = HookedStore(world.store)
        self.pins: list[Pin] = []
        self.open()

    def open(self) -> None:
        """Start it."""
        self.db = Database()

        @self.db.on_connect
        def shape(_: Any, connection: sqlite3.Connection) -> None:
            connection.execute(f"PRAGMA cache_size = {self._cache}").close()

        self.db.bind_s3(self.url, store=self.hooked, strategy=EtagCached(), cache_dir=self.folder, compact="manual")
        self.db.generate_mapping()

    def close(self) -> None:
        """End it."""
        self.release()
        self.db.unbind()

    def release(self) -> None:
        """End its open sessions. Each has seen one version all the time."""
        while self.pins:
            self.pins.pop().release()

    @property
    def shared(self) -> Any:
        """What it has of the database."""
        return self.db.provider.engine.shared

    def content(self) -> Content:
        """What a session of its sees. It never writes, so that it locks out nobody."""
        return content(self.db.select)

    def compare(self) -> None:
        """It sees what is stored, and has it byte for byte."""
        replica = self.shared.replica
        with replica.state:
            before = replica.current
            was = None if before is None or before.version is None else before.version.sequence
        with db_session:
            assert self.content() == self.world.content
        COUNTS["pulls"] += 1
        with replica.state:
            generation = replica.current
            if was is not None and generation.version.sequence > was:
                COUNTS["catch-ups" if generation is before else "full pulls"] += 1
                lag = generation.version.sequence - was
                COUNTS["longest lag"] = max(COUNTS["longest lag"], lag)
            known = PagesKnowledge.of(generation)
            head = self.world.head()
            assert (known is None) == (head is None)
            if known is not None and head is not None:
                assert (known.head.checksum, known.head.commit) == (head.checksum, head.commit)
                image = local_pages(generation, known.head)
                total = plus(0, ((number, image.page(number)) for number in range(1, head.page_count + 1)))
                assert total == head.checksum


class Pin:
    """A session that stays open in a thread of its own, and sees one version all the time.

    Args:
        process: Whose it is.
        writes: Whether it holds SQLite's lock for writers, so that no catch-up can come in beside it.
    """

    def __init__(self, process: Process, *, writes: bool) -> None:
        self._process, self.writes = process, writes
        self._began, self._ends = threading.Event(), threading.Event()
        self._thread = Background(self._run)
        while not self._began.wait(0.05):
            if not self._thread.is_running:
                self._thread.result()
        COUNTS["pinned"] += 1

    def _run(self) -> None:
        with db_session:
            if self.writes:
                self._process.db.get_connection()
            before = self._process.content()
            assert before == self._process.world.content
            self._began.set()
            assert self._ends.wait(PATIENCE)
            assert self._process.content() == before, "the snapshot of an open session moved"

    def release(self) -> None:
        """End it."""
        self._ends.set()
        self._thread.result()


# -- the world ---------------------------------------------------------------------------------------------------------


class World:
    """A bucket, its clock, processes, and the plain file.

    Args:
        page_size: In bytes.
        auto_vacuum: As for SQLite.
        rows: To begin with.
        caches: For each process, pages of its SQLite's cache.
    """

    def __init__(self, page_size: int, auto_vacuum: int, rows: int, caches: Sequence[int]) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="pages-sql", dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
        self.clock = ManualClock()
        self.bucket = f"sql-{next(_NUMBERS)}"
        self.store = MemoryStore.named(self.bucket)
        self.store._clock = self.clock
        self._read = stranger()
        self.reference = sqlite3.connect(
            self.folder / "reference.sqlite", isolation_level=None, check_same_thread=False
        )
        self.reference.execute("PRAGMA synchronous = OFF").close()
        make_tables(self.reference, page_size, auto_vacuum, rows)
        first = self.folder / "first.sqlite"
        shutil.copyfile(self.folder / "reference.sqlite", first)
        self.target = Target(f"memory://{self.bucket}/{KEY}")
        self.target.publish(first, None, form=by_number(NAMES["pages"]))
        self.content = content_of(self.reference)
        self.last = ""
        self._last: Head | None = None
        self.check()
        self.processes = [Process(self, cache) for cache in caches]

    @property
    def source(self) -> Source:
        """The head's object, for maintenance."""
        return self.target.remote.source

    def close(self) -> None:
        """Everybody sees the last version; then remove it all."""
        try:
            for process in self.processes:
                process.release()
                process.compare()
                process.close()
        finally:
            self.reference.close()
            MemoryStore.forget(self.bucket)
            shutil.rmtree(self.folder, ignore_errors=True)

    def _stored(self) -> bytes:
        download = self.store.get(KEY)
        assert download is not None
        return download.read(download.length)

    def head(self) -> Head | None:
        """What is stored; None if that is a file."""
        data = self._stored()
        return None if data.startswith(b"SQLite format 3\0") else decode(data)

    def commit_id(self) -> str:
        """Which commit is stored."""
        return self.store.head(KEY).metadata["temaki-commit"]

    def check(self) -> None:
        """Somebody without temaki finds in the store what is in the file."""
        stored, head = self._stored(), self.head()
        if head is not None:
            path = self.folder / KEY
            path.write_bytes(stored)
            beside = self.folder / f"{KEY}.pages"
            beside.mkdir(exist_ok=True)
            for name in (head.base.name, *(one.name for one in head.segments)):
                if not (beside / name).exists():  # names are never used again
                    download = self.store.get(f"{KEY}.pages/{name}")
                    assert download is not None
                    (beside / name).write_bytes(download.read(download.length))
            stored = self._read(path)
            COUNTS["most segments"] = max(COUNTS["most segments"], len(head.segments))
            if header.lock_page(head.page_size) < head.page_count:
                COUNTS["beyond the lock page"] += 1
        with closing(sqlite3.connect(":memory:")) as connection:
            connection.deserialize(stored)
            assert content_of(connection) == self.content
        was, self._last = self._last, head
        if was is not None and head is not None and was.base == head.base:
            gone = {one.name for one in head.condemned} - {one.name for one in was.condemned}
            COUNTS["merges"] += any(name.startswith("seg-") for name in gone)
        if self.commit_id() != self.last:
            self.last = self.commit_id()
            COUNTS["commits"] += 1

    # -- what happens ------------------------------------------------------------------------------------------------

    def repeat(self, statements: Sequence[Statement], results: Sequence[str]) -> None:
        """Do a transaction to the plain file; it went as the real one did."""
        self.reference.execute("BEGIN IMMEDIATE").close()
        assert run(self.reference, statements) == results
        self.reference.execute("COMMIT").close()
        self.content = content_of(self.reference)

    def transact(
        self,
        process: Process,
        statements: Sequence[Statement],
        *,
        give_up: bool = False,
        meanwhile: Callable[[], object] | None = None,
        stale: bool = False,
        uploaded: bool = False,
    ) -> None:
        """One transaction of a process.

        Args:
            process: Which one.
            statements: What it does.
            give_up: Whether it is rolled back at its end.
            meanwhile: What others do between the statements and the commit.
            stale: Whether that is a commit, after which this one has to be refused.
            uploaded: Whether they do it within the commit, right before the head is replaced.
        """
        process.release()
        before = self.commit_id()
        refused: BaseException | None = None
        try:
            with db_session(immediate=True):
                results = run(process.db.get_connection(), statements)
                if meanwhile is not None and uploaded:
                    process.hooked.before["put"] = [lambda: in_thread(meanwhile)]
                elif meanwhile is not None:
                    in_thread(meanwhile)
                theirs = self.commit_id()
                if give_up:
                    rollback()
        except CommitException as error:
            refused = cause_of(error)
        process.hooked.before.clear()
        if refused is not None:
            assert isinstance(refused, ConflictError), refused
            assert stale
            assert theirs != before, "a conflict, although nobody has stored anything"
            COUNTS["conflicts"] += 1
        elif give_up:
            COUNTS["rollbacks"] += 1
            assert self.commit_id() == theirs
        elif theirs == before:
            self.repeat(statements, results)
        else:
            assert self.commit_id() == theirs, "a commit has overwritten another one"
        COUNTS["failed statements"] += sum(bool(one) for one in results)
        self.check()

    def vacuum(self, process: Process) -> None:
        """A VACUUM as a transaction of a process: temaki refuses it in a session, and knows it when it meets it."""
        process.release()
        with db_session(immediate=True):
            connection = process.db.get_connection()
            with connection.trusted():
                cursor = connection.cursor()
                for sql in ("COMMIT", "VACUUM", "BEGIN IMMEDIATE"):
                    cursor.execute(sql)
            connection.execute("PRAGMA user_version = 7").close()
        self.reference.execute("VACUUM").close()
        self.reference.execute("PRAGMA user_version = 7").close()
        self.content = content_of(self.reference)
        COUNTS["vacuums"] += 1
        self.check()

    def store_whole(self, form: Literal["pages", "file"], *, vacuum: bool) -> None:
        """A whole file as the next version: a conversion, or what another tool has made of it."""
        copy = self.target.fetch(self.folder, name="whole.sqlite")
        if vacuum:
            for connection in (self.reference, sqlite3.connect(copy.path)):
                connection.execute("VACUUM").close()
                if connection is not self.reference:
                    connection.close()
        self.target.publish(copy.path, copy.version, form=by_number(NAMES[form]))
        copy.path.unlink()
        COUNTS["whole files"] += 1
        self.check()

    def maintain(self, how: str, process: Process) -> None:
        """Maintenance of one kind, by an operator or by a process. It changes no content."""
        before = self.commit_id()
        path = self.folder / "maintained.sqlite"
        head = self.head()
        if how == "fold":
            maintain.fold(self.source, path, force=True)
        elif how == "collect":
            maintain.collect(self.source)
        elif how == "collect for good":
            for _ in range(2):
                maintain.collect(self.source)
                self.wait(maintain.GRACE)
            maintain.collect(self.source)
        elif how == "compact":
            compact(self.source, path)
        else:
            assert how == "upkeep"
            generation = process.shared.replica.current
            if generation is not None and generation.version is not None:
                form = by_number(generation.version.format)
                form.maintain(process.shared.remote.source, process.shared.replica, idle=float("inf"))
        after = self.head()
        if head is not None and after is not None:
            COUNTS["folds"] += head.base != after.base
            COUNTS["collections"] += len(head.condemned) > len(after.condemned)
            COUNTS["fences"] += after.collection > head.collection
        assert self.commit_id() == before
        self.check()

    def orphan(self, kind: Literal["base", "seg"]) -> None:
        """What a refused commit leaves behind: nothing names it."""
        self.store.put(f"{KEY}.pages/{new_name(kind)}", b"left behind")

    def wait(self, seconds: int) -> None:
        """Let time pass, on the store's clock."""
        assert seconds <= CLAIM_LIFETIME * 3
        self.clock.advance(seconds)
