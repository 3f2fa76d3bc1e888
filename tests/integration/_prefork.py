"""A WSGI application that is loaded, and has read and written, before its server forks. See ``test_prefork.py``."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from typing import Any

from temaki import cause_of
from tests.integration._worker import Application

app = Application(os.environ["URL"], strategy=os.environ["STRATEGY"])
app.increment()
app.value()


def application(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    """``/add`` adds one, anything else reads; the answer is the value, and the process that found it."""
    try:
        value = app.increment() if environ["PATH_INFO"] == "/add" else app.value()
    except BaseException as error:
        start_response("500 Internal Server Error", [])
        return [repr(cause_of(error)).encode()]
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps([value, os.getpid()]).encode()]
