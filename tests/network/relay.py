"""A relay between an S3 client and its server, on 127.0.0.1: a policy decides what becomes of each request.

The relay speaks HTTP/1.1 with keep-alive. It reads a whole request, and answers ``Expect: 100-continue`` itself. The
policy then passes the request on, changes it, answers it, or lets it or its reply get lost.
"""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Callable
from enum import Enum
from typing import Self
from urllib.parse import urlsplit

from tests.network import wire
from tests.network.messages import OF_ONE_HOP, passed_on
from tests.threads import PATIENCE


class Exchange:
    """One request, and the means to decide what becomes of it.

    Attributes:
        connection: The number of the client's connection; the same for all requests on it.
        socket: That connection.
        head: Request line and headers, as received.
        method: The request's method.
        path: The request's path and query.
        headers: The request's headers; a policy may change them.
        body: The request's body.
        fault: The fault that a policy chose; None without one.
        is_over: True if the connection takes no further request.
    """

    def __init__(self, relay: Relay, connection: int, client: socket.socket, head: str, body: bytes) -> None:
        self._relay = relay
        self.connection = connection
        self.socket = client
        self.head = head
        self.method, self.path = head.split(" ", 2)[:2]
        self.headers = headers_of(head)
        self.body = body
        self.fault: Enum | None = None
        self.is_over = False

    @property
    def agent(self) -> str:
        """The client's user agent."""
        return self.headers.get("User-Agent", "")

    def pass_on(self) -> None:
        """Let the server answer."""
        reply = self.forward()
        if reply is None:
            self.reset()
        else:
            self.reply(reply)

    def lose_reply(self) -> None:
        """Let the server carry out the request, and reset the connection instead of the reply."""
        self.forward()
        self.reset()

    def forward(self) -> bytes | None:
        """Send the request to the server and return its whole reply; None if there is none.

        Each request has a connection of its own to the server, signed for the relay's address, which is its ``Host``.
        """
        server = self._relay.server
        upstream = http.client.HTTPConnection(str(server.hostname), server.port, timeout=PATIENCE)
        try:
            upstream.putrequest(self.method, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in OF_ONE_HOP:
                    upstream.putheader(name, value)
            upstream.endheaders(self.body or None)
            answer = upstream.getresponse()
            data = answer.read()
            return passed_on(self.method, answer.status, answer.reason, dict(answer.getheaders()), data)
        except (OSError, http.client.HTTPException):
            return None
        finally:
            upstream.close()

    def reply(self, data: bytes) -> None:
        """Send these bytes to the client."""
        self.socket.sendall(data)

    def answer(self, data: bytes) -> None:
        """Send these bytes to the client, and end the connection in good order."""
        self.reply(data)
        self.end()

    def end(self) -> None:
        """End the connection in good order."""
        self.is_over = True

    def reset(self) -> None:
        """End the connection with a reset."""
        self.is_over = True
        self._relay.reset(self.socket)

    def wait_until_given_up(self) -> None:
        """Wait until the client has closed its end of the connection."""
        wire.silence(self.socket)


Policy = Callable[[Exchange], None]
"""Decides what becomes of a request. Runs in the thread of the client's connection."""


class Relay:
    """Accepts connections, and lets a policy decide about each request. Use it as a context manager.

    Args:
        server: The server's URL. Without one, the policy answers everything itself.
        policy: The first policy; a test may set another one at any time.

    Attributes:
        endpoint: The relay's URL.
        server: The server's URL, split.
        policy: As above.
        served: All requests so far, whatever became of them.
        accepted: Number of connections so far.
        resets: Number of connections that were reset.
    """

    def __init__(self, server: str = "", policy: Policy = Exchange.pass_on) -> None:
        self.server = urlsplit(server)
        self.policy = policy
        self.served: list[Exchange] = []
        self.accepted = self.resets = 0
        self._changed = threading.Condition()
        self._busy = 0
        self._dead = 0
        self._listener = wire.Listener(self._serve)
        self.endpoint = f"http://{self._listener.address}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._listener.__exit__(*exc)

    def close(self) -> None:
        """Refuse connections from now on."""
        self._listener.close()

    def cut(self) -> None:
        """Forget all connections, as a network does: the next request on one is answered by a reset, not before."""
        self._dead = self.accepted

    def wait_until_idle(self) -> None:
        """Wait until no request is under way any more, late ones included."""
        with self._changed:
            assert self._changed.wait_for(lambda: not self._busy, 2 * PATIENCE), "a request is still under way"

    def reset(self, connection: socket.socket) -> None:
        """End a client's connection with a reset."""
        with self._changed:
            self.resets += 1
        wire.reset(connection)

    def _serve(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client = wire.Wire(connection)
        with self._changed:
            self.accepted += 1
            number = self.accepted
        while (head := client.head()) is not None:
            if number <= self._dead:
                self.reset(connection)
                return
            headers = {name.lower(): value for name, value in headers_of(head).items()}
            assert "transfer-encoding" not in headers, "boto3 sends lengths over plain HTTP"
            if "expect" in headers:
                connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            body = client.body(int(headers.get("content-length", 0)))
            if body is None:  # the client was killed
                return
            exchange = Exchange(self, number, connection, head, body)
            self._decide(exchange)
            if exchange.is_over:
                return

    def _decide(self, exchange: Exchange) -> None:
        with self._changed:
            self._busy += 1
            self.served.append(exchange)
        try:
            self.policy(exchange)
        finally:
            with self._changed:
                self._busy -= 1
                self._changed.notify_all()


def headers_of(head: str) -> dict[str, str]:
    """The headers by name, from a message's head."""
    pairs = (line.partition(":") for line in head.split("\r\n")[1:])
    return {name.strip(): value.strip() for name, _, value in pairs}
