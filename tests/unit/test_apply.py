"""`replica.apply`: foreign pages enter a live database, and SQLite reads and writes on as if it had written them."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import unittest
from contextlib import closing, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from temaki.errors import WorkingCopyError
from temaki.formats.pages.checksum import minus, plus
from temaki.formats.pages.pageone import canonical, materialised
from temaki.replica import apply, header
from temaki.replica.generation import Generation
from temaki.replica.header import LARGEST_PAGE, WAL_MODE, lock_page
from temaki.replica.image import Image
from temaki.replica.wal import scan
from tests.versions import URL, read, save, version

PAGE_SIZES = [512, 1024, 4096, 32768, LARGEST_PAGE]
WHO = st.integers(0, 1)


class Copy:
    """A working copy, with plain connections that never checkpoint."""

    def __init__(self, path: Path, sequence: int) -> None:
        self.generation = Generation(path, version(sequence), URL)
        self.sequence = sequence
        self.writer = self.connect()
        self.readers: list[tuple[sqlite3.Connection, bytes]] = []

    def connect(self) -> sqlite3.Connection:
        """One more connection."""
        connection = sqlite3.connect(self.generation.path, isolation_level=None)
        connection.execute("PRAGMA wal_autocheckpoint=0").close()
        connection.execute("PRAGMA synchronous=OFF").close()
        return connection

    def pin(self) -> None:
        """One more reader, with what it must see from now on."""
        reader = self.connect()
        reader.execute("BEGIN").close()
        reader.execute("SELECT count(*) FROM sqlite_master").fetchall()
        self.generation.users += 1
        self.readers.append((reader, reader.serialize()))

    def unpin(self) -> None:
        """The oldest reader ends; it saw one snapshot all the while."""
        reader, seen = self.readers.pop(0)
        assert reader.serialize() == seen, "a pinned reader's snapshot moved"
        reader.close()
        self.generation.users -= 1

    def commit(self) -> tuple[set[int], Image] | None:
        """What the writer has committed, acknowledged as the next version; None if nothing."""
        found = scan(self.generation._wal, self.generation._index, self.generation._mark)
        if found.page_count is None:
            return None
        assert found.page_size is not None
        self.sequence += 1
        image = self.generation.image(found, self.sequence)
        self.size, self.page_size = found.page_count, found.page_size
        changed = set(found.pages)
        image.read()  # the checks of a full read hold
        self.generation.acknowledge(found, version(self.sequence))
        return changed, self.image()

    def image(self) -> Image:
        """The acknowledged version."""
        return self.generation.acknowledged(self.size, self.page_size, self.sequence)

    def as_sqlite_reads_it(self) -> bytes:
        """Every page as a new reader sees it."""
        with closing(self.connect()) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            return connection.serialize()

    def close(self) -> None:
        """Connections first."""
        while self.readers:
            self.unpin()
        self.writer.close()
        self.generation.dispose()


def same(one: bytes, other: bytes, page_size: int) -> bool:
    """Whether two databases are equal but for the fields that differ by version."""
    first, second = canonical(1, one[:page_size]), canonical(1, other[:page_size])
    start = (lock_page(page_size) - 1) * page_size
    return (
        len(one) == len(other)
        and first == second
        and one[page_size:start] == other[page_size:start]
        and one[max(start, page_size) + page_size :] == other[max(start, page_size) + page_size :]
    )


class ApplyMachine(RuleBasedStateMachine):
    """Two copies of one database. Whichever is current may write; the other one catches up whenever it likes."""

    @initialize(
        page_size=st.sampled_from(PAGE_SIZES),
        auto_vacuum=st.sampled_from([0, 1, 2]),
        cache=st.sampled_from([3, 10, 2000]),
    )
    def create(self, page_size: int, auto_vacuum: int, cache: int) -> None:
        """A database and a copy of it."""
        self.folder = Path(tempfile.mkdtemp(prefix="apply", dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
        path = self.folder / "1.sqlite"
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute(f"PRAGMA page_size={page_size}")
            connection.execute(f"PRAGMA auto_vacuum={auto_vacuum}")
            connection.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, body BLOB)")
        data = bytearray(path.read_bytes())
        size = len(data) // page_size
        data[:page_size] = materialised(bytes(data[:page_size]), modes=WAL_MODE, sequence=1, page_count=size)
        path.write_bytes(data)
        shutil.copy(path, self.folder / "2.sqlite")
        self.copies = [Copy(self.folder / f"{number}.sqlite", 1) for number in (1, 2)]
        for copy in self.copies:
            copy.size, copy.page_size = size, page_size
            copy.writer.execute(f"PRAGMA cache_size={cache}").close()
        self.rng = random.Random(page_size)
        self.log: dict[int, set[int]] = {}  # by version: the pages that it changed
        self.sums = {1: plus(0, ((n, bytes(data[(n - 1) * page_size : n * page_size])) for n in range(1, size + 1)))}
        self.newest = 0

    def write(self, who: int, *statements: str, vacuum: bool = False) -> None:
        """One transaction in a copy that is current, and what it means for the other one."""
        copy = self.copies[who]
        self.catch_up(who)
        before = copy.image()
        old = {n: before.page(n) for n in range(1, copy.size + 1)}
        if not vacuum:
            copy.writer.execute("BEGIN IMMEDIATE").close()
        for statement in statements:
            with suppress(sqlite3.IntegrityError):
                copy.writer.execute(statement).close()
        if not vacuum:
            copy.writer.execute("COMMIT").close()
        done = copy.commit()
        if done is None:
            return
        changed, image = done
        self.log[copy.sequence], self.newest = changed, who
        lock = lock_page(copy.page_size)
        assert {n for n in range(len(old) + 1, copy.size + 1) if n != lock} <= changed, "a grown page that no frame has"
        gone = [(n, page) for n, page in old.items() if n in changed or n > copy.size]
        total = plus(minus(self.sums[copy.sequence - 1], gone), ((n, image.page(n)) for n in changed))
        assert total == plus(0, ((n, image.page(n)) for n in range(1, copy.size + 1)))
        self.sums[copy.sequence] = total

    def catch_up(self, who: int) -> None:
        """To the newest version, by the pages that changed since."""
        copy, other = self.copies[who], self.copies[self.newest]
        if copy is other or copy.sequence == other.sequence:
            return
        image = other.image()
        numbers = set().union(*(self.log[n] for n in range(copy.sequence + 1, other.sequence + 1))) | {1}
        pages = {n: image.page(n) for n in numbers if n <= other.size}
        pages[1] = materialised(pages[1], modes=WAL_MODE, sequence=other.sequence, page_count=other.size)
        assert copy.generation.catch_up(pages, other.size, copy.page_size, version(other.sequence))
        copy.sequence, copy.size = other.sequence, other.size
        assert copy.image().read() == image.read()
        seen = copy.as_sqlite_reads_it()
        assert same(seen, other.as_sqlite_reads_it(), copy.page_size)
        assert copy.writer.execute("SELECT count(*), total(length(body)) FROM rows").fetchone() == (
            other.writer.execute("SELECT count(*), total(length(body)) FROM rows").fetchone()
        )

    @rule(who=WHO, count=st.integers(1, 80), size=st.sampled_from([0, 50, 800, 9000]))
    def insert(self, who: int, count: int, size: int) -> None:
        """Growth, with spills where the cache is small."""
        self.write(who, *[f"INSERT INTO rows (body) VALUES (randomblob({size}))"] * count)

    @rule(who=WHO, step=st.integers(1, 9), size=st.integers(0, 2000))
    def update(self, who: int, step: int, size: int) -> None:
        """Some rows."""
        self.write(who, f"UPDATE rows SET body = randomblob({size}) WHERE id % {step} = 0")

    @rule(who=WHO, step=st.integers(1, 3), incremental=st.booleans())
    def shrink(self, who: int, step: int, incremental: bool) -> None:
        """Free pages, and give them back where auto_vacuum does."""
        after = ["PRAGMA incremental_vacuum(1000)"] if incremental else []
        self.write(who, f"DELETE FROM rows WHERE id % {step} = 0", *after)

    @rule(who=WHO)
    def vacuum(self, who: int) -> None:
        """Rewrite everything."""
        self.write(who, "VACUUM", vacuum=True)

    @rule(who=WHO, number=st.integers(0, 3))
    def schema(self, who: int, number: int) -> None:
        """Tables and indexes come and go."""
        if self.rng.random() < 0.5:
            self.write(who, f"DROP TABLE IF EXISTS t{number}")
        else:
            self.write(
                who,
                f"CREATE TABLE IF NOT EXISTS t{number} AS SELECT * FROM rows LIMIT 30",
                f"CREATE INDEX IF NOT EXISTS i{number} ON t{number} (body)",
            )

    @rule(who=WHO, count=st.integers(1, 60))
    def savepoint(self, who: int, count: int) -> None:
        """Spill, then roll back a part."""
        self.write(
            who,
            "INSERT INTO rows (body) VALUES (randomblob(10))",
            "SAVEPOINT s",
            *["INSERT INTO rows (body) VALUES (randomblob(2000))"] * count,
            "ROLLBACK TO s",
            "UPDATE rows SET body = randomblob(30) WHERE id % 3 = 0",
        )

    @rule(who=WHO, count=st.integers(1, 60))
    def roll_back(self, who: int, count: int) -> None:
        """In any copy: leaves frames and entries behind that nobody committed, and may start the WAL over."""
        writer = self.copies[who].writer
        writer.execute("BEGIN IMMEDIATE").close()
        for _ in range(count):
            writer.execute("INSERT INTO rows (body) VALUES (randomblob(3000))").close()
        writer.execute("UPDATE rows SET body = NULL").close()
        writer.execute("ROLLBACK").close()

    @rule(who=WHO)
    def pin(self, who: int) -> None:
        """A reader that stays where it is."""
        if len(self.copies[who].readers) < 3:
            self.copies[who].pin()

    @rule(who=WHO)
    def unpin(self, who: int) -> None:
        """It saw one snapshot all the while."""
        if self.copies[who].readers:
            self.copies[who].unpin()

    @rule(who=WHO)
    def follow(self, who: int) -> None:
        """Catch up."""
        self.catch_up(who)

    @rule(who=WHO)
    def writer_is_busy(self, who: int) -> None:
        """SQLite's lock is respected: nothing is written."""
        copy = self.copies[who]
        copy.writer.execute("BEGIN IMMEDIATE").close()
        before = copy.as_sqlite_reads_it()
        assert not copy.generation.catch_up(
            {1: copy.image().page(1)}, copy.size, copy.page_size, version(copy.sequence)
        )
        copy.writer.execute("ROLLBACK").close()
        assert copy.as_sqlite_reads_it() == before

    def teardown(self) -> None:
        """Every reader still has its snapshot."""
        if hasattr(self, "copies"):
            for copy in self.copies:
                copy.close()
            shutil.rmtree(self.folder, ignore_errors=True)


EXAMPLES = int(os.environ.get("TEMAKI_APPLY_EXAMPLES", "40"))
SETTINGS = settings(
    max_examples=EXAMPLES,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate, Phase.shrink],
)
ApplyMachine.TestCase.settings = SETTINGS
TestApplyMachine: type[unittest.TestCase] = ApplyMachine.TestCase

MOVED = """
import ctypes, sqlite3, sys
library = ctypes.CDLL("libsqlite3.so.0")
library.sqlite3_sourceid.restype = ctypes.c_char_p
with sqlite3.connect(":memory:") as connection:
    if connection.execute("SELECT sqlite_source_id()").fetchone()[0] != library.sqlite3_sourceid().decode():
        print("another library"); sys.exit(0)
library.sqlite3_test_control(11, ctypes.c_uint(1 << 17))  # SQLITE_TESTCTRL_PENDING_BYTE
from tests.unit.test_apply import run_with_lock_byte_at
run_with_lock_byte_at(1 << 17)
print("done")
"""


def run_with_lock_byte_at(offset: int) -> None:
    """The machine, in a process of its own, whose SQLite has its lock page there."""
    header.LOCK_BYTE_AT = offset  # type: ignore[misc]
    run_state_machine_as_test(ApplyMachine, settings=SETTINGS)


@pytest.mark.slow
def test_around_the_lock_page() -> None:
    """A database that grows beyond SQLite's lock page, which is moved to 128 KiB: nobody ever writes or sums it."""
    run = subprocess.run([sys.executable, "-c", MOVED], capture_output=True, text=True, check=False)
    if "another library" in run.stdout:
        pytest.skip("Python's SQLite is not the system's")
    assert run.stdout.split() == ["done"], run.stderr


class TestEdges:
    """What random work rarely meets."""

    @pytest.fixture
    def copy(self, tmp_path: Path) -> Copy:
        """Version 1, of value 10."""
        copy = Copy(save(tmp_path / "1.sqlite", 10), 1)
        copy.size, copy.page_size = 2, 4096
        return copy

    def of(self, value: int, path: Path, sequence: int = 2) -> dict[int, bytes]:
        """The pages of another version."""
        data = save(path, value, sequence).read_bytes()
        return {1: data[:4096], 2: data[4096:]}

    def test_blocks_of_the_index(self, copy: Copy, tmp_path: Path) -> None:
        """More frames than one block of the index has, and unsigned ones, with a reader that keeps the WAL growing."""
        copy.pin()
        page = self.of(11, tmp_path / "x")
        for number in range(3):
            many = {n: bytes([number + 1]) * 4096 for n in range(3, 3000)}
            first = materialised(page[1], modes=WAL_MODE, sequence=number + 2, page_count=2999)
            pages = {**page, 1: first, **many}
            assert copy.generation.catch_up(pages, 2999, 4096, version(number + 2))
        with closing(copy.connect()) as connection:
            data = connection.serialize()
        assert len(data) == 2999 * 4096
        assert data[4096 * 2 :] == b"\3" * 4096 * 2997
        copy.writer.execute("UPDATE t SET value = 12").close()
        assert read(copy.writer) == 12
        copy.unpin()
        copy.writer.close()
        copy.generation.dispose()

    @pytest.mark.parametrize("frames", [0, 7, 4062])
    def test_entries_of_an_interrupted_writer(self, tmp_path: Path, frames: int) -> None:
        """They are removed: else the hash table would fill up, and whoever looks for a free slot would never end."""
        with open(tmp_path / "shm", "w+b") as file:
            index = apply.WalIndex(file.fileno())
            for attempt in range(3):
                apply._enter(index, frames, list(range(10_000 * attempt + 1, 10_000 * attempt + 3001)))
            view = index.bytes(1 << 16)
            block = view[(1 << 15) if frames == 4062 else 0 :][: 1 << 15].cast("H")
            assert sum(1 for slot in block[8192:] if slot) == 3000
            numbers = view.cast("I")
            at = (1 << 13) if frames == 4062 else 34 + frames
            assert list(numbers[at : at + 3000]) == list(range(20_001, 23_001))

    def test_signed_frames_are_recovered(self, copy: Copy, tmp_path: Path) -> None:
        """Frames and header of the WAL are as SQLite writes them: its own recovery reads the transaction."""
        copy.pin()
        assert copy.generation.catch_up(self.of(11, tmp_path / "x"), 2, 4096, version(2))
        assert copy.generation.catch_up(self.of(12, tmp_path / "y", 3), 2, 4096, version(3))
        shutil.copy(save(tmp_path / "old.sqlite", 10), tmp_path / "other.sqlite")
        shutil.copy(f"{copy.generation.path}-wal", tmp_path / "other.sqlite-wal")
        with closing(sqlite3.connect(tmp_path / "other.sqlite")) as connection:
            assert read(connection) == 12
        copy.close()

    def test_a_stale_size_in_page_1(self, tmp_path: Path) -> None:
        """SQLite would correct it in the guard's transaction, over the frames that were appended: so nothing is."""
        path = save(tmp_path / "1.sqlite", 10)
        data = bytearray(path.read_bytes())
        data[92:96] = b"\0\0\0\x63"
        path.write_bytes(data)
        copy = Copy(path, 1)
        assert not copy.generation.catch_up(self.of(11, tmp_path / "x"), 2, 4096, version(2))
        assert read(copy.writer) == 10
        copy.close()

    @pytest.mark.parametrize("at", [0, 12, 30, 50])
    def test_an_index_that_is_not_as_documented(self, copy: Copy, tmp_path: Path, at: int) -> None:
        """Another version, or copies that differ: nothing is written."""
        index = copy.generation._index
        good = os.pread(index, 96, 0)
        os.pwrite(index, bytes([good[at] ^ 1]), at)
        wal = os.pread(copy.generation._wal, 1 << 20, 0)
        with pytest.raises(header.FormatError):
            apply.append(
                copy.generation._wal,
                copy.generation._index_maps,
                self.of(11, tmp_path / "x"),
                page_count=2,
                page_size=4096,
            )
        assert os.pread(copy.generation._wal, 1 << 20, 0) == wal
        os.pwrite(index, good, 0)
        assert read(copy.writer) == 10
        copy.close()

    def test_a_full_disk(self, copy: Copy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The error is temaki's, and the database is as it was."""

        def full(*_: object) -> int:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr("os.pwrite", full)
            with pytest.raises(WorkingCopyError, match="space"):
                copy.generation.catch_up(self.of(11, tmp_path / "x"), 2, 4096, version(2))
        assert read(copy.writer) == 10
        copy.close()
