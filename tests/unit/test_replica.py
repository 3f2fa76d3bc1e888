"""`temaki.replica.replica`: sessions begin in the current generation; an old one lives until they have left it."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from pathlib import Path

import pytest

from temaki.errors import ConfigurationError, CorruptDatabaseError
from temaki.replica.connection import Connection
from temaki.replica.generation import Generation
from temaki.replica.replica import Replica
from temaki.replica.writer import WriterLock
from tests.threads import PATIENCE, Background, in_thread
from tests.versions import URL, begin, connect, read, save, version, write


@pytest.fixture
def replica() -> Replica:
    """One with version 1, of value 10."""
    replica = Replica(URL, None)
    assert replica.base() is None
    install(replica, 1)
    return replica


def install(replica: Replica, number: int) -> Generation:
    """Pull version ``number``, of value ``10 * number``."""
    path = save(replica.next_path(), 10 * number, number)
    before = replica.current
    assert replica.install(path, version(number), instead_of=before, at=None if before is None else before.version)
    assert replica.current is not None
    return replica.current


def enter(replica: Replica) -> Generation:
    """Begin a session."""
    generation = replica.enter()
    assert generation is not None
    return generation


def files(generation: Generation) -> list[str]:
    """What is there of it."""
    return sorted(path.name for path in generation.path.parent.glob(f"{generation.path.name}*"))


class TestGenerations:
    """A pull never changes a file that a session is reading."""

    def test_old_sessions_finish_on_the_old_file(self, replica: Replica) -> None:
        """They read what they began with; new ones the new version; the file goes with the last of them."""
        old = [enter(replica), enter(replica)]
        readers = [connect(generation) for generation in old]
        readers[0].pin()
        install(replica, 2)
        new = enter(replica)
        assert [read(readers[0]), read(readers[1]), read(connect(new))] == [10, 10, 20]
        replica.exit(old[0])
        assert read(readers[1]) == 10
        assert files(old[1])
        readers[1].busy = False
        replica.exit(old[1])
        assert (files(old[1]), readers[1].closed) == ([], True)
        assert files(new)

    def test_unused_generation_is_removed_at_once(self, replica: Replica) -> None:
        """Where no session is in it, with its WAL and shared memory."""
        old = replica.current
        assert old is not None
        write(connect(old, busy=False), 11)
        assert files(old) == [old.path.name, f"{old.path.name}-wal"]  # the wal-index has no name: see Generation
        install(replica, 2)
        assert files(old) == []

    def test_idle_connections_of_all_threads_are_closed_at_once(self, replica: Replica) -> None:
        """Other threads' pooled ones too, while a session still reads: only that one's stays."""
        generation = enter(replica)
        idle = in_thread(lambda: connect(generation, busy=False))
        busy = connect(generation)
        install(replica, 2)
        assert (idle.closed, busy.closed, read(busy)) == (True, False, 10)
        assert not generation.abandoned

    def test_current_generation_outlives_its_sessions(self, replica: Replica) -> None:
        """The next session finds it, and the pooled connection too."""
        generation = enter(replica)
        connection = connect(generation, busy=False)
        replica.exit(generation)
        assert (enter(replica) is generation, connection.closed, read(connection)) == (True, False, 10)

    def test_descriptors_do_not_pile_up(self, replica: Replica) -> None:
        """A replaced generation leaves nothing open."""
        install(replica, 2)
        before = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
        for number in range(3, 30):
            connect(enter(replica), busy=False)
            replica.exit(install(replica, number))
        after = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
        assert after <= before + 5 * 3


class TestInstall:
    """A pull counts only if the current generation is the one that it was asked from."""

    def test_late_answer_is_dropped(self, replica: Replica) -> None:
        """Another one came first: it stays, and the late file is removed."""
        asked_from = replica.current
        newer = install(replica, 3)
        late = save(replica.next_path(), 20, 2)
        assert not replica.install(late, version(2), instead_of=asked_from, at=version(1))
        assert (replica.current is newer, late.exists()) == (True, False)

    def test_first_pull_twice_keeps_the_first(self) -> None:
        """Also where there was nothing to ask from."""
        replica = Replica(URL, None)
        replica.base()
        first = install(replica, 1)
        second = save(replica.next_path(), 20, 2)
        assert not replica.install(second, version(2), instead_of=None, at=None)
        assert replica.current is first

    def test_answer_older_than_this_process_s_own_commits_is_dropped(self, replica: Replica) -> None:
        """A commit moves the generation on in place: what was asked before it may be older than what is here."""
        asked_from = enter(replica)
        asked_from.version = version(3)
        late = save(replica.next_path(), 20, 2)
        assert not replica.install(late, version(2), instead_of=asked_from, at=version(1))
        assert (replica.current is asked_from, late.exists()) == (True, False)
        again = save(replica.next_path(), 10, 1)
        assert not replica.confirm(again, asked_from, at=version(1))

    def test_older_sequence_is_followed(self, replica: Replica) -> None:
        """Numbers do not decide: a restore goes back."""
        install(replica, 7)
        assert read(connect(install(replica, 2))) == 20

    def test_garbage_is_not_installed(self, replica: Replica) -> None:
        """A good header over garbage raises, leaves the current generation and no file."""
        before = enter(replica)
        path = save(replica.next_path(), 20, 2)
        data = path.read_bytes()
        path.write_bytes(data[:100] + b"\xff" * (len(data) - 100))
        with pytest.raises(CorruptDatabaseError, match=URL):
            replica.install(path, version(2), instead_of=before, at=version(1))
        assert (replica.current is before, read(connect(before))) == (True, 10)
        assert not list(path.parent.glob(f"{path.name}*"))

    def test_confirm_needs_the_same_generation(self, replica: Replica) -> None:
        """A download of what is there already is dropped, but only for the generation that it was asked from."""
        asked_from = enter(replica)
        path = save(replica.next_path(), 10, 1)
        assert replica.confirm(path, asked_from, at=version(1))
        assert not path.exists()
        install(replica, 2)
        path = save(replica.next_path(), 10, 1)
        assert not replica.confirm(path, asked_from, at=version(1))


class TestAbandoning:
    """After a refused commit nothing begins where it was made."""

    def test_next_session_has_to_pull(self, replica: Replica) -> None:
        """There is no current generation; sessions in the old one may finish, and its file goes with them."""
        generation = enter(replica)
        reader = connect(generation)
        reader.pin()
        with replica.committing:
            replica.abandon(generation)
        assert (replica.enter(), generation.abandoned, read(reader)) == (None, True, 10)
        replica.exit(generation)
        assert files(generation) == []

    def test_twice_is_once(self, replica: Replica) -> None:
        """Two sessions of one generation may both fail."""
        generation = enter(replica)
        with replica.committing:
            replica.abandon(generation)
            newer = install(replica, 2)
            replica.abandon(generation)
        assert replica.current is newer
        replica.exit(generation)
        assert (files(generation), replica.current is newer) == ([], True)


def in_session() -> Connection:
    """A connection that a session is using."""
    connection = sqlite3.connect(":memory:", factory=Connection, check_same_thread=False)
    connection.session = object()
    return connection


def writing() -> Connection:
    """A connection with a session."""
    connection = sqlite3.connect(":memory:", factory=Connection)
    OPEN.append(connection)  # the lock keeps one, and no warning is wanted for the others
    connection.session = object()
    return connection


OPEN: list[Connection] = []


class TestWriterLock:
    """One writer per URL and process."""

    def test_leftover_of_an_interrupt_is_cleared(self) -> None:
        """A session that ended without giving the lock back, or was never told that it has it, keeps nobody out."""
        lock, ended = WriterLock(URL), writing()
        lock.acquire(ended)
        ended.session = None
        lock.acquire(writing())
        lock.release()
        lock.acquire(ended)
        lock._writing = None  # struck between the taking of the lock and the noting of the writer
        lock.release(ended)
        in_thread(lambda: lock.acquire(writing()))

    def test_leftover_of_a_dead_thread_is_no_writer(self, caplog: pytest.LogCaptureFixture) -> None:
        """Its number is this thread's now. The log says what became of it, and its transaction is rolled back."""
        lock, dead, alive = WriterLock(URL), in_session(), in_session()
        dead.execute("CREATE TABLE t (x)")
        lock.acquire(dead)
        lock._thread = threading.Thread()
        lock.acquire(alive)
        assert dead.closed
        assert [URL in line and "ended within a db_session" in line for line in caplog.messages] == [True]
        with pytest.raises(ConfigurationError, match="already writing"):
            lock.acquire(in_session())
        lock.release(alive)
        in_thread(lambda: lock.acquire(alive))

    def test_waiting_for_oneself_is_an_error(self) -> None:
        """Not a hang: the message names the URL and the way out. The session that has it still is the writer."""
        lock, mine, second = WriterLock(URL), in_session(), in_session()
        lock.acquire(mine)
        for _ in range(2):
            with pytest.raises(ConfigurationError, match=rf"already writing to {URL}.*one Database per URL"):
                lock.acquire(second)
        lock.release(mine)
        in_thread(lambda: lock.acquire(second))

    @pytest.mark.parametrize("same", [True, False])
    def test_leftover_of_a_session_that_is_over_is_no_writer(self, same: bool) -> None:
        """An interrupt came before it was given back: the thread's next writer takes it, and gives it back once."""
        lock, left = WriterLock(URL), in_session()
        lock.acquire(left)
        left.session = None
        taker = left if same else in_session()
        lock.acquire(taker)
        lock.release(taker)
        in_thread(lambda: lock.acquire(taker))

    def test_writers_wait_for_each_other(self) -> None:
        """Another thread gets it when it is released, and not before."""
        lock, mine, theirs = WriterLock(URL), in_session(), in_session()
        order: list[str] = []
        lock.acquire(mine)
        asking = threading.Event()

        def other() -> None:
            asking.set()
            lock.acquire(theirs)
            order.append("other")
            lock.release(theirs)

        waiting = Background(other)
        assert asking.wait(PATIENCE)
        order.append("me")
        lock.release(mine)
        waiting.result()
        assert order == ["me", "other"]

    def test_only_the_writer_releases(self) -> None:
        """A release by another thread or another session, or a second one, changes nothing."""
        lock, mine, second = WriterLock(URL), in_session(), in_session()
        lock.acquire(mine)
        in_thread(lambda: lock.release(mine))
        lock.release(second)
        with pytest.raises(ConfigurationError):
            lock.acquire(second)
        lock.release(mine)
        lock.release(mine)
        lock.acquire(second)


class TestCleanRecord:
    """With a ``cache_dir``, what an earlier process left is trusted only if it said that it is clean."""

    def test_taken_over(self, tmp_path: Path) -> None:
        """An installed version is found again, without a download."""
        first = Replica(URL, tmp_path)
        first.base()
        path = install(first, 3).path
        left = leave(first, tmp_path)
        second = Replica(URL, left)
        found = second.base()
        assert found is not None
        assert (found.path.name, found.version, second.known) == (path.name, version(3), True)
        assert read(connect(found)) == 30

    def test_withdrawn_before_a_local_commit(self, tmp_path: Path) -> None:
        """From then on the file may hold what no store has accepted: the next process takes nothing over."""
        replica = Replica(URL, tmp_path)
        replica.base()
        generation = install(replica, 1)
        connection = connect(generation)
        record = next(tmp_path.rglob("clean.json"))
        seen: list[bool] = []
        connection.set_trace_callback(lambda sql: seen.append(record.exists()) if sql.startswith("COMMIT") else None)
        write_through(replica, connection)
        assert seen == [False]
        assert Replica(URL, leave(replica, tmp_path)).base() is None

    def test_written_again_once_all_is_acknowledged_and_checkpointed(self, tmp_path: Path) -> None:
        """Not while a pinned reader keeps the checkpoint from being complete."""
        replica = Replica(URL, tmp_path)
        replica.base()
        generation = install(replica, 1)
        reader, writer = connect(generation), connect(generation)
        reader.pin()
        write_through(replica, writer)
        acknowledge(replica, generation, 2)
        assert not list(tmp_path.rglob("clean.json"))
        reader.end_transaction()
        write_through(replica, writer)
        acknowledge(replica, generation, 3)
        found = Replica(URL, leave(replica, tmp_path)).base()
        assert found is not None
        assert (found.version, read(connect(found))) == (version(3), 12)

    def test_withdrawn_with_an_abandoned_generation(self, tmp_path: Path) -> None:
        """Its file goes as well."""
        replica = Replica(URL, tmp_path)
        replica.base()
        with replica.committing:
            replica.abandon(install(replica, 1))
        assert not list(tmp_path.rglob("*.sqlite*")) + list(tmp_path.rglob("clean.json"))


def write_through(replica: Replica, connection: Connection) -> None:
    """A local commit of one more, as a session makes it."""
    begin(connection)
    connection.cursor().execute("UPDATE t SET value = value + 1")
    with replica.committing:
        replica.commit_locally(connection)


def acknowledge(replica: Replica, generation: Generation, number: int) -> None:
    """The store has accepted it."""
    with replica.committing:
        generation.acknowledge(generation.uncommitted_to_store(connect(generation)), version(number))
        replica.settle(generation)


def leave(replica: Replica, cache_dir: Path) -> Path:
    """What a process that is killed now leaves behind: a copy of the folder, which nobody owns."""
    assert replica.cache_dir == cache_dir
    copy = cache_dir.with_name(f"{cache_dir.name}-left")
    shutil.copytree(cache_dir, copy)
    return copy
