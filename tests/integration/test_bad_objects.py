"""Bad objects, and what they get: an error that names object and way out, and is never overwritten.

An object that is a database, whoever wrote it, is taken as it is.
"""
# ruff: noqa: PT012 - what a session raises, it raises at its end: the block is all of it

from __future__ import annotations

import errno
import os
import random
import sqlite3
import struct
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pony.orm import CommitException, db_session, flush, select

from temaki import (
    CommitUnknownError,
    ConflictError,
    CorruptDatabaseError,
    NotFoundError,
    WorkingCopyError,
    cause_of,
)
from temaki.stores.memory import MemoryStore
from temaki.testing.counting import CountingStore
from temaki.testing.strategies import KEY, Client
from temaki_strategies import EtagCached
from tests.threads import in_thread


@pytest.fixture
def bucket() -> MemoryStore:
    """An empty bucket."""
    return MemoryStore()


def contents(bucket: MemoryStore) -> bytes:
    """The object's bytes."""
    download = bucket.get(KEY)
    assert download is not None
    with download:
        return download.read(download.length)


def opened(client: Client) -> str:
    """The URL that the client's errors should name."""
    url: str = client.db.provider.engine.url
    return url


def foreign(tmp_path: Path, *statements: str, rows: int = 300) -> bytes:
    """A database with a counter at 7, as another tool leaves it."""
    path = tmp_path / "foreign.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in ("PRAGMA synchronous = OFF", *statements):
            connection.execute(statement).close()
        connection.execute('CREATE TABLE "Counter" ("id" INTEGER NOT NULL PRIMARY KEY, "value" INTEGER NOT NULL)')
        connection.execute("CREATE TABLE filler (x)")
        connection.execute("INSERT INTO Counter VALUES (1, 7)")
        connection.executemany("INSERT INTO filler VALUES (?)", [("x" * 400,)] * rows)
        connection.execute("DELETE FROM filler WHERE rowid % 2 OR rowid > 100")
    return path.read_bytes()


def foreign_into(path: Path) -> None:
    """The counter at 7, in a file that is there."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute('CREATE TABLE "Counter" ("id" INTEGER NOT NULL PRIMARY KEY, "value" INTEGER NOT NULL)')
        connection.execute("INSERT INTO Counter VALUES (1, 7)")


def assert_sound(bucket: MemoryStore, tmp_path: Path) -> None:
    """The stored version has no damage that SQLite knows of."""
    path = tmp_path / "stored.sqlite"
    path.write_bytes(contents(bucket))
    with closing(sqlite3.connect(path)) as stored:
        assert stored.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def whole(tmp_path: Path) -> bytes:
    """A good one."""
    return foreign(tmp_path)


BAD: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda _: b"", "it is empty"),
    "text": (lambda _: b"<html>504 Gateway Timeout</html>" * 300, "not SQLite"),
    "encrypted": (lambda good: random.Random(1).randbytes(len(good)), r"not SQLite.*encrypted"),
    "compressed": (lambda good: b"\x1f\x8b\x08" + good, r"not SQLite.*compressed"),
    "header cut": (lambda good: good[:60], "truncated"),
    "cut between pages": (lambda good: good[:-4096], "truncated"),
    "cut within a page": (lambda good: good[:-1000], "truncated"),
    "cut, and the header old": (lambda good: good[:92] + bytes(4) + good[96:-1000], "truncated.*ends within one"),
    "only the header": (lambda good: good[:100], "truncated"),
    "bad page size": (lambda good: good[:16] + b"\x03\xe9" + good[18:], "page size"),
    "garbage after the header": (lambda good: good[:100] + b"\xff" * (len(good) - 100), r"damaged.*\.recover"),
}


class TestNoDatabase:
    """What cannot be used is an error, however often one asks, and is never replaced."""

    @pytest.mark.parametrize("kind", BAD)
    @pytest.mark.parametrize("running", [False, True])
    def test_is_refused_and_kept(self, bucket: MemoryStore, tmp_path: Path, kind: str, running: bool) -> None:
        """By a new process with ``create_tables=True``, and by one that had a good version. Its repair is picked up."""
        damage, message = BAD[kind]
        good = whole(tmp_path)
        client = Client(bucket, EtagCached(), timeout=0.01)
        if running:
            bucket.put(KEY, good)
            assert client.map(create_tables=True).value() == 7
        bad = damage(good)
        bucket.put(KEY, bad)
        for _ in range(2):
            with pytest.raises(CorruptDatabaseError, match=message) as caught:
                client.value() if running else client.db.create_tables() if client.db.schema else client.map(
                    create_tables=True
                )
            assert opened(client) in str(caught.value)
            assert "restore an earlier version" in str(caught.value).lower()
            assert contents(bucket) == bad
        bucket.put(KEY, good)
        again = client if running else Client(bucket, EtagCached()).map(create_tables=True)
        assert again.value() == 7

    def test_damage_that_only_a_query_finds(self, bucket: MemoryStore, tmp_path: Path) -> None:
        """Good at its start and torn further on: the query that meets it says so; other tables can be read."""
        good = bytearray(whole(tmp_path))
        good[3 * 4096 :] = b"\xff" * (len(good) - 3 * 4096)
        bucket.put(KEY, bytes(good))
        client = Client(bucket, EtagCached()).map()
        with pytest.raises(CorruptDatabaseError, match=r"is damaged.*Nothing was overwritten"), db_session:
            client.db.select("SELECT max(length(x)) FROM filler")
        assert client.value() == 7
        assert contents(bucket) == bytes(good)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"temaki-format": "3"}, r"newer temaki.*format 3 .*Upgrade temaki"),
            ({"temaki-format": "nonsense"}, "metadata are not as temaki writes them"),
            ({"temaki-seq": "99"}, r"another tool.*changed it and kept the metadata"),
            ({"temaki-lineage": "someone-else"}, "does not begin with"),
        ],
    )
    def test_metadata_that_do_not_fit(self, bucket: MemoryStore, change: dict[str, str], message: str) -> None:
        """A newer format is never touched by an older temaki; the message says to upgrade."""
        creator = Client(bucket, EtagCached()).map(create_tables=True)
        with db_session:
            creator.Counter(id=1, value=1)
        metadata = {**bucket.head(KEY).metadata, **change}
        bucket.put(KEY, contents(bucket), metadata=metadata)
        before = bucket.head(KEY)
        client = Client(bucket, EtagCached(), timeout=0.01)
        with pytest.raises(CorruptDatabaseError, match=message) as caught:
            client.map(create_tables=True)
        assert opened(client) in str(caught.value)
        assert (bucket.head(KEY).etag, bucket.head(KEY).metadata) == (before.etag, metadata)


class TestWrittenByAnotherTool:
    """A valid SQLite file without temaki's metadata is adopted, and counts on from there."""

    @pytest.mark.parametrize(
        "statements",
        [
            *[(f"PRAGMA page_size = {1 << power}",) for power in range(9, 17)],
            ("PRAGMA journal_mode = WAL",),
            ("PRAGMA auto_vacuum = FULL",),
            ("PRAGMA page_size = 1024", "PRAGMA auto_vacuum = INCREMENTAL"),
            ("PRAGMA encoding = 'UTF-16'",),
            ("PRAGMA user_version = 12", "PRAGMA application_id = 34"),
        ],
        ids=lambda statements: statements[0],
    )
    def test_is_adopted(self, bucket: MemoryStore, tmp_path: Path, statements: tuple[str, ...]) -> None:
        """Read, changed, read by another process, and still a file that any tool opens, with what it had."""
        data = foreign(tmp_path, *statements)
        bucket.put(KEY, data)
        counter = struct.unpack_from(">I", data, 24)[0]
        client = Client(bucket, EtagCached()).map(create_tables=True)
        assert client.value() == 7
        assert contents(bucket) == data
        assert [client.increment() for _ in range(3)] == [8, 9, 10]
        assert Client(bucket, EtagCached()).map().value() == 10
        assert int(bucket.head(KEY).metadata["temaki-seq"]) == counter + 3
        with closing(sqlite3.connect(tmp_path / "copy.sqlite")) as copy:
            (tmp_path / "copy.sqlite").write_bytes(contents(bucket))
            assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert copy.execute("SELECT value FROM Counter").fetchone() == (10,)
            assert copy.execute("SELECT count(*) FROM filler").fetchone() == (50,)
            for statement in statements:
                name, _, value = statement.removeprefix("PRAGMA ").partition(" = ")
                found = str(copy.execute(f"PRAGMA {name}").fetchone()[0])
                assert found in {value, "delete", "1", "2", "UTF-16le", "UTF-16be"}

    @pytest.mark.parametrize("pages", [3, 999])
    def test_stale_size_in_the_header(self, bucket: MemoryStore, tmp_path: Path, pages: int) -> None:
        """SQLite before 3.7.0 left the size in the header as it was; the file says that it is not to be believed."""
        data = bytearray(foreign(tmp_path))
        struct.pack_into(">I", data, 28, pages)
        struct.pack_into(">I", data, 92, 0)
        bucket.put(KEY, bytes(data))
        client = Client(bucket, EtagCached()).map()
        assert client.value() == 7
        assert client.increment() == 8
        stored = contents(bucket)
        assert struct.unpack_from(">I", stored, 28)[0] * 4096 == len(stored)
        assert Client(bucket, EtagCached()).map().value() == 8

    @pytest.mark.parametrize("slack", [4096, 1000, 10 * 4096])
    @pytest.mark.parametrize("page_size", [512, 4096, 65536])
    def test_slack_at_the_end(self, bucket: MemoryStore, tmp_path: Path, page_size: int, slack: int) -> None:
        """What a file has beyond the size in its header is no part of any version that is built on it."""
        data = foreign(tmp_path, f"PRAGMA page_size = {page_size}")
        bucket.put(KEY, data + b"\xa5" * slack)
        client = Client(bucket, EtagCached()).map(create_tables=True)
        assert client.value() == 7
        assert client.increment() == 8
        assert_sound(bucket, tmp_path)
        assert len(contents(bucket)) == len(data)

    @pytest.mark.parametrize("reserved", [8, 12, 32])
    @pytest.mark.parametrize("is_empty", [True, False])
    def test_reserved_bytes(self, bucket: MemoryStore, tmp_path: Path, reserved: int, is_empty: bool) -> None:
        """Some writers keep bytes for themselves at the end of each page (checksums, encryption); so do the commits."""
        path = tmp_path / "reserved.sqlite"
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA user_version = 1")
        data = bytearray(path.read_bytes())
        data[20] = reserved
        struct.pack_into(">H", data, 105, 4096 - reserved)  # where the cells of page 1 begin: there are none
        path.write_bytes(data)
        if not is_empty:
            foreign_into(path)
        bucket.put(KEY, path.read_bytes())
        client = Client(bucket, EtagCached()).map(create_tables=True)
        if is_empty:
            with db_session:
                client.Counter(id=1, value=7)
        assert client.increment() == 8
        assert contents(bucket)[20] == reserved
        assert_sound(bucket, tmp_path)

    @pytest.mark.parametrize("statement", ["PRAGMA application_id = 34", "PRAGMA encoding = 'UTF-16be'", "VACUUM"])
    def test_empty_schema(self, bucket: MemoryStore, tmp_path: Path, statement: str) -> None:
        """A database without any table, and without a schema format in its header, is completed."""
        path = tmp_path / "empty.sqlite"
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute(statement)
            connection.execute("PRAGMA user_version = 3")
        bucket.put(KEY, path.read_bytes())
        client = Client(bucket, EtagCached()).map(create_tables=True)
        with db_session:
            client.Counter(id=1, value=7)
        assert client.increment() == 8
        assert struct.unpack_from(">I", contents(bucket), 60) == (3,)
        assert_sound(bucket, tmp_path)

    @pytest.mark.parametrize(
        "statements",
        [
            (),
            ("PRAGMA auto_vacuum = FULL",),
            ("PRAGMA auto_vacuum = INCREMENTAL", "PRAGMA encoding = 'UTF-16'"),
            ("PRAGMA application_id = 34",),
        ],
    )
    @pytest.mark.parametrize("is_stale", [True, False])
    def test_stays_sound(
        self, bucket: MemoryStore, tmp_path: Path, statements: tuple[str, ...], is_stale: bool
    ) -> None:
        """With a freelist that the commits use up, and a size in the header that an old SQLite did not keep up."""
        data = bytearray(foreign(tmp_path, *statements))
        if is_stale:
            struct.pack_into(">I", data, 28, 3)
            struct.pack_into(">I", data, 92, 0)
        bucket.put(KEY, bytes(data))
        client = Client(bucket, EtagCached()).map(create_tables=True)
        for number in range(3):
            with db_session:
                client.db.execute("INSERT INTO filler SELECT hex(zeroblob(200)) FROM filler LIMIT 30")
            with db_session:
                client.db.execute("DELETE FROM filler WHERE rowid % 3 = $number")
            assert client.increment() == 8 + number
            assert_sound(bucket, tmp_path)

    def test_without_tables_is_completed(self, bucket: MemoryStore) -> None:
        """An adopted file gets what is missing, in one upload."""
        with closing(sqlite3.connect(":memory:")) as connection:
            connection.execute("CREATE TABLE theirs (x)")
            bucket.put(KEY, connection.serialize())
        counting = CountingStore(bucket)
        client = Client(counting, EtagCached()).map(create_tables=True)
        assert counting.count("put") == 1
        with db_session:
            assert client.db.select("SELECT count(*) FROM theirs") == [0]
            assert select(c for c in client.Counter).count() == 0


class TestChangedUnderARunningProcess:
    """By someone who does not know of it."""

    @pytest.fixture
    def client(self, bucket: MemoryStore) -> Client:
        """A process that has a counter at 0."""
        client = Client(bucket, EtagCached(), timeout=0.01).map(create_tables=True)
        with db_session:
            client.Counter(id=1, value=0)
        return client

    @pytest.mark.parametrize("created_by", ["itself", "another process"])
    def test_deleted(self, client: Client, bucket: MemoryStore, created_by: str) -> None:
        """No session begins, and no empty database takes its place; restored, it is found again."""
        if created_by == "another process":
            client = Client(bucket, EtagCached(), timeout=0.01).map()
            assert client.value() == 0
        data, metadata = contents(bucket), bucket.head(KEY).metadata
        bucket.delete(KEY)
        for call in (client.value, client.increment, client.db.create_tables):
            with pytest.raises(NotFoundError, match=r"is gone.*Restore the object") as caught:
                call()
            assert opened(client) in str(caught.value)
        assert list(bucket.list()) == []
        bucket.put(KEY, data, metadata=metadata)
        assert client.increment() == 1

    def test_deleted_during_a_session(self, client: Client, bucket: MemoryStore) -> None:
        """The commit says that it was deleted, and does not create it anew."""
        with pytest.raises(CommitException) as caught, db_session:
            client.Counter[1].value = 5
            flush()
            bucket.delete(KEY)
        assert isinstance(cause_of(caught.value), NotFoundError)
        assert "Nothing was stored" in str(cause_of(caught.value))
        assert list(bucket.list()) == []

    def test_replaced_by_another_database(self, client: Client, bucket: MemoryStore, tmp_path: Path) -> None:
        """The next session follows it, as it follows a restore."""
        bucket.put(KEY, foreign(tmp_path))
        assert client.value() == 7
        assert client.increment() == 8

    def test_replaced_during_a_session(self, client: Client, bucket: MemoryStore, tmp_path: Path) -> None:
        """The commit is refused and the other database kept."""
        data = foreign(tmp_path)
        with pytest.raises(CommitException) as caught, db_session:
            client.Counter[1].value = 5
            flush()
            bucket.put(KEY, data)
        assert isinstance(cause_of(caught.value), ConflictError)
        assert not isinstance(cause_of(caught.value), CommitUnknownError)
        assert contents(bucket) == data
        assert client.value() == 7

    def test_replaced_by_garbage_during_a_session(self, client: Client, bucket: MemoryStore) -> None:
        """As well."""
        with pytest.raises(CommitException) as caught, db_session:
            client.Counter[1].value = 5
            flush()
            bucket.put(KEY, b"garbage" * 1000)
        assert isinstance(cause_of(caught.value), ConflictError)
        assert contents(bucket) == b"garbage" * 1000


class TestFullDisk:
    """While pulling."""

    @pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
    def test_names_the_working_copy(self, bucket: MemoryStore, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
        """The error names folder and way out, no half file is left, the object is as it was; with space, it goes on."""
        other = Client(bucket, EtagCached()).map(create_tables=True)
        with db_session:
            other.Counter(id=1, value=0)
        client = Client(bucket, EtagCached(), timeout=0.01).map()
        assert client.value() == 0
        folder = client.db.provider.engine._replica._folder.path
        before = sorted(path.name for path in folder.iterdir())
        other.increment()
        etag = bucket.head(KEY).etag

        def full(*_: Any) -> int:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, "pwrite", full)
        for _ in range(2):
            with pytest.raises(WorkingCopyError, match=r"Free some space.*cache_dir") as caught:
                client.value()
            assert opened(client) in str(caught.value)
            assert os.strerror(code) in str(caught.value)
            assert caught.value.path.startswith(str(folder))
            assert sorted(path.name for path in folder.iterdir()) == before
        monkeypatch.undo()
        assert (bucket.head(KEY).etag, client.value(), in_thread(client.increment)) == (etag, 1, 2)
