"""`temaki.replica.wal` against real SQLite files: what is committed, all of it, and nothing else."""

from __future__ import annotations

import os
import sqlite3
import struct
import tempfile
import unittest
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from temaki.replica.header import FormatError, read_header
from temaki.replica.image import Image
from temaki.replica.wal import Mark, Scan, scan

PAGE_SIZES = [512, 1024, 4096, 8192, 65536]
REWRITTEN = [slice(18, 20), slice(24, 28), slice(92, 96)]


class LiveDatabase:
    """A file in WAL mode that only PASSIVE checkpoints touch, read through two descriptors as temaki reads it."""

    def __init__(self, folder: Path, page_size: int = 4096, auto_vacuum: int = 0) -> None:
        self.path = folder / "live.sqlite"
        self.main = os.open(self.path, os.O_RDONLY | os.O_CREAT, 0o600)
        self.guard = self.connect()
        self.guard.execute(f"PRAGMA page_size={page_size}")
        self.guard.execute(f"PRAGMA auto_vacuum={auto_vacuum}")
        self.guard.execute("PRAGMA journal_mode=WAL").close()
        self.guard.execute("SELECT count(*) FROM sqlite_master").close()
        self.wal = os.open(f"{self.path}-wal", os.O_RDONLY)
        self.index = os.open(f"{self.path}-shm", os.O_RDONLY)
        self.writer = self.connect()
        self.readers: list[sqlite3.Connection] = []
        self.mark = Mark.START
        self.pages: dict[int, int] = {}

    def connect(self) -> sqlite3.Connection:
        """One more connection that never checkpoints by itself."""
        connection = sqlite3.connect(self.path, isolation_level=None)
        connection.execute("PRAGMA wal_autocheckpoint=0").close()
        connection.execute("PRAGMA synchronous=OFF").close()
        return connection

    def close(self) -> None:
        """Close the guard after all others, the descriptors after that."""
        for connection in [*self.readers, self.writer, self.guard]:
            connection.close()
        for fd in (self.index, self.wal, self.main):
            os.close(fd)

    def scan(self, mark: Mark) -> Scan:
        """What is committed beyond a mark."""
        return scan(self.wal, self.index, mark)

    def advance(self) -> Scan:
        """Scan from the last mark on and keep what it found, as a generation does."""
        found = self.scan(self.mark)
        if found.restarted:
            self.pages.clear()
        self.pages |= found.pages
        if found.page_count is not None:
            self.pages = {number: offset for number, offset in self.pages.items() if number <= found.page_count}
        self.mark = found.mark
        return found

    def checkpoint(self) -> None:
        """Copy what no reader pins from the WAL to the main file."""
        self.guard.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def as_sqlite_reads_it(self) -> bytes:
        """Every page as a connection sees it now, from wherever it is."""
        return self.guard.serialize()

    def image(self, page_count: int, page_size: int, sequence: int = 7) -> Image:
        """The image of all that was scanned."""
        return Image(self.main, self.wal, self.pages, page_count, page_size, sequence)


def contents(fd: int) -> bytes:
    """A whole file, through its descriptor."""
    return os.pread(fd, os.fstat(fd).st_size, 0)


def without_rewritten_fields(data: bytes) -> bytes:
    """The bytes with the fields blanked that an image has its own values for."""
    blank = bytearray(data)
    for field in REWRITTEN:
        blank[field] = bytes(field.stop - field.start)
    return bytes(blank)


def integrity(data: bytes) -> str:
    """SQLite's own opinion of a database in bytes."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.deserialize(data)
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])


@contextmanager
def live_database(page_size: int = 4096, auto_vacuum: int = 0) -> Iterator[LiveDatabase]:
    """A live database in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder, closing(LiveDatabase(Path(folder), page_size, auto_vacuum)) as live:
        yield live


@contextmanager
def descriptor(data: bytes) -> Iterator[int]:
    """An open file with these bytes."""
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        yield file.fileno()


class WalMachine(RuleBasedStateMachine):
    """Random work on one database; after every step the image is what a connection reads."""

    @initialize(page_size=st.sampled_from(PAGE_SIZES), auto_vacuum=st.sampled_from([0, 1, 2]))
    def create(self, page_size: int, auto_vacuum: int) -> None:
        """A new database; the small cache makes transactions spill into the WAL."""
        self.folder = tempfile.TemporaryDirectory()
        self.live = LiveDatabase(Path(self.folder.name), page_size, auto_vacuum)
        self.page_size = page_size
        self.tables = 0
        self.page_count: int | None = None
        self.live.writer.execute("PRAGMA cache_size=10")
        self.live.writer.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, body BLOB)")

    def run(self, statement: str, *arguments: object) -> None:
        """Execute in the writing connection, to the end."""
        self.live.writer.execute(statement, arguments).fetchall()

    @rule(count=st.integers(1, 60), size=st.integers(0, 3000))
    def insert(self, count: int, size: int) -> None:
        """One transaction of several statements."""
        self.run("BEGIN")
        for _ in range(count):
            self.run("INSERT INTO rows (body) VALUES (randomblob(?))", size)
        self.run("COMMIT")

    @rule(size=st.integers(0, 5000), step=st.integers(1, 9))
    def update(self, size: int, step: int) -> None:
        """Rewrite some rows."""
        self.run("UPDATE rows SET body = randomblob(?) WHERE id % ? = 0", size, step)

    @rule(step=st.integers(1, 4))
    def delete(self, step: int) -> None:
        """Free pages."""
        self.run("DELETE FROM rows WHERE id % ? = 0", step)

    @rule()
    def create_table_and_index(self) -> None:
        """Two commits."""
        self.tables += 1
        self.run(f"CREATE TABLE extra{self.tables} AS SELECT * FROM rows LIMIT 20")
        self.run(f"CREATE INDEX extra_index{self.tables} ON extra{self.tables} (id)")

    @precondition(lambda self: self.tables)
    @rule()
    def drop_table(self) -> None:
        """Free many pages."""
        self.run(f"DROP TABLE extra{self.tables}")
        self.tables -= 1

    @rule(full=st.booleans())
    def vacuum(self, full: bool) -> None:
        """Shrink the file."""
        self.run("VACUUM" if full else "PRAGMA incremental_vacuum(3)")

    @rule(count=st.integers(1, 80))
    def spill_and_roll_back(self, count: int) -> None:
        """Leave frames in the WAL that no commit follows."""
        self.run("BEGIN")
        for _ in range(count):
            self.run("INSERT INTO rows (body) VALUES (randomblob(2000))")
        self.run("UPDATE rows SET body = zeroblob(10)")
        self.run("ROLLBACK")

    @rule(count=st.integers(1, 40))
    def roll_back_to_a_savepoint(self, count: int) -> None:
        """Commit a part of what was spilled."""
        self.run("BEGIN")
        self.run("INSERT INTO rows (body) VALUES (randomblob(10))")
        self.run("SAVEPOINT middle")
        for _ in range(count):
            self.run("INSERT INTO rows (body) VALUES (randomblob(2000))")
        self.run("ROLLBACK TO middle")
        self.run("INSERT INTO rows (body) VALUES (randomblob(600))")
        self.run("COMMIT")

    @rule(count=st.integers(5, 60), cache=st.integers(1, 10))
    def fail_after_a_spill(self, count: int, cache: int) -> None:
        """Spill, overwrite what was spilled, roll a statement back: SQLite 3.40 leaves wrong checksums in the WAL."""
        self.run(f"PRAGMA cache_size={cache}")
        self.run("CREATE TABLE IF NOT EXISTS keys (id INTEGER PRIMARY KEY, name BLOB UNIQUE)")
        self.run("BEGIN")
        self.run("INSERT INTO rows (body) VALUES (randomblob(10))")
        self.run("DELETE FROM keys")
        for _ in range(count):
            self.run("INSERT INTO keys (name) VALUES (randomblob(300))")
        with suppress(sqlite3.IntegrityError):
            self.run(
                "INSERT INTO keys (name) SELECT CASE WHEN id < (SELECT max(id) FROM keys) THEN randomblob(300) ELSE"
                " (SELECT name FROM keys LIMIT 1) END FROM keys ORDER BY id"
            )
        self.run("UPDATE rows SET body = randomblob(20) WHERE id % 3 = 0")
        self.run("COMMIT")

    @rule()
    def checkpoint(self) -> None:
        """Copy to the main file what no reader pins."""
        self.scan_on()  # as temaki does: only what a scan has seen is ever checkpointed
        self.live.checkpoint()

    @precondition(lambda self: len(self.live.readers) < 3)
    @rule()
    def pin_reader(self) -> None:
        """Keep checkpoints from completing, and the WAL from restarting."""
        reader = self.live.connect()
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM rows").fetchall()
        self.live.readers.append(reader)

    @precondition(lambda self: self.live.readers)
    @rule()
    def unpin_reader(self) -> None:
        """Let them go on."""
        self.live.readers.pop(0).close()

    @rule()
    def scan_on(self) -> None:
        """Not after every step, so that one scan sees several commits, and restarts in between."""
        before = self.live.mark
        found = self.live.advance()
        from_start = self.live.scan(Mark.START)
        assert self.live.mark == from_start.mark
        assert self.live.pages == from_start.pages
        assert found.restarted == (bool(before.salts) and before.salts != from_start.mark.salts)
        if found.pages:
            assert found.page_count is not None
            self.page_count = found.page_count
            assert found.page_size == self.page_size
            assert found.restarted or found.mark.frames > before.frames
        else:
            assert found.page_count is None
        again = self.live.scan(self.live.mark)
        assert (again.pages, again.page_count, again.mark, again.restarted) == ({}, None, self.live.mark, False)

    @invariant()
    def image_is_what_a_connection_reads(self) -> None:
        """Compare page by page, where everything was scanned."""
        if not hasattr(self, "live") or self.live.mark != self.live.scan(Mark.START).mark:
            return
        if self.page_count is None:
            return
        image = self.live.image(self.page_count, self.page_size, sequence=2**32 + 5)
        data = image.read()
        assert without_rewritten_fields(data) == without_rewritten_fields(self.live.as_sqlite_reads_it())
        assert (data[18:20], data[24:28], data[92:96]) == (b"\1\1", b"\0\0\0\5", b"\0\0\0\5")
        assert read_header(data).size_is_valid
        assert integrity(data) == "ok"

    def teardown(self) -> None:
        """Close what the run opened."""
        if hasattr(self, "live"):
            self.live.close()
            self.folder.cleanup()


WalMachine.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate, Phase.shrink],
)
TestWalMachine: type[unittest.TestCase] = WalMachine.TestCase


class TestScan:
    """`scan`: the edges that random work rarely meets."""

    def test_nothing_was_committed_yet(self) -> None:
        """A new WAL has nothing in it, as its index says."""
        with live_database() as live:
            live.guard.execute("SELECT 1 FROM sqlite_master").fetchall()
            found = live.scan(Mark.START)
            assert (found.pages, found.page_count, found.mark.frames) == ({}, None, 0)

    def test_commit_with_wrong_checksums_is_found(self) -> None:
        """What SQLite committed counts, although its frames' checksums are wrong: its index says so."""
        with live_database() as live:
            live.writer.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, a UNIQUE, b)")
            live.writer.executemany("INSERT INTO t VALUES (?, ?, randomblob(400))", [(i, i) for i in range(500)])
            live.advance()
            live.writer.execute("PRAGMA cache_size=10")
            live.writer.execute("BEGIN")
            with suppress(sqlite3.IntegrityError):
                live.writer.execute("INSERT INTO t SELECT id+1000, CASE WHEN id<499 THEN id+1000 ELSE 0 END, b FROM t")
            live.writer.execute("CREATE TABLE committed (x)")
            live.writer.execute("COMMIT")
            found = live.advance()
            assert found.page_count is not None
            data = live.image(found.page_count, 4096).read()
            assert without_rewritten_fields(data) == without_rewritten_fields(live.as_sqlite_reads_it())
            with closing(sqlite3.connect(":memory:")) as copy:
                copy.deserialize(data)
                assert copy.execute("SELECT count(*) FROM committed").fetchone() == (0,)

    def test_pages_beyond_the_committed_size_do_not_count(self) -> None:
        """A transaction that grows and shrinks leaves frames of pages that the database does not have."""
        with live_database(512, auto_vacuum=1) as live:
            live.writer.execute("PRAGMA cache_size=5")
            live.writer.execute("CREATE TABLE t (x)")
            live.advance()
            live.writer.execute("BEGIN")
            live.writer.executemany("INSERT INTO t VALUES (randomblob(400))", [()] * 100)
            live.writer.execute("DELETE FROM t WHERE rowid > 2")
            live.writer.execute("COMMIT")
            found = live.advance()
            assert found.page_count is not None
            assert found.mark.frames > 100, "nothing was spilled"
            assert max(found.pages) <= found.page_count

    def test_descriptor_is_not_moved(self) -> None:
        """The descriptor is shared: its position stays where it was."""
        with live_database() as live:
            live.writer.execute("CREATE TABLE t (x)")
            os.lseek(live.wal, 5, os.SEEK_SET)
            live.scan(Mark.START)
            assert os.lseek(live.wal, 0, os.SEEK_CUR) == 5

    def test_spilled_pages_of_a_rollback_are_left_out(self) -> None:
        """Frames that a rolled-back transaction spilled into the WAL are in the file and not in the result."""
        with live_database() as live:
            live.writer.execute("CREATE TABLE t (x)")
            committed = live.advance()
            live.writer.execute("PRAGMA cache_size=5")
            live.writer.execute("BEGIN")
            live.writer.executemany("INSERT INTO t VALUES (randomblob(3000))", [()] * 100)
            size = os.fstat(live.wal).st_size
            live.writer.execute("ROLLBACK")
            assert size > 32 + (committed.mark.frames + 20) * (24 + 4096), "nothing was spilled"
            assert live.scan(live.mark).pages == {}
            assert live.scan(Mark.START).mark == committed.mark

    def test_restart_is_reported_once(self) -> None:
        """After a checkpoint the next commit starts the WAL over: reported, and counted from frame 0 again."""
        with live_database() as live:
            live.writer.execute("CREATE TABLE t (x)")
            live.writer.execute("INSERT INTO t VALUES (1)")
            first = live.advance()
            live.checkpoint()
            live.writer.execute("INSERT INTO t VALUES (2)")
            second = live.advance()
            assert (first.restarted, second.restarted, second.mark.frames) == (False, True, 1)
            assert second.mark.salts != first.mark.salts
            live.writer.execute("INSERT INTO t VALUES (3)")
            assert (live.advance().restarted, live.mark.frames) == (False, 2)

    @pytest.mark.parametrize("size", [0, 31, 32, 500, -1, -4000])
    def test_truncated_wal_raises(self, size: int) -> None:
        """A WAL that lost committed frames cannot say what is committed: an error, never "nothing changed"."""
        with live_database() as live:
            live.writer.execute("CREATE TABLE t (x)")
            before = live.advance().mark
            live.writer.execute("INSERT INTO t VALUES (1)")
            wal, index = contents(live.wal), contents(live.index)
        with descriptor(wal[: size if size >= 0 else len(wal) + size]) as fd, descriptor(index) as index_fd:
            for mark in (Mark.START, before):
                with pytest.raises(FormatError):
                    scan(fd, index_fd, mark)

    def test_overwritten_frames_below_the_mark_raise(self) -> None:
        """The frame before the mark is compared with the mark: same salts, other contents is damage."""
        with live_database() as live:
            live.writer.execute("CREATE TABLE t (x)")
            live.advance()
            other = Mark(live.mark.salts, live.mark.frames, bytes([live.mark.last[0] ^ 1]) + live.mark.last[1:])
            with pytest.raises(FormatError, match="overwritten"):
                live.scan(other)

    @pytest.mark.parametrize("change", ["empty", "zeros", "first copy", "both copies", "salts", "frames", "pages"])
    def test_damaged_index_raises(self, change: str) -> None:
        """Where index, WAL header and frames do not agree, nobody can say what is committed."""
        with live_database() as live:
            live.writer.execute("CREATE TABLE t (x)")
            live.writer.execute("INSERT INTO t VALUES (1)")
            wal, index = contents(live.wal), bytearray(contents(live.index))
        if change == "empty":
            index.clear()
        elif change == "zeros":
            index[:] = bytes(len(index))
        elif change == "first copy":
            index[16] ^= 1
        elif change == "both copies":
            index[16] ^= 1
            index[48 + 16] ^= 1
        else:
            at, value = {"salts": (32, b"other    "[:8]), "frames": (16, b"\x63\0\0\0"), "pages": (20, b"\x63\0\0\0")}[
                change
            ]
            index[:96] = signed_index(bytes(index[:48]), at, value) * 2
        with descriptor(wal) as fd, descriptor(bytes(index)) as index_fd, pytest.raises(FormatError):
            scan(fd, index_fd, Mark.START)

    def test_index_that_lost_frames_raises(self) -> None:
        """An index that was rebuilt from checksums, or overwritten, is not believed below the mark."""
        with live_database() as live:
            live.writer.execute("CREATE TABLE t (x)")
            early = contents(live.index)
            live.writer.execute("INSERT INTO t VALUES (1)")
            live.advance()
            with descriptor(early) as index_fd, pytest.raises(FormatError, match="accounted"):
                scan(live.wal, index_fd, live.mark)

    @given(data=st.data())
    @settings(max_examples=300, deadline=None)
    def test_damage_is_found_or_does_not_matter(self, data: st.DataObject) -> None:
        """Changed or lost bytes in the WAL: an error, or what was committed; never less of it."""
        wal, index, mark, expected = sample_wal()
        where = data.draw(st.integers(0, len(wal) - 1))
        kind = data.draw(st.sampled_from(["flip", "cut", "zero", "noise"]))
        damaged = bytearray(wal)
        if kind == "flip":
            damaged[where] ^= data.draw(st.integers(1, 255))
        elif kind == "cut":
            del damaged[where:]
        elif kind == "zero":
            damaged[where:] = bytes(len(wal) - where)
        else:
            noise = data.draw(st.binary(min_size=1, max_size=64))
            damaged[where : where + len(noise)] = noise
            damaged = damaged[: len(wal)]
        with descriptor(bytes(damaged)) as fd, descriptor(index) as index_fd:
            for begin, whole in zip((Mark.START, mark), expected, strict=True):
                try:
                    found = scan(fd, index_fd, begin)
                except FormatError:
                    continue
                assert (found.pages, found.page_count) == (whole.pages, whole.page_count)


def sample_wal() -> tuple[bytes, bytes, Mark, tuple[Scan, Scan]]:
    """Several commits in one WAL, its index, a mark in its middle; and what is committed from start and mark on."""
    if not _sample:
        with live_database(512) as live:
            live.writer.execute("CREATE TABLE t (x)")
            live.writer.execute("INSERT INTO t VALUES (randomblob(2000))")
            live.advance()
            live.writer.execute("INSERT INTO t VALUES (randomblob(1500))")
            live.writer.execute("UPDATE t SET x = randomblob(1000)")
            expected = (live.scan(Mark.START), live.scan(live.mark))
            _sample.append((contents(live.wal), contents(live.index), live.mark, expected))
    return _sample[0]


_sample: list[tuple[bytes, bytes, Mark, tuple[Scan, Scan]]] = []


def signed_index(header: bytes, at: int, value: bytes) -> bytes:
    """The header of a wal-index with other bytes in it, and the right checksum; as the file format describes it."""
    changed = bytearray(header)
    changed[at : at + len(value)] = value
    first = second = 0
    words = struct.unpack("=10I", changed[:40])
    for one, two in zip(words[::2], words[1::2], strict=True):
        first = (first + one + second) % 2**32
        second = (second + two + first) % 2**32
    return bytes(changed[:40]) + struct.pack("=II", first, second)


class TestReadHeader:
    """`read_header`: real headers are understood, others named."""

    @pytest.mark.parametrize("page_size", PAGE_SIZES)
    def test_real_headers(self, tmp_path: Path, page_size: int) -> None:
        """Page size (65536 is stored as 1), size and counter are as SQLite says."""
        with closing(sqlite3.connect(tmp_path / "db")) as connection:
            connection.execute(f"PRAGMA page_size={page_size}")
            connection.execute("CREATE TABLE t (x)")
            connection.execute("CREATE TABLE u (x)")
        header = read_header((tmp_path / "db").read_bytes()[:100])
        assert (header.page_size, header.page_count, header.size_is_valid) == (page_size, 3, True)
        assert (header.change_counter, header.write_version, header.read_version) == (2, 1, 1)

    def test_stale_size_is_not_valid(self) -> None:
        """A size that an older writer did not keep up, or 0, is not to be believed."""
        assert not read_header(header_with((92, b"\0\0\0\x09"))).size_is_valid
        assert not read_header(header_with((28, bytes(4)))).size_is_valid
        assert read_header(header_with()).size_is_valid

    @pytest.mark.parametrize(
        ("raw", "reason"),
        [
            (b"", "empty"),
            (b"PK\3\4" + bytes(200), "not SQLite"),
            (b"SQLite", "truncated: 6 bytes"),
            (bytes(4096), "not SQLite"),
        ],
    )
    def test_no_header(self, raw: bytes, reason: str) -> None:
        """What is no SQLite header is refused with a reason that says what was found."""
        with pytest.raises(FormatError, match=reason):
            read_header(raw)

    @pytest.mark.parametrize(
        ("offset", "value", "reason"),
        [
            (16, b"\0\0", "page size"),
            (16, b"\x03\0", "page size"),
            (18, b"\x03", "format version"),
            (19, b"\x03", "format version"),
            (21, b"\x41", "damaged"),
            (20, b"\xff", "damaged"),
        ],
    )
    def test_bad_fields(self, offset: int, value: bytes, reason: str) -> None:
        """Each field that SQLite checks when it opens a file is checked."""
        with pytest.raises(FormatError, match=reason):
            read_header(header_with((offset, value)))


def header_with(*changes: tuple[int, bytes]) -> bytes:
    """A minimal valid header with some fields replaced."""
    raw = bytearray(100)
    raw[:24] = b"SQLite format 3\0" + b"\x02\0" + b"\1\1\0\x40\x20\x20"
    raw[24:32] = raw[88:96] = struct.pack(">II", 8, 8)
    for offset, value in changes:
        raw[offset : offset + len(value)] = value
    return bytes(raw)


class TestImage:
    """`Image` as a file, and what it refuses to make up."""

    @given(data=st.data())
    @settings(max_examples=50, deadline=None)
    def test_reads_like_a_file(self, data: st.DataObject) -> None:
        """Any sequence of seek, read and readinto gives what the same bytes in memory give."""
        with live_database(512) as live:
            live.writer.execute("CREATE TABLE t (x)")
            live.writer.executemany("INSERT INTO t VALUES (randomblob(900))", [()] * 10)
            live.advance()
            live.checkpoint()
            reader = live.connect()
            live.readers.append(reader)
            live.writer.execute("UPDATE t SET x = randomblob(800) WHERE rowid % 3 = 0")
            found = live.advance()
            assert found.page_count is not None
            assert 0 < len(live.pages) < found.page_count
            image = live.image(found.page_count, 512)
            whole = image.read()
            assert image.read() == b""
            assert len(image) == image.size == len(whole) == found.page_count * 512
            for _ in range(8):
                position = data.draw(st.integers(0, len(whole) + 10))
                assert image.seek(position) == image.tell() == position
                size = data.draw(st.integers(-1, 3000))
                expected = whole[position:] if size < 0 else whole[position : position + size]
                assert image.read(size) == expected
                image.seek(-min(size, len(whole)) if size > 0 else 0, os.SEEK_END)
                start = image.tell()
                buffer = bytearray(700)
                count = image.readinto(buffer)
                assert buffer[:count] == whole[start : start + 700]

    def test_position_is_its_own(self) -> None:
        """The shared descriptors are not moved, and two images of one file do not disturb each other."""
        with live_database() as live:
            live.writer.execute("CREATE TABLE t (x)")
            found = live.advance()
            assert found.page_count is not None
            one, two = live.image(found.page_count, 4096), live.image(found.page_count, 4096)
            one.read(1000)
            assert two.read(16) == b"SQLite format 3\0"
            assert os.lseek(live.main, 0, os.SEEK_CUR) == os.lseek(live.wal, 0, os.SEEK_CUR) == 0
            one.close()
            assert os.pread(live.main, 6, 0) == b"SQLite"

    def test_opens_in_a_read_only_folder(self) -> None:
        """The stored object is a rollback-mode file: it opens where SQLite may not write; a WAL-mode file would not."""
        with live_database() as live:
            live.writer.execute("CREATE TABLE t (x)")
            live.writer.execute("INSERT INTO t VALUES (42)")
            found = live.advance()
            assert found.page_count is not None
            image = live.image(found.page_count, 4096).read()
            as_wal = live.as_sqlite_reads_it()
        query = "SELECT x FROM t"
        with read_only_folder({"image": image, "wal": as_wal}) as folder:
            with closing(sqlite3.connect(folder / "image")) as connection:
                assert connection.execute(query).fetchall() == [(42,)]
            with closing(sqlite3.connect(folder / "wal")) as connection, pytest.raises(sqlite3.OperationalError):
                connection.execute(query)

    def test_stale_size_of_an_adopted_file_is_rewritten(self, tmp_path: Path) -> None:
        """A size in the header that an old writer left behind is put right, since the image declares it valid."""
        path = tmp_path / "old"
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE t (x)")
        data = bytearray(path.read_bytes())
        data[28:32] = struct.pack(">I", 1)
        data[92:96] = bytes(4)
        path.write_bytes(data)
        with path.open("rb") as main, descriptor(b"") as wal:
            image = Image(main.fileno(), wal, {}, 2, 4096, 9).read()
        header = read_header(image)
        assert (header.page_count, header.size_is_valid, header.change_counter) == (2, True, 9)
        assert integrity(image) == "ok"

    @pytest.mark.parametrize("page_size", [512, 4096, 65536])
    def test_single_pages_are_those_of_the_whole(self, page_size: int) -> None:
        """Page by page an image has the very bytes that reading it through has, from the main file and from the WAL."""
        with live_database(page_size) as live:
            live.writer.execute("CREATE TABLE t (x)")
            live.writer.executemany("INSERT INTO t VALUES (randomblob(?))", [(3000,)] * 40)
            live.advance()
            live.checkpoint()
            live.writer.execute("UPDATE t SET x = randomblob(2000) WHERE rowid % 7 = 0")
            found = live.advance()
            assert found.page_count is not None
            image = live.image(found.page_count, page_size)
            whole = image.read()
            pages = [image.page(number) for number in range(1, image.page_count + 1)]
            assert b"".join(pages) == whole
            for number in (0, image.page_count + 1):
                with pytest.raises(ValueError, match=f"page {number} of {image.page_count}"):
                    image.page(number)

    def test_plain_file_is_an_image_of_its_own(self, tmp_path: Path) -> None:
        """A database file at rest is read as version ``sequence``, with every page as changed."""
        path = tmp_path / "plain"
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE t (x)")
        with path.open("rb") as main:
            image = Image.of_file(main.fileno(), 7)
            data = image.read()
        assert (read_header(data).change_counter, image.page_count, sorted(image.changed)) == (7, 2, [1, 2])
        assert without_rewritten_fields(data) == without_rewritten_fields(path.read_bytes())

    def test_truncated_main_file_raises(self) -> None:
        """A main file that shrinks under the image is an error, not a database with zeros in it."""
        with descriptor(header_with() + bytes(4 * 512 - 100)) as main, descriptor(b"") as wal:
            image = Image(main, wal, {}, 4, 512, 1)
            os.ftruncate(main, 3 * 512)
            with pytest.raises(OSError, match="truncated"):
                image.read()

    def test_page_that_is_nowhere_raises(self) -> None:
        """A page beyond the main file that no frame has was lost: no image of that."""
        with descriptor(header_with() + bytes(412)) as main, descriptor(bytes(2000)) as wal:
            Image(main, wal, {2: 56}, 2, 512, 1)
            with pytest.raises(OSError, match="page 3 of 3"):
                Image(main, wal, {2: 56}, 3, 512, 1)

    def test_lock_byte_page_is_zeros(self) -> None:
        """The page at 1 GiB is never written, neither in the main file nor in the WAL: it may be missing."""
        page_size = 65536
        lock_page = (1 << 30) // page_size + 1
        header = header_with((16, b"\0\1"))
        with descriptor(header) as main, descriptor(b"w" * page_size) as wal:
            os.ftruncate(main, 1 << 30)
            image = Image(main, wal, {lock_page + 1: 0}, lock_page + 1, page_size, 1)
            image.seek((1 << 30) - 10)
            assert image.read() == bytes(page_size + 10) + b"w" * page_size
            os.ftruncate(main, (1 << 30) + 2 * page_size)
            os.pwrite(main, b"locked by someone", 1 << 30)
            image.seek((1 << 30) - 10)
            assert image.read(page_size) == bytes(page_size)

    def test_other_page_size_raises(self) -> None:
        """Main file and WAL of different databases do not become one."""
        with descriptor(header_with() + bytes(3996)) as main, pytest.raises(FormatError, match="page size"):
            Image(main, main, {}, 1, 4096, 1)


@contextmanager
def read_only_folder(files: dict[str, bytes]) -> Iterator[Path]:
    """A folder in which this process may not write, also where the tests run as root."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        for file, data in files.items():
            (folder / file).write_bytes(data)
            (folder / file).chmod(0o444)
        folder.chmod(0o555)
        is_root = os.geteuid() == 0
        if is_root:
            os.seteuid(65534)
        try:
            yield folder
        finally:
            if is_root:
                os.seteuid(0)
            folder.chmod(0o755)
