"""A moto server that answers one request at a time.

moto checks a condition and replaces the object in two steps. Another request can come in between. That is rare, but
then a test would see a lost update that is moto's own fault.

Run it as a script, with a host and a port.
"""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any


def serve(host: str, port: int) -> None:
    """Serve until the process ends."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import run_simple

    run_simple(host, port, one_at_a_time(DomainDispatcherApplication(create_backend_app)), threaded=True)


def one_at_a_time(app: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
    """Wrap a WSGI application so that it handles one request at a time. Bodies and answers still travel in parallel."""
    lock = threading.Lock()

    def wrapped(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        length = int(environ.get("CONTENT_LENGTH") or 0)
        if length:
            environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read(length))
        with lock:
            return list(app(environ, start_response))

    return wrapped


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
