"""A way to an S3 server on which things go wrong: an HTTP proxy that a test tells what to do with a request."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from temaki.testing import Server

Answer = tuple[int, bytes, dict[str, str]]


@dataclass
class Request:
    """One request on its way. Its headers may be changed."""

    method: str
    path: str
    headers: dict[str, str]


@dataclass
class Proxy:
    """What a running proxy does.

    Attributes:
        endpoint: Its URL.
        refuse: An answer instead of the server's; None passes the request on.
        holds: Which request is held for ever (until the proxy ends), and then dropped.
        held: Set when one is.
        requests: Method and path of all.
    """

    endpoint: str = ""
    refuse: Callable[[Request], Answer | None] = lambda _: None
    holds: Callable[[Request], bool] = lambda _: False
    held: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    requests: list[tuple[str, str]] = field(default_factory=list)


def error(status: int, code: str, **details: str) -> Answer:
    """An answer as S3 words its errors."""
    more = "".join(f"<{name}>{value}</{name}>" for name, value in details.items())
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message>{more}</Error>"
    return status, body.encode(), {"Content-Type": "application/xml"}


@contextmanager
def proxy(server: Server) -> Iterator[Proxy]:
    """A proxy in front of ``server``."""
    this = Proxy()
    behind = urlsplit(server.endpoint).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            request = Request(self.command, self.path, dict(self.headers.items()))
            this.requests.append((request.method, request.path))
            if this.holds(request):
                this.held.set()
                this.ended.wait(60)
                self.close_connection = True
                return
            answer = this.refuse(request)
            if answer is None:
                connection = http.client.HTTPConnection(behind, timeout=20)
                connection.request(request.method, request.path, body, request.headers)
                response = connection.getresponse()
                headers = {name: value for name, value in response.getheaders() if name.lower() != "transfer-encoding"}
                answer = response.status, response.read(), headers
                connection.close()
            self._answer(*answer)

        def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response_only(status)
            given = {name.lower() for name in headers}
            for name, value in headers.items():
                self.send_header(name, value)
            if "content-length" not in given:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with suppress(OSError):
                self.wfile.write(b"" if self.command == "HEAD" else body)

        do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _pass_on  # noqa: N815 - http.server's names

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A client that was interrupted has gone."""

    with Quiet(("127.0.0.1", 0), Handler) as listener:
        this.endpoint = f"http://127.0.0.1:{listener.server_address[1]}"
        thread = threading.Thread(target=listener.serve_forever, daemon=True)
        thread.start()
        try:
            yield this
        finally:
            this.ended.set()
            listener.shutdown()
            thread.join(10)
