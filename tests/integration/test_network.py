"""A network that drops, cuts, stalls and reorders makes commits slow or unknown, never lost, doubled or half."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

import pytest

from temaki.errors import StoreUnavailableError
from temaki.stores.s3.store import S3Store
from temaki.testing import Server
from temaki.testing.stores import fetch
from tests.integration._children import Place, in_both_formats, in_pages
from tests.integration._ledger import MORE, Ledger
from tests.network.faults import Fault, Faults
from tests.network.relay import Relay

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.timeout(120 * MORE)]

BAD = {
    Fault.RESET: 0.05,
    Fault.LOST_REPLY: 0.08,
    Fault.CUT: 0.05,
    Fault.STALL: 0.02,
    Fault.LATE: 0.02,
    Fault.GATEWAY: 0.03,
    Fault.DELAY: 0.1,
}
"""More than a third of all requests, so that most commits meet one."""


def _through(ledger: Ledger, server: Server, seed: int, processes: int, times: int, options: dict[str, Any]) -> None:
    if ledger.place.format == "pages":
        ledger = ledger.compacting()
    ledger.create(200_000)
    faults = Faults(BAD, seed=seed)
    with Relay(server.endpoint, faults) as relay:
        env = {"AWS_ENDPOINT_URL_S3": relay.endpoint}
        ledger.run_with_journals("work", processes, times * MORE, options, env=env)
        relay.wait_until_idle()
        suffered = faults.count()
    fates = ledger.assert_balanced()
    print(dict(fates), {fault.name: count for fault, count in suffered.items() if fault is not None})
    assert sum(fates.values()) == processes * times * MORE
    assert fates["begun"] == 0, "every call has ended"
    assert fates["acknowledged"] > 0
    assert sum(suffered[fault] for fault in BAD) > processes * times / 4, "the network was bad"
    assert suffered[None] > sum(suffered.values()) / 3, "the sequence of faults is the seed's"


@in_both_formats
@pytest.mark.parametrize("strategy", ["etag-cached", "lease-locked"])
def test_books_balance_on_moto(place: Place, moto: Server, strategy: str) -> None:
    """Each acknowledged entry is stored once, each refused one never, each unknown one at most once."""
    processes = 3
    options: dict[str, Any] = {"strategy": strategy, "read_timeout": 0.8, "timeout": 20}
    if strategy == "lease-locked":
        options |= {"ttl": 4, "acquire_timeout": 30}
        processes = 2  # they wait for each other
    _through(Ledger.on(place, moto), moto, 11, processes, 5, options)


@in_pages
def test_books_balance_on_seaweedfs(place: Place, seaweedfs: Server) -> None:
    """The same on a real server, which may take two seconds for a contended upload."""
    options = {"strategy": "etag-cached", "read_timeout": 2.5, "timeout": 20}
    _through(Ledger.on(place, seaweedfs), seaweedfs, 12, 2, 5, options)


# -- the network itself -------------------------------------------------------------------------------------------


@contextmanager
def _store(server: Server, relay: Relay, bucket: str, **config: Any) -> Iterator[S3Store]:
    with closing(replace(server, endpoint=relay.endpoint).client(**config)) as client:
        yield S3Store(bucket, client=client)


def test_without_faults_nobody_notices_it(seaweedfs: Server) -> None:
    """Bodies, conditions, ranges and HEAD pass as they are, all on one connection; an upload asks to continue."""
    with Relay(seaweedfs.endpoint) as relay, _store(seaweedfs, relay, seaweedfs.bucket()) as store:
        data = bytes(range(256)) * 4096
        etag = store.put("key", data, metadata={"a": "b"}, if_none_match=True)
        assert fetch(store, "key") == data
        assert store.get("key", if_none_match=etag) is None
        found = store.head("key")
        assert (found.etag, found.size, found.metadata["a"]) == (etag, len(data), "b")
        download = store.get("key", byte_range=(1000, 2000))
        assert download is not None
        with download:
            assert download.read(9999) == data[1000:2000]
        assert {(one.connection, one.fault) for one in relay.served} == {(1, None)}
        assert [one.method for one in relay.served] == ["PUT", "GET", "GET", "HEAD", "GET"]


def _put(store: S3Store, key: str) -> StoreUnavailableError | None:
    try:
        store.put(key, b"data", if_none_match=True)
    except StoreUnavailableError as error:
        return error
    return None


@pytest.mark.parametrize("fault", [fault for fault in Fault if fault is not Fault.DELAY])
def test_each_fault(moto: Server, fault: Fault) -> None:
    """A request that meets it is in doubt; whether it lands is as the fault says."""
    bucket = moto.bucket()
    direct = S3Store(bucket, client=moto.client())
    for seed in range(2):
        faults = Faults({fault: 1.0}, seed=seed)
        with (
            Relay(moto.endpoint, faults) as relay,
            _store(moto, relay, bucket, read_timeout=0.5) as store,
        ):
            error = _put(store, f"key-{seed}")
            # Where a reply is cut behind its ETag, what was cut off was not needed.
            assert error.ambiguous if error is not None else fault is Fault.CUT
            relay.wait_until_idle()
            assert len(list(direct.list(f"key-{seed}"))) == (fault is not Fault.RESET)
            assert faults.count() == {fault: 1}
