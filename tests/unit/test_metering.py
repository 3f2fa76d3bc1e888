"""Requests are counted by verb and outcome, with their bytes and seconds, and passed on unchanged."""

from __future__ import annotations

import pytest

from temaki.errors import NotFoundError, PreconditionFailedError, StoreUnavailableError
from temaki.observe.metering import Meter, MeteredStore, Request
from temaki.stores.memory import MemoryStore
from temaki.testing import Fault, FaultyStore


def test_each_request_counts_once_with_its_outcome() -> None:
    """ok, unchanged, refused and failed are told apart; what is raised is raised."""
    faulty = FaultyStore(MemoryStore())
    meter = Meter()
    heard: list[Request] = []
    meter.listen(heard.append)
    store = MeteredStore(faulty, meter)
    etag = store.put("key", b"12345")
    assert store.get("key", if_none_match=etag) is None
    download = store.get("key")
    assert download is not None
    with download:
        assert download.read(3) + download.read(10) == b"12345"
    with pytest.raises(PreconditionFailedError):
        store.put("key", b"1", if_none_match=True)
    with pytest.raises(NotFoundError):
        store.head("other")
    faulty.fail_next("get", Fault.FAIL_BEFORE)
    with pytest.raises(StoreUnavailableError):
        store.get("key")
    assert [info.key for info in store.list()] == ["key"]
    store.delete("key")
    traffic = meter.traffic()
    assert traffic.requests == {
        "put": {"ok": 1, "refused": 1},
        "get": {"not_modified": 1, "ok": 1, "failed": 1},
        "head": {"refused": 1},
        "list": {"ok": 1},
        "delete": {"ok": 1},
    }
    assert (traffic.bytes_up, traffic.bytes_down) == (6, 5)
    assert traffic.count() == 8
    assert traffic.count("get") == 3
    assert traffic.count(outcome="refused") == 2
    assert [one.error for one in heard if one.error] == [
        "PreconditionFailedError",
        "NotFoundError",
        "StoreUnavailableError",
    ]
    assert all(seconds >= 0 for seconds in traffic.seconds.values())
    meter.reset()
    assert meter.traffic().count() == 0
