"""Commits into a store and pulls out of it, over real SQLite: every reader has the writer's bytes, at every lag."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import tempfile
import unittest
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from temaki.errors import CorruptDatabaseError
from temaki.formats.pages import compose, gone, policy
from temaki.formats.pages.compose import Identity, Known, first_head, next_head
from temaki.formats.pages.head import MOST_CONDEMNED, MOST_SEGMENTS, Head
from temaki.formats.pages.manifest import decode, encode
from temaki.formats.pages.names import key_of
from temaki.formats.pages.objects import DamagedObjectError, MissingObjectError, Objects, corrupt
from temaki.formats.pages.pageone import materialised
from temaki.formats.pages.pull import MismatchError, can_catch_up, collect, prove, save
from temaki.remote.fetch import Source
from temaki.remote.retry import RetryPolicy
from temaki.remote.transfer import Target
from temaki.replica.generation import Generation
from temaki.replica.header import ROLLBACK_MODE, WAL_MODE, FormatError
from temaki.replica.image import Image
from temaki.replica.wal import scan
from temaki.stores.memory import MemoryStore
from temaki.testing.clock import ManualClock
from temaki.testing.counting import CountingStore
from tests.versions import KEY, URL, version

COUNTS: Counter[str] = Counter()


def source_of(store: Any) -> Source:
    """The head's object in a store that is never asked for long."""
    return Source(
        store, KEY, URL, RetryPolicy(ManualClock(), random.Random(1), 0.01), 8 << 20, lambda _count, _seconds: False
    )


def commit_id(sequence: int) -> str:
    """The id of a version."""
    return f"commit-{sequence:08}"


@contextmanager
def limits(**changes: int) -> Iterator[None]:
    """The policy with other limits."""
    before = {name: getattr(policy, name) for name in changes}
    for name, value in changes.items():
        setattr(policy, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(policy, name, value)


class Copy:
    """A working copy of one version, as a commit or a pull leaves it."""

    def __init__(self, path: Path, known: Known) -> None:
        self.generation = Generation(path, version(known.head.sequence), URL)
        self.known = known
        self.connection = self.connect()

    def connect(self) -> sqlite3.Connection:
        """One more connection, that never checkpoints."""
        connection = sqlite3.connect(self.generation.path, isolation_level=None)
        connection.execute("PRAGMA wal_autocheckpoint=0").close()
        connection.execute("PRAGMA synchronous=OFF").close()
        return connection

    def image(self) -> Image:
        """The acknowledged version."""
        head = self.known.head
        return self.generation.acknowledged(head.page_count, head.page_size, head.sequence)

    def close(self) -> None:
        """Connections first."""
        self.connection.close()
        self.generation.dispose()


class World:
    """One writer, its store, and readers that follow."""

    def __init__(self, page_size: int = 4096, auto_vacuum: int = 0, statements: tuple[str, ...] = ()) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="pages", dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
        self.numbers = iter(range(1, 10_000))
        self.store = CountingStore(MemoryStore())
        self.objects = Objects(source_of(self.store), self.folder)
        path = self.path()
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute(f"PRAGMA page_size={page_size}")
            connection.execute(f"PRAGMA auto_vacuum={auto_vacuum}")
            for statement in ("CREATE TABLE rows (id INTEGER PRIMARY KEY, body BLOB)", *statements):
                connection.execute(statement)
        data = bytearray(path.read_bytes())
        first = bytes(data[:page_size])
        count = len(data) // page_size
        data[:page_size] = materialised(first, modes=WAL_MODE, sequence=1, page_count=count)
        path.write_bytes(data)
        fd = os.open(path, os.O_RDONLY)
        try:
            known = first_head(self.objects, Image.of_file(fd, 1), Identity(1, commit_id(1), 1000))
        finally:
            os.close(fd)
        self.writer = Copy(path, known)
        self.readers: list[Copy] = []
        self.put()

    def path(self) -> Path:
        """A name that was not used yet."""
        return self.folder / f"{next(self.numbers)}.sqlite"

    def put(self) -> None:
        """Replace the head."""
        self.store.put(KEY, encode(self.writer.known.head))

    def head(self) -> Head:
        """As a reader gets it."""
        download = self.store.get(KEY)
        assert download is not None
        return decode(download.read(1 << 22))

    def commit(self, *statements: str, vacuum: bool = False) -> bool:
        """One transaction of the writer, and its way into the store."""
        writer = self.writer
        if not vacuum:
            writer.connection.execute("BEGIN IMMEDIATE").close()
        for statement in statements:
            with suppress(sqlite3.IntegrityError):
                writer.connection.execute(statement).close()
        if not vacuum:
            writer.connection.execute("COMMIT").close()
        generation, old = writer.generation, writer.known.head
        found = scan(generation._wal, generation._index, generation._mark)
        if found.page_count is None:
            return False
        sequence = old.sequence + 1
        image = generation.image(found, sequence)
        before = generation.acknowledged(old.page_count, old.page_size, old.sequence)
        identity = Identity(sequence, commit_id(sequence), 1000 + sequence)
        writer.known = next_head(self.objects, image, before, writer.known, identity)
        generation.acknowledge(found, version(sequence))
        self.put()
        assert len(writer.known.head.segments) <= MOST_SEGMENTS
        return True

    def pull(self, reader: Copy | None) -> Copy:
        """The newest version, in the cheapest way; the reader that has it."""
        head = self.head()
        if reader is not None and can_catch_up(head, reader.known.head):
            newer = collect(self.objects, head, reader.known.head)
            with suppress(MismatchError):
                pages = prove(newer, reader.known.head, reader.image())
                if reader.generation.catch_up(pages, head.page_count, head.page_size, version(head.sequence)):
                    reader.known = Known(head)
                    COUNTS["incremental"] += 1
                    return reader
            COUNTS["mismatch"] += 1
        if reader is not None:
            reader.close()
        COUNTS["full"] += 1
        return Copy(self.full(head), Known(head))

    def full(self, head: Head) -> Path:
        """Pull all of it."""
        path = self.path()
        target = Target(path, URL)
        try:
            save(self.objects, head, target)
        except BaseException:
            target.discard()
            raise
        target.close()
        return path

    def compare(self, reader: Copy) -> None:
        """Every byte, and SQLite's own opinion."""
        assert reader.image().read() == self.writer.image().read()
        with closing(reader.connect()) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert connection.execute("SELECT count(*), total(length(body)) FROM rows").fetchone() == (
                self.writer.connection.execute("SELECT count(*), total(length(body)) FROM rows").fetchone()
            )

    def close(self) -> None:
        """Remove everything."""
        for copy in [*self.readers, self.writer]:
            copy.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class PagesMachine(RuleBasedStateMachine):
    """Random SQL in a writer; three readers that pull now and then, and take over as the writer."""

    @initialize(
        page_size=st.sampled_from([512, 1024, 4096, 65536]),
        auto_vacuum=st.sampled_from([0, 1, 2]),
        cache=st.sampled_from([5, 2000]),
        tail=st.sampled_from([2000, 32 << 10]),
    )
    def create(self, page_size: int, auto_vacuum: int, cache: int, tail: int) -> None:
        """A new database; small limits make for many segments and merges."""
        self.limits = limits(TAIL_LIMIT=tail, TAIL_KEEP=tail // 4, UNIT=tail, FAN=3)
        self.limits.__enter__()
        # Enough to begin with that not every spill is more than half of it.
        rows = [f"INSERT INTO rows (body) VALUES (randomblob({page_size // 2}))"] * 60
        self.world = World(page_size, auto_vacuum, tuple(rows))
        self.cache = cache
        self.world.writer.connection.execute(f"PRAGMA cache_size={cache}").close()
        self.readers: list[Copy | None] = [None, None, None]

    @rule(count=st.integers(1, 60), size=st.sampled_from([0, 50, 800, 9000]))
    def insert(self, count: int, size: int) -> None:
        """Growth."""
        self.world.commit(*[f"INSERT INTO rows (body) VALUES (randomblob({size}))"] * count)

    @rule(row=st.integers(1, 60), size=st.integers(0, 300))
    def update(self, row: int, size: int) -> None:
        """One row."""
        self.world.commit(f"UPDATE rows SET body = randomblob({size}) WHERE id = {row}")

    @rule(row=st.integers(1, 60), count=st.integers(2, 12))
    def updates(self, row: int, count: int) -> None:
        """Several commits in a row, which fill tails and segments."""
        for number in range(count):
            self.world.commit(f"UPDATE rows SET body = randomblob(200) WHERE id = {row + 3 * number}")

    @rule(step=st.integers(1, 3))
    def shrink(self, step: int) -> None:
        """Free pages, and give them back where auto_vacuum does."""
        self.world.commit(f"DELETE FROM rows WHERE id % {step} = 0", "PRAGMA incremental_vacuum(1000)")

    @rule()
    def vacuum(self) -> None:
        """Rewrite everything."""
        self.world.commit("VACUUM", vacuum=True)

    @rule(count=st.integers(1, 40))
    def savepoint(self, count: int) -> None:
        """Spill, then roll back a part."""
        self.world.commit(
            "INSERT INTO rows (body) VALUES (randomblob(10))",
            "SAVEPOINT s",
            *["INSERT INTO rows (body) VALUES (randomblob(2000))"] * count,
            "ROLLBACK TO s",
            "UPDATE rows SET body = randomblob(30) WHERE id % 3 = 0",
        )

    @rule(count=st.integers(1, 60))
    def roll_back(self, count: int) -> None:
        """Nothing of it reaches the store."""
        connection = self.world.writer.connection
        connection.execute("BEGIN IMMEDIATE").close()
        for _ in range(count):
            connection.execute("INSERT INTO rows (body) VALUES (randomblob(3000))").close()
        connection.execute("ROLLBACK").close()

    @rule(who=st.integers(0, 2))
    def pull(self, who: int) -> None:
        """One reader, from wherever it is."""
        reader = self.readers[who] = self.world.pull(self.readers[who])
        self.world.compare(reader)

    @rule(who=st.integers(0, 2))
    def take_over(self, who: int) -> None:
        """A reader that is current writes from now on. It knows what it has read, and asks for what it has not."""
        reader = self.world.pull(self.readers[who])
        self.readers[who], self.world.writer = self.world.writer, reader
        reader.connection.execute(f"PRAGMA cache_size={self.cache}").close()

    def teardown(self) -> None:
        """A full pull of the end is the writer's database."""
        if hasattr(self, "world"):
            self.readers.append(self.world.pull(None))
            last = self.readers[-1]
            assert last is not None
            self.world.compare(last)
            self.world.readers = [reader for reader in self.readers if reader is not None]
            self.world.close()
            self.limits.__exit__(None, None, None)


PagesMachine.TestCase.settings = settings(
    max_examples=int(os.environ.get("TEMAKI_PAGES_EXAMPLES", "40")),
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate, Phase.shrink],
)
TestPagesMachine: type[unittest.TestCase] = PagesMachine.TestCase


@pytest.fixture
def world() -> Iterator[World]:
    """2,000 rows in 110 pages."""
    rows = "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) "
    made = World(statements=(f"{rows} INSERT INTO rows SELECT i, hex(randomblob(90)) FROM n",))
    made.store.reset()
    yield made
    made.close()


def update(row: int) -> str:
    """A statement that changes one page."""
    return f"UPDATE rows SET body = hex(randomblob(90)) WHERE id = {row}"


def fill(world: World, commits: int = 60) -> None:
    """Commits all over the database: segments, some of them merged."""
    for number in range(commits):
        assert world.commit(update(1 + number * 397 % 2000))


class TestCosts:
    """What a commit and a pull ask of the store."""

    def test_a_small_commit_is_one_request(self, world: World) -> None:
        """Kilobytes, whatever the database has."""
        world.commit(update(7))
        assert [call.verb for call in world.store.calls] == ["put"]
        assert len(encode(world.head())) < 8 << 10
        assert [page.number for page in world.head().tail] != [1], "page 1 did not change"

    def test_a_catch_up_is_one_request(self, world: World) -> None:
        """The head has what is newest."""
        reader = world.pull(None)
        world.commit(update(7))
        world.store.reset()
        reader = world.pull(reader)
        assert [(call.verb, call.key) for call in world.store.calls] == [("get", KEY)]
        world.compare(reader)
        reader.close()

    def test_merges_download_nothing(self, world: World) -> None:
        """The writer knows which pages its segments have, and has their bytes."""
        with limits(TAIL_LIMIT=8 << 10, TAIL_KEEP=2 << 10, UNIT=8 << 10, FAN=3):
            fill(world)
        assert world.store.count("get") == 0
        assert any(one.name.startswith("seg") for one in world.head().condemned), "nothing was merged"

    def test_a_writer_that_does_not_know_asks_for_page_numbers(self, world: World) -> None:
        """As after a restart: the first bytes of each segment to be merged."""
        with limits(TAIL_LIMIT=8 << 10, TAIL_KEEP=2 << 10, UNIT=8 << 10, FAN=3):
            fill(world, 30)
            world.writer.known.numbers.clear()
            world.store.reset()
            fill(world, 30)
        ranged = [call for call in world.store.calls if call.verb == "get"]
        assert ranged
        assert all(call.key.startswith(f"{KEY}.pages/seg-") for call in ranged)
        reader = world.pull(None)
        world.compare(reader)
        reader.close()

    def test_what_is_merged_at_once_is_not_uploaded(self, world: World) -> None:
        """Everything in the folder is named, or condemned: a commit leaves no orphans."""
        with limits(TAIL_LIMIT=8 << 10, TAIL_KEEP=2 << 10, UNIT=8 << 10, FAN=3):
            fill(world)
        head = world.head()
        listed = {info.key for info in world.store.list(f"{KEY}.pages/")}
        assert listed == {key_of(KEY, name) for name in head.named | {one.name for one in head.condemned}}

    def test_a_large_transaction(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """It goes straight to segments of a bounded size, and asks first whether it is lost already."""
        asked: list[str] = []
        monkeypatch.setattr(compose, "LARGE", 20 << 12)
        monkeypatch.setattr(compose, "LARGE_UPLOAD", 1000)
        monkeypatch.setattr(compose._Composition, "_composed", _watched(asked, compose._Composition._composed))
        with limits(LARGEST_PART=20 << 10):
            world.commit("UPDATE rows SET body = hex(randomblob(90)) WHERE id < 800")
        head = world.head()
        assert len(head.segments) > 2
        assert {segment.last for segment in head.segments} == {2}
        assert all(segment.size < 24 << 10 for segment in head.segments)
        assert asked == ["before"]
        reader = world.pull(None)
        world.compare(reader)
        reader.close()

    def test_most_of_the_database(self, world: World) -> None:
        """A new base instead; whoever is behind pulls all of it."""
        old = world.head()
        world.commit("UPDATE rows SET body = hex(randomblob(90))")
        head = world.head()
        assert (head.segments, head.tail, head.since, head.base.sequence) == ((), (), 2, 2)
        assert [one.name for one in head.condemned] == [old.base.name]
        assert not can_catch_up(head, old)

    def test_condemned_without_end(self, world: World) -> None:
        """The head keeps the newest; the others are in lists that it names, so that nothing is forgotten."""
        with limits(TAIL_LIMIT=4 << 10, TAIL_KEEP=1 << 10, UNIT=4 << 10, FAN=2):
            fill(world, 150)
        head = world.head()
        assert head.gone
        assert len(head.condemned) <= MOST_CONDEMNED
        known = head.named | {one.name for one in head.condemned}
        for name in head.gone:
            download = world.store.get(f"{KEY}.pages/{name}")
            assert download is not None
            known |= {one.name for one in gone.decode(download.read(1 << 20))}
        assert known == {info.key.removeprefix(f"{KEY}.pages/") for info in world.store.list(f"{KEY}.pages/")}

    def test_a_small_database(self, world: World) -> None:
        """A commit folds it, so that a full pull stays near its size, and nobody is left behind."""
        reader = world.pull(None)
        with limits(TAIL_LIMIT=16 << 10, TAIL_KEEP=1 << 10, FAN=1000):
            bases = set()
            for number in range(250):
                assert world.commit(update(1 + number * 397 % 2000))
                head = world.head()
                bases.add(head.base.name)
                assert 2 * policy.pull_size(head.base, head.live) <= 3 * head.size
                assert can_catch_up(head, reader.known.head)
                reader = world.pull(reader)
        assert len(bases) > 1


def _watched(asked: list[str], composed: Any) -> Any:
    def watched(self: Any) -> Any:
        self._before_large = lambda: asked.append("before")
        return composed(self)

    return watched


class TestOtherHistories:
    """The checksum decides, before anything is written."""

    def test_a_mismatch(self, world: World) -> None:
        """A copy of another branch with the same numbers, as after an old head was put back from outside."""
        reader = world.pull(None)
        before = reader.image().read()
        world.commit(update(7))
        head = world.head()
        other = replace(reader.known.head, checksum=reader.known.head.checksum ^ 1)
        newer = collect(world.objects, head, other)
        with pytest.raises(MismatchError, match="checksum"):
            prove(newer, other, reader.image())
        assert reader.image().read() == before
        prove(newer, reader.known.head, reader.image())
        reader.close()

    def test_a_hole(self, world: World) -> None:
        """A page that nothing has."""
        reader = world.pull(None)
        head = replace(world.head(), page_count=world.head().page_count + 1)
        with pytest.raises(MismatchError, match="nothing has it"):
            prove(collect(world.objects, head, reader.known.head), reader.known.head, reader.image())
        reader.close()

    def test_a_page_that_sqlite_has_not_logged(self, world: World) -> None:
        """The database grew by it: an error, and no head that has a hole."""
        writer = world.writer
        image = writer.image()
        image.page_count += 1
        with pytest.raises(FormatError, match="not logged"):
            next_head(world.objects, image, writer.image(), writer.known, Identity(2, commit_id(2), 1000))


def spoiled(world: World, name: str, data: bytes) -> None:
    """Other bytes under an object's name."""
    world.store.put(key_of(KEY, name), data)


def bytes_of(world: World, name: str) -> bytes:
    """An object's bytes."""
    download = world.store.get(key_of(KEY, name))
    assert download is not None
    return download.read(1 << 24)


class TestDamaged:
    """What is damaged, missing or another's is an error that names the object, and no file is left."""

    @pytest.fixture
    def filled(self, world: World) -> World:
        """With segments."""
        with limits(TAIL_LIMIT=8 << 10, TAIL_KEEP=2 << 10, UNIT=8 << 10):
            fill(world, 30)
        assert len(world.head().segments) > 3
        return world

    def require_refused(self, world: World, error: type[Exception], head: Head | None = None) -> str:
        """A full pull fails, and leaves nothing; the name of the object that is to blame."""
        files = set(world.folder.iterdir())
        with pytest.raises(error) as caught:
            world.full(head or world.head())
        assert set(world.folder.iterdir()) == files
        return str(getattr(caught.value, "name", None))

    def test_a_segment_is_truncated(self, filled: World) -> None:
        """Its size is not what the head says."""
        name = filled.head().segments[1].name
        spoiled(filled, name, bytes_of(filled, name)[:-1])
        assert self.require_refused(filled, DamagedObjectError) == name

    def test_segments_are_swapped(self, filled: World) -> None:
        """Each says which one it is."""
        one, other, *_ = filled.head().segments
        first, second = bytes_of(filled, one.name), bytes_of(filled, other.name)
        spoiled(filled, one.name, second)
        spoiled(filled, other.name, first)
        assert self.require_refused(filled, DamagedObjectError) in {one.name, other.name}

    def test_an_image_is_damaged(self, filled: World) -> None:
        """Compressed pages have a sum of their own."""
        name = filled.head().segments[0].name
        data = bytearray(bytes_of(filled, name))
        data[-1] ^= 1
        spoiled(filled, name, bytes(data))
        assert self.require_refused(filled, DamagedObjectError) == name

    def test_a_base_is_damaged(self, filled: World) -> None:
        """One byte in the middle of it: the checksum of the whole shows it."""
        name = filled.head().base.name
        data = bytearray(bytes_of(filled, name))
        data[4096 * 3 + 2000] ^= 1
        spoiled(filled, name, bytes(data))
        self.require_refused(filled, DamagedObjectError)

    @pytest.mark.parametrize("change", [lambda data: data[:-4096], lambda data: b"x" * len(data)])
    def test_a_base_is_none(self, filled: World, change: Any) -> None:
        """Truncated, or something else."""
        name = filled.head().base.name
        spoiled(filled, name, change(bytes_of(filled, name)))
        assert self.require_refused(filled, DamagedObjectError) == name

    def test_a_base_of_another_page_size(self, filled: World) -> None:
        """Of another database, with the same size."""
        name = filled.head().base.name
        data = bytearray(bytes_of(filled, name))
        data[16:18] = b"\x02\x00"
        spoiled(filled, name, bytes(data))
        assert self.require_refused(filled, DamagedObjectError) == name

    def test_a_head_lies_about_its_checksum(self, filled: World) -> None:
        """Nothing is kept."""
        self.require_refused(filled, DamagedObjectError, replace(filled.head(), checksum=5))

    def test_a_head_with_an_impossible_size(self, filled: World) -> None:
        """It would have a reader make a file of terabytes."""
        filled.store.reset()
        head = replace(filled.head(), page_count=1 << 31)
        self.require_refused(filled, DamagedObjectError, head)
        assert filled.store.calls == [] or [call.key for call in filled.store.calls] == [KEY]

    @pytest.mark.parametrize("kind", ["base", "segment"])
    def test_an_object_is_gone(self, filled: World, kind: str) -> None:
        """The caller reads the head again."""
        head = filled.head()
        name = head.base.name if kind == "base" else head.segments[2].name
        filled.store.delete(key_of(KEY, name))
        assert self.require_refused(filled, MissingObjectError) == name

    def test_the_error(self, filled: World) -> None:
        """It names object and version, and says what to do."""
        head = filled.head()
        error = corrupt(source_of(filled.store), head, head.base.name, "it is too short")
        assert isinstance(error, CorruptDatabaseError)
        for part in (head.base.name, str(head.sequence), head.commit, "too short", "temaki restore"):
            assert part in str(error)


def test_a_base_is_an_ordinary_file(world: World, tmp_path: Path) -> None:
    """Whoever has no temaki can open it."""
    path = tmp_path / "base.sqlite"
    path.write_bytes(bytes_of(world, world.head().base.name))
    assert path.read_bytes()[18:20] == ROLLBACK_MODE
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        assert connection.execute("SELECT count(*) FROM rows").fetchone() == (2000,)
