"""`engine.pull`: the working copy becomes what the store has now, however answers and commits interleave."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from pony.orm import db_session

from temaki.engine.pull import Puller
from temaki.errors import CorruptDatabaseError, NotFoundError, StoreUnavailableError
from temaki.replica.generation import Generation
from temaki.replica.replica import Replica
from temaki.stores.memory import MemoryStore
from temaki.testing.clock import ManualClock
from temaki.testing.counting import CountingStore
from temaki.testing.strategies import Client
from temaki.version import Version
from temaki_strategies import EtagCached
from tests.hooked import Gate, HookedStore, failing
from tests.threads import Background, in_thread, until
from tests.versions import KEY, URL, connect, database, make_remote, publish, read


@dataclass
class Process:
    """A working copy, its puller, and its way to the bucket."""

    bucket: MemoryStore = field(default_factory=MemoryStore)
    clock: ManualClock = field(default_factory=ManualClock)

    def __post_init__(self) -> None:
        self.store = HookedStore(self.bucket)
        self.counting = CountingStore(self.store)
        self.replica = Replica(URL, None)
        self.puller = Puller(make_remote(self.counting, self.clock), self.replica, self.clock)

    @property
    def current(self) -> Generation:
        """Where sessions begin."""
        assert self.replica.current is not None
        return self.replica.current

    @property
    def value(self) -> int:
        """What they would read."""
        return read(connect(self.current, busy=False))

    @property
    def requests(self) -> int:
        """How many so far."""
        return len(self.counting.calls)


@pytest.fixture
def process() -> Process:
    """One that has pulled nothing."""
    return Process()


@pytest.fixture
def first(process: Process) -> Version:
    """Version 1 of value 10, pulled."""
    version = publish(process.bucket, 10)
    process.puller.revalidate()
    assert process.value == 10
    return version


class TestRevalidating:
    """One conditional GET, and the body only if it is new."""

    def test_unchanged_costs_no_body(self, process: Process, first: Version) -> None:
        """The generation stays, and so do its connections."""
        generation, connection = process.current, connect(process.current, busy=False)
        process.counting.reset()
        for _ in range(3):
            process.puller.revalidate()
        assert process.current is generation
        assert not connection.closed
        assert process.counting.count("get", "not_modified") == process.requests == 3

    def test_newer_version_is_fetched(self, process: Process, first: Version) -> None:
        """It becomes the current generation."""
        second = publish(process.bucket, 20, first)
        process.puller.revalidate()
        assert (process.value, process.current.version) == (20, second)

    def test_restore_is_followed(self, process: Process, first: Version) -> None:
        """An older sequence is as good as any: the store decides what is current."""
        publish(process.bucket, 20, first)
        process.puller.revalidate()
        process.bucket.put(KEY, database(10, 1), metadata=first.metadata)
        process.puller.revalidate()
        assert (process.value, process.current.version) == (10, first)

    def test_first_pull_of_nothing_is_an_empty_database(self, process: Process) -> None:
        """Only the store's definite answer is; it is asked again each time, until there is one."""
        for _ in range(2):
            process.puller.revalidate()
            assert process.current.version is None
        publish(process.bucket, 10)
        process.puller.revalidate()
        assert process.value == 10

    def test_gone_is_an_error_for_ever(self, process: Process, first: Version) -> None:
        """Whoever has known a version never starts an empty one, not after a refused commit either."""
        process.bucket.delete(KEY)
        for abandon in (False, True):
            if abandon:
                process.replica.abandon(process.current)
            with pytest.raises(NotFoundError, match=rf"{URL} is gone.*Restore the object.*start a new process"):
                process.puller.revalidate()

    @pytest.mark.parametrize("body", [b"", b"garbage" * 900, database(1, 1)[:4096], database(1, 9)[:8192]])
    def test_what_is_no_database_leaves_the_working_copy(self, process: Process, first: Version, body: bytes) -> None:
        """It raises each time, and what was there is still there."""
        generation = process.current
        process.bucket.put(KEY, body, metadata=first.metadata if len(body) > 8000 else None)
        for _ in range(2):
            with pytest.raises(CorruptDatabaseError, match=URL):
                process.puller.revalidate()
        assert process.current is generation
        assert process.value == 10


class TestDownloading:
    """always-download: the whole body each time."""

    def test_same_version_keeps_the_generation(self, process: Process, first: Version) -> None:
        """Its connections need not be opened again, and no file is left over."""
        generation, connection = process.current, connect(process.current, busy=False)
        process.counting.reset()
        process.puller.download()
        assert (process.current is generation, connection.closed) == (True, False)
        assert process.counting.bytes_down == first.size
        assert len(list(generation.path.parent.glob("*.sqlite"))) == 1

    def test_newer_version_is_installed(self, process: Process, first: Version) -> None:
        """As ever."""
        publish(process.bucket, 20, first)
        process.puller.download()
        assert process.value == 20


class TestSlowAnswers:
    """Between the store's answer and the moment that it is used, other threads go on."""

    @pytest.mark.parametrize("verb", ["revalidate", "download"])
    def test_old_version_is_never_put_over_a_newer_one(self, process: Process, first: Version, verb: str) -> None:
        """The slow answer is dropped, and asked for again."""
        second = publish(process.bucket, 20, first)

        def overtaken() -> None:
            publish(process.bucket, 30, second)
            in_thread(process.puller.download)
            assert process.value == 30

        process.store.after["get"] = [overtaken]
        getattr(process.puller, verb)()
        assert process.value == 30

    def test_unchanged_is_no_answer_for_another_generation(self, process: Process, first: Version) -> None:
        """An "unchanged" of a generation that was abandoned meanwhile leaves the session one to begin in."""
        process.store.after["get"] = [lambda: process.replica.abandon(process.current)]
        process.puller.revalidate()
        assert process.value == 10

    def test_nothing_there_is_overtaken_by_a_creation(self, process: Process) -> None:
        """Of two first pulls, the one that found nothing does not replace the one that found something; nor does it say
        that what is there by now is gone.
        """

        def created() -> None:
            publish(process.bucket, 10)
            in_thread(process.puller.download)

        def answer_nothing() -> None:
            created()
            raise NotFoundError("not there a moment ago", url=URL, status=404, code="NoSuchKey")

        process.store.before["get"] = [answer_nothing]
        process.puller.revalidate()
        assert process.value == 10

    def test_commit_under_way_is_not_downloaded(self) -> None:
        """A reader that the store tells of this process's own commit waits for it instead of fetching it again."""
        store = HookedStore(MemoryStore())
        counting = CountingStore(store)
        client = Client(counting, EtagCached()).map(create_tables=True)
        client_creates(client)
        size = store.head(KEY).size
        counting.reset()
        changed, asking, landed = Gate(), Gate(), Gate()
        writing = Background(lambda: client.increment(before_commit=changed))
        changed.wait()
        store.before["get"], store.after["put"] = [asking], [landed]
        reading = Background(client.value)
        asking.wait()
        changed.open()
        landed.wait()
        asking.open()
        until(lambda: counting.count("get") == 2)
        landed.open()
        assert (writing.result(), reading.result()) == (1, 1)
        assert counting.count("get", "ok") == 1
        assert counting.bytes_down <= 100 < size


def client_creates(client: Client) -> None:
    """The counter, at 0."""
    with db_session:
        client.Counter(id=1, value=0)


class TestMaxAge:
    """How long an answer is good for, by every clock: either of them may stand still."""

    @pytest.mark.parametrize(
        ("moves", "asks"),
        [
            ([], False),
            ([("advance", 9.9)], False),
            ([("advance", 10.0)], True),
            ([("skew", 10.0)], True),
            ([("advance", 10.0), ("skew", -10.0)], True),
            ([("advance", 10.0), ("skew", -1000.0)], True),
            ([("skew", -1000.0)], False),
            ([("advance", 5.0), ("skew", 4.9)], False),
        ],
    )
    def test_asks_again(self, process: Process, first: Version, moves: list[tuple[str, float]], asks: bool) -> None:
        """Monotonic time stands still in a frozen machine, wall time when it is set back."""
        process.counting.reset()
        for move, seconds in moves:
            getattr(process.clock, move)(seconds)
        process.puller.revalidate(max_age=10)
        assert process.requests == asks

    def test_age_counts_from_when_the_request_was_sent(self, process: Process, first: Version) -> None:
        """A slow answer is as old as its question."""
        process.store.after["get"] = [lambda: process.clock.advance(6)]
        process.puller.revalidate()
        process.clock.advance(4)
        process.counting.reset()
        process.puller.revalidate(max_age=10)
        assert process.requests == 1

    def test_failed_request_is_no_answer(self, process: Process, first: Version) -> None:
        """The age of the last good one goes on."""
        process.clock.advance(20)
        process.store.before["get"] = [failing(StoreUnavailableError("down", url=URL))] * 10
        with pytest.raises(StoreUnavailableError):
            process.puller.revalidate(max_age=10)
        process.store.before.clear()
        process.counting.reset()
        process.puller.revalidate(max_age=10)
        assert process.requests == 1

    def test_own_commit_is_an_answer(self, process: Process, first: Version) -> None:
        """At its moment the working copy was current."""
        process.clock.advance(20)
        process.puller.acknowledged(process.puller.moment())
        process.clock.advance(9)
        process.counting.reset()
        process.puller.revalidate(max_age=10)
        assert process.requests == 0

    def test_abandoned_working_copy_has_no_age(self, process: Process, first: Version) -> None:
        """After a refused commit there is nothing to read, however recent the last answer."""
        process.replica.abandon(process.current)
        process.puller.revalidate(max_age=1000)
        assert process.value == 10
