"""`formats.pages.maintain`: folds and collections lose nothing, whatever comes in between."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from temaki.formats.pages import gone
from temaki.formats.pages.claim import Claim, current
from temaki.formats.pages.head import Marked
from temaki.formats.pages.maintain import CLAIM_LIFETIME, GRACE, KEPT, Collected, collect, fold
from temaki.formats.pages.manifest import encode
from temaki.formats.pages.names import folder, key_of, new_name
from temaki.remote.fetch import Source
from temaki.remote.retry import RetryPolicy
from temaki.stores.memory import MemoryStore
from temaki.testing.clock import ManualClock
from temaki.testing.strategies import KEY, Client
from temaki_strategies import EtagCached
from tests.hooked import HookedStore
from tests.threads import in_thread
from tests.unit.test_pages_cycle import limits
from tests.unit.test_pages_format import Bench


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Databases in pages, with segments after a few commits."""
    monkeypatch.setenv("TEMAKI_FORMAT", "pages")
    with limits(TAIL_LIMIT=12 << 10, TAIL_KEEP=3 << 10):
        yield


class Maintained(Bench):
    """A database with segments, and a store whose clock the test moves."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        super().__init__(MemoryStore(clock=self.clock))
        self.late = HookedStore(self.bucket, KEY)
        self.source = self.on(self.late)
        self.scribble(self.ours, 60)

    def on(self, store: object) -> Source:
        """Maintenance through this store."""
        retrying = RetryPolicy(self.clock, random.Random(1), 60)
        return Source(store, KEY, "u", retrying, 1 << 23, lambda _count, _seconds: False)  # type: ignore[arg-type]

    def listed(self) -> set[str]:
        """What is in the folder."""
        return {info.key.removeprefix(folder(KEY)) for info in self.bucket.list(folder(KEY))}

    def clean(self) -> None:
        """Nothing is condemned, and nothing there that is not named."""
        self.put(replace(self.head(), condemned=()))
        for name in self.listed() - self.head().named:
            self.bucket.delete(key_of(KEY, name))

    def require_whole(self) -> None:
        """A new process reads it, the old ones go on, and everything that is named is there."""
        head = self.head()
        assert replace(head, claim=None).named <= self.listed()
        value = self.ours.increment()
        assert self.other.value() == value
        assert Client(self.bucket, EtagCached()).map().value() == value


@pytest.fixture
def bench() -> Maintained:
    """See there."""
    return Maintained()


class TestFold:
    """A new base, of the same commit."""

    def test_a_fold(self, bench: Maintained, tmp_path: Path) -> None:
        """A full pull is the base and the tail then; the oldest segments are condemned, the newest stay listed."""
        before = bench.head()
        after = fold(bench.source, tmp_path / "x", force=True)
        assert after == bench.head()
        assert (after.commit, after.sequence, after.tail) == (before.commit, before.sequence, before.tail)
        assert (after.base.sequence, after.live, after.claim) == (before.sequence, (), None)
        assert after.segments == before.segments[-KEPT:]
        assert {one.name for one in after.condemned} >= {before.base.name}
        assert list(tmp_path.iterdir()) == []
        bench.require_whole()

    def test_what_is_dropped(self, bench: Maintained, tmp_path: Path) -> None:
        """The oldest, so that what stays reaches from `since` to now: who is older than that pulls all of it."""
        with limits(FAN=1000, COMMIT_BUDGET=0):
            bench.scribble(bench.ours, 150)
        before = bench.head()
        assert len(before.segments) > KEPT + 2
        after = fold(bench.source, tmp_path / "x", force=True)
        assert after is not None
        assert after.segments == before.segments[-KEPT:]
        assert after.since == before.segments[-KEPT - 1].last
        assert after.reaches(after.since, 4096)
        assert not after.reaches(after.since - 1, 4096)
        assert {one.name for one in before.segments[:-KEPT]} <= {one.name for one in after.condemned}
        bench.require_whole()

    def test_another_history(self, bench: Maintained, tmp_path: Path) -> None:
        """The head is of a branch that does not have the folded commit: its base would be another database."""

        def replaced() -> None:
            head, metadata = bench.head(), dict(bench.bucket.head(KEY).metadata)
            other = "f" * 24
            metadata |= {"temaki-commit": other, "temaki-lineage": f"{other}.{'e' * 24}"}
            bench.bucket.put(KEY, encode(replace(head, commit=other)), metadata=metadata)

        bench.late.after["put"] = [replaced]
        base = bench.head().base
        assert fold(bench.source, tmp_path / "x", force=True) is None
        assert (bench.head().base, bench.head().claim) == (base, None)

    def test_only_where_it_is_due(self, bench: Maintained, tmp_path: Path) -> None:
        """Segments of less than half of the base are cheaper to read than a base is to write."""
        assert fold(bench.source, tmp_path / "x", force=True) is not None
        before = bench.head()
        assert fold(bench.source, tmp_path / "x") is None
        assert bench.head() == before

    def test_readers_catch_up_over_it(self, bench: Maintained, tmp_path: Path) -> None:
        """By the segments that stay listed."""
        bench.other.value()
        generation = bench.other.db.provider.engine.shared.replica.current
        bench.scribble(bench.ours, 20)
        fold(bench.source, tmp_path / "x", force=True)
        assert bench.other.value() == 0
        assert bench.other.db.provider.engine.shared.replica.current is generation

    def test_commits_come_in_between(self, bench: Maintained, tmp_path: Path) -> None:
        """They are kept: the fold replaces the base of whatever is current then."""
        bench.late.after["put"] = [lambda: bench.scribble(bench.other, 9)]
        before = bench.head()
        after = fold(bench.source, tmp_path / "x", force=True)
        assert after is not None
        assert (after.base.sequence, after.sequence) == (before.sequence, before.sequence + 9)
        bench.require_whole()

    def test_two_folds_at_once(self, bench: Maintained, tmp_path: Path) -> None:
        """The second sees the claim, and does nothing."""
        second = []
        bench.late.after["put"] = [lambda: second.append(fold(bench.source, tmp_path / "y", force=True))]
        assert fold(bench.source, tmp_path / "x", force=True) is not None
        assert second == [None]
        bench.require_whole()

    def test_a_claim_expires(self, bench: Maintained, tmp_path: Path) -> None:
        """A fold whose process ended does not keep others from folding for ever."""
        bench.put(replace(bench.head(), claim=Marked(new_name("base"), int(bench.clock.time()))))
        assert fold(bench.source, tmp_path / "x", force=True) is None
        bench.clock.sleep(CLAIM_LIFETIME)
        assert fold(bench.source, tmp_path / "x", force=True) is not None
        bench.require_whole()

    def test_no_etag_comes_back(self, bench: Maintained) -> None:
        """A claim that is taken back leaves the same head in other bytes: a late PUT on the first ETag is refused.

        Nothing is condemned here, so that only the count of editions tells the heads apart.
        """
        seen = {bench.bucket.head(KEY).etag}
        for turn in range(1, 4):
            began = current(bench.source)
            assert began is not None
            claim = Claim.make(bench.source, began)
            assert claim is not None
            claim.withdraw([])
            seen.add(bench.bucket.head(KEY).etag)
            assert len(seen) == turn + 1
        assert bench.head().claim is None
        bench.require_whole()

    @pytest.mark.parametrize("what", ["collection", "base"])
    def test_it_gives_up(self, bench: Maintained, tmp_path: Path, what: str) -> None:
        """After a fence or with another base, its own base is not named: claim and object go."""

        def interfere() -> None:
            head = bench.head()
            if what == "collection":
                bench.put(replace(head, collection=head.collection + 1))
            else:
                download = bench.bucket.get(key_of(KEY, head.base.name))
                assert download is not None
                bench.bucket.put(key_of(KEY, "base-" + "9" * 30), download.read(1 << 24))
                bench.put(replace(head, base=replace(head.base, name="base-" + "9" * 30)))

        bench.late.after["put"] = [interfere]
        assert fold(bench.source, tmp_path / "x", force=True) is None
        head = bench.head()
        assert head.claim is None
        assert bench.listed() >= {head.condemned[-1].name}
        assert head.base.name != head.condemned[-1].name
        bench.require_whole()


class TestCollect:
    """Condemned, then deleted."""

    def test_after_grace(self, bench: Maintained, tmp_path: Path) -> None:
        """By the store's clock, from the moment in which it was condemned."""
        bench.clean()  # what follows was condemned at this very moment
        fold(bench.source, tmp_path / "x", force=True)
        condemned = {one.name for one in bench.head().condemned}
        assert condemned
        bench.clock.sleep(GRACE - 2)
        early = collect(bench.source)
        assert (early.deleted, early.condemned) == ((), ())
        assert early.waiting >= 300_000
        bench.clock.sleep(2)
        assert set(collect(bench.source).deleted) == condemned
        assert not condemned & bench.listed()
        assert bench.head().condemned == ()
        assert bench.head().collection == 0, "no fence without orphans"
        bench.require_whole()

    def test_orphans(self, bench: Maintained) -> None:
        """What no head names is condemned first, behind a fence; foreign objects are left alone."""
        bench.clean()
        orphan = new_name("seg")
        bench.bucket.put(key_of(KEY, orphan), b"of a refused commit")
        bench.bucket.put(key_of(KEY, "notes.txt"), b"somebody's")
        assert collect(bench.source, grace=60).condemned == (orphan,)
        assert (bench.head().collection, orphan in bench.listed()) == (1, True)
        bench.clock.sleep(60)
        assert collect(bench.source, grace=60).deleted == (orphan,)
        assert "notes.txt" in bench.listed()
        assert collect(bench.source, grace=0).deleted == ()
        bench.require_whole()

    def test_a_commit_under_way(self, bench: Maintained) -> None:
        """Its segments look like orphans: the fence has it upload them again, and with no grace at all none is lost."""

        def both() -> None:
            collect(bench.source, grace=0)
            collect(bench.source, grace=0)

        for _ in range(12):
            bench.hooked.before["put"] = [both]
            bench.scribble(bench.ours, 1)
        assert bench.head().collection > 0
        bench.require_whole()

    def test_a_fold_under_way(self, bench: Maintained, tmp_path: Path) -> None:
        """Its base is claimed, so it is no orphan."""
        store = HookedStore(bench.bucket, KEY)
        bench.late.after["get"] = [lambda: None, lambda: collect(bench.on(store), grace=0)]
        assert fold(bench.source, tmp_path / "x", force=True) is not None
        bench.require_whole()

    def test_under_a_plain_head(self, bench: Maintained) -> None:
        """Nothing is known of what is in the folder, so nothing is removed."""
        listed = bench.listed()
        bench.bucket.put(KEY, b"SQLite format 3\0")
        assert collect(bench.source, grace=0) == Collected()
        assert bench.listed() == listed

    def test_a_head_that_forgot(self, bench: Maintained) -> None:
        """Any number of orphans is found by listing; those that have no room in the head go into a list."""
        bench.clean()
        orphans = [new_name("seg") for _ in range(150)]
        for name in orphans:
            bench.bucket.put(key_of(KEY, name), b"forgotten")
        assert set(collect(bench.source).condemned) == set(orphans)
        assert len(bench.head().gone) == 1
        bench.clock.sleep(GRACE - 1)
        assert not set(orphans) & set(collect(bench.source).deleted)
        bench.clock.sleep(1)
        lists = bench.head().gone
        assert set(collect(bench.source).deleted) >= {*orphans, *lists}
        assert (bench.head().gone, bench.head().condemned) == ((), ())
        assert bench.listed() == bench.head().named
        bench.require_whole()

    @pytest.mark.parametrize("content", [None, b"", b"temaki gone 1\n[[1]]\n", b"temaki gone 1\n" + b"[" * 100_000])
    def test_a_list_that_is_none(self, bench: Maintained, content: bytes | None) -> None:
        """Its names are orphans then, like all that nothing names; and the list goes."""
        name, orphan = new_name("gone"), new_name("seg")
        bench.clean()
        bench.put(replace(bench.head(), gone=(name,)))
        bench.bucket.put(key_of(KEY, orphan), b"forgotten")
        if content is not None:
            bench.bucket.put(key_of(KEY, name), content)
        done = collect(bench.source)
        assert (done.deleted, done.condemned) == ((name,), (orphan,))
        assert name not in bench.listed()
        bench.require_whole()

    def test_a_list_that_lies(self, bench: Maintained) -> None:
        """What the head needs is never deleted, whoever calls it condemned."""
        name = new_name("gone")
        bench.bucket.put(key_of(KEY, name), gone.encode([Marked(one, 1) for one in sorted(bench.head().named)]))
        bench.put(replace(bench.head(), gone=(name,), condemned=()))
        assert collect(bench.source).deleted == (name,)
        bench.require_whole()

    def test_a_dry_run(self, bench: Maintained, tmp_path: Path) -> None:
        """It says what it would do, and changes nothing."""
        bench.clean()
        fold(bench.source, tmp_path / "x", force=True)
        bench.bucket.put(key_of(KEY, orphan := new_name("seg")), b"of a refused commit")
        bench.clock.sleep(GRACE)
        before, listed = bench.bucket.head(KEY).etag, bench.listed()
        planned = collect(bench.source, dry_run=True)
        assert planned.condemned == (orphan,)
        assert planned.freed > 300_000
        assert (bench.bucket.head(KEY).etag, bench.listed()) == (before, listed)
        assert collect(bench.source) == planned


@pytest.mark.parametrize("seed", range(6))
def test_random_interleavings(tmp_path: Path, seed: int) -> None:
    """Commits, folds and collections without grace come in between of each other: nothing is lost."""
    rng = random.Random(seed)
    bench = Maintained()
    numbers = itertools.count()

    def upkeep() -> None:
        if rng.random() < 0.5:
            collect(bench.source, grace=0)
        else:
            fold(bench.source, tmp_path / str(next(numbers)), force=rng.random() < 0.5)

    value = bench.other.value()
    for _ in range(25):
        if rng.random() < 0.6:
            bench.hooked.before["put"] = [upkeep]
        if rng.random() < 0.3:
            bench.late.before["put"] = [lambda: in_thread(partial(bench.scribble, bench.other, 1))]
        if rng.random() < 0.4:
            upkeep()
        bench.scribble(bench.ours, 1)
        value = bench.ours.increment()
        bench.late.before.clear()
    bench.require_whole()
    assert bench.other.value() == value + 1
