"""Bad heads, bases and segments, and what they get: an error that names object and version, and nothing is written."""

from __future__ import annotations

import logging
import random
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
from pony.orm import db_session

from temaki import AccessDeniedError, CorruptDatabaseError, ObjectArchivedError, StoreError, cause_of
from temaki.formats.pages import segment as segments
from temaki.formats.pages.head import Head, Segment, TailPage
from temaki.formats.pages.maintain import GRACE, collect, fold
from temaki.formats.pages.manifest import decode, encode
from temaki.formats.pages.names import folder, key_of
from temaki.remote.fetch import Source
from temaki.remote.retry import RetryPolicy
from temaki.stores.memory import MemoryStore
from temaki.stores.wrapper import StoreWrapper, Verb
from temaki.testing.clock import ManualClock
from temaki.testing.strategies import KEY, Client
from temaki_strategies import EtagCached
from tests.unit.test_pages_cycle import limits

T = TypeVar("T")
URL = f"memory://bucket/{KEY}"


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Databases in pages, with segments after a few commits; nothing is compacted but by the test."""
    monkeypatch.setenv("TEMAKI_FORMAT", "pages")
    monkeypatch.setenv("TEMAKI_COMPACT", "manual")
    with limits(TAIL_LIMIT=12 << 10, TAIL_KEEP=3 << 10):
        yield


class Guarded(StoreWrapper):
    """A bucket that refuses what the test says."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store)
        self.refuse: Callable[[Verb, str], Exception | None] = lambda _verb, _key: None

    def refusing(self, refuse: Callable[[Verb, str], Exception | None]) -> Guarded:
        """From now on."""
        self.refuse = refuse
        return self

    def handle_request(self, verb: Verb, key: str, request: Callable[[], T], /) -> T:
        """See there."""
        error = self.refuse(verb, key)
        if error is not None:
            raise error
        return request()


class Scene:
    """A database in pages with segments; a process that has an older version of it; and maintenance."""

    def __init__(self, value: int = 0) -> None:
        self.clock = ManualClock()
        self.bucket = MemoryStore(clock=self.clock)
        self.guarded = Guarded(self.bucket)
        self.writer = Client(self.bucket, EtagCached()).map(create_tables=True)
        with db_session:
            self.writer.Counter(id=1, value=value)
            self.writer.db.execute("CREATE TABLE filler (id INTEGER PRIMARY KEY, body TEXT)")
            self.writer.db.execute(
                "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1500) "
                "INSERT INTO filler SELECT i, hex(randomblob(90)) FROM n"
            )
        self.writer = Client(self.bucket, EtagCached()).map()  # which has pulled, and so knows the store's clock
        self.running = Client(self.guarded, EtagCached(), timeout=0.01).map()
        assert self.running.value() == value
        self.scribble()

    def scribble(self, commits: int = 20) -> None:
        """Commits all over the database."""
        for number in range(commits):
            with db_session:
                self.writer.db.execute(
                    f"UPDATE filler SET body = hex(randomblob(90)) WHERE id = {1 + number * 397 % 1500}"
                )

    @property
    def source(self) -> Source:
        """For maintenance."""
        retrying = RetryPolicy(self.clock, random.Random(1), 0.01)
        return Source(self.guarded, KEY, URL, retrying, 1 << 23, lambda _count, _seconds: False)

    def late(self) -> Client:
        """A process that has nothing yet."""
        return Client(self.guarded, EtagCached(), timeout=0.01)

    def head(self) -> Head:
        """What is stored."""
        return decode(self.bytes_of(KEY))

    def bytes_of(self, key: str) -> bytes:
        """An object's bytes."""
        download = self.bucket.get(key)
        assert download is not None
        with download:
            return download.read(download.length)

    def object(self, name: str) -> bytes:
        """Bytes of an object in the folder."""
        return self.bytes_of(key_of(KEY, name))

    def put_head(self, content: bytes) -> None:
        """Other bytes, with the metadata that are there."""
        self.bucket.put(KEY, content, metadata=self.bucket.head(KEY).metadata)

    def everything(self) -> dict[str, tuple[str, dict[str, str]]]:
        """What is in the bucket: ETags and metadata by key."""
        found = {info.key: self.bucket.head(info.key) for info in self.bucket.list()}
        return {key: (info.etag, dict(info.metadata)) for key, info in found.items()}


@pytest.fixture
def scene() -> Scene:
    """See there."""
    return Scene()


def _truncated(scene: Scene, _head: Head) -> str:
    scene.put_head(scene.bytes_of(KEY)[:-1])
    return KEY


def _cut_in_the_manifest(scene: Scene, _head: Head) -> str:
    scene.put_head(scene.bytes_of(KEY)[:300])
    return KEY


def _no_head(scene: Scene, _head: Head) -> str:
    scene.put_head(b"<html>504 Gateway Timeout</html>" * 300)
    return KEY


def _another_head(scene: Scene, _head: Head) -> str:
    """The bytes of another database's head, with the metadata of ours."""
    scene.put_head(Scene(value=9).bytes_of(KEY))
    return KEY


def _another_database(scene: Scene, _head: Head) -> str:
    """All of another database's head. Its objects are not here."""
    other = Scene(value=9)
    scene.bucket.put(KEY, other.bytes_of(KEY), metadata=other.bucket.head(KEY).metadata)
    return "pages/"


def _impossible_count(scene: Scene, head: Head) -> str:
    metadata = {**scene.bucket.head(KEY).metadata, "temaki-size": str((1 << 31) * head.page_size)}
    content = scene.bytes_of(KEY).replace(
        f'"page_count":{head.page_count}'.encode(), f'"page_count":{1 << 31}'.encode()
    )
    scene.bucket.put(KEY, content, metadata=metadata)
    return KEY


def _endless_lists(scene: Scene, _head: Head) -> str:
    content = scene.bytes_of(KEY).replace(b'"condemned":[', b'"condemned":[' + b'["base-00",1],' * 5000)
    scene.put_head(content)
    return KEY


def _lying_checksum(scene: Scene, head: Head) -> str:
    scene.put_head(encode(replace(head, checksum=head.checksum ^ 1)))
    return KEY


def _bomb_in_the_tail(scene: Scene, head: Head) -> str:
    first, *others = head.tail
    bomb = TailPage(first.number, first.sequence, zlib.compress(bytes(1 << 20), 9)[: head.page_size])
    scene.put_head(encode(replace(head, tail=(bomb, *others))))
    return KEY


def _segment_truncated(scene: Scene, head: Head) -> str:
    name = head.segments[-1].name
    scene.bucket.put(key_of(KEY, name), scene.object(name)[:-1])
    return name


def _segments_swapped(scene: Scene, head: Head) -> str:
    one, other = head.segments[-2:]
    first, second = scene.object(one.name), scene.object(other.name)
    scene.bucket.put(key_of(KEY, one.name), second)
    scene.bucket.put(key_of(KEY, other.name), first)
    return "seg-"


def _segment_of_another_database(scene: Scene, head: Head) -> str:
    """With the same header and the same page numbers; the checksum of the whole tells."""
    last = head.segments[-1]
    numbers = list(segments.SegmentReader(_reader(scene.object(last.name)), last, last.size, head.page_size).numbers)
    pages = [(number, random.Random(number).randbytes(head.page_size)) for number in numbers]
    _replace_segment(scene, head, pages)
    return KEY


def _segment_with_impossible_count(scene: Scene, head: Head) -> str:
    name = head.segments[-1].name
    data = bytearray(scene.object(name))
    start = len(b"temaki segment 1\n") + 4
    data[start : start + 4] = b"\xff" * 4
    scene.bucket.put(key_of(KEY, name), bytes(data))
    return name


def _bomb_in_a_segment(scene: Scene, head: Head) -> str:
    return _replace_segment(scene, head, [(2, zlib.compress(bytes(1 << 20), 9)[: head.page_size])])


def _replace_segment(scene: Scene, head: Head, pages: list[tuple[int, bytes]]) -> str:
    """Other bytes in the place of the last segment, of which the head says what is true."""
    last = head.segments[-1]
    content = b"".join(segments.encode(pages, page_size=head.page_size, last=last.last))
    scene.bucket.put(key_of(KEY, last.name), content)
    new = Segment(last.name, last.last, len(pages), len(content))
    scene.put_head(encode(replace(head, segments=(*head.segments[:-1], new))))
    return last.name


def _reader(data: bytes) -> Callable[[int], bytes]:
    left = [data]

    def read(count: int) -> bytes:
        found, left[0] = left[0][:count], left[0][count:]
        return found

    return read


def _segment_missing(scene: Scene, head: Head) -> str:
    name = head.segments[-1].name
    scene.bucket.delete(key_of(KEY, name))
    return name


def _base_missing(scene: Scene, head: Head) -> str:
    scene.bucket.delete(key_of(KEY, head.base.name))
    return head.base.name


def _base_truncated(scene: Scene, head: Head) -> str:
    scene.bucket.put(key_of(KEY, head.base.name), scene.object(head.base.name)[: -head.page_size])
    return head.base.name


def _base_of_another_page_size(scene: Scene, head: Head) -> str:
    data = bytearray(scene.object(head.base.name))
    data[16:18] = b"\x02\x00"
    scene.bucket.put(key_of(KEY, head.base.name), bytes(data))
    return head.base.name


def _base_of_another_database(scene: Scene, head: Head) -> str:
    """With the same size and page size; the checksum of the whole tells."""
    data = bytearray(scene.object(head.base.name))
    for page in range(1, head.base.size // head.page_size):
        data[page * head.page_size + 100 : page * head.page_size + 200] = random.Random(page).randbytes(100)
    scene.bucket.put(key_of(KEY, head.base.name), bytes(data))
    return KEY


DAMAGE: dict[str, tuple[Callable[[Scene, Head], str], str]] = {
    "head truncated": (_truncated, "truncated or changed"),
    "head cut in the manifest": (_cut_in_the_manifest, "manifest does not end"),
    "no head": (_no_head, "starts with"),
    "another database's head under our metadata": (_another_head, "its metadata say commit"),
    "another database's head": (_another_database, "is missing"),
    "impossible page count": (_impossible_count, "its objects at most"),
    "endless lists": (_endless_lists, "no list of at most"),
    "lying checksum": (_lying_checksum, "its checksum is"),
    "bomb in the tail": (_bomb_in_the_tail, "inflate"),
    "segment truncated": (_segment_truncated, "its head says"),
    "segments swapped": (_segments_swapped, "its head says"),
    "segment of another database": (_segment_of_another_database, "its checksum is"),
    "segment with an impossible count": (_segment_with_impossible_count, "another segment"),
    "bomb in a segment": (_bomb_in_a_segment, "does not inflate to exactly"),
    "segment missing": (_segment_missing, "is missing"),
    "base missing": (_base_missing, "is missing"),
    "base truncated": (_base_truncated, "its head says"),
    "base of another page size": (_base_of_another_page_size, "its pages have 512 bytes"),
    "base of another database": (_base_of_another_database, "its checksum is"),
}
ABOUT_THE_BASE = {"base missing", "base truncated", "base of another page size", "base of another database"}


class TestDamage:
    """What is damaged is an error that names object, version and way out, however often one asks."""

    @pytest.mark.parametrize("kind", DAMAGE)
    @pytest.mark.parametrize("is_running", [False, True])
    def test_is_refused_and_kept(self, scene: Scene, kind: str, is_running: bool) -> None:
        """By a new process, and by one that has an older version. Nothing is written; the repair is picked up.

        A process that can catch up does not read the base, and goes on.
        """
        good = {
            info.key: (scene.bytes_of(info.key), scene.bucket.head(info.key).metadata) for info in scene.bucket.list()
        }
        damage, message = DAMAGE[kind]
        blamed = damage(scene, scene.head())
        metadata, before = scene.bucket.head(KEY).metadata, scene.everything()
        if is_running and kind in ABOUT_THE_BASE:
            assert scene.running.value() == 0
        else:
            for _ in range(2):
                with pytest.raises(CorruptDatabaseError, match=message) as caught:
                    scene.running.increment() if is_running else scene.late().map(create_tables=True)
                for part in (blamed, metadata["temaki-commit"], metadata["temaki-seq"], "temaki restore"):
                    assert part in str(caught.value), (part, str(caught.value))
                assert caught.value.may_repeat is False
        assert scene.everything() == before
        for key, (content, described) in good.items():
            scene.bucket.put(key, content, metadata=described)
        client = scene.running if is_running else scene.late().map()
        assert client.increment() == 1

    @pytest.mark.parametrize("kind", DAMAGE)
    def test_nothing_is_collected(self, scene: Scene, kind: str, tmp_path: Path) -> None:
        """Maintenance removes nothing that the good head names, however long it goes on."""
        head = scene.head()
        damage, _ = DAMAGE[kind]
        damage(scene, head)
        before = {info.key for info in scene.bucket.list() if info.key.removeprefix(folder(KEY)) in head.named}
        for number in range(3):
            for work in (lambda: collect(scene.source), lambda: fold(scene.source, tmp_path / "x", force=True)):
                try:
                    work()
                except CorruptDatabaseError:
                    assert list(tmp_path.iterdir()) == []
            scene.clock.advance(GRACE + number)
        assert before <= {info.key for info in scene.bucket.list()}


def test_a_young_object_is_no_missing_one(scene: Scene) -> None:
    """A commit that comes between a collector's listing and its look at the head: it lists again, and goes on."""
    listed = scene.bucket.list
    commits = [lambda: scene.scribble(12)]

    def late_list(prefix: str = "") -> Iterator[Any]:
        found = list(listed(prefix))
        if commits:
            commits.pop()()
        return iter(found)

    before = {one.name for one in scene.head().segments}
    scene.guarded.list = late_list  # type: ignore[method-assign]
    collect(scene.source)
    assert {one.name for one in scene.head().segments} - before, "no segment came in between"
    assert Client(scene.bucket, EtagCached()).map().value() == 0


def test_an_object_that_is_not_temakis(scene: Scene) -> None:
    """It is neither read nor removed, whatever its name is like."""
    strange = [
        "README",
        "base-1",
        "seg-" + "g" * 30,
        f"seg-{'0' * 30}.bak",
        "deeper/base-" + "0" * 30,
        "temaki-doctor-1",
    ]
    for name in strange:
        scene.bucket.put(key_of(KEY, name), b"mine")
    for _ in range(3):
        collect(scene.source)
        scene.clock.advance(GRACE + 1)
    assert all(scene.object(name) == b"mine" for name in strange)
    assert scene.late().map().increment() == 1


def denied(key: str, *, lacks_permission: bool = True) -> AccessDeniedError:
    """As S3 says it."""
    return AccessDeniedError(
        f"s3://bucket/{key} cannot be accessed. Advice.",
        url=f"s3://bucket/{key}",
        status=403,
        code="AccessDenied",
        advice="Advice.",
        lacks_permission=lacks_permission,
    )


class TestPermission:
    """For the head and not for the folder, and the other way round."""

    @pytest.mark.parametrize("is_running", [False, True])
    def test_no_get_in_the_folder(self, scene: Scene, is_running: bool) -> None:
        """The error names object and version, and the grants that pages need."""
        head, before = scene.head(), scene.everything()
        scene.guarded.refuse = lambda _verb, key: denied(key) if key.startswith(folder(KEY)) else None
        with pytest.raises(AccessDeniedError) as caught:
            scene.running.value() if is_running else scene.late().map(create_tables=True)
        for part in (head.commit, str(head.sequence), f"{KEY}.pages/", "s3:PutObject", "s3:ListBucket", "doctor"):
            assert part in str(caught.value)
        name = caught.value.object  # type: ignore[attr-defined]
        assert name in head.named
        assert str(caught.value).endswith(caught.value.advice)
        assert scene.everything() == before

    def test_a_collected_object_looks_denied(self, scene: Scene) -> None:
        """To credentials that may not list the bucket. A pull that meets one reads the head again, and goes on."""
        gone = scene.head().live[0].name
        kept = scene.object(gone)
        scene.bucket.delete(key_of(KEY, gone))
        heads_sent = [0]

        def refuse(verb: Verb, key: str) -> Exception | None:
            if (verb, key) == ("get", KEY):
                heads_sent[0] += 1
            if key != key_of(KEY, gone):
                return None
            if heads_sent[0] == 1:  # the head names something else by now
                scene.bucket.put(key, kept)
                scene.put_head(encode(replace(scene.head(), edition=7)))
                return denied(key)
            return None

        scene.guarded.refuse = refuse
        assert scene.late().map().value() == 0
        assert heads_sent[0] >= 2

    def test_no_put_in_the_folder(self, scene: Scene) -> None:
        """A commit that needs a segment, and a new database: nothing is stored, and the session can be run again."""
        client = Client(scene.guarded, EtagCached(), timeout=0.01).map()
        head = scene.head()
        scene.guarded.refuse = lambda verb, key: (
            denied(key) if (verb, key[: len(KEY) + 1]) == ("put", f"{KEY}.") else None
        )
        with pytest.raises(Exception, match="Grant s3:GetObject") as caught, db_session:
            client.db.execute("UPDATE filler SET body = hex(randomblob(90)) WHERE id % 120 = 0")
        error = cause_of(caught.value)
        assert isinstance(error, AccessDeniedError)
        assert f"{KEY}.pages/seg-" in str(error)
        assert scene.head() == head
        with pytest.raises(AccessDeniedError, match=r"the first version of .* in pages"):
            Client(Guarded(MemoryStore()).refusing(scene.guarded.refuse), EtagCached()).map(create_tables=True)
        scene.guarded.refuse = lambda _verb, _key: None
        assert client.increment() == 1

    def test_no_put_of_the_head(self, scene: Scene) -> None:
        """The segment is there and the head is not: the version stays, and the segment is garbage that is collected."""
        client = Client(scene.guarded, EtagCached(), timeout=0.01).map()
        head = scene.head()
        scene.guarded.refuse = lambda verb, key: denied(key) if (verb, key) == ("put", KEY) else None
        with pytest.raises(Exception, match="cannot be accessed") as caught, db_session:
            client.db.execute("UPDATE filler SET body = hex(randomblob(90)) WHERE id % 120 = 0")
        error = cause_of(caught.value)
        assert isinstance(error, AccessDeniedError)
        assert error.url == f"s3://bucket/{KEY}"
        assert scene.head() == head
        orphans = _listed(scene) - head.named - {one.name for one in head.condemned}
        assert orphans
        scene.guarded.refuse = lambda _verb, _key: None
        collect(scene.source)
        scene.clock.advance(GRACE + 1)
        collect(scene.source)
        assert not orphans & _listed(scene)
        assert client.increment() == 1

    def test_no_get_of_the_head(self, scene: Scene) -> None:
        """As ever: no empty database takes its place."""
        before = scene.everything()
        scene.guarded.refuse = lambda _verb, key: denied(key) if key == KEY else None
        with pytest.raises(AccessDeniedError, match="cannot be accessed"):
            scene.late().map(create_tables=True)
        assert scene.everything() == before

    def test_refused_credentials_are_no_matter_of_grants(self, scene: Scene) -> None:
        """The store's own words stay."""
        scene.guarded.refuse = lambda _verb, key: (
            denied(key, lacks_permission=False) if key.startswith(folder(KEY)) else None
        )
        with pytest.raises(AccessDeniedError, match="Advice") as caught:
            scene.late().map()
        assert "Grant" not in str(caught.value)


def _listed(scene: Scene) -> set[str]:
    return {info.key.removeprefix(folder(KEY)) for info in scene.bucket.list(folder(KEY))}


class TestKeptObjects:
    """A bucket that deletes nothing: Object Lock, or a policy."""

    def test_a_collection_goes_on(self, scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
        """Each object is tried, what is refused is logged once, and everything is tried again later."""
        with limits(FAN=2):
            scene.scribble(60)
        collect(scene.source)
        scene.clock.advance(GRACE + 1)
        now = int(scene.clock.time())  # the writer that made the database did not know the store's clock
        ripe = {one.name for one in scene.head().condemned if one.since <= now}
        assert len(ripe) > 2
        tried: list[str] = []
        keeps = min(ripe)

        def refuse(verb: Verb, key: str) -> Exception | None:
            if verb == "delete":
                tried.append(key)
                return denied(key) if key.endswith(keeps) else None
            return None

        scene.guarded.refuse = refuse
        with caplog.at_level(logging.WARNING, logger="temaki"):
            done = collect(scene.source)
        assert set(done.deleted) == ripe - {keeps}
        assert {key.removeprefix(folder(KEY)) for key in tried} == ripe
        (said,) = (record.getMessage() for record in caplog.records)
        assert f"1 of {len(ripe)} objects" in said
        assert keeps in said
        assert keeps in _listed(scene)
        assert Client(scene.bucket, EtagCached()).map().value() == 0
        scene.guarded.refuse = lambda _verb, _key: None
        assert collect(scene.source).condemned == (keeps,)
        scene.clock.advance(GRACE + 1)
        assert collect(scene.source).deleted == (keeps,)
        assert scene.writer.increment() == 1


def archived(key: str) -> ObjectArchivedError:
    """As S3 says it."""
    return ObjectArchivedError(
        f"s3://bucket/{key} is archived.", url=f"s3://bucket/{key}", status=403, code="InvalidObjectState"
    )


class TestArchived:
    """A lifecycle rule has moved an object into an archive."""

    def test_a_base(self, scene: Scene, tmp_path: Path) -> None:
        """The error names it and the version, and says how to get it back; a process that catches up needs no base."""
        head, before = scene.head(), scene.everything()
        scene.guarded.refuse = lambda verb, key: (
            archived(key) if verb == "get" and key.endswith(head.base.name) else None
        )
        with pytest.raises(ObjectArchivedError) as caught:
            scene.late().map(create_tables=True)
        error: Any = caught.value
        for part in (
            head.base.name,
            head.commit,
            str(head.sequence),
            "restore-object",
            f"Exempt {error_folder(error)}",
        ):
            assert part in str(error)
        assert (error.object, error.code, error.may_repeat) == (head.base.name, "InvalidObjectState", False)
        assert scene.everything() == before
        assert scene.running.value() == 0
        with pytest.raises(ObjectArchivedError):
            fold(scene.source, tmp_path / "x", force=True)
        assert list(tmp_path.iterdir()) == []
        assert scene.head().base == head.base

    def test_the_head(self, scene: Scene) -> None:
        """It is a store's error, like any other that a pull meets."""
        scene.guarded.refuse = lambda verb, key: archived(key) if (verb, key) == ("get", KEY) else None
        with pytest.raises(StoreError, match="archived"):
            scene.late().map(create_tables=True)


def error_folder(error: Any) -> str:
    """The folder as the message names it."""
    text = str(error)
    start = text.index("Exempt ") + len("Exempt ")
    return text[start : text.index(".pages/", start)] + ".pages/"
