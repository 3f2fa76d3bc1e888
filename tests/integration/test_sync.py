"""``db.sync``: what happened is counted and told, and a version can be waited for."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any
from unittest.mock import ANY

import pytest
from pony.orm import Database as PlainDatabase
from pony.orm import Required, db_session, rollback

from temaki import BookmarkError, ConfigurationError, Database, bind_s3, cause_of, sync_of
from temaki.clock import Moment
from temaki.errors import ConflictError
from temaki.events import Conflict, Event, Failed, LeaseAcquired, LeaseLost, LeaseReleased, Published, Pulled, Unchanged
from temaki.stores.memory import MemoryStore
from temaki.sync import Bookmark, Sync
from temaki.testing import Fault, FaultyStore
from temaki.testing.strategies import Client
from temaki_strategies import EtagCached, LeaseLocked
from tests.hooked import HookedStore
from tests.leases import operator


def _kinds(events: list[Event]) -> list[type[Event]]:
    return [type(event) for event in events]


@pytest.fixture
def client(store: HookedStore, other: Client) -> Client:
    """This process, with the database that the other one has made; nothing has been read yet."""
    return Client(store, EtagCached())


def _listened(client: Client) -> list[Event]:
    heard: list[Event] = []
    client.db.sync.on_event(heard.append)
    return heard


def test_what_happens_is_told_and_counted(client: Client, other: Client) -> None:
    """A first read pulls, a second is unchanged, a write is published, with versions, sizes and pages."""
    heard = _listened(client)
    client.map()
    client.value()
    client.value()
    client.increment()
    other.increment()
    client.value()
    assert _kinds(heard) == [Pulled, Unchanged, Unchanged, Unchanged, Published, Pulled]
    pulled, published, again = heard[0], heard[4], heard[5]
    assert isinstance(pulled, Pulled)
    assert isinstance(published, Published)
    assert isinstance(again, Pulled)
    assert (published.sequence, again.sequence) == (pulled.sequence + 1, pulled.sequence + 2)
    assert published.size == pulled.size
    assert 1 <= published.pages < published.size // 4096 + 1
    assert published.url == client.db.provider.engine.url

    found = client.db.sync.snapshot()
    assert (found.sequence, found.commit, found.size) == (again.sequence, again.commit, again.size)
    assert (found.pulls, found.unchanged, found.commits, found.conflicts) == (2, 3, 1, 0)
    assert found.sessions == 5
    assert found.traffic.count("get", "ok") == 2
    assert found.traffic.count("get", "not_modified") == 3
    assert found.traffic.count("put") == 1
    assert (found.traffic.bytes_up, found.traffic.bytes_down) == (published.size, pulled.size + again.size)
    assert (found.sent, found.received) == (found.traffic.bytes_up, found.traffic.bytes_down)
    assert (found.full_pulls, found.catch_ups, found.segments, found.tail) == (2, 0, None, None)
    assert (published.version_size, published.objects) == (published.size, 0)
    assert found.changed == published.changed == 4096 * published.pages
    assert found.age is not None
    assert {"pull", "begin", "commit"} <= found.seconds.keys()


def test_pages_are_told_and_counted(store: HookedStore, bucket: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the format ``pages`` an upload is the head and its segments, and a pull what it fetched: the store's numbers.

    The store counts each byte itself, so a number that leaves an object out, or counts one twice, is another one.
    """
    monkeypatch.setenv("TEMAKI_FORMAT", "pages")
    writer = Client(store, EtagCached()).map(create_tables=True)
    with db_session:
        writer.Counter(id=1, value=0)
        writer.db.execute("CREATE TABLE filler (id INTEGER PRIMARY KEY, body TEXT)")
        writer.db.execute(
            "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) "
            "INSERT INTO filler SELECT i, hex(randomblob(90)) FROM n"
        )
    reader = Client(bucket, EtagCached()).map()
    assert reader.value() == 0
    wrote, read = _listened(writer), _listened(reader)
    before, pulled_before = writer.db.sync.snapshot(), reader.db.sync.snapshot()
    for row in range(1, 60):
        with db_session:
            writer.db.execute(f"UPDATE filler SET body = hex(randomblob(90)) WHERE id = {50 * row}")
    writer.increment()
    assert reader.value() == 1
    published = [event for event in wrote if isinstance(event, Published)]
    now, pulled_now = writer.db.sync.snapshot(), reader.db.sync.snapshot()
    assert sum(event.size for event in published) == now.traffic.bytes_up - before.traffic.bytes_up
    assert now.sent - before.sent == now.traffic.bytes_up - before.traffic.bytes_up
    assert now.changed - before.changed == 4096 * sum(event.pages for event in published)
    assert {event.objects for event in published} == {0, 1}, "some commits uploaded a segment, and most did not"
    assert {event.version_size for event in published} == {now.size}
    assert all(event.size < event.version_size / 4 for event in published)
    assert (now.segments, now.tail) == (pulled_now.segments, pulled_now.tail)
    assert now.segments
    assert now.tail

    (pulled,) = (event for event in read if isinstance(event, Pulled))
    assert pulled.is_catch_up
    assert pulled.size == now.size
    assert pulled.received == pulled_now.traffic.bytes_down - pulled_before.traffic.bytes_down
    assert (pulled_now.catch_ups, pulled_now.full_pulls) == (1, pulled_now.pulls - 1)
    late = Client(bucket, EtagCached())
    late_heard = _listened(late)
    late.map()
    found = late.db.sync.snapshot()
    assert (found.catch_ups, found.full_pulls, found.received) == (0, 1, found.traffic.bytes_down)
    assert isinstance(late_heard[0], Pulled)
    assert (late_heard[0].size, late_heard[0].received) == (now.size, found.received)


def test_nothing_is_counted_before_anything_happens(client: Client) -> None:
    """A snapshot makes no request, and knows no version yet."""
    found = client.db.sync.snapshot()
    assert (found.sequence, found.age, found.sessions, found.traffic.count()) == (None, None, 0, 0)
    with pytest.raises(ConfigurationError, match="neither read nor written"):
        client.db.sync.bookmark()


def test_a_callback_that_raises_harms_no_commit(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever it raises, wherever: the session reads, writes and stores as ever, and it is logged."""
    client.map()

    def fail(event: Event) -> None:
        raise RuntimeError(event)

    client.db.sync.on_event(fail)
    client.db.sync.on_request(lambda request: 1 / 0)
    assert client.increment(retry=0) == 1
    assert client.value() == 1
    assert any("a callback failed on Published" in record.message for record in caplog.records)


def test_conflicts_and_retries_are_told(store: HookedStore, other: Client) -> None:
    """A lost race is a conflict, at the commit or before it; a repeated request is a retry."""
    faulty = FaultyStore(store)
    client = Client(faulty, EtagCached()).map()
    client.value()
    heard = _listened(client)
    client.increment(retry=3, before_commit=_once(other.increment))
    assert [event.operation for event in heard if isinstance(event, Conflict)] == ["commit"]
    assert client.db.sync.snapshot().conflicts == 1
    faulty.fail_next("get", Fault.FAIL_BEFORE)
    client.value()
    found = client.db.sync.snapshot()
    assert (found.retries, found.traffic.count("get", "failed")) == (1, 1)
    assert found.seconds["retry"] > 0


def _once(call: Callable[[], object]) -> Callable[[], object]:
    """Something that happens once, in another thread: a session there is none of this one's."""
    calls = [call]

    def run() -> None:
        if calls:
            thread = threading.Thread(target=calls.pop())
            thread.start()
            thread.join()

    return run


def test_failures_are_told(client: Client, bucket: MemoryStore) -> None:
    """What goes wrong in another way has a name."""
    client.map()
    heard = _listened(client)
    bucket.delete("app.sqlite")
    with pytest.raises(Exception, match="is gone"):
        client.value()
    assert [(event.operation, event.error) for event in heard if isinstance(event, Failed)] == [
        ("pull", "NotFoundError")
    ]


def test_the_lease_is_told(bucket: MemoryStore, other: Client) -> None:
    """Taken once for several sessions of one hold; and lost, when somebody breaks it in the middle of a session."""
    client = Client(bucket, LeaseLocked(ttl=3, acquire_timeout=10)).map()
    heard = _listened(client)
    client.increment()
    assert [event for event in heard if isinstance(event, (LeaseAcquired, LeaseReleased))] == [
        LeaseAcquired(client.db.provider.engine.url, 1, ANY),
        LeaseReleased(client.db.provider.engine.url, 1),
    ]
    shared = client.db.provider.engine.shared
    lease: Any = shared.lease.get(ttl=3, acquire_timeout=10, hold=0)

    def evict() -> None:
        record = operator(lease).inspect()
        assert record is not None
        operator(lease).break_(record)
        lease._tenure.written = Moment(float("-inf"), float("-inf"))  # so much later that it looks again

    evicting = _once(evict)

    @db_session(retry=2, immediate=True)
    def write() -> None:
        client.Counter[1].value += 1
        evicting()

    write()
    assert [event.generation for event in heard if isinstance(event, LeaseLost)] == [2]
    assert client.db.sync.snapshot().leases == 3


def test_a_bookmark_is_read_by_another_process(client: Client, other: Client) -> None:
    """Who was handed a bookmark reads at least that version, although it may skip the question otherwise."""
    slow = Client(other.db.provider.engine.shared.store, EtagCached(max_age=3600)).map()
    assert slow.value() == 0
    client.map()
    client.increment()
    text = str(client.db.sync.bookmark())
    assert slow.value() == 0
    slow.db.sync.wait_for(text, timeout=5)
    assert slow.value() == 1
    requests = slow.db.sync.snapshot().traffic.count()
    slow.db.sync.wait_for(Bookmark.parse(text), timeout=5)
    assert slow.db.sync.snapshot().traffic.count() == requests
    client.increment()
    slow.db.sync.wait_for(text, timeout=0)


def test_a_bookmark_is_waited_for(client: Client, other: Client, store: HookedStore) -> None:
    """The version may come while one waits; if it does not, that is an error which says so."""
    client.map()
    client.value()
    now = client.db.sync.bookmark()
    coming = Bookmark(now.sequence + 1, "f" * 24)
    with pytest.raises(BookmarkError, match="wait longer") as caught:
        client.db.sync.wait_for(coming, timeout=0.01)
    assert (caught.value.lost, caught.value.bookmark) == (False, str(coming))
    store.before["get"] = [lambda: None, lambda: None, other.increment]
    client.db.sync.wait_for(Bookmark(now.sequence, now.commit), timeout=0)
    other.increment()
    with pytest.raises(BookmarkError) as caught:
        client.db.sync.wait_for(coming, timeout=60)
    assert caught.value.lost, "the lineage shows that another version has that number"


def test_a_bookmark_comes_while_it_is_waited_for(client: Client, other: Client, store: HookedStore) -> None:
    """The store is asked again until it has it."""
    client.map()
    client.value()
    marks: list[Bookmark] = []

    def write() -> None:
        with db_session:
            pass

    store.before["get"] = [lambda: None, write]
    other.increment()
    marks.append(other.db.sync.bookmark())
    client.db.sync.wait_for(marks[0], timeout=30)
    assert client.db.sync.bookmark() == marks[0]


@pytest.mark.parametrize("text", ["", "12", "x.0123456789", "1.short", "1.0123456789 "])
def test_what_is_no_bookmark_is_refused(text: str) -> None:
    """With a message that says where bookmarks come from."""
    with pytest.raises(ConfigurationError, match=r"db\.sync\.bookmark"):
        Bookmark.parse(text)


def test_who_has_a_sync() -> None:
    """Bound databases, also plain ones of Pony's; the others say why not."""
    db = Database()
    with pytest.raises(ConfigurationError, match="not bound"):
        _ = db.sync
    db.bind("sqlite", ":memory:")
    with pytest.raises(ConfigurationError, match="SQLite"):
        _ = db.sync
    plain = PlainDatabase()
    bind_s3(plain, "memory://plain/app.sqlite")
    assert isinstance(sync_of(plain), Sync)


def test_logs_tell_no_secrets_and_little_in_normal_operation(
    store: HookedStore, other: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """At INFO and above, reading, writing and a retried conflict say nothing; at DEBUG, no row and no statement."""
    caplog.set_level(logging.DEBUG, logger="temaki")
    db = Database()

    class Person(db.Entity):  # type: ignore[name-defined]
        name = Required(str)

    db.bind_s3("memory://logs/app.sqlite")
    db.generate_mapping(create_tables=True)
    with db_session:
        Person(name="Very Secret Name")
    with db_session:
        assert Person.get(name="Very Secret Name")
        rollback()
    client = Client(store, EtagCached()).map()
    client.increment(before_commit=_once(other.increment))
    records = [record for record in caplog.records if record.name.startswith("temaki")]
    assert {record.levelname for record in records} == {"DEBUG"}
    assert not any("Very Secret Name" in record.getMessage() or "SELECT" in record.getMessage() for record in records)


def test_the_cause_of_a_conflict_is_still_the_conflict(client: Client, other: Client) -> None:
    """Watching an operation changes nothing about what it raises."""
    client.map()
    with pytest.raises(Exception, match="Another writer") as caught:
        client.increment(retry=0, before_commit=_once(other.increment))
    assert isinstance(cause_of(caught.value), ConflictError)
