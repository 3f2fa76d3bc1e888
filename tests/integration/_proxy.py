"""A bad network: an HTTP proxy on loopback between an S3 client and its server, that loses, cuts, stalls and delays."""

from __future__ import annotations

import http.client
import random
import select
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import urlsplit

HOST = "127.0.0.1"
PATIENCE = 30.0
"""Seconds after which a client that does not give up is let down."""
_OF_ONE_HOP = frozenset({"connection", "expect", "keep-alive", "proxy-connection", "transfer-encoding"})


class Fault(Enum):
    """What can become of a request and its reply."""

    RESET = auto()
    """The connection is reset. The server never hears of the request."""
    LOST_REPLY = auto()
    """The request is carried out; instead of the reply comes a reset."""
    CUT = auto()
    """The reply ends anywhere in its head or its body: by a reset, or in good order, and half a head looks whole."""
    STALL = auto()
    """The reply stops anywhere, its first byte included, until the client gives up."""
    LATE = auto()
    """The request is held back until the client has given up, and reaches the server some time after that."""
    GATEWAY = auto()
    """The request is carried out, and the client gets the proxy's own page: 504."""
    DELAY = auto()
    """Everything is well, after a while."""


@dataclass(frozen=True, slots=True)
class Served:
    """One request, as the proxy saw it.

    Attributes:
        connection: Which connection it came by; the same number for all requests on it.
        method: Its method.
        agent: Its user agent.
        fault: What became of it.
    """

    connection: int
    method: str
    agent: str
    fault: Fault | None


class FaultyProxy:
    """Speaks HTTP/1.1 with keep-alive and ``Expect: 100-continue`` on both sides of the trouble.

    The sequence of faults comes from the seed. Which request gets which of them does not: that is up to the order in
    which requests of several processes arrive.

    Args:
        target: The server's URL. Requests are signed for the proxy's address, which reaches the server in ``Host``.
        seed: Of the faults.
        rates: How likely each fault is for a request.
        delay: Longest delay, and the longest time that a late request comes after its client has given up; seconds.

    Attributes:
        endpoint: The proxy's URL.
        served: All requests so far.
    """

    def __init__(
        self, target: str, *, seed: int = 0, rates: Mapping[Fault, float] | None = None, delay: float = 0.2
    ) -> None:
        self.target = urlsplit(target)
        self.rates = dict(rates or {})
        self.delay = delay
        self.served: list[Served] = []
        self._rng = random.Random(seed)
        self._changed = threading.Condition()
        self._busy = 0
        self._connections = 0
        self._errors: list[BaseException] = []
        self._server = _Server(self)
        self.endpoint = f"http://{HOST}:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        for error in self._errors:
            raise error

    def wait_until_idle(self) -> None:
        """Wait until no request is under way any more, late ones included."""
        with self._changed:
            assert self._changed.wait_for(lambda: not self._busy, 2 * PATIENCE), "a request is still under way"

    def count(self) -> Counter[Fault | None]:
        """How often each fault came up."""
        return Counter(one.fault for one in self.served)

    def connected(self) -> int:
        """The number of a new connection."""
        with self._changed:
            self._connections += 1
            return self._connections

    def begin(self, connection: int, method: str, agent: str) -> tuple[Fault | None, random.Random]:
        """A request has arrived: what is to become of it, and a source of numbers for it alone."""
        with self._changed:
            self._busy += 1
            moment = self._rng.random()
            fault = None
            for fault_, rate in self.rates.items():
                moment -= rate
                if moment < 0:
                    fault = fault_
                    break
            self.served.append(Served(connection, method, agent, fault))
            return fault, random.Random(self._rng.random())

    def end(self) -> None:
        """A request is over."""
        with self._changed:
            self._busy -= 1
            self._changed.notify_all()

    def failed(self, error: BaseException) -> None:
        """Something is wrong with the proxy itself; raised at its end."""
        self._errors.append(error)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, proxy: FaultyProxy) -> None:
        self.proxy = proxy
        super().__init__((HOST, 0), _Connection)

    def shutdown_request(self, request: Any) -> None:
        self.close_request(request)  # no orderly end first: that would make an end of a reset

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, OSError):  # clients come and go
            self.proxy.failed(error)


class _Connection(BaseHTTPRequestHandler):
    """One connection of a client, and one request on it after the other. The base class answers to ``Expect``."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._number = self.server.proxy.connected()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's
        pass

    def _serve(self) -> None:
        assert "Transfer-Encoding" not in self.headers, "boto3 sends lengths over plain HTTP"
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        if len(body) < length:  # the client was killed
            self.close_connection = True
            return
        proxy = self.server.proxy
        fault, rng = proxy.begin(self._number, self.command, self.headers.get("User-Agent", ""))
        try:
            self._suffer(fault, rng, body)
        finally:
            proxy.end()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):  # where the base class looks for a method's name
            return self._serve
        raise AttributeError(name)

    def _suffer(self, fault: Fault | None, rng: random.Random, body: bytes) -> None:
        if fault is Fault.RESET:
            self._reset()
            return
        if fault is Fault.LATE:
            self._wait_until_given_up()
        if fault in {Fault.LATE, Fault.DELAY}:
            time.sleep(rng.uniform(0, self.server.proxy.delay))
        reply = self._forward(body)
        if reply is None or fault in {Fault.LATE, Fault.LOST_REPLY}:
            self._reset()
        elif fault is Fault.GATEWAY:
            page = b"<html><h1>504 Gateway Time-out</h1></html>"
            self.wfile.write(_message(504, "Gateway Time-out", {"Content-Type": "text/html"}, page, self.command))
        elif fault in {Fault.CUT, Fault.STALL}:
            # As often in the head, where small replies have all their bytes, as anywhere.
            end = min(len(reply), 200) if rng.random() < 0.5 else len(reply)
            self.wfile.write(reply[: rng.randrange(end)])
            if fault is Fault.STALL:
                self._wait_until_given_up()
            self._reset(orderly=rng.random() < 0.5)
        else:
            self.wfile.write(reply)

    def _forward(self, body: bytes) -> bytes | None:
        """The server's reply, all of it; None where there is none. A connection for each request is enough here."""
        target = self.server.proxy.target
        upstream = http.client.HTTPConnection(str(target.hostname), target.port, timeout=PATIENCE)
        try:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in _OF_ONE_HOP:
                    upstream.putheader(name, value)
            upstream.endheaders(body or None)
            answer = upstream.getresponse()
            data = answer.read()
            return _message(answer.status, answer.reason, dict(answer.getheaders()), data, self.command)
        except (OSError, http.client.HTTPException):
            return None
        finally:
            upstream.close()

    def _wait_until_given_up(self) -> None:
        """Until its end of the connection is closed; it has nothing more to say on it."""
        select.select([self.connection], [], [], PATIENCE)

    def _reset(self, *, orderly: bool = False) -> None:
        self.close_connection = True
        if orderly:
            return
        with suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def _message(status: int, reason: str, headers: Mapping[str, str], body: bytes, method: str) -> bytes:
    kept = {name: value for name, value in headers.items() if name.lower() not in _OF_ONE_HOP}
    if method != "HEAD" and status not in {204, 304}:
        kept = {name: value for name, value in kept.items() if name.lower() != "content-length"}
        kept["Content-Length"] = str(len(body))
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in kept.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1") + body
