"""Whoever has a large database in one file is told once what the format ``pages`` would save."""

from __future__ import annotations

import logging

import pytest
from pony.orm import db_session

from temaki.engine import hint
from temaki.stores.memory import MemoryStore
from temaki.testing.strategies import Client
from temaki_strategies import EtagCached


def make(monkeypatch: pytest.MonkeyPatch, form: str, megabytes: int) -> Client:
    """A database of so many megabytes, and a process that has written it in its second commit."""
    monkeypatch.setenv("TEMAKI_FORMAT", form)
    client = Client(MemoryStore(), EtagCached()).map(create_tables=True)
    with db_session:
        client.Counter(id=1, value=0)
        client.db.execute("CREATE TABLE filler (body BLOB)")
        client.db.execute(f"INSERT INTO filler VALUES (zeroblob({megabytes << 20}))")
    return client


def hints(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was said about it."""
    return [record.getMessage() for record in caplog.records if record.name == hint.__name__]


def test_once_for_each_url(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Not for the commit that brings the megabytes, which has to upload them; at the first small one, and never again.

    It says what to type, and both numbers: what the commit has uploaded, and what it would have.
    """
    caplog.set_level(logging.INFO, logger="temaki")
    client = make(monkeypatch, "file", 9)
    assert hints(caplog) == []
    client.increment()
    (said,) = hints(caplog)
    url = client.db.provider.engine.url
    assert f"temaki convert {url} --to pages" in said
    assert "instead of 9.0 MiB" in said
    assert "about 44 KiB" in said
    client.increment()
    assert len(hints(caplog)) == 1
    make(monkeypatch, "file", 9).increment()
    assert len(hints(caplog)) == 2


def test_not_without_need(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Neither for a small database, nor for one in pages."""
    caplog.set_level(logging.INFO, logger="temaki")
    make(monkeypatch, "file", 7).increment()
    make(monkeypatch, "pages", 9).increment()
    assert hints(caplog) == []


@pytest.mark.parametrize(
    ("size", "changed", "expected"),
    [
        (100 << 20, 3 << 12, "uploads about 52 KiB in the format 'pages' instead of 100.0 MiB"),
        (100 << 20, 49 << 20, "uploads about 49.0 MiB in the format 'pages' instead of 100.0 MiB"),
        (100 << 20, 51 << 20, None),
        (8 << 20, 4096, None),
    ],
)
def test_what_it_would_save(size: int, changed: int, expected: str | None) -> None:
    """The changed pages, and the share of the older ones; nothing where more than half is uploaded anyway."""
    assert hint.about_pages(size, changed) == expected
