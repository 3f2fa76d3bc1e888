"""The servers that tests start: separate from each other, and gone afterwards, however the tests end."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest

from temaki.stores.s3.store import S3Store
from temaki.testing import Server, moto_server
from temaki.testing.stores import fetch

_START = """
import sys
from temaki.testing import moto_server
with moto_server() as server:
    print(server.endpoint, flush=True)
    sys.stdin.read()
"""


def _answers(endpoint: str) -> bool:
    parts = urlsplit(endpoint)
    try:
        socket.create_connection((str(parts.hostname), parts.port or 0), timeout=2).close()
    except ConnectionRefusedError:
        return False
    return True


def _ends(endpoint: str) -> bool:
    deadline = time.monotonic() + 20
    while _answers(endpoint):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_a_server_is_gone_at_the_end() -> None:
    """A server answers inside the block, has nothing of another one, and does not answer after the block."""
    with moto_server() as first, moto_server() as second:
        assert urlsplit(first.endpoint).hostname == "127.0.0.1"
        assert (urlsplit(first.endpoint).port or 0) < 32_768
        bucket = first.bucket()
        assert [found["Name"] for found in first.client().list_buckets()["Buckets"]] == [bucket]
        assert second.client().list_buckets()["Buckets"] == []
    assert _ends(first.endpoint)
    assert _ends(second.endpoint)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_server_can_be_stopped_and_started(number: int) -> None:
    """While it is stopped it does not answer; then it does, at the same address. Both can be asked for twice."""
    with moto_server() as server:
        for _ in range(2):
            server.stop(number)
            server.stop(number)
            assert not _answers(server.endpoint)
            server.start()
            server.start()
            assert server.client().list_buckets()["Buckets"] == []
        server.stop(number)
    assert not _answers(server.endpoint)


def test_a_server_of_somebody_else_is_left_alone() -> None:
    """What was not started by this module cannot be stopped from here."""
    with pytest.raises(RuntimeError, match="was not started by this module"):
        Server("http://127.0.0.1:9", "", "").stop()


def test_nothing_is_left_of_a_killed_run() -> None:
    """A test run that is killed takes its servers with it."""
    run = subprocess.Popen([sys.executable, "-c", _START], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert run.stdin is not None
    assert run.stdout is not None
    endpoint = run.stdout.readline().decode().strip()
    assert _answers(endpoint)
    run.kill()
    run.wait()
    run.stdin.close()
    run.stdout.close()
    assert _ends(endpoint)


def test_the_environment_is_all_that_a_store_needs(moto: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process with the server's environment variables reaches it with temaki's own client."""
    for name, value in moto.environment.items():
        monkeypatch.setenv(name, value)
    store = S3Store(moto.bucket())
    store.put("key", b"data", if_none_match=True)
    assert fetch(store, "key") == b"data"
    assert not store.honours_conditions


@pytest.mark.server
def test_one_server_has_room_for_the_buckets_of_all_tests(seaweedfs: Server) -> None:
    """SeaweedFS refused each PUT with 500, and a test hung until its timeout, once there were 71 buckets."""
    client = seaweedfs.client()

    def use(number: int) -> None:
        client.create_bucket(Bucket=f"one-of-many-{number}")
        client.put_object(Bucket=f"one-of-many-{number}", Key="app.sqlite", Body=b"a row")

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(use, range(80)))
    client.close()
