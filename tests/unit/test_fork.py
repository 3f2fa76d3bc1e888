"""`process.fork`: a process notices that it was forked, whatever forked it. A child's status says what it saw."""

from __future__ import annotations

import ctypes
import os
import random
import threading
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from temaki.errors import ConflictError, StoreUnavailableError
from temaki.lease.lease import Lease
from temaki.lease.record import LeaseObject
from temaki.process import fork
from temaki.process.fork import ProcessLock, process, require_own
from temaki.remote.retry import RetryPolicy
from temaki.replica.generation import Generation
from temaki.stores.filesystem import FileLocks
from temaki.stores.memory import MemoryStore
from temaki.testing.clock import ManualClock
from temaki.testing.counting import CountingStore
from tests.threads import Background

FORKS: dict[str, Callable[[], int]] = {"seen": os.fork, "unseen": ctypes.PyDLL(None).fork}


@pytest.fixture(params=FORKS)
def forking(request: pytest.FixtureRequest) -> Callable[[], int]:
    """By Python; or in C, so that Python's hooks do not run."""
    return FORKS[request.param]


def in_child(forking: Callable[[], int], check: Callable[[], None]) -> None:
    """Run the check in a forked child; it has to hold there."""
    child = forking()
    if not child:
        status = 1
        try:
            check()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_each_child_has_a_number_of_its_own(forking: Callable[[], int]) -> None:
    """And so has a child of the child; what was begun in one of them cannot go on in the next."""
    mine = process()
    require_own(mine, "memory://x/app.sqlite")

    def child() -> None:
        number = process()
        assert number != mine
        with pytest.raises(ConflictError, match=r"began before a fork.*memory://x/app\.sqlite"):
            require_own(mine, "memory://x/app.sqlite")

        def grandchild() -> None:
            assert process() not in {mine, number}

        in_child(forking, grandchild)
        assert process() == number

    in_child(forking, child)
    assert process() == mine


@pytest.mark.skipif(fork._here._page is None, reason="this system empties no page")
def test_a_child_with_its_parents_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a pid namespace of its own, or when numbers begin anew: the emptied page tells."""
    mine, number = process(), os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: number)

    def child() -> None:
        assert os.getpid() == number
        assert process() != mine

    in_child(FORKS["unseen"], child)


def test_without_a_page_the_number_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system empties none."""
    monkeypatch.setattr(fork._here, "_page", None)
    mine = process()

    def child() -> None:
        assert process() != mine

    in_child(FORKS["unseen"], child)


def test_a_lock_that_a_thread_held_is_free_in_the_child(forking: Callable[[], int]) -> None:
    """The thread does not exist there. In the parent it goes on holding it."""
    lock, held, free = ProcessLock(), threading.Event(), threading.Event()

    def hold() -> None:
        with lock():
            held.set()
            free.wait()

    thread = Background(hold)
    held.wait()

    def child() -> None:
        assert lock().acquire(timeout=10)

    in_child(forking, child)
    assert lock().locked()
    free.set()
    thread.result()


def test_one_reset_for_all_threads_of_a_child(forking: Callable[[], int]) -> None:
    """Its threads come at once: one of them resets, and nobody goes on before that is done."""

    class Slow:
        resets = 0

        def reset_after_fork(self) -> None:
            process()  # what is reset may look around itself
            threading.Event().wait(0.05)
            self.resets += 1

    slow = Slow()
    fork.reset_in_child(slow)

    def look() -> int:
        process()
        return slow.resets

    def child() -> None:
        assert [thread.result() for thread in [Background(look) for _ in range(4)]] == [1] * 4

    in_child(forking, child)
    assert slow.resets == 0


def test_the_end_of_what_is_inherited_is_put_off() -> None:
    """An object whose end would do something lives on, when Python drops it behind our back."""

    class Fragile:
        def __del__(self) -> None:
            fork.keep_inherited(self)

    def child() -> None:
        before = len(fork._inherited)
        Fragile()
        assert len(fork._inherited) == before + 1

    in_child(FORKS["unseen"], child)


def test_file_locks_of_the_parents_threads_are_let_go(tmp_path: Path, forking: Callable[[], int]) -> None:
    """But not a descriptor of the same number that the child has opened as something else."""
    locks, held, free = FileLocks(), threading.Event(), threading.Event()
    handles: list[int] = []

    def hold() -> None:
        with locks.hold(tmp_path / "lock", "file:///x") as handle:
            handles.append(handle)
            held.set()
            free.wait()

    thread = Background(hold)
    held.wait()

    def closed() -> None:
        process()
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(handles[0])

    def reused() -> None:
        os.dup2(os.open(tmp_path / "mine", os.O_CREAT | os.O_RDWR), handles[0])
        process()
        os.write(handles[0], b"still mine")

    in_child(forking, closed)
    if forking is FORKS["unseen"]:
        in_child(forking, reused)
    free.set()
    thread.result()


def test_a_child_inside_its_parents_file_lock_leaves_it_locked(tmp_path: Path, forking: Callable[[], int]) -> None:
    """A fork in the middle of a write: only the parent gives its lock back."""
    path = tmp_path / "lock"
    locks = FileLocks(timeout=0.05)

    with ExitStack() as held:
        held.enter_context(locks.hold(path, "file:///x"))
        in_child(forking, held.close)
        with pytest.raises(StoreUnavailableError, match="locked by other writers"), locks.hold(path, "file:///x"):
            pass
    with locks.hold(path, "file:///x"):
        pass


def test_a_childs_exit_gives_no_lease_of_its_parent_back(forking: Callable[[], int]) -> None:
    """It inherits what the process does at its end, and may end without having used anything."""
    clock, rng, store = ManualClock(), random.Random(1), CountingStore(MemoryStore())
    record = LeaseObject(store, "app.sqlite.lease", RetryPolicy(clock, rng, timeout=3))
    lease = Lease(
        record, url="memory://x/app.sqlite", clock=clock, rng=rng, ttl=10, acquire_timeout=30, heartbeat=False
    )
    user = threading.Event()
    generation = lease.acquire(user)
    store.reset()

    def child() -> None:
        lease.close()
        assert not store.calls

    in_child(forking, child)
    lease.check(generation)
    lease.close()


def test_a_child_removes_no_file_of_its_parent(tmp_path: Path, forking: Callable[[], int]) -> None:
    """Not even if it is told to."""
    generation = Generation(tmp_path / "1.sqlite", None, "memory://x/app.sqlite")

    def child() -> None:
        generation.dispose()
        assert {entry.name for entry in tmp_path.iterdir()} >= {"1.sqlite", "1.sqlite-wal"}

    in_child(forking, child)
    generation.dispose()
    assert list(tmp_path.iterdir()) == []
