"""`engine.compaction`: maintenance beside the sessions, which disturbs nobody, whatever becomes of the process."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pony.orm import db_session

from temaki.engine import compaction
from temaki.engine.compaction import Compaction
from temaki.errors import StoreUnavailableError
from temaki.events import Compacted
from temaki.formats.pages import maintain, policy
from temaki.formats.pages.claim import CLAIM_LIFETIME
from temaki.formats.pages.head import Marked
from temaki.formats.pages.maintain import GRACE
from temaki.formats.pages.names import key_of, new_name
from temaki.replica.image import Image
from temaki.stores.wrapper import StoreWrapper
from temaki.testing.clock import ManualClock
from temaki.testing.counting import CountingStore
from temaki.testing.strategies import KEY, Client
from temaki_strategies import EtagCached, ReadOnly
from tests.hooked import Gate
from tests.threads import Background, in_thread, until
from tests.unit.test_pages_cycle import limits
from tests.unit.test_pages_format import Bench


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Databases in pages, folds that no commit does, and threads that begin at once."""
    monkeypatch.setenv("TEMAKI_FORMAT", "pages")
    monkeypatch.setattr(compaction, "LEAST_LIFE", 0.0)
    monkeypatch.setattr(compaction, "UPLOAD_RATE", 1 << 40)
    with limits(TAIL_LIMIT=12 << 10, TAIL_KEEP=3 << 10, COMMIT_BUDGET=100 << 10):
        yield


class BaseGate(StoreWrapper):
    """Holds the upload of a base, or fails it."""

    def __init__(self, store: Any) -> None:
        super().__init__(store)
        self.gates: list[Any] = []

    def handle_request(self, verb: Any, key: str, request: Any, /) -> Any:
        """See :meth:`temaki.testing.StoreWrapper.handle_request`."""
        if verb == "put" and "/base-" in key and self.gates:
            self.gates.pop(0)()
        return request()


class Compacting(Bench):
    """A client that compacts, beside one that does not."""

    def __init__(self) -> None:
        super().__init__()
        self.other.db.unbind()
        self.other = Client(self.bucket, EtagCached(), compact="manual").map()
        self.ours.db.unbind()
        self.gated = BaseGate(self.bucket)
        self.counting = CountingStore(self.gated)
        self.events: list[Any] = []
        self.ours = self.client()
        assert self.ours.value() == 0

    def client(self, **options: Any) -> Client:
        """Another process."""
        client = Client(self.counting, EtagCached(), **options).map()
        client.db.sync.on_event(self.events.append)
        return client

    @property
    def shared(self) -> Any:
        """What our process has."""
        return self.ours.db.provider.engine.shared

    def make_due(self) -> None:
        """Segments of more than half of the base; the last commit is ours."""
        while not policy.fold_is_due(self.head().base, self.head().live, self.head().size):
            self.scribble(self.other, 10)

    def wait(self) -> None:
        """Until the thread has ended."""
        until(lambda: not [one for one in threading.enumerate() if one.name == "temaki-compaction"])

    def compacted(self) -> list[Compacted]:
        """What was reported."""
        return [event for event in self.events if isinstance(event, Compacted)]

    def require_whole(self) -> None:
        """New processes read it, the old ones go on, and everything that is named is there."""
        head = self.head()
        listed = {info.key.removeprefix(f"{KEY}.pages/") for info in self.bucket.list(f"{KEY}.pages/")}
        assert replace(head, claim=None).named <= listed
        value = self.ours.increment()
        assert self.other.value() == value
        fresh = Client(self.bucket, EtagCached(), compact="manual").map()
        assert fresh.value() == value
        with db_session:
            assert fresh.db.select("* from pragma_integrity_check") == ["ok"]


@pytest.fixture
def bench() -> Iterator[Compacting]:
    """See there."""
    bench = Compacting()
    yield bench
    for gate in bench.gated.gates:
        gate.open()
    for client in (bench.ours, bench.other):
        client.db.unbind()
    bench.wait()


class TestFold:
    """From the working copy, beside everything else."""

    def test_a_fold(self, bench: Compacting) -> None:
        """A commit finds it due: the base is uploaded, and nothing is downloaded but heads."""
        bench.make_due()
        bench.ours.value()
        bench.wait()
        bench.counting.reset()
        before = bench.head()
        bench.make_due()
        bench.shared.compaction._not_before = None
        bench.ours.increment()
        bench.wait()
        assert bench.head().base.name != before.base.name
        assert bench.head().claim is None
        assert {call.key for call in bench.counting.calls if call.verb == "get"} <= {KEY} | {
            key_of(KEY, one.name) for one in (*before.segments, *bench.head().segments)
        }
        assert bench.compacted()[-1].size == bench.head().base.size
        assert bench.compacted()[-1].before > bench.compacted()[-1].after >= 1
        bench.require_whole()

    def test_a_pull_finds_it(self, bench: Compacting) -> None:
        """A process that writes, and has only read so far."""
        before = bench.head().base.name
        bench.make_due()
        bench.ours.value()
        bench.wait()
        assert bench.head().base.name != before
        bench.require_whole()

    def test_it_holds_up_nobody(self, bench: Compacting) -> None:
        """While the upload is stuck: commits, transactions that spill and are given up, catch-ups, sessions."""
        gate = Gate()
        bench.gated.gates = [gate]
        bench.make_due()
        bench.ours.increment()
        gate.wait()
        folded = bench.head()
        assert folded.claim is not None
        with db_session:
            seen = bench.ours.Counter[1].value
            for _ in range(4):
                in_thread(lambda: bench.scribble(bench.ours, 5))
                in_thread(lambda: spill_and_roll_back(bench.ours))
                bench_value = in_thread(bench.other.increment)
                assert in_thread(bench.ours.value) == bench_value
            assert bench.ours.Counter[1].value == seen
        gate.open()
        bench.wait()
        head = bench.head()
        assert head.base.name == folded.claim.name
        assert head.base.sequence <= folded.sequence < head.sequence  # the thread may have begun before the commit
        bench.require_whole()

    def test_two_processes(self, bench: Compacting) -> None:
        """The second sees the claim, and does nothing."""
        gate = Gate()
        bench.gated.gates = [gate]
        bench.make_due()
        bench.ours.increment()
        gate.wait()
        second = bench.client()
        second.increment()
        until(lambda: second.db.provider.engine.shared.compaction._run is None)
        bases = [info.key for info in bench.bucket.list(f"{KEY}.pages/base-")]
        gate.open()
        bench.wait()
        assert len([*bench.bucket.list(f"{KEY}.pages/base-")]) == len(bases) + 1
        second.db.unbind()
        bench.require_whole()

    def test_a_claim_that_is_left_behind(self, bench: Compacting) -> None:
        """A process was killed within its fold: the next one takes over when the claim has expired, not before."""
        bench.make_due()
        now = int(bench.bucket.head(KEY).date.timestamp())  # type: ignore[union-attr]
        left = Marked(new_name("base"), now)
        bench.put(replace(bench.head(), claim=left))
        before = bench.head().base
        bench.ours.increment()
        bench.wait()
        assert (bench.head().base, bench.head().claim) == (before, left)
        bench.put(replace(bench.head(), claim=Marked(left.name, now - CLAIM_LIFETIME)))
        bench.ours.increment()
        bench.wait()
        assert bench.head().base != before
        assert bench.head().claim is None
        bench.require_whole()

    def test_a_large_merge(self, bench: Compacting) -> None:
        """Eight segments that are too large for a commit become one; nothing of them is downloaded but page numbers."""
        with limits(COMMIT_BUDGET=0, UNIT=4 << 10, TAIL_LIMIT=4 << 10, TAIL_KEEP=1 << 10):
            while len(policy.next_merge(bench.head().base, bench.head().segments, budget=None)) < 8:
                bench.scribble(bench.other, 1)
            before = bench.head()
            bench.ours.value()
            bench.wait()
            assert len(bench.head().segments) < len(before.segments)
        assert bench.head().base == before.base
        assert bench.head().claim is None
        bench.require_whole()

    def test_a_collection(self, bench: Compacting) -> None:
        """What was condemned an hour ago is deleted."""
        bench.scribble(bench.other, 40)
        old = new_name("seg")
        bench.bucket.put(key_of(KEY, old), b"was named once")
        past = int(bench.bucket.head(KEY).date.timestamp()) - GRACE - 5  # type: ignore[union-attr]
        bench.put(replace(bench.head(), condemned=(Marked(old, past),)))
        bench.ours.increment()
        bench.wait()
        assert not [*bench.bucket.list(key_of(KEY, old))]
        assert bench.compacted()[-1].freed == len(b"was named once")
        bench.require_whole()

    def test_folds_do_not_put_off_a_collection(self, bench: Compacting) -> None:
        """A process that folds more often than once an hour still removes things: the hour is between collections."""
        bench.make_due()
        bench.ours.increment()
        bench.wait()
        worker: Compaction = bench.shared.compaction
        first, base = worker._collected, bench.head().base
        assert first is not None
        bench.make_due()
        worker._not_before = None
        bench.ours.increment()
        bench.wait()
        assert bench.head().base != base
        assert worker._collected is first
        bench.require_whole()


def spill_and_roll_back(client: Client) -> None:
    """A transaction that is larger than SQLite's cache, and is given up."""
    with db_session:
        client.db.execute("UPDATE filler SET body = hex(randomblob(90))")
        client.db.get_connection()
        from pony.orm import rollback

        rollback()


class TestNot:
    """When there is no compaction."""

    def quiet(self, bench: Compacting, client: Client) -> None:
        """It is due, and stays so."""
        before = bench.head().base
        bench.make_due()
        client.value()
        bench.wait()
        assert (bench.head().base, bench.head().claim) == (before, None)
        client.db.unbind()

    def test_manual(self, bench: Compacting) -> None:
        """It is left to the command."""
        self.quiet(bench, Client(bench.bucket, EtagCached(), compact="manual").map())

    def test_read_only(self, bench: Compacting) -> None:
        """A strategy that never writes does not write this either."""
        self.quiet(bench, Client(bench.bucket, ReadOnly()).map())

    def test_a_short_life(self, bench: Compacting, monkeypatch: pytest.MonkeyPatch) -> None:
        """A process that ends at once has claimed nothing: the thread waits as long as the upload takes."""
        monkeypatch.setattr(compaction, "LEAST_LIFE", 3600.0)
        client = Client(bench.bucket, EtagCached()).map()
        bench.make_due()
        client.increment()
        assert client.db.provider.engine.shared.compaction._run is not None
        client.db.unbind()
        bench.wait()
        assert bench.head().claim is None

    def test_a_frozen_process(self, bench: Compacting, monkeypatch: pytest.MonkeyPatch) -> None:
        """A clock that jumps tells of a function that is frozen after each request: it has no time for this."""
        monkeypatch.setattr(compaction, "LEAST_LIFE", 30.0)
        clock = ManualClock()
        worker = bench.shared.compaction
        real = clock.sleep

        def freeze(seconds: float) -> None:
            real(seconds)
            clock.skew(60)

        monkeypatch.setattr(clock, "sleep", freeze)
        monkeypatch.setattr(worker, "_clock", clock)
        before = bench.head().base
        bench.make_due()
        bench.ours.increment()
        bench.wait()
        assert (bench.head().base, bench.head().claim) == (before, None)
        monkeypatch.setattr(clock, "sleep", real)
        worker._not_before = None
        bench.ours.increment()
        bench.wait()
        assert bench.head().base != before


class TestTrouble:
    """What goes wrong harms nobody."""

    def test_a_failure(self, bench: Compacting, caplog: pytest.LogCaptureFixture) -> None:
        """It is logged, the claim is taken back, and it is tried again later, not at each commit."""

        def fail() -> None:
            raise StoreUnavailableError("out of order", url=KEY, ambiguous=False)

        bench.shared.compaction._timeout = 0.01
        bench.gated.gates = [fail] * 1000
        bench.make_due()
        with caplog.at_level(logging.WARNING):
            bench.ours.increment()
            bench.wait()
        assert "could not be compacted, and is not harmed: StoreUnavailableError: out of order" in caplog.text
        bench.gated.gates = []
        before = bench.head()
        assert before.claim is None
        for _ in range(3):
            bench.ours.increment()
        bench.wait()
        assert bench.head().base == before.base
        bench.shared.compaction._not_before = None
        bench.ours.increment()
        bench.wait()
        assert bench.head().base != before.base
        bench.require_whole()

    def test_pauses(self, bench: Compacting) -> None:
        """A minute after the first failure, an hour at most."""
        worker: Compaction = bench.shared.compaction
        pauses = []
        for _ in range(8):
            run = worker._run = compaction._Run(worker, 0)
            worker._over(run, failed=True)
            pauses.append(worker._pause)
        assert pauses[0] <= 120
        assert pauses == sorted(pauses)
        assert pauses[-1] == 3600

    def test_pages_that_are_not_the_version(self, bench: Compacting, monkeypatch: pytest.MonkeyPatch) -> None:
        """The checksum is proved before the head names the base."""
        real = Image.readinto

        def readinto(self: Any, buffer: Any) -> int:
            count = real(self, buffer)
            if count and threading.current_thread().name == "temaki-compaction":
                memoryview(buffer).cast("B")[count - 1] ^= 1
            return count

        monkeypatch.setattr(Image, "readinto", readinto)
        bench.make_due()
        before, condemned = bench.head().base, bench.head().condemned
        bench.ours.increment()
        bench.wait()
        assert (bench.head().base, bench.head().claim) == (before, None)
        (sent,) = (one.name for one in {*bench.head().condemned} - {*condemned} if one.name.startswith("base"))
        assert [*bench.bucket.list(key_of(KEY, sent))]
        bench.require_whole()

    def test_unbound(self, bench: Compacting) -> None:
        """The thread stops, takes back its claim, and lets go of the working copy."""
        gate = Gate()
        bench.gated.gates = [gate]
        client = bench.client()
        bench.ours.db.unbind()
        bench.make_due()
        client.increment()
        gate.wait()
        folder = Path(client.db.provider.engine.shared.replica.current.path).parent
        unbinding = Background(client.db.unbind)
        unbinding.result()
        assert folder.exists()
        gate.open()
        bench.wait()
        assert bench.head().claim is None
        assert not folder.exists()
        bench.ours = bench.client(compact="manual")
        bench.require_whole()

    def test_a_fork(self, bench: Compacting) -> None:
        """The child has no thread, and works; the parent's fold goes on."""
        gate = Gate()
        bench.gated.gates = [gate]
        bench.make_due()
        bench.ours.increment()
        gate.wait()
        before = bench.ours.value()
        child = os.fork()
        if not child:
            try:
                ok = bench.ours.value() == before and bench.shared.compaction._run is None
                bench.shared.compaction.close()
                os._exit(0 if ok else 1)
            except BaseException:
                os._exit(2)
        assert os.waitpid(child, 0)[1] == 0
        gate.open()
        bench.wait()
        assert bench.head().base.sequence > 1
        bench.require_whole()

    def test_a_fence_within_a_merge(self, bench: Compacting) -> None:
        """A collector takes the merged segment for an orphan: the merge gives up, and nothing is named that goes."""
        with limits(COMMIT_BUDGET=0, UNIT=4 << 10, TAIL_LIMIT=4 << 10, TAIL_KEEP=1 << 10):
            while len(policy.next_merge(bench.head().base, bench.head().segments, budget=None)) < 8:
                bench.scribble(bench.other, 1)
            real = maintain.prove

            def prove(copy: Any) -> None:
                source = bench.shared.remote.source
                maintain.collect(source, grace=0)
                real(copy)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(maintain, "prove", prove)
                bench.ours.value()
                bench.wait()
        assert bench.head().collection == 1
        assert bench.head().claim is None
        maintain.collect(bench.shared.remote.source, grace=0)
        bench.require_whole()
