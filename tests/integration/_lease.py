"""Processes that write under a lease, and are killed, stopped or forked meanwhile. See ``test_lease_processes.py``."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from pony.orm import db_session

from temaki.errors import LeaseLostError
from temaki.lease.lease import Lease
from temaki.stores import open_store
from temaki.testing import CountingStore
from temaki.testing.threads import in_parallel
from temaki_strategies import LeaseLocked
from tests.integration._worker import Application, Forked, Gate, create, hear, main, outcome_of, say
from tests.leases import operator


class Writer(Application):
    """An application under a lease, that counts its requests.

    Args:
        url: Where the database is.
        gate: What its requests pass, if not the store itself.
        options: For the strategy.
    """

    def __init__(self, url: str, gate: Any = None, **options: Any) -> None:
        store, self.key = open_store(url)
        self.requests = CountingStore(gate or store)
        super().__init__(url, store=self.requests, strategy=LeaseLocked(**options))

    def add(self, *, then: Callable[[], object] = lambda: None) -> int:
        """Add one, in a session that takes the lease at its start and is not retried."""

        @db_session(immediate=True, retry=0)
        def once() -> int:
            value = self.step()
            then()
            return value

        return int(once())

    @property
    def lease(self) -> Lease:
        """This process's part in it, once it has been used."""
        made = self.db.provider.engine.shared.lease._made
        assert made is not None
        lease: Lease = made[1]
        return lease

    def lease_requests(self) -> int:
        """How many there were so far."""
        return self.requests.count(key=f"{self.key}.lease")


class _UploadGate(Gate):
    """Only uploads of the database pass the gate, not those of the lease."""

    def put(self, key: str, *args: Any, **kwargs: Any) -> str:
        if key == self._key:
            return super().put(key, *args, **kwargs)
        etag: str = self._store.put(key, *args, **kwargs)
        return etag


def _pause() -> None:
    say("inside")
    hear()


def hold(url: str, options: dict[str, float], host: str = "") -> int:
    """Be inside a transaction until told to go on; on this machine, or as if on another one."""
    if host:
        socket.gethostname = lambda: host
    return Writer(url, **options).add(then=_pause)


def take_over(url: str, options: dict[str, float]) -> dict[str, Any]:
    """When told to, add one; how long that took, by this process's clock."""
    writer = Writer(url, **options)
    say("ready")
    hear()
    begin = time.monotonic()
    value = writer.add()
    return {"value": value, "seconds": time.monotonic() - begin}


def kill_a_worker(url: str, options: dict[str, float]) -> dict[str, Any]:
    """A worker is killed in its transaction, while another one waits for the lease. How long that one waited after."""
    writer = Writer(url, **options)
    reader, inside = os.pipe()

    def hang() -> None:
        os.write(inside, b"!")
        signal.pause()

    killed = Forked(lambda: writer.add(then=hang))
    os.read(reader, 1)
    other = Forked(lambda: [writer.add(), time.monotonic()])
    time.sleep(0.5)  # the other one waits by now; if not, it shows the same
    killed.kill_after(0)
    code, _ = killed.end()
    begin = time.monotonic()
    value, end = other.result()
    return {"value": value, "seconds": end - begin, "killed": code}


def be_evicted(url: str, options: dict[str, float]) -> dict[str, Any]:
    """Be inside a transaction until told to go on; then renew the lease, as its heartbeat does, and commit."""
    writer = Writer(url, **options)

    def pause_and_renew() -> None:
        _pause()
        lease = writer.lease
        assert lease._tenure.generation is not None
        lease.renew(lease._tenure.generation)

    try:
        writer.add(then=pause_and_renew)
    except LeaseLostError as error:
        return {"message": str(error), "evicted by": error.evicted_by, "again": writer.add()}
    return {"message": "it was not"}


def freeze(url: str, point: str, options: dict[str, float]) -> dict[str, Any]:
    """Say "inside" in the transaction, or "before put", and go on when told; what became of it, and of another run."""
    gate = _UploadGate(url, [point])
    writer = Writer(url, gate, **options)
    refused = outcome_of(lambda: writer.add(then=_pause if point == "inside" else lambda: None))
    uploads = writer.requests.count("put", key=writer.key)
    seen, begin = writer.value(), time.monotonic()
    again = writer.add()
    return {
        "refused": refused,
        "uploads": uploads,
        "seen": seen,
        "again": again,
        "runs": writer.runs,
        "is prompt": time.monotonic() - begin < 10,
    }


def add_many(url: str, times: int, options: dict[str, float]) -> dict[str, int]:
    """Add one so many times. No error is caught, and none is retried."""
    writer = Writer(url, **options)
    say("ready")
    hear()
    for _ in range(times):
        writer.add()
    return {
        "runs": writer.runs,
        "stored": writer.requests.count("put", "ok", key=writer.key),
        "refused": writer.requests.count("put", "refused", key=writer.key),
    }


def add_in_threads(url: str, threads: int, times: int) -> dict[str, int]:
    """The same in threads of one process."""
    writer = Writer(url)

    def work() -> None:
        for _ in range(times):
            writer.add()

    in_parallel([work] * threads)
    return {
        "value": writer.value(),
        "runs": writer.runs,
        "lease uploads": writer.requests.count("put", "ok", key=f"{writer.key}.lease"),
    }


def fork(url: str) -> dict[str, Any]:
    """A thread is inside a transaction. One child only ends; another one writes, after the thread has committed."""
    writer = Writer(url)
    inside, free = threading.Event(), threading.Event()
    values: list[int] = []

    def pause() -> None:
        inside.set()
        free.wait()

    def write_in_child() -> dict[str, float]:
        began = time.monotonic()
        say("the child begins")
        return {"value": writer.add(), "began": began, "wrote": time.monotonic()}

    thread = threading.Thread(target=lambda: values.append(writer.add(then=pause)))
    thread.start()
    inside.wait()
    Forked(lambda: None).result()
    say("the first child has ended")
    hear()
    child = Forked(write_in_child)
    hear()
    released = time.monotonic()
    free.set()
    thread.join()
    found = child.result()
    return {"parent": values, "released": released, "child": found, "next": writer.add()}


def commit_and_stay(url: str, inside: str, handler: str, options: dict[str, float]) -> None:
    """Have the lease, idle or inside of a transaction, and wait. The application may have a SIGTERM handler."""

    def on_sigterm(number: int, frame: object) -> None:
        say("the application's own handler")
        sys.exit(7)

    if handler == "before":
        signal.signal(signal.SIGTERM, on_sigterm)
    writer = Writer(url, **options)
    if handler == "after":
        signal.signal(signal.SIGTERM, on_sigterm)
    writer.add()
    if handler:
        assert signal.getsignal(signal.SIGTERM) is on_sigterm
    if inside:
        writer.add(then=_pause)
    else:
        _pause()


def commit_in_workers(url: str, options: dict[str, float]) -> dict[str, bool]:
    """Have the lease in a worker of multiprocessing, that ends in its hold: forked, then started anew.

    Returns:
        For each, whether it left the lease held.
    """
    held = {}
    inherited = Writer(url, **options)
    inherited.add()
    inherited.lease.close()
    workers = {
        "fork": multiprocessing.get_context("fork").Process(target=inherited.add),
        "spawn": multiprocessing.get_context("spawn").Process(target=_commit, args=(url, options)),
    }
    for method, worker in workers.items():
        worker.start()
        worker.join()
        assert worker.exitcode == 0, (method, worker.exitcode)
        record = operator(inherited.lease).inspect()
        assert record is not None
        assert record.owner.pid == worker.pid
        held[method] = record.held
    return held


def _commit(url: str, options: dict[str, float]) -> None:
    Writer(url, **options).add()


def commit_twice(url: str, options: dict[str, float]) -> dict[str, Any]:
    """What the first commit and the second one asked of the store."""
    writer = Writer(url, **options)
    writer.add()
    first = writer.lease_requests()
    writer.requests.reset()
    writer.add()
    calls = [[call.verb, call.outcome] for call in writer.requests.calls]
    return {"first": first, "second": writer.lease_requests(), "calls": calls, "pid": os.getpid()}


if __name__ == "__main__":
    main(
        create,
        hold,
        take_over,
        kill_a_worker,
        be_evicted,
        freeze,
        add_many,
        add_in_threads,
        fork,
        commit_and_stay,
        commit_in_workers,
        commit_twice,
    )
