"""``temaki copy``: a new database with the contents of another one, whatever happens to either of them meanwhile."""

from __future__ import annotations

import itertools
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pony.orm import Required, db_session

from temaki import Database
from temaki.cli.compact import compacted
from temaki.cli.convert import converted
from temaki.cli.copy import copied
from temaki.cli.results import Copied
from temaki.cli.target import Target
from temaki.cli.terminal import Terminal
from temaki.errors import (
    AccessDeniedError,
    ConflictError,
    CorruptDatabaseError,
    NotFoundError,
    StoreError,
    StoreUnavailableError,
)
from temaki.formats.choice import NAMES, by_number, open_stored
from temaki.formats.pages.format import StoredPages
from temaki.formats.pages.head import Head
from temaki.formats.pages.maintain import collect
from temaki.formats.pages.names import folder, key_of
from temaki.store import ObjectInfo, Store
from temaki.stores.memory import MemoryStore
from temaki.stores.wrapper import StoreWrapper
from temaki.testing import Fault, FaultyStore, Server
from temaki.testing.stores import fetch
from temaki.version import Version
from tests.integration._command import USERS, Commands, rows
from tests.integration.test_command_pages import make
from tests.threads import Background, in_thread, until

_KILOBYTES = 64 << 10
"""More than heads, probes and the first bytes of a file, and less than any database here."""

PLACES = ["folder", pytest.param("moto", marks=pytest.mark.server), pytest.param("seaweedfs", marks=pytest.mark.server)]
FORMATS = ["file", "pages"]


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Commands, str]:
    """Commands, and the URL of an empty bucket."""
    if request.param == "folder":
        (tmp_path / "bucket").mkdir()
        return Commands(tmp_path, {}), f"file://{tmp_path}/bucket"
    server: Server = request.getfixturevalue(request.param)
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return Commands(tmp_path, server.environment), f"s3://{server.bucket()}"


@pytest.fixture
def memory() -> Iterator[str]:
    """The URL of an empty bucket in memory."""
    MemoryStore.forget("copies")
    yield "memory://copies"
    MemoryStore.forget("copies")


def run(source: str, destination: str, *, store: Store | None = None) -> Copied:
    """Copy in this process; ``store`` is in front of the new database's."""
    target = Target(destination)
    if store is not None:
        target.store = store
        target.remote = target.remote_on(store)
    return copied(Target(source), target, Terminal(as_json=True))


def version_of(url: str) -> Version:
    """The stored version."""
    return Target(url).current()


def head_of(url: str) -> Head:
    """The stored head."""
    target = Target(url)
    with target.opened(target.remote) as stored:
        assert isinstance(stored, StoredPages)
        return stored.head


def objects_of(url: str) -> dict[str, str]:
    """All objects of a database, with their ETags."""
    target = Target(url)
    return {one.key: one.etag for one in target.store.list(target.key)}


def made(url: str, form: str) -> None:
    """A database of 600 rows; in pages it has a base, segments, a tail and condemned objects."""
    in_thread(lambda: make(url))
    if form == "file":
        converted(Target(url), "file", Terminal(as_json=True), yes=True)


def contents(url: str, path: Path) -> list[tuple[Any, ...]]:
    """All rows of a sound database."""
    path.unlink(missing_ok=True)
    target = Target(url)
    with target.opened(target.remote) as stored:
        stored.save(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return connection.execute("SELECT * FROM row ORDER BY id").fetchall()


def change(url: str, row: int, body: str, folder_: Path) -> None:
    """Store another version, with one row changed."""
    local = Target(url).fetch(folder_, name=f"{os.urandom(4).hex()}.sqlite")
    with closing(sqlite3.connect(local.path)) as connection:
        connection.execute("UPDATE row SET body = ? WHERE id = ?", (body, row))
        connection.commit()
    Target(url).publish(local.path, local.version)


def collected(url: str) -> int:
    """Delete all that is condemned, as a collection does an hour later; tells how many objects that were."""
    return len(collect(Target(url).remote.source, grace=-10).deleted)  # times in a head are rounded up


@pytest.mark.parametrize("place", PLACES, indirect=True)
@pytest.mark.parametrize("form", FORMATS)
def test_a_copy_is_a_database_of_its_own(place: tuple[Commands, str], form: str, tmp_path: Path) -> None:
    """It has the rows and the number of its original, and a lineage that begins with it. The original stays as it is.

    Whoever writes to one of the two changes nothing in the other.
    """
    temaki, bucket = place
    source, copy = f"{bucket}/app.sqlite", f"{bucket}/copy.sqlite"
    made(source, form)
    before, original = objects_of(source), version_of(source)
    done = temaki("copy", source, copy, "--json").json("copy")
    assert objects_of(source) == before
    new = version_of(copy)
    assert (done["version"]["commit"], done["original"]["commit"]) == (new.commit, original.commit)
    assert (done["url"], done["source"], done["format"]) == (copy, source, form)
    assert (new.sequence, new.size, new.format) == (original.sequence, original.size, NAMES[form])
    assert (new.lineage, new.complete) == ((new.commit,), True)
    assert new.commit not in original.lineage
    expected = contents(source, tmp_path / "source.sqlite")
    assert len(expected) == 600
    assert contents(copy, tmp_path / "copy.sqlite") == expected

    for url in (source, copy):
        change(url, 7, url, tmp_path)
    for url in (source, copy):
        assert (7, url) in contents(url, tmp_path / "written.sqlite")
    assert version_of(copy).lineage[1:] == (new.commit,)
    text = temaki("copy", source, f"{bucket}/another.sqlite").out
    for part in ("another.sqlite: version", f"a copy of {source}", f"format    {form}", "requests"):
        assert part in text


@pytest.mark.parametrize("place", PLACES, indirect=True)
def test_a_copy_in_pages_names_only_objects_of_its_own(place: tuple[Commands, str]) -> None:
    """Base and live segments under new names, and nothing else; no claim, nothing condemned, no earlier version."""
    _, bucket = place
    source, copy = f"{bucket}/app.sqlite", f"{bucket}/copy.sqlite"
    made(source, "pages")
    done = run(source, copy)
    old, new = head_of(source), head_of(copy)
    assert old.live
    assert old.condemned
    assert not new.named & old.named
    assert [(one.last, one.pages, one.size) for one in new.segments] == [
        (one.last, one.pages, one.size) for one in old.live
    ]
    assert (new.base.size, new.base.sequence, new.since) == (old.base.size, old.base.sequence, old.base.sequence)
    assert (new.tail, new.checksum, new.page_count) == (old.tail, old.checksum, old.page_count)
    assert (new.collection, new.condemned, new.gone, new.claim, new.edition) == (0, (), (), None, 0)
    target = Target(copy)
    assert set(objects_of(copy)) == {target.key, *(key_of(target.key, name) for name in new.named)}
    assert (done.within_store, done.objects) == (True, 1 + len(new.segments))
    assert done.copied == new.base.size + sum(one.size for one in new.segments)
    assert done.bytes_up + done.bytes_down < _KILOBYTES


@pytest.mark.parametrize(
    ("place", "form", "within"),
    [
        ("folder", "file", True),
        ("folder", "pages", True),
        pytest.param("seaweedfs", "file", True, marks=pytest.mark.server),
        pytest.param("seaweedfs", "pages", True, marks=pytest.mark.server),
    ],
    indirect=["place"],
)
def test_a_large_copy_moves_no_bytes_of_the_database(place: tuple[Commands, str], form: str, within: bool) -> None:
    """200 MB in one store: this machine sends and receives kilobytes. The copy is read back whole."""
    temaki, bucket = place
    source, copy = f"{bucket}/large.sqlite", f"{bucket}/copy.sqlite"
    path = temaki.home / "large.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE row (id INTEGER PRIMARY KEY, body)")
        connection.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50) "
            "INSERT INTO row SELECT i, randomblob(4 << 20) FROM n"
        )
        connection.commit()
        expected = connection.execute("SELECT id, body FROM row WHERE id IN (1, 29, 50)").fetchall()
    Target(source).publish(path, None, form=by_number(NAMES[form]))
    done = temaki("copy", source, copy, "--json").json("copy")
    assert done["copied"] > 200 << 20
    assert done["within_store"] == within
    assert done["bytes_up"] + done["bytes_down"] < _KILOBYTES
    target = Target(copy)
    path.unlink()
    with target.opened(target.remote) as stored:
        stored.save(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT id, body FROM row WHERE id IN (1, 29, 50)").fetchall() == expected


@pytest.mark.server
@pytest.mark.parametrize("place", ["moto"], indirect=True)
def test_a_store_whose_copies_ignore_conditions_is_found_out(place: tuple[Commands, str], tmp_path: Path) -> None:
    """Moto would overwrite the new database, and copy another version than was meant: the bytes pass through here.

    The probe leaves nothing behind.
    """
    _, bucket = place
    made(f"{bucket}/app.sqlite", "file")
    done = run(f"{bucket}/app.sqlite", f"{bucket}/copy.sqlite")
    assert (done.within_store, done.objects) == (False, 1)
    assert done.bytes_up >= done.version.size
    assert contents(f"{bucket}/copy.sqlite", tmp_path / "a") == contents(f"{bucket}/app.sqlite", tmp_path / "b")
    assert list(objects_of(f"{bucket}/copy.sqlite")) == ["copy.sqlite"]


@pytest.mark.server
@pytest.mark.parametrize("place", ["moto"], indirect=True)
@pytest.mark.parametrize("form", FORMATS)
def test_a_copy_between_stores_passes_through_this_machine(
    place: tuple[Commands, str], form: str, tmp_path: Path
) -> None:
    """From S3 into a folder, and back: the same rows, the same format, a database of its own."""
    temaki, bucket = place
    (tmp_path / "other").mkdir()
    urls = [f"{bucket}/app.sqlite", f"file://{tmp_path}/other/app.sqlite", f"{bucket}/back.sqlite"]
    made(urls[0], form)
    for source, copy in itertools.pairwise(urls):
        done = temaki("copy", source, copy, "--json").json("copy")
        assert (done["within_store"], done["format"]) == (False, form)
        assert version_of(copy).sequence == version_of(source).sequence
        assert len(version_of(copy).lineage) == 1
    assert contents(urls[0], tmp_path / "first.sqlite") == contents(urls[2], tmp_path / "last.sqlite")


@pytest.mark.parametrize("place", ["folder"], indirect=True)
@pytest.mark.parametrize("form", FORMATS)
def test_what_is_there_is_never_replaced(place: tuple[Commands, str], form: str) -> None:
    """A database, and also what is none. Exit code 3, a message with the way out, and nothing was written."""
    temaki, bucket = place
    made(f"{bucket}/app.sqlite", form)
    made(f"{bucket}/taken.sqlite", form)
    Target(bucket + "/other").store.put("other", b"no database")
    for name in ("taken.sqlite", "other"):
        before = objects_of(f"{bucket}/{name}")
        ran = temaki("copy", f"{bucket}/app.sqlite", f"{bucket}/{name}")
        assert ran.code == 3
        assert f"{bucket}/{name}" in ran.err
        assert "Choose another DST" in ran.err
        assert objects_of(f"{bucket}/{name}") == before


@pytest.mark.parametrize("place", ["folder"], indirect=True)
def test_what_cannot_be_copied(place: tuple[Commands, str]) -> None:
    """Nothing, an empty object, what is no database, and a database onto itself: the errors of all commands."""
    temaki, bucket = place
    store = Target(f"{bucket}/x").store
    store.put("empty", b"")
    store.put("text", b"no database" * 100)
    temaki.file("app.sqlite", *USERS)
    assert temaki("push", f"{bucket}/app.sqlite", "app.sqlite").code == 0
    for source, code, message in (
        ("missing", 4, "There is no database at"),
        ("empty", 1, "is no database"),
        ("text", 1, "not SQLite"),
    ):
        ran = temaki("copy", f"{bucket}/{source}", f"{bucket}/copy.sqlite")
        assert (ran.code, message in ran.err) == (code, True), ran.err
    ran = temaki("copy", f"{bucket}/app.sqlite", f"{bucket}/../bucket/app.sqlite")
    assert (ran.code, "to itself" in ran.err) == (2, True), ran.err
    assert temaki("copy", f"{bucket}/app.sqlite").code == 2
    assert "copy.sqlite" not in objects_of(f"{bucket}/copy.sqlite")
    ran = temaki("pull", f"{bucket}/app.sqlite", f"{bucket}/copy.sqlite")
    assert (ran.code, "temaki copy" in ran.err) == (2, True), ran.err


@pytest.mark.parametrize("place", ["folder"], indirect=True)
def test_a_file_of_another_tool_is_copied(place: tuple[Commands, str]) -> None:
    """As it is where it is what temaki would write; a file in WAL mode is made one. Both have a commit of their own."""
    temaki, bucket = place
    store = Target(f"{bucket}/x").store
    for name, mode, within in (("rollback", "DELETE", True), ("wal", "WAL", False)):
        temaki.file(f"{name}.sqlite", *USERS)
        with closing(sqlite3.connect(temaki.home / f"{name}.sqlite")) as connection:
            connection.execute(f"PRAGMA journal_mode={mode}")
            connection.execute("INSERT INTO user VALUES (3, 'Cy')")
            connection.commit()
        store.put(name, (temaki.home / f"{name}.sqlite").read_bytes())
        done = temaki("copy", f"{bucket}/{name}", f"{bucket}/{name}.copy", "--json").json("copy")
        assert done["within_store"] == within
        assert not version_of(f"{bucket}/{name}.copy").is_adopted
        assert temaki("pull", f"{bucket}/{name}.copy", f"{name}.copy").code == 0
        assert rows(temaki.home / f"{name}.copy") == [(1, "Ada"), (2, "Bob"), (3, "Cy")]


class Hooked(StoreWrapper):
    """Does something before some copies.

    Args:
        store: The store behind it.
        hook: Called before each copy, with its number, from 1 on.
    """

    copies = True

    def __init__(self, store: Store, hook: Callable[[int], object]) -> None:
        super().__init__(store)
        self._hook, self._lock, self.calls = hook, threading.Lock(), 0

    def copy(self, source: Store, info: ObjectInfo, key: str, **options: Any) -> str:
        """See :meth:`temaki.store.CopyingStore.copy`."""
        with self._lock:
            self.calls += 1
            self._hook(self.calls)
        return super().copy(source, info, key, **options)


def behind(bucket: str) -> MemoryStore:
    """The bucket in memory."""
    return MemoryStore.named(bucket.removeprefix("memory://"))


@pytest.mark.parametrize("form", FORMATS)
def test_a_source_that_changes_meanwhile_is_read_again(memory: str, form: str, tmp_path: Path) -> None:
    """A commit, and in pages also a fold and a collection that deletes what was about to be copied."""
    source = f"{memory}/app.sqlite"
    made(source, form)
    deleted: list[int] = []

    def meanwhile(number: int) -> None:
        if number <= 2:
            change(source, number, "changed", tmp_path)
            if form == "pages":
                deleted.append(collected(source))

    done = run(source, f"{memory}/copy.sqlite", store=Hooked(behind(memory), meanwhile))
    assert done.original.commit == version_of(source).commit
    assert done.within_store
    expected = contents(source, tmp_path / "source.sqlite")
    assert {expected[0], expected[1]} == {(1, "changed"), (2, "changed")}
    assert contents(f"{memory}/copy.sqlite", tmp_path / "copy.sqlite") == expected
    assert form == "file" or deleted[0] > 0


@pytest.mark.parametrize("form", FORMATS)
def test_a_source_that_never_stands_still(memory: str, form: str, tmp_path: Path) -> None:
    """After some attempts the command gives up. Nothing is stored, and the error says so."""
    source = f"{memory}/app.sqlite"
    made(source, form)

    def meanwhile(number: int) -> None:
        change(source, 1, f"changed {number}", tmp_path)
        if form == "pages":
            collected(source)

    with pytest.raises(StoreUnavailableError, match=r"8 times.*Nothing was stored"):
        run(source, f"{memory}/copy.sqlite", store=Hooked(behind(memory), meanwhile))
    with pytest.raises(NotFoundError):
        behind(memory).head("copy.sqlite")


def test_copies_beside_a_writer_and_a_compaction(tmp_path: Path) -> None:
    """A writer commits, folds and collects without any grace. Each copy is one version of it, whole and sound."""
    (tmp_path / "bucket").mkdir()
    source = f"file://{tmp_path}/bucket/app.sqlite"
    stop, commits = threading.Event(), [0]

    def write() -> None:
        db = Database()

        class Row(db.Entity):  # type: ignore[name-defined]
            body = Required(str)

        db.bind_s3(source, format="pages", compact="manual")
        db.generate_mapping(create_tables=True)
        with db_session:
            for _ in range(100):
                Row(body=f"{0:0100}")
        while not stop.is_set():
            commits[0] += 1
            with db_session:
                for row in Row.select():
                    row.body = f"{commits[0]:0100}" + os.urandom(200).hex()
            if commits[0] % 3 == 0:
                compacted(Target(source), Terminal(as_json=True), dry_run=False)
            collected(source)
        db.unbind()

    writer = Background(write)
    seen: set[str] = set()
    tried = 0
    try:
        while len(seen) < 20:
            tried += 1
            until(lambda before=commits[0]: commits[0] > before or not writer.is_running)  # type: ignore[misc]
            assert writer.is_running
            copy = f"file://{tmp_path}/bucket/copy-{tried}.sqlite"
            try:
                run(source, copy)
            except StoreUnavailableError:  # the writer was faster, eight times
                assert f"copy-{tried}.sqlite" not in objects_of(copy)
                continue
            found = contents(copy, tmp_path / "copy.sqlite")
            assert len({body[:100] for _, body in found}) == 1, "the copy has pages of two versions"
            seen.add(found[0][1][:100])
    finally:
        stop.set()
        writer.result()


@pytest.mark.parametrize("form", FORMATS)
def test_two_copies_to_one_place(memory: str, form: str, tmp_path: Path) -> None:
    """One wins. What the other has copied stays beside it as garbage, which a collection removes."""
    made(f"{memory}/one.sqlite", form)
    made(f"{memory}/two.sqlite", form)
    copy = f"{memory}/copy.sqlite"
    hooked = Hooked(behind(memory), lambda number: number == 1 and run(f"{memory}/two.sqlite", copy))
    with pytest.raises(ConflictError, match="Nothing was stored"):
        run(f"{memory}/one.sqlite", copy, store=hooked)
    winner = contents(copy, tmp_path / "copy.sqlite")
    assert winner == contents(f"{memory}/two.sqlite", tmp_path / "two.sqlite")
    if form == "pages":
        needed = {"copy.sqlite", *(key_of("copy.sqlite", name) for name in head_of(copy).named)}
        assert set(objects_of(copy)) > needed
        collected(copy)
        assert collected(copy) > 0
        assert set(objects_of(copy)) == needed
        assert contents(copy, tmp_path / "copy.sqlite") == winner


@pytest.mark.parametrize("form", FORMATS)
def test_leftovers_of_an_old_database_do_no_harm(memory: str, form: str, tmp_path: Path) -> None:
    """Names are random, so what is in the folder of a database that was removed is not touched."""
    made(f"{memory}/app.sqlite", form)
    made(f"{memory}/copy.sqlite", "pages")
    behind(memory).delete("copy.sqlite")
    left = objects_of(f"{memory}/copy.sqlite")
    assert left
    run(f"{memory}/app.sqlite", f"{memory}/copy.sqlite")
    assert objects_of(f"{memory}/copy.sqlite").items() >= left.items()
    assert contents(f"{memory}/copy.sqlite", tmp_path / "a") == contents(f"{memory}/app.sqlite", tmp_path / "b")


@pytest.mark.parametrize("fault", [Fault.LOST_REPLY, Fault.FAIL_BEFORE, Fault.CONFLICT_409, Fault.REFUSED])
@pytest.mark.parametrize("form", FORMATS)
def test_a_copy_whose_reply_is_lost_is_made_once(memory: str, form: str, fault: Fault, tmp_path: Path) -> None:
    """It is sent again, and a look tells that it has landed: no conflict with itself."""
    made(f"{memory}/app.sqlite", form)
    faulty = FaultyStore(behind(memory))
    if form == "file" or fault is not Fault.CONFLICT_409:  # an unconditional copy has none
        faulty.fail_next("copy", fault, None, fault)
    if form == "pages":
        faulty.fail_next("put", fault)
    done = run(f"{memory}/app.sqlite", f"{memory}/copy.sqlite", store=faulty)
    assert faulty.faults
    assert version_of(f"{memory}/copy.sqlite").commit == done.version.commit
    assert contents(f"{memory}/copy.sqlite", tmp_path / "a") == contents(f"{memory}/app.sqlite", tmp_path / "b")


def test_an_object_that_is_missing_or_another_is_named(memory: str) -> None:
    """Nothing replaced the head, so somebody has removed or replaced the object: the error of a pull."""
    source, store = f"{memory}/app.sqlite", behind(memory)
    made(source, "pages")
    base = key_of("app.sqlite", head_of(source).base.name)
    content = fetch(store, base)
    store.put(base, content + b"more")
    with pytest.raises(CorruptDatabaseError, match=base.rpartition("/")[2]):
        run(source, f"{memory}/copy.sqlite")
    store.delete(base)
    with pytest.raises(CorruptDatabaseError, match=base.rpartition("/")[2]):
        run(source, f"{memory}/copy.sqlite")
    with pytest.raises(NotFoundError):
        store.head("copy.sqlite")


_KILLED = """
import os, signal, sys
from temaki.cli.copy import copied
from temaki.cli.target import Target
from temaki.cli.terminal import Terminal
from temaki.stores.directory import DirectoryStore

left, put = int(sys.argv[3]), DirectoryStore._move_in

def killed(*arguments):
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    put(*arguments)

DirectoryStore._move_in = killed
copied(Target(sys.argv[1]), Target(sys.argv[2]), Terminal(as_json=True))
"""


@pytest.mark.parametrize("form", FORMATS)
def test_a_copy_that_is_killed_leaves_no_database(form: str, tmp_path: Path) -> None:
    """At each write: there is no new database, the original is as it was, and the next copy succeeds."""
    (tmp_path / "bucket").mkdir()
    source, copy = f"file://{tmp_path}/bucket/app.sqlite", f"file://{tmp_path}/bucket/copy.sqlite"
    made(source, form)
    before = objects_of(source)
    writes = 1 if form == "file" else 2 + len(head_of(source).live)
    for number in range(1, writes + 1):
        ran = subprocess.run([sys.executable, "-c", _KILLED, source, copy, str(number)], check=False, timeout=60)
        assert ran.returncode == -signal.SIGKILL
        assert "copy.sqlite" not in objects_of(copy)
        assert all(key.startswith(folder("copy.sqlite")) for key in objects_of(copy))
        assert objects_of(source) == before
    assert run(source, copy).within_store
    assert contents(copy, tmp_path / "a") == contents(source, tmp_path / "b")


def test_what_a_copy_reads_is_one_version(memory: str) -> None:
    """The command's own reading of the head and its copies agree with what a process pulls afterwards."""
    made(f"{memory}/app.sqlite", "pages")
    done = run(f"{memory}/app.sqlite", f"{memory}/copy.sqlite")
    stored = Target(f"{memory}/copy.sqlite").remote.fetch(open_stored)
    assert stored is not None
    with stored:
        assert stored.check() == done.objects


class Refusing(Hooked):
    """Answers each copy with an error.

    Args:
        store: The store behind it.
        error: Makes the error for the URL of a copy.
    """

    def __init__(self, store: Store, error: Callable[[str], StoreError]) -> None:
        super().__init__(store, lambda _: None)
        self._error = error

    def copy(self, source: Store, info: ObjectInfo, key: str, **options: Any) -> str:
        """See :meth:`temaki.store.CopyingStore.copy`."""
        raise self._error(f"{self.url}/{key}")


@pytest.mark.parametrize("form", FORMATS)
def test_a_server_that_has_no_copies(memory: str, form: str, tmp_path: Path) -> None:
    """Some imitate S3 without them (501): the bytes pass through this machine."""
    made(f"{memory}/app.sqlite", form)
    refusing = Refusing(behind(memory), lambda url: StoreError(f"{url}: not implemented", url=url, status=501))
    done = run(f"{memory}/app.sqlite", f"{memory}/copy.sqlite", store=refusing)
    assert not done.within_store
    assert done.format == form
    assert contents(f"{memory}/copy.sqlite", tmp_path / "a") == contents(f"{memory}/app.sqlite", tmp_path / "b")


@pytest.mark.parametrize("form", FORMATS)
def test_who_may_not_write_the_copy_is_told(memory: str, form: str) -> None:
    """The error names the object of the new database; in pages also the permissions for its folder."""
    made(f"{memory}/app.sqlite", form)
    refusing = Refusing(
        behind(memory),
        lambda url: AccessDeniedError(f"{url} is forbidden.", url=url, status=403, code="AccessDenied"),
    )
    expected = r"copy\.sqlite is forbidden" if form == "file" else r"s3:PutObject .* for copy\.sqlite\.pages/\*"
    with pytest.raises(AccessDeniedError, match=expected):
        run(f"{memory}/app.sqlite", f"{memory}/copy.sqlite", store=refusing)
    with pytest.raises(NotFoundError):
        behind(memory).head("copy.sqlite")
