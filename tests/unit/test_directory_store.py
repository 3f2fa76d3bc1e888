"""A folder as a bucket: what it promises beyond the conformance suite."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from temaki.errors import (
    AccessDeniedError,
    BucketNotFoundError,
    NotFoundError,
    PreconditionFailedError,
    StoreError,
    StoreUnavailableError,
)
from temaki.stores import directory, filesystem, sidecar
from temaki.stores.directory import DirectoryStore
from temaki.testing.stores import fetch
from temaki.testing.threads import in_parallel

KEY = "app.sqlite"


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    """An empty folder."""
    return DirectoryStore(tmp_path)


def _leftovers(folder: Path) -> list[str]:
    """What is in the state folders besides locks."""
    return [path.name for path in folder.glob(".temaki/*/*") if path.name != "lock"]


# Plain files.


def test_the_object_is_a_plain_file(store: DirectoryStore) -> None:
    """Any tool can open the object; nobody else on the machine can read it, nor what is beside it."""
    store.put("deep/er/app.sqlite", b"contents")
    path = store.folder / "deep/er/app.sqlite"
    assert path.read_bytes() == b"contents"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for found in (store.folder / ".temaki").rglob("*"):
        assert stat.S_IMODE(found.stat().st_mode) == (0o700 if found.is_dir() else 0o600), found
    assert stat.S_IMODE((store.folder / ".temaki").stat().st_mode) == 0o700


def test_one_sidecar_is_left(store: DirectoryStore) -> None:
    """Old versions leave nothing behind, and a delete leaves no sidecar and no empty folder."""
    for number in range(5):
        store.put("a/b/c", str(number).encode())
    assert len(_leftovers(store.folder)) == 1
    store.delete("a/b/c")
    assert _leftovers(store.folder) == []
    assert sorted(path.name for path in store.folder.iterdir()) == [".temaki"]
    store.put("a", b"now a file")
    assert fetch(store, "a") == b"now a file"


def test_a_foreign_file_is_an_object(store: DirectoryStore) -> None:
    """A file that was copied there has an ETag of its own, no metadata, and can be swapped."""
    (store.folder / KEY).write_bytes(b"foreign")
    info = store.head(KEY)
    assert dict(info.metadata) == {}
    assert info.etag == store.head(KEY).etag
    assert store.get(KEY, if_none_match=info.etag) is None
    with pytest.raises(PreconditionFailedError):
        store.put(KEY, b"x", if_none_match=True)
    store.put(KEY, b"ours", if_match=info.etag)
    assert fetch(store, KEY) == b"ours"


def test_a_file_that_another_tool_overwrites_is_another_version(store: DirectoryStore, tmp_path: Path) -> None:
    """Bytes that another tool wrote do not pass for the version whose sidecar is there."""
    etag = store.put(KEY, b"ours", metadata={"a": "b"})
    (store.folder / KEY).write_bytes(b"another tool's")
    assert store.head(KEY).etag != etag
    assert dict(store.head(KEY).metadata) == {}
    with pytest.raises(PreconditionFailedError):
        store.put(KEY, b"x", if_match=etag)


def test_a_swap_sees_another_tool_until_the_last_moment(store: DirectoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that appears while the new version is being written is not overwritten."""
    etag = store.put(KEY, b"ours")

    def interfere(path: Path) -> None:
        (store.folder / KEY).write_bytes(b"another tool's")

    monkeypatch.setattr(directory, "sync_folder", interfere)
    with pytest.raises(PreconditionFailedError):
        store.put(KEY, b"new", if_match=etag)
    assert (store.folder / KEY).read_bytes() == b"another tool's"


def test_a_file_that_is_changed_while_it_is_read(store: DirectoryStore) -> None:
    """A body that another tool changes, or cuts, meanwhile ends in an error, and never in a mixture."""
    for change in (lambda path: path.write_bytes(b"b" * 100), lambda path: os.truncate(path, 30)):
        store.put(KEY, b"a" * 100)
        download = store.get(KEY)
        assert download is not None
        with download, pytest.raises(StoreUnavailableError):  # noqa: PT012 - which read notices is not the point
            assert download.read(20) == b"a" * 20
            change(store.folder / KEY)
            while download.read(50):
                pass


def test_a_download_keeps_its_version(store: DirectoryStore) -> None:
    """What was opened is read to its end, whatever is put or deleted meanwhile."""
    store.put(KEY, b"old" * 100)
    download = store.get(KEY)
    assert download is not None
    store.put(KEY, b"new")
    store.delete(KEY)
    with download:
        assert download.read(1_000) == b"old" * 100


def test_a_reader_that_loses_the_race_for_the_sidecar_starts_again(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file that was opened is replaced before its sidecar is read: the answer is the new version, whole."""
    store.put(KEY, b"old", metadata={"version": "old"})
    read_sidecar = sidecar.read_sidecar
    writer = DirectoryStore(store.folder)

    def late(path: Path, url: str) -> tuple[str, dict[str, str]]:
        monkeypatch.undo()
        writer.put(KEY, b"new", metadata={"version": "new"})
        return read_sidecar(path, url)

    monkeypatch.setattr(directory, "read_sidecar", late)
    download = store.get(KEY)
    assert download is not None
    with download:
        assert download.info.metadata["version"] == "new"
        assert download.read(100) == b"new"


def test_a_damaged_sidecar_is_an_error(store: DirectoryStore) -> None:
    """Metadata that cannot be read are not taken for none: the message says which file to remove."""
    store.put(KEY, b"x", metadata={"a": "b"})
    (sidecar,) = store.folder.glob(".temaki/*/*-*")
    assert json.loads(sidecar.read_text())["metadata"] == {"a": "b"}
    sidecar.write_text("{")
    with pytest.raises(StoreError, match=str(sidecar)) as caught:
        store.head(KEY)
    assert not isinstance(caught.value, NotFoundError)


# The bucket and the keys.


def test_a_missing_folder_is_a_missing_bucket(tmp_path: Path) -> None:
    """A folder that does not exist, or vanishes, is never an empty bucket; the message says how to make it."""
    folder = tmp_path / "data"
    store = DirectoryStore(folder)
    with pytest.raises(BucketNotFoundError, match="mkdir -p"):
        store.get(KEY)
    folder.mkdir()
    store.put(KEY, b"x")
    shutil.rmtree(folder)
    for ask in (lambda: store.get(KEY), lambda: store.put(KEY, b"x"), lambda: list(store.list())):
        with pytest.raises(BucketNotFoundError):
            ask()
    assert not folder.exists()
    folder.write_bytes(b"a file")
    with pytest.raises(BucketNotFoundError):
        store.head(KEY)


@pytest.mark.parametrize("key", ["../x", "a/../../x", "a//b", "/etc/x", "a/", "./a", "a\0b", ".temaki/x", ".Temaki"])
def test_a_key_stays_in_its_folder(store: DirectoryStore, key: str) -> None:
    """A key that would leave the folder, or reach what belongs to temaki, is refused by each verb."""
    asks: list[Callable[[], object]] = [
        lambda: store.put(key, b"x"),
        lambda: store.get(key),
        lambda: store.head(key),
        lambda: store.delete(key),
    ]
    for ask in asks:
        with pytest.raises(StoreError, match="cannot have an object") as caught:
            ask()
        assert not isinstance(caught.value, NotFoundError)


def test_what_is_no_plain_file_is_an_error(store: DirectoryStore) -> None:
    """A folder, a FIFO or a dangling link where the object should be is an error, and not a missing object."""
    (store.folder / "folder").mkdir()
    os.mkfifo(store.folder / "fifo")
    (store.folder / "link").symlink_to(store.folder / "not mounted")
    (store.folder / "linked").symlink_to(store.folder / "not mounted")
    (store.folder / "file").write_bytes(b"")
    for key in ("folder", "fifo", "link", "linked/app.sqlite", "file/app.sqlite", "n" * 300):
        for ask in (store.get, store.head):
            with pytest.raises(StoreError) as caught:
                ask(key)
            assert not isinstance(caught.value, NotFoundError), key
    for key in ("folder", "file/app.sqlite", "n" * 300):
        with pytest.raises(StoreError):
            store.put(key, b"x")
    assert [info.key for info in store.list()] == ["file"]
    assert _leftovers(store.folder) == []


def test_names_that_are_not_utf8_are_not_listed(store: DirectoryStore) -> None:
    """A file whose name cannot be a key does not break the listing."""
    store.put("a", b"x")
    with open(os.fsencode(store.folder) + b"/\xff", "wb"):
        pass
    assert [info.key for info in store.list()] == ["a"]


# What the disk may answer.


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE])
@pytest.mark.parametrize("step", ["write_durably", "sync_folder"])
def test_a_write_that_fails_before_the_rename(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch, code: int, step: str
) -> None:
    """No space, no quota, a broken disk: nothing has changed, that is certain, and nothing is left behind."""
    etag = store.put(KEY, b"old")

    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(directory, step, fail)
    with pytest.raises(StoreUnavailableError, match=errno.errorcode[code]) as caught:
        store.put(KEY, b"new", if_match=etag)
    assert not caught.value.ambiguous
    monkeypatch.undo()
    assert fetch(store, KEY) == b"old"
    assert store.head(KEY).etag == etag
    store.put(KEY, b"newer", if_match=etag)
    assert len(_leftovers(store.folder)) == 1


def test_a_write_that_fails_after_the_rename(store: DirectoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that cannot be synced after the rename: others may have seen the new version, so it is ambiguous."""
    store.put(KEY, b"old")
    synced: list[Path] = []

    def fail_second(path: Path) -> None:
        synced.append(path)
        if path == store.folder:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(directory, "sync_folder", fail_second)
    with pytest.raises(StoreUnavailableError) as caught:
        store.put(KEY, b"new")
    assert caught.value.ambiguous
    monkeypatch.undo()
    assert fetch(store, KEY) == b"new"
    assert len(synced) == 2


def test_a_full_disk(store: DirectoryStore) -> None:
    """A real limit on the size of files, in a process of its own: an error of temaki's, and the old version stays."""
    store.put(KEY, b"old")
    code = f"""
import resource, signal
from temaki.errors import StoreUnavailableError
from temaki.stores.directory import DirectoryStore
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    DirectoryStore({str(store.folder)!r}).put({KEY!r}, b"x" * 200_000)
except StoreUnavailableError as error:
    print(error.ambiguous, error.code)
"""
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout == b"False EFBIG\n"
    assert fetch(store, KEY) == b"old"
    assert len(_leftovers(store.folder)) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_without_permission(tmp_path: Path) -> None:
    """What the system forbids is AccessDeniedError, and neither a missing object nor a missing bucket."""
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents[:-2]:
        parent.chmod(parent.stat().st_mode | 0o055)
    store = DirectoryStore(tmp_path)
    store.put(KEY, b"secret")
    child = os.fork()
    if child == 0:
        denied = 0
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            for ask in (
                lambda: store.get(KEY),
                lambda: store.head(KEY),
                lambda: store.put(KEY, b"x"),
                lambda: store.put("other", b"x"),
                lambda: store.delete(KEY),
                lambda: list(store.list()),
            ):
                try:
                    ask()
                except AccessDeniedError:
                    denied += 1
        finally:
            os._exit(denied)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 6


def test_every_step_is_synced_before_the_next(store: DirectoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Power may fail at any point: file, sidecar and the sidecar's name are on disk before the rename, which is
    on disk before put() returns.
    """
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def record_fsync(handle: int) -> None:
        kind = "folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file"
        steps.append(f"sync {kind}")
        fsync(handle)

    def record_replace(path: Path, target: Path) -> Path:
        steps.append("rename")
        return replace(path, target)

    store.put(KEY, b"old")
    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(Path, "replace", record_replace)
    store.put(KEY, b"new")
    assert steps == ["sync file", "sync file", "sync folder", "rename", "sync folder"]


# Other processes.

_WRITER = """
import itertools, sys
from temaki.stores.directory import DirectoryStore
store = DirectoryStore(sys.argv[1])
print("ready", flush=True)
for number in itertools.count(int(sys.argv[2])):
    store.put("app.sqlite", bytes([number % 251]) * (1000 + number % 5 * 20000), metadata={"number": str(number)})
    print(number, flush=True)
"""


def test_kill_at_any_moment(store: DirectoryStore) -> None:
    """A writer that is killed again and again leaves whole versions: the last acknowledged one, or the next.

    Bytes, metadata and ETag belong together after every kill, and what crashed writers left goes with the next write.
    """
    chance = random.Random(1)
    number = 0
    for _ in range(15):
        writer = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(store.folder), str(number + 1)], stdout=subprocess.PIPE
        )
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(chance.uniform(0, 0.02))  # how far it gets is what is being varied
        writer.send_signal(signal.SIGKILL)
        lines = writer.stdout.read().split(b"\n")
        writer.wait()
        writer.stdout.close()
        acknowledged = int(lines[-2]) if len(lines) > 1 else number
        if acknowledged or (store.folder / KEY).exists():
            info = store.head(KEY)
            number = int(info.metadata["number"])
            assert number in {acknowledged, acknowledged + 1}
            assert fetch(store, KEY, if_match=info.etag) == bytes([number % 251]) * (1_000 + number % 5 * 20_000)
    assert number
    store.put(KEY, b"the end", if_match=store.head(KEY).etag)
    assert len(_leftovers(store.folder)) == 1


@pytest.mark.parametrize("step", ["write", "sidecar", "synced", "renamed", "swept"])
def test_kill_at_each_step(store: DirectoryStore, step: str) -> None:
    """A writer that dies at a given step leaves the old version before the rename, and the new one after it."""
    old = store.put(KEY, b"old", metadata={"v": "old"})
    child = os.fork()
    if child == 0:
        _die_at(step)
        store.put(KEY, b"new!", metadata={"v": "new"}, if_match=old)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    expected = "new" if step in {"renamed", "swept"} else "old"
    info = store.head(KEY)
    assert dict(info.metadata) == {"v": expected}
    assert fetch(store, KEY, if_match=info.etag) == (b"new!" if expected == "new" else b"old")
    assert (info.etag == old) == (expected == "old")
    store.put(KEY, b"next", if_match=info.etag)
    assert len(_leftovers(store.folder)) == 1


def _die_at(step: str) -> None:
    """In a child: let the next put end with SIGKILL."""
    write_durably, sync_folder, calls = filesystem.write_durably, filesystem.sync_folder, {"write": 0, "sync": 0}
    patch = pytest.MonkeyPatch()

    def die(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def write(path: Path, body: bytes) -> os.stat_result:
        calls["write"] += 1
        facts = write_durably(path, body)
        if (step, calls["write"]) in {("write", 1), ("sidecar", 2)}:
            die()
        return facts

    def sync(path: Path) -> None:
        calls["sync"] += 1
        sync_folder(path)
        if (step, calls["sync"]) in {("synced", 1), ("renamed", 2)}:
            die()

    patch.setattr(directory, "write_durably", write)
    patch.setattr(sidecar, "write_durably", write)
    patch.setattr(directory, "sync_folder", sync)
    if step == "swept":
        patch.setattr(directory, "sweep", die)


_COUNTER = """
import sys
from temaki.errors import PreconditionFailedError
from temaki.stores.directory import DirectoryStore
store = DirectoryStore(sys.argv[1])
for _ in range(40):
    while True:
        download = store.get("app.sqlite")
        with download:
            number = int(download.read(100))
        try:
            store.put("app.sqlite", str(number + 1).encode(), if_match=download.info.etag)
            break
        except PreconditionFailedError:
            pass
"""


def test_processes_lose_no_update(store: DirectoryStore) -> None:
    """Processes that read, add one and swap: the sum is exact."""
    store.put(KEY, b"0")
    processes = [subprocess.Popen([sys.executable, "-c", _COUNTER, str(store.folder)]) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert fetch(store, KEY) == b"120"


def test_a_writer_does_not_wait_for_ever(store: DirectoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that another process keeps is an error after a while, and then nothing was written."""
    store.put(KEY, b"old")
    (lock,) = store.folder.glob(".temaki/*/lock")
    now = iter(range(0, 1_000, 10))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(now)))
    with store._locks.hold(lock, "test"), pytest.raises(StoreUnavailableError, match="locked") as caught:
        DirectoryStore(store.folder, lock_timeout=15).put(KEY, b"new")
    assert not caught.value.ambiguous
    assert fetch(store, KEY) == b"old"


def test_a_child_does_not_keep_its_parents_lock(store: DirectoryStore) -> None:
    """A child that was forked while a thread was writing holds no lock: not even when its parent is killed."""
    store.put(KEY, b"x")
    (lock,) = store.folder.glob(".temaki/*/lock")
    script = f"""
import os, sys, time
from pathlib import Path
from temaki.stores.directory import DirectoryStore
store = DirectoryStore({str(store.folder)!r})
with store._locks.hold(Path({str(lock)!r}), "test"):
    child = os.fork()
    if child == 0:
        print(os.getpid(), flush=True)
        sys.stdin.read()
        os._exit(0)
    os.waitpid(child, 0)
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert parent.stdin is not None
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    try:
        parent.kill()
        parent.wait()
        os.kill(child, 0)  # it is alive
        DirectoryStore(store.folder, lock_timeout=5).put(KEY, b"after the parent's death")
    finally:
        parent.stdin.close()
        parent.stdout.close()
    assert fetch(store, KEY) == b"after the parent's death"


def test_different_keys_do_not_wait_for_each_other(store: DirectoryStore) -> None:
    """The lock is the key's own; deletes that remove a folder do not disturb writes that need it."""
    errors: list[BaseException] = []
    ended = threading.Event()

    def churn(name: str) -> None:
        try:
            for number in range(60):
                store.put(f"shared/folder/{name}", str(number).encode())
                store.delete(f"shared/folder/{name}")
        except BaseException as error:
            errors.append(error)
        finally:
            ended.set()

    in_parallel([lambda name=name: churn(name) for name in "abc"])  # type: ignore[misc]
    assert errors == []
    assert ended.is_set()
    assert not (store.folder / "shared").exists()
