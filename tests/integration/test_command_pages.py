"""What ``temaki status`` and ``temaki doctor`` say of a database in pages."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pony.orm import Required, db_session

from temaki import Database
from temaki.cli.look import look
from temaki.cli.target import Target
from temaki.cli.terminal import Terminal
from temaki.formats.pages.head import Head, decode
from temaki.stores import open_store
from temaki.testing.counting import CountingStore
from tests.integration._command import Commands
from tests.threads import in_thread
from tests.unit.test_pages_cycle import limits


def head_of(url: str) -> Head:
    """The stored head."""
    store, key = open_store(url)
    download = store.get(key)
    assert download is not None
    with download:
        return decode(download.read(1 << 22))


def make(url: str, rows: int = 600) -> None:
    """A database in pages with a base, segments, a tail and condemned objects."""
    db = Database()

    class Row(db.Entity):  # type: ignore[name-defined]
        body = Required(str)

    db.bind_s3(url, format="pages")
    db.generate_mapping(create_tables=True)
    with db_session:
        for _ in range(rows):
            Row(body=os.urandom(400).hex())
    with limits(TAIL_LIMIT=8 << 10, TAIL_KEEP=2 << 10, UNIT=4 << 10, FAN=4):
        for number in range(40):
            with db_session:
                Row.get(id=1 + number * 14).body = os.urandom(400).hex()
    with db_session:
        Row.get(id=1).body = "the newest page, which stays in the head"
    db.unbind()


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Of a database in pages, in a folder."""
    (tmp_path / "bucket").mkdir()
    url = f"file://{tmp_path}/bucket/app.sqlite"
    in_thread(lambda: make(url))
    return url


@pytest.fixture
def temaki(tmp_path: Path) -> Commands:
    """Commands."""
    return Commands(tmp_path, {})


def test_status_shows_what_a_database_in_pages_consists_of(temaki: Commands, url: str) -> None:
    """Base, segments, tail, condemned, and the cost of a full pull: the numbers that the head and a pull give."""
    head = head_of(url)
    assert head.live
    assert head.tail
    assert head.condemned
    found = temaki("status", url, "--json").json("status")
    assert (found["format"], found["page_size"], found["pages"]) == ("pages", head.page_size, head.page_count)
    assert found["version"]["size"] == head.size
    assert found["tables"] == [{"name": "Row", "rows": 600}]
    layout = found["layout"]
    assert layout["base"] == {"sequence": head.base.sequence, "size": head.base.size}
    assert layout["segments"] == {"number": len(head.segments), "size": sum(one.size for one in head.segments)}
    assert layout["tail"] == {"number": len(head.tail), "size": sum(len(one.image) for one in head.tail)}
    assert (layout["since"], layout["condemned"], layout["claimed"]) == (head.since, len(head.condemned), None)
    text = temaki("status", url).out
    for part in ("pages", f"of version {head.base.sequence}", f"{len(head.condemned)} objects", "after temaki compact"):
        assert part in text


def test_status_tells_what_a_full_pull_costs(url: str) -> None:
    """Exactly as many requests and bytes as the pull makes that ``status`` itself makes for the tables."""
    target = Target(url)
    counting = CountingStore(target.store)
    target.store = counting
    target.remote = target.remote_on(counting)
    found = look(target, Terminal(as_json=True), quick=False)
    assert found.layout is not None
    gets = [call for call in counting.calls if call.verb == "get" and not call.key.endswith(".lease")]
    assert found.layout.full_pull.requests == len(gets)
    store, key = open_store(url)
    fetched = sum(store.head(call.key).size for call in gets)
    assert found.layout.full_pull.size == fetched
    assert found.layout.full_pull.ratio == pytest.approx(fetched / found.version.size, abs=0.001)
    assert found.layout.compacted.requests == 2
    assert found.layout.compacted.size == store.head(key).size + found.version.size


def test_a_quick_status_needs_the_head_alone(url: str) -> None:
    """It shows the same, without the tables, and asks for nothing in the folder."""
    target = Target(url)
    full = look(target, Terminal(as_json=True), quick=False)
    counting = CountingStore(target.store)
    target.store = counting
    target.remote = target.remote_on(counting)
    quick = look(target, Terminal(as_json=True), quick=True)
    assert (quick.layout, quick.version, quick.tables) == (full.layout, full.version, None)
    assert [(call.verb, call.key) for call in counting.calls] == [
        ("get", "app.sqlite"),
        ("head", "app.sqlite"),
        ("get", "app.sqlite.lease"),
    ]
