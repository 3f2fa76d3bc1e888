"""What sessions ask of the store: requests and bytes, exactly. A number that grows here is a bill that grows."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from pony.orm import db_session

from temaki.remote import transfer
from temaki.stores.memory import MemoryStore
from temaki.strategy import Strategy
from temaki.testing import CountingStore
from temaki.testing.strategies import KEY, Client
from temaki_strategies import AlwaysDownload, EtagCached, LeaseLocked, ReadOnly

Work = Callable[[Client, Client], object]

ROWS = 300


def read(client: Client, _: Client) -> None:
    """A session that reads a row."""
    with db_session:
        assert client.Counter[1].value >= 0


def commit(client: Client, _: Client) -> None:
    """A session that changes a row."""
    with db_session:
        client.Counter[1].value += 1


def commit_hundred(client: Client, _: Client) -> None:
    """A session that changes a hundred."""
    with db_session:
        for counter in client.Counter.select(lambda counter: counter.id <= 100):
            counter.value += 1


def commit_immediately(client: Client, _: Client) -> None:
    """A session that is to write from its start."""
    with db_session(immediate=True):
        client.Counter[1].value += 1


def write_nothing(client: Client, _: Client) -> None:
    """A session that takes the writer's way, and changes nothing."""
    with db_session(immediate=True):
        assert client.Counter[1].value >= 0


def read_after_another(client: Client, other: Client) -> None:
    """A session that reads what another process has just committed."""
    commit(other, client)
    with db_session:
        assert client.Counter[1].value == 1


def touch_nothing(_: Client, __: Client) -> None:
    """A session that does not touch the database."""
    with db_session:
        pass


# What is asked, and how often the whole database goes up and down. "304": a GET that is answered "unchanged".
UNCHANGED = {"304": 1}
SWAP = {"304": 1, "put": 1}
WHOLE = {"get": 1}
WHOLE_SWAP = {"get": 1, "put": 1}
COSTS: list[tuple[Callable[[], Strategy], Work, dict[str, int], int, int]] = [
    (EtagCached, read, UNCHANGED, 0, 0),
    (EtagCached, read_after_another, WHOLE, 0, 1),
    (EtagCached, commit, SWAP, 1, 0),
    (EtagCached, commit_hundred, SWAP, 1, 0),
    (EtagCached, commit_immediately, SWAP, 1, 0),
    (EtagCached, write_nothing, UNCHANGED, 0, 0),
    (EtagCached, touch_nothing, {}, 0, 0),
    (lambda: EtagCached(max_age=60), read, {}, 0, 0),
    (lambda: EtagCached(max_age=60), commit, {"put": 1}, 1, 0),
    (AlwaysDownload, read, WHOLE, 0, 1),
    (AlwaysDownload, read_after_another, WHOLE, 0, 1),
    (AlwaysDownload, commit, WHOLE_SWAP, 1, 1),
    (AlwaysDownload, commit_hundred, WHOLE_SWAP, 1, 1),
    (AlwaysDownload, touch_nothing, {}, 0, 0),
    (ReadOnly, read, UNCHANGED, 0, 0),
    (ReadOnly, read_after_another, WHOLE, 0, 1),
    (ReadOnly, touch_nothing, {}, 0, 0),
    (LeaseLocked, read, UNCHANGED, 0, 0),
    (LeaseLocked, read_after_another, WHOLE, 0, 1),
    (LeaseLocked, touch_nothing, {}, 0, 0),
]


@pytest.fixture
def bucket() -> MemoryStore:
    """With a database of some rows in it."""
    bucket = MemoryStore()
    maker = Client(bucket, EtagCached()).map(create_tables=True)
    with db_session:
        for number in range(1, ROWS + 1):
            maker.Counter(id=number, value=0)
    return bucket


def warm(bucket: MemoryStore, strategy: Strategy) -> tuple[Client, CountingStore]:
    """A process that has read, and as far as its strategy lets it written, once."""
    store = CountingStore(bucket)
    client = Client(store, strategy).map()
    with db_session:
        assert client.Counter[1].value == 0
        if strategy.writes:
            client.Counter[2].value = 7
    return client, store


def asked(store: CountingStore, key: str | None = KEY) -> dict[str, int]:
    """How many requests of each kind there were for a key."""
    kinds = {"not_modified": "304", "refused": " refused", "failed": " failed"}
    found: Counter[str] = Counter()
    for call in store.calls:
        if call.key == key:
            outcome = kinds.get(call.outcome, "")
            found[outcome if outcome == "304" else call.verb + outcome] += 1
    return dict(found)


@pytest.mark.parametrize(
    ("make", "work", "requests", "up", "down"),
    [
        pytest.param(*cost, id=f"{type(cost[0]()).__name__}{number}-{cost[1].__name__}")
        for number, cost in enumerate(COSTS)
    ],
)
def test_a_session_costs_exactly(
    bucket: MemoryStore, make: Callable[[], Strategy], work: Work, requests: dict[str, int], up: int, down: int
) -> None:
    """In a process that has the database, a session makes these requests, moves these bytes, and nothing beside."""
    client, store = warm(bucket, make())
    other = Client(bucket, EtagCached()).map()
    size = bucket.head(KEY).size
    store.reset()
    work(client, other)
    assert asked(store) == requests
    assert store.count() == sum(requests.values())
    assert (store.bytes_up, store.bytes_down) == (up * size, down * size)


LEASE = {"get": 1, "put": 2}  # what there is now, taking it, giving it back


@pytest.mark.parametrize(
    ("hold", "work", "requests", "of_lease"),
    [
        # It has read before it takes the lease, so it asks again whether that is still current.
        pytest.param(0, commit, {"304": 2, "put": 1}, LEASE, id="commit"),
        pytest.param(0, commit_immediately, {"304": 1, "put": 1}, LEASE, id="immediate"),
        pytest.param(0, write_nothing, {"304": 1}, LEASE, id="write-nothing"),
        pytest.param(60, commit_immediately, {"304": 1, "put": 1}, {}, id="held"),
    ],
)
def test_a_commit_under_a_lease_costs_exactly(
    bucket: MemoryStore, hold: float, work: Work, requests: dict[str, int], of_lease: dict[str, int]
) -> None:
    """What the lease adds to a commit: three small requests; none while it is held."""
    client, store = warm(bucket, LeaseLocked(hold=hold))
    size = bucket.head(KEY).size
    store.reset()
    work(client, client)
    assert (asked(store), asked(store, f"{KEY}.lease")) == (requests, of_lease)
    assert store.count() == sum(requests.values()) + sum(of_lease.values())
    # The lease's record names its holder, so its length is the machine's.
    assert requests.get("put", 0) * size <= store.bytes_up < requests.get("put", 0) * size + 1024
    assert store.bytes_down < 1024


@pytest.mark.parametrize(
    ("make", "create_tables", "requests", "down"),
    [
        (EtagCached, False, {"get": 1, "304": 1}, 1),
        (EtagCached, True, {"get": 1, "304": 2}, 1),
        (LeaseLocked, True, {"get": 1, "304": 2}, 1),
        (AlwaysDownload, True, {"get": 3}, 3),
        (ReadOnly, False, {"get": 1, "304": 1}, 1),
    ],
)
def test_a_first_start_costs_exactly(
    bucket: MemoryStore, make: Callable[[], Strategy], create_tables: bool, requests: dict[str, int], down: int
) -> None:
    """A new process on an existing database: the mapping, which looks at the tables, and the first row. No lease."""
    size = bucket.head(KEY).size
    store = CountingStore(bucket)
    client = Client(store, make()).map(create_tables=create_tables)
    assert client.value() == 0
    assert (asked(store), store.bytes_down, store.bytes_up) == (requests, down * size, 0)
    assert store.count() == sum(requests.values())


def test_creating_the_database_costs_exactly() -> None:
    """The very first start: two looks, and one upload with all tables."""
    bucket = MemoryStore()
    store = CountingStore(bucket)
    Client(store, EtagCached()).map(create_tables=True)
    assert (asked(store), store.bytes_down) == ({"get refused": 2, "put": 1}, 0)
    assert (store.count(), store.bytes_up) == (3, bucket.head(KEY).size)


@pytest.mark.parametrize(("fast", "gets"), [(0.0, 1), (float("inf"), 4)], ids=["fast", "slow"])
def test_a_pull_of_a_large_database_costs_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fast: float, gets: int
) -> None:
    """One GET where its stream is fast; where it is slow, four ranges at once. Each byte comes once."""
    monkeypatch.setattr(transfer, "_FAST", fast)
    monkeypatch.setattr(transfer, "_SAMPLE", 0.0)
    file = tmp_path / "large.sqlite"
    with closing(sqlite3.connect(file)) as database, database:
        database.execute('CREATE TABLE "Counter" (id INTEGER PRIMARY KEY, value INTEGER NOT NULL)')
        database.execute('INSERT INTO "Counter" VALUES (1, 0)')
        database.execute("CREATE TABLE filler AS SELECT zeroblob(34000000) AS data")
    bucket = MemoryStore()
    bucket.put(KEY, file.read_bytes())
    store = CountingStore(bucket)
    assert Client(store, EtagCached()).map().value() == 0
    assert (asked(store), store.bytes_down, store.bytes_up) == ({"get": gets, "304": 1}, file.stat().st_size, 0)
