"""A way to a server that a test can cut: a TCP relay that resets the connections which go through it."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

_CONTINUE = b"HTTP/1.1 100"


class Relay:
    """Passes connections on to ``endpoint``.

    Attributes:
        accepted: How many there were.
        resets: How many were reset.
        endpoint: What to connect to instead.
    """

    def __init__(self, endpoint: str) -> None:
        server = urlsplit(endpoint)
        assert server.hostname is not None
        self._server = (server.hostname, server.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self._dead: set[socket.socket] = set()
        self._losing: bytes | None = None
        self._loses_reply: set[socket.socket] = set()
        self.accepted = self.resets = 0
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Forget all connections, as a network does: what is sent on one is answered by a reset, and not before."""
        self._dead |= self._open

    def lose_the_next_reply(self, method: str) -> None:
        """Let the next request with this method reach the server, and reset its connection instead of the answer."""
        self._losing = method.encode()

    def close(self) -> None:
        """End."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in list(self._open):
            _reset(each)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._server)
                self.accepted += 1
                self._open.add(near)
                threading.Thread(target=self._requests, args=(near, far), daemon=True).start()
                threading.Thread(target=self._replies, args=(near, far), daemon=True).start()

    def _requests(self, near: socket.socket, far: socket.socket) -> None:
        with suppress(OSError):
            while data := near.recv(65536):
                if near in self._dead:
                    self.resets += 1
                    _reset(near)
                    break
                if self._losing is not None and data.startswith(self._losing):
                    self._losing = None
                    self._loses_reply.add(near)
                far.sendall(data)
        self._open.discard(near)
        with suppress(OSError):
            far.shutdown(socket.SHUT_RDWR)

    def _replies(self, near: socket.socket, far: socket.socket) -> None:
        with suppress(OSError):
            while data := far.recv(65536):
                if near in self._loses_reply and not data.startswith(_CONTINUE):
                    self.resets += 1
                    break
                near.sendall(data)
        _reset(near)
        far.close()


def _reset(near: socket.socket) -> None:
    with suppress(OSError):
        near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close() sends RST
        near.shutdown(socket.SHUT_RD)  # wakes the thread that reads it
    near.close()


@contextmanager
def relay(endpoint: str) -> Iterator[Relay]:
    """A relay to the server at ``endpoint``."""
    this = Relay(endpoint)
    try:
        yield this
    finally:
        this.close()
