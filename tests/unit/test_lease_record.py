"""`temaki.lease.record`: how the record reads, and how it is replaced exactly once."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from temaki.errors import LeaseRecordError, StoreUnavailableError
from temaki.lease.owner import Owner
from temaki.lease.record import ChangedError, LeaseObject, LeaseRecord, Seen, _age, new_write_id
from temaki.remote.retry import RetryPolicy
from temaki.store import ObjectInfo
from temaki.stores.memory import MemoryStore
from temaki.testing.clock import ManualClock
from temaki.testing.counting import CountingStore
from temaki.testing.faulty import ONLY_WHEN_TOLD, Fault, FaultyStore

KEY = "app.sqlite.lease"


def a_record(**changes: Any) -> LeaseRecord:
    """One that is held, in generation 7."""
    facts: dict[str, Any] = {"held": True, "owner": Owner("vm", 42, "t0ken"), "generation": 7, "ttl": 30.0}
    return LeaseRecord(**{**facts, "purpose": "write", "since": 1.75e9, "served": {"t0ken": 7}, "waited": 0, **changes})


class Bucket:
    """A record's way to the store, counted, failing as told."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.memory = MemoryStore("lease", clock=self.clock)
        self.counting = CountingStore(self.memory)
        self.faulty = FaultyStore(self.counting)
        self.object = LeaseObject(self.faulty, KEY, RetryPolicy(self.clock, random.Random(1), timeout=10))

    def put(self, raw: bytes) -> None:
        """Have this in the record's place."""
        self.memory.put(KEY, raw)

    def raw(self) -> bytes:
        """What is there."""
        download = self.memory.get(KEY)
        assert download is not None
        return download.read(download.length)

    def seen(self) -> Seen:
        """What is there, as a record."""
        seen = self.object.read()
        assert seen is not None
        return seen


@pytest.fixture
def bucket() -> Bucket:
    """An empty one."""
    return Bucket()


# -- the format -----------------------------------------------------------------------------------------------------


def test_round_trip(bucket: Bucket) -> None:
    """What is written is what is read, each fact of it; and no record is None, not an error."""
    assert bucket.object.read() is None
    record = a_record(held=False, since=1.5)
    written = bucket.object.write(record, None)
    assert bucket.seen() == written
    assert bucket.seen().record == record


def test_no_two_records_have_equal_bytes() -> None:
    """So an ETag made of the contents tells one write from another."""
    assert a_record().to_bytes() != a_record().to_bytes()


def test_unknown_fields_are_tolerated(bucket: Bucket) -> None:
    """A later temaki may say more in the same format."""
    record = a_record()
    facts = json.loads(record.to_bytes())
    facts["more"], facts["owner"]["more"] = [1], {}
    bucket.put(json.dumps(facts).encode())
    assert bucket.seen().record == record


def changed(**changes: Any) -> bytes:
    """A record's bytes with other values; ``...`` leaves a field out."""
    facts = {**json.loads(a_record().to_bytes()), **changes}
    return json.dumps({name: value for name, value in facts.items() if value is not ...}).encode()


BROKEN = {
    "empty": b"",
    "huge": b" " * (1 << 16) + changed(),
    "not JSON": b"SQLite format 3\0",
    "not UTF-8": b"\xff\xfe\xfd",
    "cut": changed()[:-5],
    "a list": b"[]",
    "a number": b"1",
    "null": b"null",
    "a text": b'"lease"',
    "an empty object": b"{}",
    "brackets in brackets": b"[" * (1 << 16),
    "newer": changed(format=2),
    "format as bool": changed(format=True),
    "format as text": changed(format="1"),
    "served as list": changed(served=["t0ken"]),
    "served without generation": changed(served={"t0ken": None}),
    "waited missing": changed(waited=...),
    "generation 0": changed(generation=0),
    "generation -1": changed(generation=-1),
    "generation as bool": changed(generation=True),
    "generation as float": changed(generation=7.0),
    "ttl nan": changed(ttl=float("nan")),
    "ttl inf": changed(ttl=float("inf")),
    "ttl 0": changed(ttl=0),
    "ttl negative": changed(ttl=-1.0),
    "ttl as text": changed(ttl="30"),
    "ttl as bool": changed(ttl=True),
    "ttl beyond floats": changed(ttl=10**400),
    "held as int": changed(held=1),
    "held missing": changed(held=...),
    "owner as text": changed(owner="vm"),
    "owner null": changed(owner=None),
    "pid as text": changed(owner={"host": "vm", "pid": "42", "token": "t"}),
    "token missing": changed(owner={"host": "vm", "pid": 42}),
    "since as text": changed(since="today"),
    "write missing": changed(write=...),
}


@pytest.mark.parametrize("raw", BROKEN.values(), ids=BROKEN.keys())
def test_what_is_no_record_is_an_error_and_stays(bucket: Bucket, raw: bytes) -> None:
    """Foreign or broken: the error names the object and says what to do, and nothing is written over it."""
    bucket.put(raw)
    with pytest.raises(LeaseRecordError, match=r"memory://lease/app\.sqlite\.lease is no lease that .+: .+"):
        bucket.object.read()
    with pytest.raises(LeaseRecordError, match="move the object away"):
        bucket.object.write(a_record(), None)
    with pytest.raises(LeaseRecordError):
        bucket.object.write(a_record(), Seen(a_record(), "an-older-etag"))
    assert bucket.raw() == raw


def test_newer_format_says_so(bucket: Bucket) -> None:
    """Who has an old temaki learns that it is that."""
    bucket.put(changed(format=2))
    with pytest.raises(LeaseRecordError, match="its format is 2, and this temaki knows 1"):
        bucket.object.read()


# -- exactly once -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("create", [True, False])
@pytest.mark.parametrize(
    "faults",
    [
        [Fault.LOST_REPLY],
        [Fault.LOST_REPLY, Fault.LOST_REPLY],
        [Fault.FAIL_BEFORE, Fault.LOST_REPLY],
        [Fault.REFUSED],
        [Fault.CONFLICT_409],
        [Fault.CONFLICT_409, Fault.LOST_REPLY, Fault.CONFLICT_409],
        [Fault.LATE_LANDING],
        [Fault.LATE_LANDING, Fault.CONFLICT_409],
    ],
    ids=lambda faults: "+".join(fault.name for fault in faults),
)
def test_written_once_whatever_fails(bucket: Bucket, faults: list[Fault], *, create: bool) -> None:
    """A write that succeeds in the end has landed once, under the ETag that it returns, and is neither lost nor won."""
    before = None if create else bucket.object.write(a_record(generation=6), None)
    bucket.counting.reset()
    bucket.faulty.fail_next("put", *faults, late_after=1)
    record = a_record()
    written = bucket.object.write(record, before)
    assert (written.record, written.etag) == (record, bucket.memory.head(KEY).etag)
    assert bucket.counting.count("put", "ok") == 1


def test_late_landing_after_the_repetition_is_refused(bucket: Bucket) -> None:
    """The repetition replaced what the late request's condition names."""
    bucket.faulty.fail_next("put", Fault.LATE_LANDING, late_after=ONLY_WHEN_TOLD)
    written = bucket.object.write(a_record(), None)
    assert bucket.faulty.land_late() == 0
    assert bucket.memory.head(KEY).etag == written.etag


@pytest.mark.parametrize("faults", [[], [Fault.LOST_REPLY], [Fault.FAIL_BEFORE], [Fault.CONFLICT_409]])
def test_somebody_else_came_first(bucket: Bucket, faults: list[Fault]) -> None:
    """A reply that is lost does not make a winner of a loser; the other's record stays."""
    before = bucket.object.write(a_record(), None)
    bucket.object.write(other := a_record(generation=8), before)
    bucket.faulty.fail_next("put", *faults)
    with pytest.raises(ChangedError):
        bucket.object.write(a_record(generation=8), before)
    assert bucket.seen().record == other


@pytest.mark.parametrize("fault", [Fault.FAIL_BEFORE, Fault.REFUSED, Fault.CONFLICT_409, Fault.LOST_REPLY])
def test_a_store_that_never_says_is_an_error(bucket: Bucket, fault: Fault) -> None:
    """Neither won nor lost: the error of the store, once the time is over."""
    started = bucket.clock.monotonic()
    bucket.faulty.fail_next("put", *[fault] * 1000)
    bucket.faulty.fail_next("get", *[Fault.REFUSED] * 1000)
    with pytest.raises(StoreUnavailableError):
        bucket.object.write(a_record(), None)
    assert 10 <= bucket.clock.monotonic() - started < 11


@pytest.mark.parametrize("fault", [Fault.LOST_REPLY, Fault.FAIL_BEFORE, Fault.REFUSED, Fault.TRUNCATED])
def test_reading_is_repeated(bucket: Bucket, fault: Fault) -> None:
    """A failed look is another look, never "there is no record"."""
    written = bucket.object.write(a_record(), None)
    bucket.faulty.fail_next("get", fault, fault)
    assert bucket.seen() == written


# -- ages ---------------------------------------------------------------------------------------------------------


def test_age_by_the_stores_own_clock(bucket: Bucket) -> None:
    """Since it was written, less the second that HTTP's dates may be off; this machine's clock has no say."""
    bucket.object.write(a_record(), None)
    assert bucket.seen().age == 0
    bucket.clock.advance(0.9)
    assert bucket.seen().age == 0
    bucket.clock.advance(10)
    assert bucket.seen().age == pytest.approx(9.9)


@pytest.mark.parametrize(
    ("last_modified", "date", "age"), [(None, 5, 0), (5, None, 0), (5, 5, 0), (9, 5, 0), (5, 6, 0), (5, 16, 10)]
)
def test_age_is_never_more_than_what_the_store_shows(last_modified: int | None, date: int | None, age: float) -> None:
    """0 where the store does not say, or says nonsense."""
    start = datetime(2025, 6, 15, tzinfo=UTC)
    moments = [None if at is None else start + timedelta(seconds=at) for at in (last_modified, date)]
    assert _age(ObjectInfo(KEY, "etag", 1, last_modified=moments[0], date=moments[1])) == age


def test_write_ids_differ() -> None:
    """They are random, and long enough."""
    assert len({new_write_id() for _ in range(1000)}) == 1000


def test_a_record_of_temaki_0_1_is_read() -> None:
    """It says less of its owner, and nothing of evictions."""
    bucket = Bucket()
    facts = json.loads(a_record().to_bytes())
    del facts["evicted"]
    facts["owner"] = {name: facts["owner"][name] for name in ("host", "pid", "token")}
    bucket.put(json.dumps(facts).encode())
    record = bucket.seen().record
    assert (record.owner, record.evicted) == (Owner("vm", 42, "t0ken"), {})
    assert not record.owner.is_gone()


def test_what_temaki_0_1_reads_is_still_there() -> None:
    """It ignores what it does not know, in a record of the format that it knows."""
    owner = Owner("vm", 42, "t0ken", boot="b", namespaces="n", started=7)
    facts = json.loads(a_record(owner=owner, evicted={"6": "process 1 on vm"}).to_bytes())
    types = {
        "format": int, "held": bool, "generation": int, "ttl": float, "purpose": str, "since": float, "served": dict,
        "waited": int, "write": str,
    }  # fmt: skip
    assert {name: type(facts[name]) for name in types} == types
    assert facts["format"] == 1
    assert {name: type(facts["owner"][name]) for name in ("host", "pid", "token")} == {
        "host": str,
        "pid": int,
        "token": str,
    }


@pytest.mark.parametrize(
    "changes",
    [{"owner": {"boot": 1}}, {"owner": {"namespaces": []}}, {"owner": {"started": "7"}}, {"evicted": {"6": 1}}],
    ids=str,
)
def test_what_is_new_is_checked_as_well(changes: dict[str, Any]) -> None:
    """A record that only looks like one is left alone."""
    bucket = Bucket()
    facts = json.loads(a_record().to_bytes())
    facts["owner"].update(changes.get("owner", {}))
    facts["evicted"].update(changes.get("evicted", {}))
    bucket.put(json.dumps(facts).encode())
    with pytest.raises(LeaseRecordError):
        bucket.object.read()


def test_everything_that_is_written_is_read_back() -> None:
    """The new fields, too."""
    bucket = Bucket()
    record = a_record(owner=Owner("vm", 42, "t0ken", boot="b", namespaces="n", started=7), evicted={"6": "x"})
    bucket.put(record.to_bytes())
    assert bucket.seen().record == record
