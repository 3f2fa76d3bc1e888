"""Sockets of a test's network: a listener on 127.0.0.1, HTTP messages read from a connection, and ways to end one."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Self

from tests.threads import PATIENCE

HOST = "127.0.0.1"
_PIECE = 65_536
_END_OF_HEAD = b"\r\n\r\n"


class Listener:
    """Accepts connections on 127.0.0.1 and handles each in a thread of its own. Use it as a context manager.

    Args:
        handle: Called with each connection. The connection is closed when the call returns.

    Attributes:
        address: Host and port.
    """

    def __init__(self, handle: Callable[[socket.socket], None]) -> None:
        self._handle = handle
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._errors: list[BaseException] = []
        self._socket = socket.create_server((HOST, 0), backlog=128)
        self.address = f"{HOST}:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
        for error in self._errors:
            raise error

    def close(self) -> None:
        """Refuse new connections, and read nothing more from those that are open."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        with self._lock:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RD)  # wakes the thread that waits for it

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                threading.Thread(target=self._run, args=(connection,), daemon=True).start()

    def _run(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.add(connection)
        try:
            self._handle(connection)
        except OSError:
            pass  # clients come and go
        except BaseException as error:
            self._errors.append(error)
        finally:
            with self._lock:
                self._open.remove(connection)
                connection.close()


class Wire:
    """Reads one HTTP message after the other from a connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._unread = bytearray()

    def head(self) -> str | None:
        """The next message's first line and headers; None if the other side has hung up."""
        while _END_OF_HEAD not in self._unread:
            if not self._receive():
                return None
        head = self._take(self._unread.index(_END_OF_HEAD))
        self._take(len(_END_OF_HEAD))
        return head.decode("latin-1")

    def body(self, length: int) -> bytes | None:
        """A body of ``length`` bytes; None if the other side has hung up before its end."""
        while len(self._unread) < length:
            if not self._receive():
                return None
        return self._take(length)

    def _take(self, count: int) -> bytes:
        taken = bytes(self._unread[:count])
        del self._unread[:count]
        return taken

    def _receive(self) -> bool:
        data = self._connection.recv(_PIECE)
        self._unread += data
        return bool(data)


def reset(connection: socket.socket) -> None:
    """End the connection with a reset."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def silence(connection: socket.socket) -> None:
    """Send nothing until the client gives up."""
    connection.settimeout(PATIENCE)
    with suppress(OSError):
        connection.recv(1, socket.MSG_PEEK)
