"""`Remote.fetch`: what is saved is what the store has, or nothing is; what is no database is never taken for one."""

from __future__ import annotations

import errno
import os
import pickle
import random
import sqlite3
import struct
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import pytest

from temaki.errors import (
    AccessDeniedError,
    CorruptDatabaseError,
    NotFoundError,
    PreconditionFailedError,
    StoreUnavailableError,
    WorkingCopyError,
)
from temaki.formats.choice import open_stored
from temaki.remote import transfer
from temaki.remote.remote import Remote
from temaki.stores.memory import MemoryStore
from temaki.testing.clock import ManualClock
from temaki.testing.faulty import Fault, FaultyStore
from temaki.version import Version, next_version
from tests.hooked import failing
from tests.versions import in_wal_mode

KEY = "app.sqlite"
URL = f"memory://memory/{KEY}"


def database(rows: int, sequence: int | None = None, page_size: int = 4096) -> bytes:
    """A real database, as temaki uploads it if it has a sequence; else as another tool leaves it."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(f"PRAGMA page_size={page_size}")
        connection.execute("CREATE TABLE t (x)")
        connection.executemany(
            "INSERT INTO t VALUES (?)", [(random.Random(row).randbytes(900),) for row in range(rows)]
        )
        connection.commit()
        data = bytearray(connection.serialize())
    if sequence is not None:
        data[24:28] = data[92:96] = struct.pack(">I", sequence % 2**32)
    return bytes(data)


def from_the_beginning(_count: int, _seconds: float) -> bool:
    """A stream is slow."""
    return True


@dataclass
class Bench:
    """A bucket, and a remote that reads from it through `store`."""

    bucket: MemoryStore = field(default_factory=MemoryStore)
    clock: ManualClock = field(default_factory=ManualClock)
    threshold: int = 8 << 20
    is_slow: Callable[[int, float], bool] = transfer.is_slow

    def remote(self, store: Any = None) -> Remote:
        """Through another store if one is given."""
        return Remote(
            store or self.bucket,
            KEY,
            url=URL,
            clock=self.clock,
            timeout=30,
            rng=random.Random(1),
            parallel_threshold=self.threshold,
            is_slow=self.is_slow,
        )

    def upload(self, data: bytes, base: Version | None = None, sequence: int = 1, **metadata: Any) -> Version:
        """As temaki does; `metadata` changes some of it."""
        version = next_version(base, commit=f"{sequence:024x}", sequence=sequence, size=len(data), extra={})
        changes = {f"temaki-{name}": value for name, value in metadata.items()}
        etag = self.bucket.put(KEY, data, metadata={**version.metadata, **changes})
        return replace(version, etag=etag)


@pytest.fixture
def bench() -> Bench:
    """An empty bucket."""
    return Bench()


def save(remote: Remote, path: Path) -> Version:
    """Fetch into this file."""
    fetched = remote.fetch(open_stored)
    assert fetched is not None
    with fetched:
        fetched.save(path)
    return fetched.version


class TestFetch:
    """The request, and what the answer tells before its body is read."""

    def test_saved_file_is_the_object(self, bench: Bench, tmp_path: Path) -> None:
        """The same bytes, switched to WAL mode, in a new private file that SQLite opens with all its rows."""
        data = database(100, sequence=1)
        version = bench.upload(data)
        assert save(bench.remote(), tmp_path / "db") == version
        assert (tmp_path / "db").read_bytes() == in_wal_mode(data)
        assert (tmp_path / "db").stat().st_mode & 0o777 == 0o600
        with closing(sqlite3.connect(tmp_path / "db")) as connection:
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
            assert connection.execute("SELECT count(*) FROM t").fetchone() == (100,)
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)

    def test_a_new_file_is_not_truncated(self, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """ext4 would start to write it to the disk as soon as it is closed; what an attempt has left is taken back."""
        data = database(100, sequence=1)
        bench.upload(data)
        truncated: list[int] = []
        real = os.ftruncate

        def ftruncate(fd: int, length: int) -> None:
            truncated.append(length)
            real(fd, length)

        monkeypatch.setattr(os, "ftruncate", ftruncate)
        save(bench.remote(), tmp_path / "db")
        assert truncated == []
        store = Watched(bench.bucket)
        store.cut_short = 1
        save(bench.remote(store), tmp_path / "again")
        assert truncated == [0]
        assert (tmp_path / "again").read_bytes() == in_wal_mode(data)

    def test_known_version_is_not_sent(self, bench: Bench) -> None:
        """A conditional request for an unchanged object gives nothing; for a changed one the new version."""
        version = bench.upload(database(1, sequence=1))
        assert bench.remote().fetch(open_stored, version.etag) is None
        newer = bench.upload(database(2, sequence=2), base=version, sequence=2)
        fetched = bench.remote().fetch(open_stored, version.etag)
        assert fetched is not None
        with fetched:
            assert fetched.version == newer
            assert fetched.version.lineage == (newer.commit, version.commit)

    def test_body_can_be_dropped(self, bench: Bench, tmp_path: Path) -> None:
        """Leaving without saving closes the stream, and so does saving, and a refusal."""
        store = Watched(bench.bucket)
        bench.upload(database(1000, sequence=1))
        fetched = bench.remote(store).fetch(open_stored)
        assert fetched is not None
        with fetched:
            assert store.open == 1
        assert (store.open, store.bytes_read) == (0, 100)
        save(bench.remote(store), tmp_path / "db")
        assert store.open == 0
        bench.bucket.put(KEY, b"garbage")
        with pytest.raises(CorruptDatabaseError):
            bench.remote(store).fetch(open_stored)
        assert store.open == 0

    def test_errors_pass_through(self, bench: Bench) -> None:
        """No such key, and a refusal, are what they are; only the caller knows what they mean."""
        with pytest.raises(NotFoundError):
            bench.remote().fetch(open_stored)
        store = Watched(bench.bucket)
        store.before_get = failing(AccessDeniedError("403", url=URL))
        with pytest.raises(AccessDeniedError):
            bench.remote(store).fetch(open_stored)

    @pytest.mark.parametrize("fault", [Fault.FAIL_BEFORE, Fault.LOST_REPLY, Fault.REFUSED, Fault.TRUNCATED])
    def test_failures_are_repeated(self, bench: Bench, tmp_path: Path, fault: Fault) -> None:
        """No answer, or a body that ends early, leads to another request, and to the whole object."""
        data = database(50, sequence=1)
        version = bench.upload(data)
        faulty = FaultyStore(bench.bucket, plan=[("get", fault)] * 3)
        assert save(bench.remote(faulty), tmp_path / "db") == version
        assert (tmp_path / "db").read_bytes() == in_wal_mode(data)
        assert len(faulty.faults) == 3

    def test_failures_end(self, bench: Bench, tmp_path: Path) -> None:
        """Beyond the deadline the last failure is raised, and no file is left."""
        bench.upload(database(50, sequence=1))
        faulty = FaultyStore(bench.bucket, rates={"get": {Fault.TRUNCATED: 1.0}})
        with pytest.raises(StoreUnavailableError):
            save(bench.remote(faulty), tmp_path / "db")
        assert sum(bench.clock.slept) <= 60
        assert list(tmp_path.iterdir()) == []

    def test_replaced_while_it_is_repeated(self, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """If the object was replaced before the second attempt, the file and the version are the new ones'."""
        monkeypatch.setattr(transfer, "_CHUNK", 4096)
        bench.upload(database(400, sequence=1))
        store = Watched(bench.bucket)
        fetched = bench.remote(store).fetch(open_stored)
        assert fetched is not None
        reads = iter(range(1, 100))

        def fail_at_last() -> None:
            if next(reads) == 50:
                raise StoreUnavailableError("reset", url=URL)
            store.before_read = fail_at_last

        store.before_read = fail_at_last
        data = database(3, sequence=2)
        newer = bench.upload(data, sequence=2)
        with fetched:
            fetched.save(tmp_path / "db")
        assert fetched.version == newer
        assert (tmp_path / "db").read_bytes() == in_wal_mode(data)

    def test_body_that_ends_without_an_error(self, bench: Bench, tmp_path: Path) -> None:
        """A store that breaks its contract and ends a body early does not make a short file."""
        data = database(50, sequence=1)
        bench.upload(data)
        store = Watched(bench.bucket)
        store.cut_short = 3
        save(bench.remote(store), tmp_path / "db")
        assert (tmp_path / "db").read_bytes() == in_wal_mode(data)

    def test_short_writes(self, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The system may write less than it was given."""
        data = database(50, sequence=1)
        bench.upload(data)
        real = os.pwrite
        monkeypatch.setattr(os, "pwrite", lambda fd, some, offset: real(fd, some[:1000], offset))
        save(bench.remote(), tmp_path / "db")
        assert (tmp_path / "db").read_bytes() == in_wal_mode(data)


class TestAdoption:
    """Files that another tool wrote."""

    @pytest.mark.parametrize("page_size", [512, 4096, 65536])
    def test_plain_sqlite_file(self, bench: Bench, tmp_path: Path, page_size: int) -> None:
        """It is a version whose id comes from its ETag and whose number from SQLite's counter."""
        path = tmp_path / "plain"
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(f"PRAGMA page_size={page_size}")
            for number in range(5):
                connection.execute(f"CREATE TABLE t{number} (x)")
        bench.bucket.put(KEY, path.read_bytes())
        version = save(bench.remote(), tmp_path / "db")
        assert (version.sequence, version.complete, version.size) == (5, True, path.stat().st_size)
        assert version.commit.startswith("adopted-")
        assert version.lineage == (version.commit,)
        assert version == save(bench.remote(), tmp_path / "again")
        bench.bucket.put(KEY, path.read_bytes()[:-page_size] + bytes(page_size))
        assert save(bench.remote(), tmp_path / "other").commit != version.commit

    def test_size_of_an_old_writer(self, bench: Bench, tmp_path: Path) -> None:
        """A size in the header that is declared stale, or a file with pages to spare, is no damage."""
        data = bytearray(database(20))
        data[28:32] = struct.pack(">I", 999)
        data[92:96] = bytes(4) if data[24:28] != bytes(4) else b"\0\0\0\1"
        bench.bucket.put(KEY, bytes(data))
        save(bench.remote(), tmp_path / "db")
        assert (tmp_path / "db").stat().st_size == len(data)  # nobody knows better

    @pytest.mark.parametrize("slack", [1, 4096, 5000, 3 * 4096])
    def test_more_than_the_database(self, bench: Bench, tmp_path: Path, slack: int) -> None:
        """The database's size is the header's, if that is valid: what the file has beyond it is left off."""
        data = database(20)
        bench.bucket.put(KEY, data + b"\xa5" * slack)
        save(bench.remote(), tmp_path / "longer")
        assert (tmp_path / "longer").read_bytes() == in_wal_mode(data)


class TestCorrupt:
    """What is no database is refused, before and instead of a file."""

    def assert_corrupt(self, bench: Bench, tmp_path: Path, reason: str) -> CorruptDatabaseError:
        """It is refused for that reason, and the object is still there."""
        before = bench.bucket.head(KEY)
        with pytest.raises(CorruptDatabaseError, match=reason) as caught:
            save(bench.remote(), tmp_path / "db")
        error = caught.value
        assert (error.url, error.facts["size"]) == (URL, before.size)
        assert URL in str(error)
        assert not error.may_repeat
        assert pickle.loads(pickle.dumps(error)).facts == error.facts
        assert list(tmp_path.iterdir()) == []
        assert bench.bucket.head(KEY).etag == before.etag
        assert bench.clock.slept == []
        return error

    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            (b"", "0 bytes"),
            (b"S", "truncated: 1 bytes"),
            (b"<html>404</html>", "not SQLite"),
            (random.Random(1).randbytes(8192), "encrypted"),
            (database(20)[:50], "truncated: 50 bytes"),
            (database(20)[:100], "ends within"),
            (database(20)[:-1], "ends within"),
            (database(20)[:-4096], "truncated: its header says"),
            (database(20)[:16] + b"\0\3" + database(20)[18:], "page size"),
            (database(20)[:18] + b"\3\3" + database(20)[20:], "format version"),
        ],
    )
    @pytest.mark.parametrize("own", [False, True])
    def test_bytes(self, bench: Bench, tmp_path: Path, data: bytes, reason: str, own: bool) -> None:
        """Empty, garbage, encrypted, truncated, from the future: whoever uploaded it."""
        if own:
            bench.upload(data)
            reason = reason.replace("ends within", "truncated").replace("truncated: its", "truncated or changed: its")
        else:
            bench.bucket.put(KEY, data)
        self.assert_corrupt(bench, tmp_path, reason)

    def test_own_version_with_pages_to_spare(self, bench: Bench, tmp_path: Path) -> None:
        """What temaki wrote has exactly the size that its header says."""
        bench.upload(database(20, sequence=1) + bytes(4096))
        self.assert_corrupt(bench, tmp_path, "its header says")

    def test_changed_under_its_metadata(self, bench: Bench, tmp_path: Path) -> None:
        """A tool that edits the file and keeps the metadata makes another version with the same id: refused."""
        bench.upload(database(20, sequence=2), sequence=1)
        error = self.assert_corrupt(bench, tmp_path, "another tool")
        assert "upload it without them" in str(error)

    @pytest.mark.parametrize(
        ("metadata", "reason"),
        [
            ({"seq": "one"}, "no number"),
            ({"commit": "f" * 24}, "does not begin"),
            ({"lineage": "x"}, "does not begin"),
            ({"format": ""}, "not as temaki writes them"),
        ],
    )
    def test_metadata(self, bench: Bench, tmp_path: Path, metadata: dict[str, Any], reason: str) -> None:
        """Metadata that do not make sense are damage, not a plain file."""
        bench.upload(database(20, sequence=1), **metadata)
        self.assert_corrupt(bench, tmp_path, reason)

    def test_newer_format(self, bench: Bench, tmp_path: Path) -> None:
        """An object of a newer temaki is not damaged: the message says to upgrade."""
        bench.upload(b"anything at all", format="3")
        with pytest.raises(CorruptDatabaseError, match=r"newer temaki.*Upgrade"):
            save(bench.remote(), tmp_path / "db")

    def test_sequence_wraps(self, bench: Bench, tmp_path: Path) -> None:
        """The header has room for 32 bits of the number; that is not a contradiction."""
        bench.upload(database(5, sequence=2**32 + 7), sequence=2**32 + 7)
        assert save(bench.remote(), tmp_path / "db").sequence == 2**32 + 7


class TestWorkingCopy:
    """Trouble with the local disk is told from trouble with the store."""

    @pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
    def test_disk_errors(self, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
        """A full disk is named with the path and a way out; nothing is left, and nothing is repeated."""
        bench.upload(database(50, sequence=1))
        store = Watched(bench.bucket)
        monkeypatch.setattr(os, "pwrite", failing(OSError(code, os.strerror(code))))
        with pytest.raises(WorkingCopyError, match="cache_dir") as caught:
            save(bench.remote(store), tmp_path / "db")
        assert (caught.value.path, caught.value.url) == (str(tmp_path / "db"), URL)
        assert os.strerror(code) in str(caught.value)
        assert list(tmp_path.iterdir()) == []
        assert (store.open, store.gets) == (0, 1)

    def test_folder_that_is_not_there(self, bench: Bench, tmp_path: Path) -> None:
        """The same for a file that cannot be made."""
        bench.upload(database(1, sequence=1))
        with pytest.raises(WorkingCopyError):
            save(bench.remote(), tmp_path / "missing" / "db")

    def test_existing_files_and_links_are_left_alone(self, bench: Bench, tmp_path: Path) -> None:
        """Nothing that is there already is written to, followed, or removed."""
        bench.upload(database(1, sequence=1))
        (tmp_path / "file").write_bytes(b"precious")
        (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
        for name in ("file", "link"):
            with pytest.raises(WorkingCopyError):
                save(bench.remote(), tmp_path / name)
        assert (tmp_path / "file").read_bytes() == b"precious"
        assert not (tmp_path / "elsewhere").exists()
        assert (tmp_path / "link").is_symlink()

    def test_interrupt_leaves_no_file(self, bench: Bench, tmp_path: Path) -> None:
        """Ctrl-C in the middle of a download removes what there is of it."""
        bench.upload(database(50, sequence=1))
        store = Watched(bench.bucket)
        fetched = bench.remote(store).fetch(open_stored)
        assert fetched is not None
        store.before_read = failing(KeyboardInterrupt())
        with fetched, pytest.raises(KeyboardInterrupt):
            fetched.save(tmp_path / "db")
        assert list(tmp_path.iterdir()) == []
        assert store.open == 0

    def test_no_descriptor_is_left(self, bench: Bench, tmp_path: Path) -> None:
        """However it ends, the file is closed."""
        bench.threshold, bench.is_slow = 4096, from_the_beginning
        bench.upload(database(50, sequence=1))
        before = len(os.listdir("/dev/fd"))
        save(bench.remote(), tmp_path / "db")
        faulty = FaultyStore(bench.bucket, plan=[("get", None)], rates={"get": {Fault.FAIL_BEFORE: 0.99}})
        with pytest.raises(StoreUnavailableError):
            save(bench.remote(faulty), tmp_path / "other")
        assert len(os.listdir("/dev/fd")) == before


class TestParallel:
    """Large objects come in several streams, where one is slow."""

    @pytest.fixture
    def bench(self) -> Bench:
        """A threshold that small databases reach, and streams that are slow from the beginning."""
        return Bench(threshold=20_000, is_slow=from_the_beginning)

    @pytest.fixture
    def parts(self, monkeypatch: pytest.MonkeyPatch) -> list[transfer.Transfer]:
        """The parallel downloads that were made."""
        made: list[transfer.Transfer] = []

        class Noted(transfer.Transfer):
            def __init__(self, *arguments: Any) -> None:
                super().__init__(*arguments)
                made.append(self)

        monkeypatch.setattr("temaki.remote.fetch.Transfer", Noted)
        return made

    def test_streams(self, bench: Bench, tmp_path: Path) -> None:
        """Four streams carry a share each, the first of them out of the request that asked for the version."""
        data = database(300, sequence=1)
        bench.upload(data)
        store = Watched(bench.bucket)
        save(bench.remote(store), tmp_path / "db")
        assert (tmp_path / "db").read_bytes() == in_wal_mode(data)
        assert (store.gets, store.open) == (4, 0)
        assert store.conditions == [bench.bucket.head(KEY).etag] * 3
        assert store.bytes_read == len(data), "something was fetched twice"

    @pytest.mark.parametrize(("size", "gets"), [(10_000, 1), (39_000, 1), (41_000, 2), (61_000, 3), (500_000, 4)])
    def test_each_stream_is_worth_it(self, bench: Bench, tmp_path: Path, size: int, gets: int) -> None:
        """No stream is opened for less than the threshold."""
        data = database(size // 1100, sequence=1)
        data = data[: size // 4096 * 4096]
        data = data[:28] + struct.pack(">I", len(data) // 4096) + data[32:]
        bench.upload(data)
        store = Watched(bench.bucket)
        bench.threshold = 20_000 * len(data) // size
        save(bench.remote(store), tmp_path / "db")
        assert store.gets == gets
        assert (tmp_path / "db").read_bytes() == in_wal_mode(data)

    @pytest.mark.parametrize("pace", ["fast", "slow", "slow after all"])
    def test_others_help_a_slow_stream_only(self, bench: Bench, tmp_path: Path, pace: str) -> None:
        """A fast stream brings everything by itself; a slow one gets others beside it when it is seen to be slow."""
        data = database(9000, sequence=1)  # 9 MB
        bench.upload(data)
        bench.threshold, bench.is_slow = 1 << 20, transfer.is_slow
        store = Watched(bench.bucket)
        asked: list[tuple[int, int]] = []
        store.before_part = asked.append

        def pass_time(count: int) -> None:
            is_fast = pace == "fast" or (pace == "slow after all" and store.bytes_read < 4 << 20)
            bench.clock.advance(count / ((200 if is_fast else 20) << 20))

        store.after_read = pass_time
        save(bench.remote(store), tmp_path / "db")
        assert (tmp_path / "db").read_bytes() == in_wal_mode(data)
        assert store.bytes_read == len(data), "something was fetched twice"
        if pace == "fast":
            assert (store.gets, store.threads) == (1, {threading.get_ident()})
        else:
            assert store.gets == 4
            alone = (1 << 20) if pace == "slow" else (4 << 20)
            assert min(start for start, _ in asked) > alone, "what had come was fetched again"

    def test_a_moment_tells_nothing(self) -> None:
        """A fast stream may stand still for a moment; it is judged by what it does in a longer time."""
        mib = 1 << 20
        assert not transfer.is_slow(0, 0.049)
        assert not transfer.is_slow(5 * mib, 0.030)
        assert transfer.is_slow(5 * mib, 0.050)
        assert not transfer.is_slow(7 * mib, 0.050)

    def test_what_is_left_is_too_little_to_be_divided(self, bench: Bench, tmp_path: Path) -> None:
        """A stream that turns out to be slow near its end goes on alone; if it fails there, everything is fetched."""
        data = database(9000, sequence=1)
        bench.upload(data)
        bench.threshold, bench.is_slow = 2 << 20, lambda count, _: count > len(data) - (4 << 20)
        for cut_short in (0, 1):
            store = Watched(bench.bucket)
            asked: list[tuple[int, int]] = []
            store.before_part = asked.append
            store.cut_short_at, store.cut_short = len(data) - (1 << 20), cut_short
            save(bench.remote(store), tmp_path / f"db{cut_short}")
            assert (tmp_path / f"db{cut_short}").read_bytes() == in_wal_mode(data)
            assert (store.gets, store.open) == (1 + cut_short, 0)
            assert asked == []

    def test_a_checksum_that_is_wrong_at_the_end_is_about_all_of_it(self, bench: Bench, tmp_path: Path) -> None:
        """A large object that came in one stream, and then turns out to be damaged, leaves none of its bytes behind."""
        data = database(9000, sequence=1)
        bench.upload(data)
        bench.threshold, bench.is_slow = 1 << 20, transfer.is_slow
        damaged = Watched(bench.bucket)
        damaged.damage_once = True
        save(bench.remote(damaged), tmp_path / "db")
        assert (tmp_path / "db").read_bytes() == in_wal_mode(data)
        assert (damaged.gets, damaged.open, damaged.damage_once) == (2, 0, False)

    def test_a_stream_that_breaks_while_it_is_alone(self, bench: Bench, tmp_path: Path) -> None:
        """What it has brought is kept: the rest comes in parts."""
        data = database(9000, sequence=1)
        bench.upload(data)
        bench.threshold, bench.is_slow = 1 << 20, transfer.is_slow
        store = Watched(bench.bucket)
        asked: list[tuple[int, int]] = []
        store.before_part = asked.append
        store.cut_short_at, store.cut_short = 5 << 20, 1
        save(bench.remote(store), tmp_path / "db")
        assert (tmp_path / "db").read_bytes() == in_wal_mode(data)
        assert (store.gets, store.open) == (4, 0)
        assert min(start for start, _ in asked) > 5 << 20

    def test_small_object_needs_no_threads(self, tmp_path: Path) -> None:
        """A database below the threshold is read by the thread that asked."""
        bench = Bench()
        bench.upload(database(100, sequence=1))
        store = Watched(bench.bucket)
        save(bench.remote(store), tmp_path / "db")
        assert store.threads == {threading.get_ident()}

    def test_replaced_between_parts(self, bench: Bench, tmp_path: Path) -> None:
        """Parts of two versions never end up in one file: it begins again with the new version."""
        bench.upload(database(300, sequence=1))
        data = database(310, sequence=2)
        store = Watched(bench.bucket)
        fetched = bench.remote(store).fetch(open_stored)
        assert fetched is not None
        newer = bench.upload(data, sequence=2)
        with fetched:
            fetched.save(tmp_path / "db")
        assert fetched.version == newer
        assert (tmp_path / "db").read_bytes() == in_wal_mode(data)
        assert store.open == 0

    def test_server_that_ignores_the_condition(self, bench: Bench, tmp_path: Path) -> None:
        """The same where the server sends parts of the new version in spite of If-Match."""
        bench.upload(database(300, sequence=1))
        data = database(310, sequence=2)
        store = Watched(bench.bucket)
        store.ignores_if_match = True
        fetched = bench.remote(store).fetch(open_stored)
        assert fetched is not None
        bench.upload(data, sequence=2)
        with fetched:
            fetched.save(tmp_path / "db")
        assert (tmp_path / "db").read_bytes() == in_wal_mode(data)

    def test_replaced_all_the_time(self, bench: Bench, tmp_path: Path) -> None:
        """A database that is replaced faster than it can be read ends in an error, at the deadline."""
        version = bench.upload(database(300, sequence=1))
        store = Watched(bench.bucket)
        sequences = iter(range(2, 1_000_000))

        def replace_it(byte_range: tuple[int, int]) -> None:
            bench.bucket.put(KEY, database(300, sequence=next(sequences)))

        fetched = bench.remote(store).fetch(open_stored, version.commit)
        assert fetched is not None
        store.before_part = replace_it
        with fetched, pytest.raises(PreconditionFailedError):
            fetched.save(tmp_path / "db")
        assert list(tmp_path.iterdir()) == []
        assert store.open == 0

    @pytest.mark.parametrize("seed", range(30))
    def test_faults(self, bench: Bench, tmp_path: Path, seed: int) -> None:
        """Any request may fail, any body may end early: the file is the object, or there is none."""
        data = database(300, sequence=1)
        bench.upload(data)
        rates: Any = {"get": {Fault.TRUNCATED: 0.3, Fault.FAIL_BEFORE: 0.1, Fault.REFUSED: 0.1}}
        store = Watched(FaultyStore(bench.bucket, seed=seed, rates=rates))
        save(bench.remote(store), tmp_path / "db")
        assert (tmp_path / "db").read_bytes() == in_wal_mode(data)
        assert store.open == 0

    def test_one_part_that_cannot_be_had(self, bench: Bench, tmp_path: Path) -> None:
        """An error of any part is the error of the whole, also if the others were still under way."""
        bench.upload(database(300, sequence=1))
        store = Watched(bench.bucket)
        fetched = bench.remote(store).fetch(open_stored)
        assert fetched is not None
        store.before_part = failing(AccessDeniedError("403", url=URL))
        with fetched, pytest.raises(AccessDeniedError):
            fetched.save(tmp_path / "db")
        assert list(tmp_path.iterdir()) == []
        assert store.open == 0

    def test_first_stream_is_not_kept(self, bench: Bench, tmp_path: Path) -> None:
        """The stream that would bring the whole object is closed once it has brought its share."""
        bench.upload(database(300, sequence=1))
        store = Watched(bench.bucket)
        closed: list[bool] = []
        store.before_part = lambda byte_range: closed.append(store.first_closed.wait(10))
        save(bench.remote(store), tmp_path / "db")
        assert closed == [True] * 3

    def test_first_stream_that_fails(self, bench: Bench, tmp_path: Path) -> None:
        """Its share alone is fetched again, after it was closed, without the header that it had brought."""
        data = database(300, sequence=1)
        bench.upload(data)
        store = Watched(bench.bucket)
        fetched = bench.remote(store).fetch(open_stored)
        assert fetched is not None
        store.before_read = failing(StoreUnavailableError("reset", url=URL))
        main, starts = threading.get_ident(), []

        def note(byte_range: tuple[int, int]) -> None:
            if threading.get_ident() == main:
                starts.append((byte_range[0], store.first_closed.is_set()))
            else:
                fetched_again.wait(10)
            if byte_range[0] == 100:
                fetched_again.set()

        fetched_again = threading.Event()
        store.before_part = note
        with fetched:
            fetched.save(tmp_path / "db")
        assert starts == [(100, True)]
        assert (tmp_path / "db").read_bytes() == in_wal_mode(data)

    @pytest.mark.parametrize("where", [0, 3])
    def test_disk_full_in_a_part(
        self, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: list[transfer.Transfer], where: int
    ) -> None:
        """A full disk is the working copy's error in every thread, and the other threads give up."""
        bench.upload(database(300, sequence=1))
        real, share = os.pwrite, bench.bucket.head(KEY).size // 4

        def pwrite(fd: int, data: bytes, offset: int) -> int:
            if len(data) > 100 and offset // share == where:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(fd, data, offset)

        monkeypatch.setattr(os, "pwrite", pwrite)
        with pytest.raises(WorkingCopyError, match="No space"):
            save(bench.remote(), tmp_path / "db")
        assert list(tmp_path.iterdir()) == []
        assert parts[0]._stop.is_set()

    def test_a_part_that_gives_up_writes_no_more(self, bench: Bench) -> None:
        """Once another part has failed nothing more is read."""
        bench.upload(database(300, sequence=1))
        store = Watched(bench.bucket)
        stopped = threading.Event()
        stopped.set()
        target: Any = None
        with pytest.raises(transfer.Stopped):
            transfer.copy(store.get(KEY), target, 0, 100, stopped)
        assert store.bytes_read == 0

    def test_the_error_that_stopped_the_others_is_raised(
        self, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Of several parts that failed, those that only gave up are not asked why."""
        bench.upload(database(300, sequence=1))

        size = bench.bucket.head(KEY).size

        def fail(_self: transfer.Transfer, _start: int, stop: int) -> None:
            raise AccessDeniedError("403", url=URL) if stop == size else transfer.Stopped

        monkeypatch.setattr(transfer.Transfer, "_fetch", fail)
        with pytest.raises(AccessDeniedError):
            save(bench.remote(), tmp_path / "db")


class Watched:
    """A store that counts what is asked of it, and lets something happen first."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.lock = threading.Lock()
        self.open = self.gets = self.bytes_read = 0
        self.threads: set[int] = set()
        self.ignores_if_match = False
        self.before_get: Callable[[], object] = lambda: None
        self.before_part: Callable[[tuple[int, int]], object] = lambda byte_range: None
        self.conditions: list[str | None] = []
        self.first_closed = threading.Event()
        self.cut_short = self.cut_short_at = 0
        self.damage_once = False
        self.after_read: Callable[[int], object] = lambda count: None
        self.before_read: Callable[[], object] = lambda: None

    def get(self, key: str, *, if_match: str | None = None, byte_range: Any = None, **rest: Any) -> Any:
        """Count the request."""
        self.before_get()
        if byte_range is not None:
            self.before_part(byte_range)
            self.conditions.append(if_match)
        if self.ignores_if_match:
            if_match = None
        download = self.inner.get(key, if_match=if_match, byte_range=byte_range, **rest)
        with self.lock:
            self.gets += 1
            self.open += download is not None
            self.threads.add(threading.get_ident())
        return download and WatchedDownload(self, download)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class WatchedDownload:
    """Counts bytes, and whether it was closed, once."""

    def __init__(self, store: Watched, inner: Any) -> None:
        self.store, self.inner = store, inner
        self.info, self.length = inner.info, inner.length
        self.closed = False

    def read(self, size: int, /) -> bytes:
        """Count what is read."""
        hook, self.store.before_read = self.store.before_read, lambda: None  # once
        hook()
        if self.store.cut_short and self.store.bytes_read > self.store.cut_short_at:
            self.store.cut_short -= 1
            return b""
        data: bytes = self.inner.read(size)
        if self.store.damage_once:  # as a store with a checksum: noticed when the last byte is read
            data = data if len(data) < 1000 else data[:999] + b"?" + data[1000:]
            if self.store.bytes_read + len(data) == self.info.size:
                self.store.damage_once = False
                raise StoreUnavailableError("damaged", url=URL)
        with self.store.lock:
            self.store.bytes_read += len(data)
            self.store.after_read(len(data))
        return data

    def __enter__(self) -> Self:
        self.inner.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        assert not self.closed, "closed twice"
        self.closed = True
        self.inner.__exit__(*exc)
        with self.store.lock:
            self.store.open -= 1
        self.store.first_closed.set()
