"""What sessions ask of the store where the database is in pages: requests and bytes, exactly.

Bytes are compared with the sizes of the objects that are stored, so that each byte is accounted for.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pony.orm import db_session

from temaki.clock import SystemClock
from temaki.formats.pages import compact as compaction
from temaki.formats.pages.head import Head
from temaki.formats.pages.names import folder, key_of
from temaki.formats.pages.policy import TAIL_KEEP
from temaki.remote.remote import Remote
from temaki.stores.memory import MemoryStore
from temaki.strategy import Strategy
from temaki.testing import CountingStore
from temaki.testing.strategies import KEY, Client
from temaki_strategies import AlwaysDownload, EtagCached, LeaseLocked, ReadOnly
from tests.integration.test_request_counts import asked

MIB = 1 << 20
SMALL, LARGE = 1500, 100_000  # rows of the filler: 0.3 MB, 20 MB


class Bench:
    """A bucket, a process whose requests are counted, and another process."""

    def __init__(self, rows: int) -> None:
        self.bucket = MemoryStore()
        self.other = Client(self.bucket, EtagCached(), format="pages", compact="manual").map(create_tables=True)
        with db_session:
            self.other.Counter(id=1, value=0)
            self.other.db.execute("CREATE TABLE filler (id INTEGER PRIMARY KEY, body TEXT)")
            self.other.db.execute(
                f"WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) "
                "INSERT INTO filler SELECT i, hex(randomblob(90)) FROM n"
            )
        self.other.increment()
        self.store = CountingStore(self.bucket)

    def start(self, strategy: Strategy) -> Client:
        """The process whose requests are counted, with the version of now."""
        client = Client(self.store, strategy, compact="manual").map()
        client.value()
        self.store.reset()
        return client

    def change(self, rows: str) -> None:
        """The other process changes rows of the filler."""
        with db_session:
            self.other.db.execute(f"UPDATE filler SET body = hex(randomblob(90)) WHERE {rows}")

    @property
    def sizes(self) -> dict[str, int]:
        """What is stored: sizes in bytes, by key."""
        return {info.key: info.size for info in self.bucket.list()}

    @property
    def head(self) -> int:
        """The size of the head, in bytes."""
        return self.sizes[KEY]

    @property
    def manifest(self) -> Head:
        """The head."""
        from temaki.formats.pages.manifest import decode

        download = self.bucket.get(KEY)
        assert download is not None
        with download:
            return decode(download.read(MIB))

    def beside(self, kind: str) -> dict[str, int]:
        """The requests for objects beside the head, by what they are."""
        found: dict[str, int] = {}
        for key in {call.key for call in self.store.calls} - {KEY, f"{KEY}.lease"}:
            assert key.startswith(folder(KEY))
            if key.removeprefix(folder(KEY)).startswith(kind):
                for name, count in asked(self.store, key).items():
                    found[name] = found.get(name, 0) + count
        return found


@pytest.fixture
def bench() -> Bench:
    """A database of 0.3 MB."""
    return Bench(SMALL)


@pytest.fixture(scope="module")
def large() -> Bench:
    """A database of 20 MB. Each test changes other rows of it."""
    return Bench(LARGE)


def read(client: Client) -> None:
    """A session that reads a row."""
    assert client.value() >= 0


def commit(client: Client) -> None:
    """A session that changes a row."""
    with db_session:
        client.Counter[1].value += 1


@pytest.mark.parametrize(
    ("make", "work", "requests", "up", "down"),
    [
        (EtagCached, read, {"304": 1}, 0, 0),
        (EtagCached, commit, {"304": 1, "put": 1}, 1, 0),
        (lambda: EtagCached(max_age=60), read, {}, 0, 0),
        (lambda: EtagCached(max_age=60), commit, {"put": 1}, 1, 0),
        (ReadOnly, read, {"304": 1}, 0, 0),
        (LeaseLocked, read, {"304": 1}, 0, 0),
        (LeaseLocked, commit, {"304": 2, "put": 1}, 1, 0),
    ],
)
def test_a_session_costs_exactly(
    bench: Bench,
    make: Callable[[], Strategy],
    work: Callable[[Client], None],
    requests: dict[str, int],
    up: int,
    down: int,
) -> None:
    """In a process that has the database: the requests of the format `file`, and the head in place of the database."""
    client = bench.start(make())
    work(client)
    assert asked(bench.store) == requests
    of_lease = asked(bench.store, f"{KEY}.lease")
    assert bench.store.count() == sum(requests.values()) + sum(of_lease.values())
    assert 0 <= bench.store.bytes_up - up * bench.head < (1024 if of_lease else 1)
    assert 0 <= bench.store.bytes_down - down < (1024 if of_lease else 1)
    assert bench.head < 4096


@pytest.mark.parametrize("make", [EtagCached, ReadOnly, LeaseLocked])
def test_a_catch_up_costs_exactly(bench: Bench, make: Callable[[], Strategy]) -> None:
    """A process that is one commit behind needs the head alone, which has the newest pages."""
    client = bench.start(make())
    bench.other.increment()
    assert client.value() == 2
    assert (asked(bench.store), bench.store.count()) == ({"get": 1}, 1)
    assert (bench.store.bytes_up, bench.store.bytes_down) == (0, bench.head)


def test_who_always_downloads_pays_for_the_head(bench: Bench) -> None:
    """Its GET has no condition. What it has is known by the head that comes back: nothing else is fetched."""
    client = bench.start(AlwaysDownload())
    client.value()
    assert (asked(bench.store), bench.store.count(), bench.store.bytes_down) == ({"get": 1}, 1, bench.head)


@pytest.mark.parametrize("make", [EtagCached, ReadOnly])
def test_a_cold_start_costs_exactly(bench: Bench, make: Callable[[], Strategy]) -> None:
    """The mapping pulls head, base and those segments that are newer than the base; each byte once."""
    bench.change("id % 50 = 0")
    bench.change("id % 70 = 0")
    live = bench.manifest.live
    assert live
    client = Client(bench.store, make(), compact="manual").map()
    read(client)
    assert (asked(bench.store), bench.beside("base"), bench.beside("seg")) == (
        {"get": 1, "304": 1},
        {"get": 1},
        {"get": len(live)},
    )
    assert bench.store.count() == 3 + len(live)
    needed = [KEY, key_of(KEY, bench.manifest.base.name), *(key_of(KEY, one.name) for one in live)]
    assert (bench.store.bytes_up, bench.store.bytes_down) == (0, sum(bench.sizes[key] for key in needed))


def test_creating_the_database_costs_exactly() -> None:
    """The very first start: two looks, a base, and the head."""
    bucket = MemoryStore()
    store = CountingStore(bucket)
    Client(store, EtagCached(), format="pages").map(create_tables=True)
    assert (asked(store), store.bytes_down) == ({"get refused": 2, "put": 1}, 0)
    assert (store.count(), store.bytes_up) == (4, sum(info.size for info in bucket.list()))


def test_a_commit_that_cuts_a_segment_costs_exactly(bench: Bench) -> None:
    """One PUT more: the oldest pages of the tail become a segment, and the newest stay in the head."""
    client = bench.start(EtagCached())
    before = bench.sizes
    with db_session:
        client.db.execute("UPDATE filler SET body = hex(randomblob(90)) WHERE id <= 300")
    new = bench.sizes.keys() - before.keys()
    assert len(new) == 1
    assert (asked(bench.store), bench.beside("seg"), bench.store.count()) == ({"304": 1, "put": 1}, {"put": 1}, 3)
    assert (bench.store.bytes_up, bench.store.bytes_down) == (bench.head + sum(bench.sizes[key] for key in new), 0)
    assert sum(len(page.image) for page in bench.manifest.tail) <= TAIL_KEEP


def test_a_catch_up_over_a_segment_costs_exactly(bench: Bench) -> None:
    """A process that is further behind than the tail reaches needs the head, and the segments that it has not seen."""
    bench.change("id <= 300")
    client = bench.start(EtagCached())
    seen = {one.name for one in bench.manifest.segments}
    bench.change("id > 1200")
    bench.other.increment()
    assert client.value() == 2
    needed = [key_of(KEY, one.name) for one in bench.manifest.segments if one.name not in seen]
    assert len(needed) == 1
    assert (asked(bench.store), bench.beside("seg"), bench.store.count()) == ({"get": 1}, {"get": 1}, 2)
    assert bench.store.bytes_down == bench.head + sum(bench.sizes[key] for key in needed)


def test_a_large_transaction_costs_exactly(large: Bench) -> None:
    """It asks once more before it sends megabytes; then a segment for each 32 MiB, and the head."""
    client = large.start(EtagCached())
    before = large.sizes
    with db_session:
        client.db.execute(f"UPDATE filler SET body = hex(randomblob(90)) WHERE id <= {LARGE * 45 // 100}")
    new = large.sizes.keys() - before.keys()
    assert len(new) == 1
    assert (asked(large.store), large.beside("seg"), large.store.count()) == ({"304": 2, "put": 1}, {"put": 1}, 4)
    assert (large.store.bytes_up, large.store.bytes_down) == (large.head + sum(large.sizes[key] for key in new), 0)
    assert 4 * MIB < large.store.bytes_up < 8 * MIB  # 9 MB of pages


def test_a_transaction_that_changes_most_of_it_costs_exactly(bench: Bench) -> None:
    """A new base, and the head."""
    client = bench.start(EtagCached())
    before = bench.sizes
    with db_session:
        client.db.execute("UPDATE filler SET body = hex(randomblob(90)) WHERE id <= 1200")
    new = bench.sizes.keys() - before.keys()
    assert len(new) == 1
    assert (asked(bench.store), bench.beside("base"), bench.store.count()) == ({"304": 1, "put": 1}, {"put": 1}, 3)
    assert bench.store.bytes_up == bench.head + sum(bench.sizes[key] for key in new)


def test_a_compaction_costs_exactly(large: Bench, tmp_path: Path) -> None:
    """With nothing to do: the head, and a listing. With a fold: a pull, the claim, the new base and the new head."""
    source = Remote(large.store, KEY, url=f"memory://x/{KEY}", clock=SystemClock()).source
    compaction.compact(source, tmp_path / "copy")
    large.store.reset()
    assert compaction.compact(source, tmp_path / "copy") is not None
    assert (asked(large.store), large.store.count("list"), large.store.bytes_up) == ({"get": 3}, 1, 0)
    large.change(f"id > {LARGE * 6 // 10}")
    names = [large.manifest.base.name, *(one.name for one in large.manifest.live)]
    pulled = sum(large.sizes[key_of(KEY, name)] for name in names)
    live = len(large.manifest.live)
    large.store.reset()
    done = compaction.compact(source, tmp_path / "copy")
    assert done is not None
    assert done.folded
    assert (large.beside("base"), large.beside("seg")) == ({"get": 1, "put": 1}, {"get": live})
    assert asked(large.store) == {"get": 5, "put": 2}
    assert large.store.count("list") == 1
    base = large.manifest.base.size
    assert base < large.store.bytes_up < base + 128 * 1024
    assert pulled < large.store.bytes_down < pulled + 5 * 64 * 1024
