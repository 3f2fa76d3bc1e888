"""A test suite that makes a database for each of its tests ends with what it began with."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pony.orm import Database, Required, db_session

import temaki
from temaki.stores.s3 import client as s3_client
from temaki.testing import Server
from tests.threads import until

MANY = 1000


def _use(url: str, **options: Any) -> None:
    """What one test of such a suite does: a database of its own, used, disconnected and forgotten."""
    db = Database()

    class User(db.Entity):  # type: ignore[name-defined]
        name = Required(str)

    temaki.bind_s3(db, url, **options)
    db.generate_mapping(create_tables=True)
    with db_session:
        User(name="Ada")
    db.disconnect()


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def _assert_nothing_is_left(use: Callable[[int], None], times: int) -> None:
    use(0)  # what is made once and shared
    gc.collect()
    descriptors, threads = _descriptors(), threading.active_count()
    for number in range(1, times):
        use(number)
    gc.collect()
    until(lambda: threading.active_count() <= threads)
    assert _descriptors() <= descriptors
    assert threading.active_count() <= threads


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("kind", "form", "times"), [("memory", "file", MANY), ("memory", "pages", 300), ("file", "file", 300)]
)
def test_many(tmp_path: Path, kind: str, form: str, times: int) -> None:
    """As many descriptors and threads as in the beginning."""
    place = f"memory://{uuid4().hex}" if kind == "memory" else f"file://{tmp_path}"
    _assert_nothing_is_left(lambda number: _use(f"{place}/{number}.sqlite", format=form), times)


@pytest.mark.parametrize("isolation", ["snapshot", "pony"])
def test_under_a_lease(tmp_path: Path, isolation: str) -> None:
    """The thread that renews a lease, and what is given back at exit, go with the database."""
    options = {"strategy": "lease-locked", "isolation": isolation}
    _assert_nothing_is_left(lambda number: _use(f"file://{tmp_path}/{number}.sqlite", **options), 20)


@pytest.mark.server
def test_on_a_server(moto: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them share one client, which is what takes time to make."""
    for name, value in moto.environment.items():
        monkeypatch.setenv(name, value)
    made: list[object] = []
    new_client = s3_client.new_client

    def counted(*args: Any) -> Any:
        made.append(args)
        return new_client(*args)

    monkeypatch.setattr(s3_client, "new_client", counted)
    bucket = moto.bucket()
    _assert_nothing_is_left(lambda number: _use(f"s3://{bucket}/{number}.sqlite"), 40)
    assert len(made) <= 1, "an earlier test may have left one for the same server"
