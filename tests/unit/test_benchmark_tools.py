"""The measuring tools: what the proxy counts is what was sent, and the database is one."""

from __future__ import annotations

import http.client
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import boto3
from botocore.config import Config

from benchmarks.side_by_side.database import Original, row
from benchmarks.side_by_side.proxy import Link, Proxy
from tests.network.loopback import Loopback
from tests.network.messages import http as answered
from tests.network.policies import Answer


def proxy_to(server: Loopback) -> Proxy:
    """Between a test and its server."""
    parts = urlsplit(server.endpoint)
    assert parts.hostname is not None
    assert parts.port is not None
    return Proxy(parts.hostname, parts.port)


def ask(proxy: Proxy, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    """One request on a connection of its own."""
    with closing(http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)) as connection:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, answer.read()


CHUNKED: Answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n0\r\n\r\n"


def test_the_proxy_counts_requests_and_bodies_exactly() -> None:
    """Each request by its kind, each body by its length; a 304 has none."""
    answers = (answered(200, b"x" * 300_000), answered(304), answered(200), answered(200, b"<List/>"), CHUNKED)
    with Loopback(*answers) as server, proxy_to(server) as proxy:
        assert ask(proxy, "GET", "/bucket/key") == (200, b"x" * 300_000)
        assert ask(proxy, "GET", "/bucket/key") == (304, b"")
        assert ask(proxy, "PUT", "/bucket/key", b"y" * 200_000) == (200, b"")
        assert ask(proxy, "GET", "/bucket?list-type=2&prefix=k") == (200, b"<List/>")
        assert ask(proxy, "GET", "/bucket/other") == (200, b"abc")
        seen = proxy.take()
    assert seen.requests == {"GET": 3, "PUT": 1, "LIST": 1}
    assert seen.statuses == {"200": 4, "304": 1}
    assert seen.bytes_up == 200_000
    assert seen.bytes_down == 300_000 + 7 + len(b"3\r\nabc\r\n0\r\n\r\n")
    assert seen.connections == 5
    assert server.requests[2][1] == b"y" * 200_000


def test_the_proxy_passes_on_what_the_server_says_before_a_body() -> None:
    """boto3 waits for ``100 Continue``; the body is counted once."""
    with Loopback(answered(200, ETag='"e"')) as server, proxy_to(server) as proxy:
        client = boto3.session.Session().client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{proxy.port}",
            aws_access_key_id="a",
            aws_secret_access_key="b",
            region_name="us-east-1",
            config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}),
        )
        client.put_object(Bucket="bucket", Key="key", Body=b"z" * 1000)
        client.close()
        seen = proxy.take()
    assert "expect: 100-continue" in server.requests[0][0].lower()
    assert (seen.requests, seen.bytes_up) == ({"PUT": 1}, 1000)


def test_the_proxy_delays_by_round_trips_and_by_its_window() -> None:
    """At least the handshake, the round trip, and one more for each window beyond the first; never less."""
    with Loopback(answered(200, bytes(300_000))) as server, proxy_to(server) as proxy:
        proxy.link = Link(0.02, 100_000)
        begin = time.perf_counter()
        ask(proxy, "GET", "/bucket/key")
        assert time.perf_counter() - begin >= 0.02 + 0.02 + 2 * 0.02


def test_the_database_stays_one_when_it_is_changed(tmp_path: Path) -> None:
    """A change is what another process would leave: sound, and different in row 1 alone."""
    original = Original(tmp_path / "made", 100_000, 1)
    assert 90_000 < len(original.data) < 110_000
    before = bytes(original.data)
    name = original.change()
    file = tmp_path / "changed"
    file.write_bytes(original.data)
    with closing(sqlite3.connect(file)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert row(file, 1) == (name, 0)
    different = {
        number // 4096 for number, (old, new) in enumerate(zip(before, original.data, strict=True)) if old != new
    }
    assert sorted(different) == original.changed_pages()
    assert Original(tmp_path / "again", 100_000, 1).data == before
