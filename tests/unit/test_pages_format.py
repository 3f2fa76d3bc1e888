"""The format ``pages`` under the engine: sessions pull, commit and conflict as they do on files, at another price."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pony.orm import CommitException, db_session

from temaki.errors import ConflictError, CorruptDatabaseError, StoreUnavailableError
from temaki.formats.choice import open_stored
from temaki.formats.pages import compose
from temaki.formats.pages.head import Base, Head
from temaki.formats.pages.manifest import decode, encode
from temaki.formats.pages.names import key_of, new_name
from temaki.formats.pages.objects import Objects
from temaki.formats.pages.policy import TAIL_KEEP
from temaki.formats.pages.pull import save
from temaki.orm.cause import cause_of
from temaki.remote.fetch import Source
from temaki.remote.retry import RetryPolicy
from temaki.remote.transfer import Target
from temaki.replica.header import ROLLBACK_MODE
from temaki.stores.memory import MemoryStore
from temaki.testing.clock import ManualClock
from temaki.testing.counting import CountingStore
from temaki.testing.strategies import KEY, Client
from temaki.version import PAGES_FORMAT, read_version
from temaki_strategies import EtagCached
from tests.hooked import HookedStore
from tests.threads import in_thread
from tests.unit.test_pages_cycle import limits
from tests.versions import make_remote


@pytest.fixture(autouse=True)
def pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """New databases are made in pages."""
    monkeypatch.setenv("TEMAKI_FORMAT", "pages")


class Bench:
    """A bucket, and two processes: ``ours``, whose requests are counted and hooked, and ``other``."""

    def __init__(self, bucket: MemoryStore | None = None) -> None:
        self.rows = itertools.count()
        self.bucket = bucket or MemoryStore()
        self.other = Client(self.bucket, EtagCached()).map(create_tables=True)
        with db_session:
            self.other.Counter(id=1, value=0)
        with db_session:
            self.other.db.execute("CREATE TABLE filler (id INTEGER PRIMARY KEY, body TEXT)")
            self.other.db.execute(
                "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1500) "
                "INSERT INTO filler SELECT i, hex(randomblob(90)) FROM n"
            )
        self.hooked = HookedStore(self.bucket)
        self.counting = CountingStore(self.hooked)
        self.ours = Client(self.counting, EtagCached()).map()
        assert self.ours.value() == 0
        self.counting.reset()

    @property
    def generation(self) -> Any:
        """Where our sessions begin."""
        return self.ours.db.provider.engine.shared.replica.current

    def head(self) -> Head:
        """What is stored."""
        download = self.bucket.get(KEY)
        assert download is not None
        return decode(download.read(1 << 22))

    def put(self, head: Head) -> None:
        """Maintenance: the same version, with the same metadata, in other bytes."""
        self.bucket.put(KEY, encode(head), metadata=self.bucket.head(KEY).metadata)

    def requests(self) -> list[str]:
        """What we have asked for since the last time."""
        made = [f"{call.verb} {call.key.removeprefix(KEY)[:11]}".strip() for call in self.counting.calls]
        self.counting.reset()
        return made

    def fold(self, folder: Path) -> None:
        """A new base of the current version; what it covers is dropped, and collected at once."""
        head = self.head()
        objects = Objects(
            Source(self.bucket, KEY, "u", RetryPolicy(ManualClock(), random.Random(1), 1), 1 << 23, _never)
        )
        path = folder / f"{head.sequence}-{head.collection}.sqlite"
        target = Target(path, "u")
        save(objects, head, target)
        target.close()
        data = path.read_bytes()
        name = new_name("base")
        objects.put(name, data[:18] + ROLLBACK_MODE + data[20:])
        folded = replace(
            head,
            base=Base(name, len(data), head.sequence),
            segments=(),
            since=max([head.since, *(one.last for one in head.segments)]),
            collection=head.collection + 1,
        )
        self.put(folded)
        for gone in head.named - folded.named:
            self.bucket.delete(key_of(KEY, gone))

    def scribble(self, client: Client, commits: int = 12) -> None:
        """Commits all over the filler."""
        for _ in range(commits):
            row = 1 + next(self.rows) * 131 % 1500
            db_session(retry=50)(lambda row=row: client.db.execute(_scribbled(row)))()


def _scribbled(row: int) -> str:
    return f"UPDATE filler SET body = hex(randomblob(90)) WHERE id = {row}"


def _never(_count: int, _seconds: float) -> bool:
    return False


@pytest.fixture
def bench() -> Bench:
    """A counter of 0 beside 300 KB."""
    return Bench()


@pytest.fixture
def small() -> Iterator[None]:
    """Segments after a few commits."""
    with limits(TAIL_LIMIT=12 << 10, TAIL_KEEP=3 << 10):
        yield


class TestPrice:
    """What a session asks of the store."""

    def test_a_commit(self, bench: Bench) -> None:
        """One look and one upload of kilobytes."""
        bench.ours.increment()
        assert bench.counting.bytes_up < TAIL_KEEP
        assert bench.requests() == ["get", "put"]

    def test_a_catch_up(self, bench: Bench) -> None:
        """One request, into the file that is here: pooled connections and older sessions stay."""
        before = bench.generation
        bench.other.increment()
        assert bench.ours.value() == 1
        assert bench.requests() == ["get"]
        assert bench.generation is before
        assert bench.ours.increment() == 2
        assert bench.other.value() == 2

    def test_a_restart(self, bench: Bench, tmp_path: Path) -> None:
        """A 304 brings no manifest: the clean record has it, and a commit is as cheap as ever."""
        url = f"memory://restart-{tmp_path.name}/{KEY}"

        def start() -> Client:
            client = Client(bench.counting, EtagCached())
            client.db.unbind()
            client.db.bind_s3(url, store=bench.counting, strategy=EtagCached(), cache_dir=tmp_path)
            return client.map()

        first = start()
        first.increment()
        first.db.unbind()
        bench.requests()
        second = start()
        assert second.increment() == 2
        assert set(bench.requests()) == {"get", "put"}
        assert bench.counting.bytes_down == 0
        second.db.unbind()
        assert bench.ours.value() == 2

    def test_the_stored_object(self, bench: Bench) -> None:
        """Its metadata tell its format, so that an older temaki refuses it."""
        info = bench.bucket.head(KEY)
        assert info.metadata["temaki-format"] == PAGES_FORMAT
        assert read_version(info).format == PAGES_FORMAT


class TestPromises:
    """A catch-up in place must not weaken what a new file for each version gives."""

    def test_a_session_keeps_its_snapshot(self, bench: Bench) -> None:
        """While another thread brings a newer version into the very file that it reads."""
        with db_session:
            assert bench.ours.Counter[1].value == 0
            in_thread(bench.other.increment)
            assert in_thread(bench.ours.value) == 1
            assert list(bench.ours.db.select("value FROM Counter")) == [0]

    def test_a_session_that_read_an_older_version_cannot_write(self, bench: Bench) -> None:
        """It is in the current generation, and it has read what is no longer true: a conflict, not a lost update."""
        seen = []

        @db_session
        def decide() -> None:
            seen.append(bench.ours.db.select("value FROM Counter")[0])
            if len(seen) == 1:
                in_thread(bench.other.increment)
                assert in_thread(bench.ours.value) == 1
            bench.ours.db.execute(f"UPDATE Counter SET value = {seen[-1] + 10}")

        with pytest.raises((ConflictError, CommitException)) as caught:
            decide()
        assert isinstance(cause_of(caught.value), ConflictError)
        assert bench.other.value() == 1
        decide()
        assert bench.other.value() == 11

    def test_a_refused_commit_leaves_no_trace(self, bench: Bench) -> None:
        """The generation is abandoned, and the next session pulls."""
        assert bench.ours.increment(before_commit=_once(bench.other.increment)) == 2
        assert bench.other.value() == 2

    def test_the_stored_database_decides(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whoever prefers files goes on in pages, and the other way round."""
        monkeypatch.setenv("TEMAKI_FORMAT", "file")
        Client(bench.bucket, EtagCached()).map().increment()
        assert read_version(bench.bucket.head(KEY)).format == PAGES_FORMAT
        bucket = MemoryStore()
        Client(bucket, EtagCached()).map(create_tables=True)
        monkeypatch.setenv("TEMAKI_FORMAT", "pages")
        late = Client(bucket, EtagCached()).map()
        with db_session:
            late.Counter(id=1, value=5)
        assert late.increment() == 6
        assert read_version(bucket.head(KEY)).format == "1"

    def test_a_plain_file_over_a_head(self, bench: Bench, tmp_path: Path) -> None:
        """It is adopted, as ever; the next commit is a file."""
        stored = make_remote(bench.bucket).fetch(open_stored)
        assert stored is not None
        with stored:
            stored.save(tmp_path / "x")
        data = (tmp_path / "x").read_bytes()
        bench.bucket.put(KEY, data[:18] + ROLLBACK_MODE + data[20:])
        assert bench.ours.increment() == 1
        assert bench.bucket.get(KEY).read(6) == b"SQLite"  # type: ignore[union-attr]


def _once(action: Callable[[], object]) -> Callable[[], None]:
    pending = [action]

    def run() -> None:
        if pending:
            in_thread(pending.pop())

    return run


@pytest.mark.usefixtures("small")
class TestMaintenance:
    """Folds and collections come in between, and nobody has a conflict or loses anything."""

    def test_a_reader_adopts_the_head(self, bench: Bench, tmp_path: Path) -> None:
        """The commit is the same: generation and pages stay."""
        bench.scribble(bench.ours)
        before = bench.generation
        bench.fold(tmp_path)
        bench.requests()
        assert bench.ours.value() == 0
        assert bench.requests() == ["get"]
        assert bench.generation is before
        assert before.catch_ups == 0, "nothing was written"
        assert bench.ours.increment() == 1
        assert bench.other.value() == 1

    def test_a_writer_builds_its_head_anew(self, bench: Bench, tmp_path: Path) -> None:
        """On the folded head, with the same id, and every segment under a new name."""
        bench.scribble(bench.ours)
        bench.hooked.before["put"] = [lambda: bench.fold(tmp_path)]
        assert bench.ours.increment() == 1
        assert bench.head().collection == 1
        assert bench.requests()[-4:] == ["put", "head", "get", "put"]
        assert bench.other.value() == 1
        assert Client(bench.bucket, EtagCached()).map().value() == 1

    def test_a_rebuild_uploads_segments_again(self, bench: Bench, tmp_path: Path) -> None:
        """What was uploaded before a collection may be gone, so no head names it."""
        in_doubt: set[str] = set()

        def collect() -> None:
            in_doubt.update({info.key for info in bench.bucket.list(f"{KEY}.pages/seg-")} - before)
            bench.fold(tmp_path)
            for key in in_doubt:  # orphans, as far as a collector can see
                bench.bucket.delete(key)

        for _ in range(40):
            before = {info.key for info in bench.bucket.list(f"{KEY}.pages/seg-")}
            bench.hooked.before["put"] = [collect]
            bench.scribble(bench.ours, 1)
            if in_doubt:
                break
        assert in_doubt, "no commit has uploaded a segment"
        assert bench.head().segments
        for name in bench.head().named:
            bench.bucket.head(key_of(KEY, name))
        expected = bench.ours.db.provider.engine.shared.replica.current.acknowledged
        head = bench.head()
        third = Client(bench.bucket, EtagCached()).map()
        assert third.value() == 0
        pulled = third.db.provider.engine.shared.replica.current.acknowledged
        arguments = (head.page_count, head.page_size, head.sequence)
        assert pulled(*arguments).read() == expected(*arguments).read()

    def test_a_commit_that_a_look_has_found(self, bench: Bench, tmp_path: Path) -> None:
        """A fold landed on it before the look: the next commit is built on the folded head, not on the one sent."""

        def lost(request: Callable[[], Any]) -> Any:
            request()
            bench.fold(tmp_path)
            raise StoreUnavailableError("no answer", url=KEY, ambiguous=True)

        bench.scribble(bench.ours)
        bench.hooked.around["put"] = [lost]
        assert bench.ours.increment() == 1
        base = bench.head().base.name
        assert bench.ours.increment() == 2
        assert bench.head().base.name == base
        assert Client(bench.bucket, EtagCached()).map().value() == 2

    def test_an_object_is_collected_during_a_pull(self, bench: Bench, tmp_path: Path) -> None:
        """The head is read again, and the pull goes on from there."""
        bench.scribble(bench.ours)
        late = HookedStore(bench.bucket, KEY)
        late.after["get"] = [lambda: bench.fold(tmp_path)]
        assert Client(late, EtagCached()).map().value() == 0


@pytest.mark.usefixtures("small")
class TestDamaged:
    """A temaki error that names the object, and nothing written."""

    def fails(self, bench: Bench, match: str) -> None:
        """For a new process, and for one that has the version before."""
        stored = bench.bucket.head(KEY).etag
        with pytest.raises(CorruptDatabaseError, match=match):
            Client(bench.bucket, EtagCached()).map().value()
        assert bench.bucket.head(KEY).etag == stored

    @pytest.mark.parametrize("kind", ["base", "seg"])
    def test_an_object_is_missing(self, bench: Bench, kind: str) -> None:
        """As after a lifecycle rule."""
        bench.scribble(bench.ours)
        head = bench.head()
        name = head.base.name if kind == "base" else head.segments[0].name
        bench.bucket.delete(key_of(KEY, name))
        self.fails(bench, f"{name}.*missing")
        assert bench.ours.value() == 0, "who has the version does not need the object"

    def test_a_segment_of_another_database(self, bench: Bench) -> None:
        """Of the same shape."""
        bench.scribble(bench.ours)
        other = Bench()
        other.scribble(other.ours)
        mine, theirs = bench.head().segments[0], other.head().segments[0]
        data = other.bucket.get(key_of(KEY, theirs.name))
        assert data is not None
        bench.bucket.put(key_of(KEY, mine.name), data.read(1 << 22))
        self.fails(bench, "damaged or was replaced")

    def test_a_truncated_head(self, bench: Bench) -> None:
        """Working copies stay as they are."""
        raw = encode(bench.head())
        bench.bucket.put(KEY, raw[:-1], metadata=bench.bucket.head(KEY).metadata)
        self.fails(bench, "cannot be read")
        with pytest.raises(CorruptDatabaseError):
            bench.ours.value()

    def test_a_head_of_another_version(self, bench: Bench) -> None:
        """Its bytes and its metadata contradict each other."""
        bench.put(replace(bench.head(), sequence=bench.head().sequence + 1))
        self.fails(bench, "its metadata say")

    def test_a_newer_head(self, bench: Bench) -> None:
        """The error says to upgrade."""
        raw = encode(bench.head()).replace(b"temaki pages 1", b"temaki pages 2", 1)
        bench.bucket.put(KEY, raw, metadata=bench.bucket.head(KEY).metadata)
        self.fails(bench, "newer temaki.*Upgrade")

    def test_another_history(self, bench: Bench, tmp_path: Path) -> None:
        """The working copy is no earlier version of what is stored: all of it is pulled."""
        with db_session:
            bench.ours.db.execute("UPDATE filler SET body = 'a' WHERE id = 7")
        saved = {info.key: bench.bucket.get(info.key) for info in bench.bucket.list(KEY)}
        copies = {key: (found.read(1 << 24), found.info.metadata) for key, found in saved.items() if found}
        with db_session:  # on the branch that will be taken back
            bench.other.db.execute("UPDATE filler SET body = 'b' WHERE id = 700")
        assert bench.ours.value() == 0
        for key, (data, metadata) in copies.items():
            bench.bucket.put(key, data, metadata=metadata)
        third = Client(bench.bucket, EtagCached()).map()
        for _ in range(3):
            third.increment()
        before = bench.generation
        assert bench.ours.value() == 3
        assert bench.generation is not before


def test_a_lost_commit_uploads_no_megabytes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large transaction asks for the head before it uploads."""
    monkeypatch.setattr(compose, "LARGE_UPLOAD", 10_000)
    bench.hooked.before.clear()

    @db_session
    def rewrite() -> None:
        bench.ours.db.execute("UPDATE filler SET body = hex(randomblob(90))")
        in_thread(bench.other.increment)

    with pytest.raises(CommitException) as caught:
        rewrite()
    assert isinstance(cause_of(caught.value), ConflictError)
    assert bench.counting.bytes_up == 0
