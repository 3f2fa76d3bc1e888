"""A pinned version stays readable, byte for byte, whatever SQLite does to the files meanwhile."""

from __future__ import annotations

import random
import shutil
import sqlite3
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from temaki.formats.pages.pageone import materialised
from temaki.replica.connection import Connection
from temaki.replica.generation import Generation
from temaki.replica.header import WAL_MODE
from temaki.replica.image import Image
from tests.versions import URL, version

PAGE = 1024


class Bench:
    """A working copy under all kinds of use, one after the other."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self.rng, self.sequence = rng, 1
        path = folder / "1.sqlite"
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute(f"PRAGMA page_size = {PAGE}")
            connection.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, body BLOB)")
            connection.execute(
                "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400) "
                "INSERT INTO rows SELECT i, randomblob(300) FROM n"
            )
        data = bytearray(path.read_bytes())
        self.page_count = len(data) // PAGE
        data[:PAGE] = materialised(bytes(data[:PAGE]), modes=WAL_MODE, sequence=1, page_count=self.page_count)
        path.write_bytes(data)
        self.generation = Generation(path, version(1), URL)
        self.writer = self.connect()
        self.writer.execute("PRAGMA cache_size = 5").close()
        self.readers: list[sqlite3.Connection] = []
        self.pins: list[tuple[Connection, Image, bytes]] = []

    def connect(self) -> sqlite3.Connection:
        """A session's connection."""
        connection = sqlite3.connect(self.generation.path, isolation_level=None)
        for statement in ("PRAGMA wal_autocheckpoint = 0", "PRAGMA synchronous = OFF"):
            connection.execute(statement).close()
        return connection

    @property
    def extent(self) -> tuple[int, int, int]:
        """That of the acknowledged version."""
        return self.page_count, PAGE, self.sequence

    def statement(self) -> str:
        """Something that changes pages; some of it more than the cache holds, so that it spills."""
        first, count = self.rng.randrange(1, 400), self.rng.choice([1, 1, 5, 200])
        return self.rng.choice(
            [
                f"UPDATE rows SET body = randomblob(300) WHERE id BETWEEN {first} AND {first + count}",
                f"DELETE FROM rows WHERE id BETWEEN {first} AND {first + count // 3}",
                f"REPLACE INTO rows SELECT id + 7, randomblob({self.rng.choice([50, 900])}) FROM rows LIMIT {count}",
                "VACUUM" if count == 200 else "DELETE FROM rows WHERE id = 1",
            ]
        )

    def commit(self) -> None:
        """A commit, acknowledged."""
        statement = self.statement()
        if statement == "VACUUM":
            self.writer.execute(statement)
        else:
            self.writer.execute("BEGIN IMMEDIATE")
            self.writer.execute(statement)
            self.writer.execute("COMMIT")
        self.acknowledge()

    def acknowledge(self) -> None:
        """As the engine does, after the upload."""
        changes = self.generation.uncommitted_to_store(_Frames(self.writer))  # type: ignore[arg-type]
        if changes.page_count is None:
            return
        self.sequence += 1
        self.page_count = changes.page_count
        self.generation.acknowledge(changes, replace(version(1), sequence=self.sequence))

    def roll_back(self) -> None:
        """A transaction that has spilled, perhaps into a WAL that SQLite began anew for it."""
        self.writer.execute("BEGIN IMMEDIATE")
        self.writer.execute("UPDATE rows SET body = randomblob(300)")
        self.writer.execute("ROLLBACK")

    def catch_up(self) -> None:
        """A version from elsewhere."""
        number = self.rng.randrange(2, self.page_count)
        before = self.generation.acknowledged(*self.extent)
        first = materialised(before.page(1), modes=WAL_MODE, sequence=self.sequence + 1, page_count=self.page_count)
        pages = {1: first, number: before.page(number)}
        newer = replace(version(1), sequence=self.sequence + 1)
        if self.generation.catch_up(pages, self.page_count, PAGE, newer):
            self.sequence += 1

    def pin(self, *, late: bool = False) -> None:
        """Pin the version of now, also while a transaction is under way."""
        is_writing = late and not self.writer.in_transaction
        if is_writing:
            self.writer.execute("BEGIN IMMEDIATE")
            self.writer.execute("UPDATE rows SET body = randomblob(300)")
        expected = self.generation.acknowledged(*self.extent).read()
        self.generation.users += 1
        connection, image = self.generation.pin(self.extent)
        self.pins.append((connection, image, expected))
        if is_writing:
            self.writer.execute(self.rng.choice(["COMMIT", "ROLLBACK"]))
            self.acknowledge()

    def unpin(self) -> None:
        """Every byte is as it was."""
        connection, image, expected = self.pins.pop(self.rng.randrange(len(self.pins)))
        image.seek(0)
        assert image.read() == expected
        self.generation.unpin(connection)
        self.generation.users -= 1

    def read(self) -> None:
        """A session that keeps its snapshot, or one that ends."""
        if self.readers and self.rng.random() < 0.6:
            self.readers.pop(0).close()
            return
        reader = self.connect()
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM rows").fetchone()
        self.readers.append(reader)

    def close(self) -> None:
        """The end, in order."""
        while self.pins:
            self.unpin()
        for connection in (*self.readers, self.writer):
            connection.close()
        self.generation.dispose()


class _Frames:
    """What the generation asks a connection that has committed nothing."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def frames(self) -> int:
        """See :meth:`temaki.replica.connection.Connection.frames`."""
        return int(self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1])


def run(folder: Path, seed: int, steps: int = 120) -> None:
    """A random use."""
    rng = random.Random(seed)
    bench = Bench(folder, rng)
    try:
        for _ in range(steps):
            step: Any = rng.choices(
                [bench.commit, bench.roll_back, bench.catch_up, bench.read, bench.pin, lambda: bench.pin(late=True)],
                [8, 2, 2, 3, 2, 1],
            )[0]
            step()
            if len(bench.pins) > 2 or (bench.pins and rng.random() < 0.15):
                bench.unpin()
    finally:
        with suppress(sqlite3.Error):
            bench.close()


def is_complete(bench: Bench) -> bool:
    """Whether the main file has everything."""
    return bench.generation.complete


@pytest.mark.parametrize("seed", range(12))
def test_every_byte(tmp_path: Path, seed: int) -> None:
    """Commits, spills that are rolled back, catch-ups, sessions old and new, VACUUM: what was pinned stays."""
    run(tmp_path, seed)


def test_the_wal_starts_over_under_a_complete_copy(tmp_path: Path) -> None:
    """The pin does not hold the WAL if the main file has everything; so the image does not read the WAL either."""
    bench = Bench(tmp_path, random.Random(1))
    bench.read()
    bench.commit()
    assert not is_complete(bench)
    bench.readers.pop().close()
    bench.acknowledge()  # a commit that changed nothing: everything is copied now, and the copy is still intact
    assert is_complete(bench)
    assert bench.generation.is_intact()
    bench.pin()
    bench.roll_back()
    for _ in range(5):
        bench.commit()
    bench.unpin()
    bench.close()


def test_the_working_copy_is_complete_afterwards(tmp_path: Path) -> None:
    """What the pin has kept from the main file is copied when it ends, so that another process may use the file."""
    bench = Bench(tmp_path, random.Random(1))
    bench.pin()
    bench.commit()
    assert not is_complete(bench)
    bench.unpin()
    assert is_complete(bench)
    copied = tmp_path / "copy.sqlite"
    shutil.copy(bench.generation.path, copied)
    with closing(sqlite3.connect(copied)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    bench.close()
