"""The network between the systems and the server: an HTTP proxy on loopback that counts and delays.

What is counted: every request with its method, and the bytes of all bodies as they cross the wire, without headers.

What is modelled, for a round trip of R seconds, on each connection by itself:

- A new connection costs R before its first request: the TCP handshake. (There is no TLS.)
- A request takes R/2 to the server, its answer R/2 back. ``Expect: 100-continue`` costs one more R, as the body only
  starts when the server has asked for it.
- A connection carries one window of W bytes at once and then W bytes for each R: what TCP's window allows. So a second
  connection does bring more, and with R = 0 nothing is limited. Slow start is not modelled, nor is loss, nor a limit
  that all connections share.

Bodies go from socket to socket in the kernel (splice(2)): the proxy shares the machine's cores with what is measured,
and copying through Python took as much of them as a client that downloads.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Self
from urllib.parse import parse_qs, urlsplit

WINDOW: Final = 1 << 20
_PIECE: Final = 256 << 10
_PIPE: Final = 1 << 20  # bytes; its places count, and a piece takes many
_HEAD_PIECE: Final = 16 << 10
_HEAD_END: Final = b"\r\n\r\n"
_SEND_BUFFER: Final = 512 << 10  # of what a client leaves unread, so much at most has crossed the wire


@dataclass
class Traffic:
    """What went through.

    Attributes:
        requests: How many of each kind: GET, HEAD, PUT, POST, DELETE, LIST.
        statuses: How many answers of each HTTP status.
        bytes_up: Of request bodies.
        bytes_down: Of the bodies of answers, until the client hung up.
        connections: Opened.
    """

    requests: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    bytes_up: int = 0
    bytes_down: int = 0
    connections: int = 0


@dataclass(frozen=True)
class Link:
    """A connection's round trip in seconds, and its window in bytes."""

    rtt: float = 0.0
    window: int = WINDOW


class Proxy:
    """Passes on what comes to :attr:`port` on loopback. Use it as a context manager.

    Args:
        host: Of the server.
        port: Of the server.

    Attributes:
        link: What requests that begin from now on are delayed by.
    """

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self.link = Link()
        self._lock = threading.Lock()
        self._traffic = Traffic()
        self._active = 0
        self._idle = threading.Condition(self._lock)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._listener.close()

    def take(self) -> Traffic:
        """What went through since the last call. Waits for what is under way, for some seconds at most."""
        with self._idle:
            self._idle.wait_for(lambda: not self._active, 5)
            taken, self._traffic = self._traffic, Traffic()
            return taken

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        with contextlib.suppress(OSError), client, socket.create_connection(self._server) as server:
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with _Wire(client) as near, _Wire(server) as far:
                is_new = True
                while (head := near.head()) is not None and self._exchange(head, near, far, is_new=is_new):
                    is_new = False

    def _exchange(self, head: bytes, client: _Wire, server: _Wire, *, is_new: bool) -> bool:
        """One request and its answer. False where the connection cannot be used again."""
        method, headers = _request(head)
        link = self.link
        with self._lock:
            self._active += 1
            self._traffic.requests[method] += 1
            self._traffic.connections += is_new
        try:
            _sleep(link.rtt / 2 + (link.rtt if is_new else 0))
            server.send(head)
            answer = None
            if headers.get("expect", "").lower() == "100-continue":
                answer = server.head()
                if answer is not None and answer.split(b" ", 2)[1] == b"100":
                    _sleep(link.rtt / 2)
                    client.send(answer)
                    _sleep(link.rtt / 2)
                    answer = None
            refused = answer is not None
            if not refused:
                self._pass_on(client.body(int(headers.get("content-length", 0))), server, link, up=True)
                answer = server.head()
                while answer is not None and answer.split(b" ", 2)[1] == b"100":
                    answer = server.head()
            if answer is None:
                return False
            _sleep(link.rtt / 2)
            keeps = self._answer(method, answer, client, server, link)
            return keeps and not refused
        finally:
            with self._idle:
                self._active -= 1
                self._idle.notify_all()

    def _answer(self, method: str, answer: bytes, client: _Wire, server: _Wire, link: Link) -> bool:
        status, headers = _answer_head(answer)
        with self._lock:
            self._traffic.statuses[status] += 1
        client.send(answer)
        if method == "HEAD" or status in {"204", "304"}:
            return "close" not in headers.get("connection", "")
        if "chunked" in headers.get("transfer-encoding", ""):
            self._pass_on(server.chunks(), client, link, up=False)
        else:
            self._pass_on(server.body(int(headers.get("content-length", 0))), client, link, up=False)
        return "close" not in headers.get("connection", "")

    def _pass_on(self, pieces: Iterator[bytes | _Piped], to: _Wire, link: Link, *, up: bool) -> None:
        begin, passed = time.monotonic(), 0
        for piece in pieces:
            passed += len(piece)
            with self._lock:  # before it is sent: who has it may ask for the count
                if up:
                    self._traffic.bytes_up += len(piece)
                else:
                    self._traffic.bytes_down += len(piece)
            if link.rtt and passed > link.window:
                due = begin + (passed - link.window) * link.rtt / link.window
                _sleep(due - time.monotonic())
            to.send(piece)


@dataclass(frozen=True)
class _Piped:
    """So many bytes, in the pipe with that descriptor."""

    pipe: int
    count: int

    def __len__(self) -> int:
        return self.count


class _Wire:
    """A socket that is read by heads and bodies. Use it as a context manager; the socket stays open."""

    def __init__(self, wire: socket.socket) -> None:
        self._socket = wire
        self._rest = b""

    def __enter__(self) -> Self:
        self._pipe = os.pipe()
        fcntl.fcntl(self._pipe[1], fcntl.F_SETPIPE_SZ, _PIPE)
        return self

    def __exit__(self, *exc: object) -> None:
        for end in self._pipe:
            os.close(end)

    def send(self, data: bytes | _Piped) -> None:
        if isinstance(data, bytes):
            self._socket.sendall(data)
            return
        left = data.count
        while left:
            left -= os.splice(data.pipe, self._socket.fileno(), left)

    def head(self) -> bytes | None:
        """Up to and with the empty line; None where the other side has hung up."""
        return self._until(_HEAD_END)

    def body(self, length: int) -> Iterator[bytes | _Piped]:
        """So many bytes, in pieces. Each has to be sent before the next one is asked for."""
        piece, self._rest = self._rest[:length], self._rest[length:]
        length -= len(piece)
        if piece:
            yield piece
        while length:
            count = os.splice(self._socket.fileno(), self._pipe[1], min(_PIECE, length))
            if not count:
                raise ConnectionResetError
            length -= count
            yield _Piped(self._pipe[0], count)

    def chunks(self) -> Iterator[bytes | _Piped]:
        """A body in chunked encoding, passed on as it is."""
        while True:
            line = self._until(b"\r\n")
            if line is None:
                raise ConnectionResetError
            yield line
            size = int(line.split(b";")[0], 16)
            yield from self.body(size + 2)
            if not size:
                return

    def _until(self, end: bytes) -> bytes | None:
        while end not in self._rest:
            data = self._socket.recv(_HEAD_PIECE)
            if not data:
                return None
            self._rest += data
        found, _, self._rest = self._rest.partition(end)
        return found + end


def _request(head: bytes) -> tuple[str, dict[str, str]]:
    first, headers = _lines(head)
    method, target, _ = first.split(" ", 2)
    parts = urlsplit(target)
    if method == "GET" and ("list-type" in parse_qs(parts.query, keep_blank_values=True)):
        method = "LIST"
    return method, headers


def _answer_head(head: bytes) -> tuple[str, dict[str, str]]:
    first, headers = _lines(head)
    return first.split(" ", 2)[1], headers


def _lines(head: bytes) -> tuple[str, dict[str, str]]:
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return first, {name.strip().lower(): value.strip() for name, _, value in pairs}


def _sleep(seconds: float) -> None:
    if seconds > 0:
        time.sleep(seconds)
