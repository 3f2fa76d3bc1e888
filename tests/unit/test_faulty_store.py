"""The store that fails on purpose: each fault does what it says, and a seed repeats itself."""

from __future__ import annotations

import io

import pytest

from temaki.errors import ConfigurationError, NotFoundError, PreconditionFailedError, StoreUnavailableError
from temaki.stores.memory import MemoryStore
from temaki.testing import Fault, FaultyStore, ManualClock
from temaki.testing.faulty import ONLY_WHEN_TOLD
from temaki.testing.stores import fetch, read_all


@pytest.fixture
def memory() -> MemoryStore:
    """What is really stored."""
    return MemoryStore()


@pytest.fixture
def store(memory: MemoryStore) -> FaultyStore:
    """A faulty view of it."""
    return FaultyStore(memory, clock=ManualClock())


def test_lost_reply(store: FaultyStore, memory: MemoryStore) -> None:
    """LOST_REPLY: the write lands; whoever sent it cannot know."""
    store.fail_next("put", Fault.LOST_REPLY)
    with pytest.raises(StoreUnavailableError) as caught:
        store.put("a", b"1")
    assert caught.value.ambiguous
    assert fetch(memory, "a") == b"1"
    store.fail_next("delete", Fault.LOST_REPLY)
    with pytest.raises(StoreUnavailableError):
        store.delete("a")
    with pytest.raises(NotFoundError):
        memory.head("a")


def test_a_refusal_can_be_lost(store: FaultyStore, memory: MemoryStore) -> None:
    """LOST_REPLY of a request whose condition is false: nothing lands, and nobody hears of the refusal."""
    memory.put("a", b"1")
    store.fail_next("put", Fault.LOST_REPLY)
    with pytest.raises(StoreUnavailableError):
        store.put("a", b"2", if_none_match=True)
    assert fetch(memory, "a") == b"1"


def test_fail_before(store: FaultyStore, memory: MemoryStore) -> None:
    """FAIL_BEFORE: nothing lands, and nobody can tell."""
    store.fail_next("put", Fault.FAIL_BEFORE)
    with pytest.raises(StoreUnavailableError) as caught:
        store.put("a", b"1")
    assert caught.value.ambiguous
    assert caught.value.status == 503
    with pytest.raises(NotFoundError):
        memory.head("a")


def test_refused(store: FaultyStore, memory: MemoryStore) -> None:
    """REFUSED: nothing lands, and that is certain."""
    store.fail_next("put", Fault.REFUSED)
    with pytest.raises(StoreUnavailableError) as caught:
        store.put("a", b"1")
    assert not caught.value.ambiguous
    with pytest.raises(NotFoundError):
        memory.head("a")


def test_conflict(store: FaultyStore, memory: MemoryStore) -> None:
    """CONFLICT_409: undecided; nothing lands."""
    store.fail_next("put", Fault.CONFLICT_409)
    with pytest.raises(PreconditionFailedError) as caught:
        store.put("a", b"1", if_none_match=True)
    assert caught.value.in_flight
    with pytest.raises(NotFoundError):
        memory.head("a")


def test_late_landing_when_told(store: FaultyStore, memory: MemoryStore) -> None:
    """LATE_LANDING: the request lands later, with the bytes that it had when it was sent."""
    body = io.BytesIO(b"as sent")
    store.fail_next("put", Fault.LATE_LANDING, late_after=ONLY_WHEN_TOLD)
    with pytest.raises(StoreUnavailableError) as caught:
        store.put("a", body, metadata={"a": "b"})
    assert caught.value.ambiguous
    body.seek(0)
    body.write(b"changed")
    for _ in range(20):
        assert list(store.list()) == []
    assert store.late == 1
    assert store.land_late() == 1
    assert store.late == store.land_late() == 0
    assert fetch(memory, "a") == b"as sent"
    assert dict(memory.head("a").metadata) == {"a": "b"}


def test_late_landing_by_itself(store: FaultyStore, memory: MemoryStore) -> None:
    """LATE_LANDING: it lands before the n-th following call, and not earlier."""
    store.fail_next("put", Fault.LATE_LANDING, late_after=3)
    with pytest.raises(StoreUnavailableError):
        store.put("a", b"1")
    for _ in range(2):
        with pytest.raises(NotFoundError):
            store.head("a")
    assert store.head("a").size == 1


def test_a_late_request_keeps_its_condition(store: FaultyStore, memory: MemoryStore) -> None:
    """LATE_LANDING: what its condition no longer allows vanishes without a word."""
    etag = memory.put("a", b"0")
    store.fail_next("put", Fault.LATE_LANDING, late_after=ONLY_WHEN_TOLD)
    with pytest.raises(StoreUnavailableError):
        store.put("a", b"late", if_match=etag)
    store.put("a", b"in time", if_match=etag)
    assert store.land_late() == 0
    assert fetch(memory, "a") == b"in time"


def test_late_delete(store: FaultyStore, memory: MemoryStore) -> None:
    """LATE_LANDING of a delete: the object goes later."""
    memory.put("a", b"0")
    store.fail_next("delete", Fault.LATE_LANDING, late_after=ONLY_WHEN_TOLD)
    with pytest.raises(StoreUnavailableError):
        store.delete("a")
    assert store.head("a").size == 1
    store.land_late()
    with pytest.raises(NotFoundError):
        store.head("a")


def test_truncated(store: FaultyStore, memory: MemoryStore) -> None:
    """TRUNCATED: the length is announced, the first bytes are right, and then comes an error instead of an end."""
    data = bytes(range(250))
    memory.put("a", data)
    store.fail_next("get", Fault.TRUNCATED)
    download = store.get("a")
    assert download is not None
    assert download.length == 250
    received = b""
    with download, pytest.raises(StoreUnavailableError):  # noqa: PT012 - which read fails is not the point
        while True:
            piece = download.read(10)
            assert piece
            received += piece
    assert received == data[: len(received)]
    assert len(received) < len(data)
    assert fetch(store, "a") == data


def test_latency(memory: MemoryStore) -> None:
    """LATENCY: the clock moves, the request works."""
    clock = ManualClock()
    store = FaultyStore(memory, clock=clock, latency=2.5, plan=[("put", Fault.LATENCY)])
    store.put("a", b"1")
    store.put("b", b"1")
    assert clock.slept == [2.5]
    assert fetch(memory, "a") == b"1"


def test_plan(memory: MemoryStore) -> None:
    """A plan says what becomes of each next call of a verb, for one key if it says so; then all is well again."""
    memory.put("a", b"1")
    store = FaultyStore(memory, plan=[("head", None), ("head", Fault.REFUSED)])
    store.fail_next("head", Fault.FAIL_BEFORE, key="b")
    store.head("a")
    with pytest.raises(StoreUnavailableError):
        store.head("a")
    store.head("a")
    with pytest.raises(StoreUnavailableError):
        store.head("b")
    assert fetch(store, "a") == b"1"
    assert store.faults == [("head", "a", Fault.REFUSED), ("head", "b", Fault.FAIL_BEFORE)]


def test_stop(memory: MemoryStore) -> None:
    """After stop() everything works, so that a test can look at what is left."""
    store = FaultyStore(memory, rates={"put": {Fault.REFUSED: 1.0}}, plan=[("get", Fault.REFUSED)])
    store.stop()
    store.put("a", b"1")
    assert fetch(store, "a") == b"1"
    assert store.faults == []


RATES = {
    "put": {Fault.LOST_REPLY: 0.2, Fault.FAIL_BEFORE: 0.1, Fault.LATE_LANDING: 0.2, Fault.CONFLICT_409: 0.1},
    "get": {Fault.TRUNCATED: 0.3, Fault.REFUSED: 0.1},
}


def _story(seed: int) -> tuple[list[object], list[object]]:
    store = FaultyStore(MemoryStore(), seed=seed, rates=RATES)  # type: ignore[arg-type]
    told: list[object] = []
    for number in range(200):
        try:
            store.put(f"key-{number % 3}", str(number).encode() * 10)
            told.append("stored")
        except (StoreUnavailableError, PreconditionFailedError) as error:
            told.append(str(error))
        try:
            download = store.get(f"key-{number % 3}")
            assert download is not None
            told.append(read_all(download.read))
        except (StoreUnavailableError, NotFoundError) as error:
            told.append(str(error))
    return told, list(store.faults)


def test_a_seed_repeats_itself() -> None:
    """Equal seeds and equal calls give equal faults at equal places; another seed gives others."""
    assert _story(1) == _story(1)
    assert _story(1) != _story(2)


def test_rates_are_kept() -> None:
    """Over many calls each fault comes about as often as its rate says."""
    store = FaultyStore(MemoryStore(), seed=3, rates={"put": {Fault.LOST_REPLY: 0.25, Fault.REFUSED: 0.1}})
    for _ in range(2_000):
        try:
            store.put("a", b"1")
        except StoreUnavailableError:
            continue
    counted = [fault for _, _, fault in store.faults]
    assert 420 < counted.count(Fault.LOST_REPLY) < 580
    assert 140 < counted.count(Fault.REFUSED) < 260


def test_impossible_faults_are_refused(memory: MemoryStore, store: FaultyStore) -> None:
    """A fault that a verb cannot have, rates beyond one, latency without a clock: mistakes, said at once."""
    with pytest.raises(ConfigurationError, match="TRUNCATED"):
        store.fail_next("put", Fault.TRUNCATED)
    with pytest.raises(ConfigurationError, match="exceed"):
        FaultyStore(memory, rates={"put": {Fault.REFUSED: 0.7, Fault.LOST_REPLY: 0.7}})
    with pytest.raises(ConfigurationError, match="clock"):
        FaultyStore(memory, rates={"put": {Fault.LATENCY: 0.5}})
