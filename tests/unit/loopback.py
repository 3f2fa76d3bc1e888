"""An HTTP server on 127.0.0.1 that answers with exactly the bytes that a test wants, or does not answer."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

Answer = bytes | Callable[[socket.socket], None]
"""What to send before the connection is closed; or what to do with the connection."""


class Loopback:
    """Gives one answer after the other; the last one again and again.

    Attributes:
        requests: Head and body of each request, as received.
    """

    def __init__(self, *answers: Answer) -> None:
        self._answers = list(answers)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.requests: list[tuple[str, bytes]] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def answer(self, *answers: Answer) -> None:
        """Give these answers from now on."""
        self._answers = list(answers)

    def close(self) -> None:
        """Answer no more: connections are refused from now on."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with connection, suppress(OSError):
                    self._handle(connection)

    def _handle(self, connection: socket.socket) -> None:
        connection.settimeout(5)
        received = b""
        while b"\r\n\r\n" not in received:
            piece = connection.recv(65_536)
            if not piece:
                return
            received += piece
        head, _, body = received.partition(b"\r\n\r\n")
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
            if line.startswith(b"expect:"):
                connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        while len(body) < length:
            body += connection.recv(65_536)
        self.requests.append((head.decode("latin-1"), body))
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if callable(answer):
            answer(connection)
        else:
            connection.sendall(answer)


@contextmanager
def loopback(*answers: Answer) -> Iterator[Loopback]:
    """A running server."""
    server = Loopback(*answers)
    try:
        yield server
    finally:
        server.close()


def http(status: int, body: bytes = b"", *, length: int | None = None, **headers: str) -> bytes:
    """An answer; ``length`` announces another length than the body has."""
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body) if length is None else length}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body


def s3_error(status: int, code: str, **details: str) -> bytes:
    """An answer as S3 gives it."""
    more = "".join(f"<{name}>{value}</{name}>" for name, value in details.items())
    text = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>A message.</Message>{more}</Error>'
    return http(status, text.encode(), Content_Type="application/xml")


def reset(connection: socket.socket) -> None:
    """End the connection with a reset: the request was received, and no answer comes."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def silence(connection: socket.socket) -> None:
    """Say nothing until the client gives up."""
    with suppress(OSError):
        connection.recv(1)
