"""Where the processes of a test meet: real ones in a folder, or several clients of this one on a bucket in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pony.orm import db_session

from temaki.stores.memory import MemoryStore
from temaki.testing.counting import CountingStore
from temaki.testing.strategies import Client
from temaki_strategies import EtagCached
from tests.hooked import HookedStore
from tests.integration._children import Place


@pytest.fixture
def stored_format(request: pytest.FixtureRequest) -> str:
    """The format of new databases. A test runs in both by ``@in_both_formats``; see ``_children.py``."""
    name: str = getattr(request, "param", "file")
    return name


@pytest.fixture
def place(tmp_path: Path, stored_format: str) -> Iterator[Place]:
    """An empty bucket in a folder. However the test ends, its processes do."""
    place = Place(tmp_path, stored_format)
    try:
        yield place
    finally:
        place.end()


@pytest.fixture
def bucket() -> MemoryStore:
    """An empty bucket."""
    return MemoryStore()


@pytest.fixture
def other(bucket: MemoryStore) -> Client:
    """Another process, which has created the database with a counter at 0."""
    other = Client(bucket, EtagCached()).map(create_tables=True)
    with db_session:
        other.Counter(id=1, value=0)
    return other


@pytest.fixture
def store(bucket: MemoryStore) -> HookedStore:
    """This process's way to the bucket."""
    return HookedStore(bucket)


@pytest.fixture
def counting(store: HookedStore) -> CountingStore:
    """The same, counted."""
    return CountingStore(store)
