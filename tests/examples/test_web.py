"""``examples/flask_app.py`` and ``examples/fastapi_app.py``: what is answered is stored, and what is not is said."""

from __future__ import annotations

import json
import logging
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from json import JSONDecodeError
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import uvicorn
from flask import Flask
from pony.flask import Pony
from pony.orm import CommitException, db_session
from werkzeug.serving import make_server

from temaki import TemakiError


class Served:
    """An application behind the server that its framework brings, in a thread of its own."""

    def __init__(self, url: str) -> None:
        self._url = url

    def get(self, path: str) -> tuple[int, Any]:
        """Status and body."""
        return self._send(Request(self._url + path))

    def post(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        """Status and body."""
        return self._send(Request(self._url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}))

    @staticmethod
    def _send(request: Request) -> tuple[int, Any]:
        try:
            with urlopen(request, timeout=60) as answer:
                return answer.status, json.load(answer)
        except HTTPError as error:
            with error:
                return error.code, json.load(error)


@contextmanager
def serve_flask(app: Any) -> Iterator[Served]:
    """Behind werkzeug's server, with a thread for each request."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield Served(f"http://127.0.0.1:{server.port}")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def serve_fastapi(app: Any) -> Iterator[Served]:
    """Behind uvicorn."""
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield Served(f"http://127.0.0.1:{listener.getsockname()[1]}")
        finally:
            server.should_exit = True
            thread.join()


APPS = [pytest.param("flask_app", serve_flask, id="flask"), pytest.param("fastapi_app", serve_fastapi, id="fastapi")]


@pytest.mark.parametrize(("name", "serve"), APPS)
def test_requests_at_once(load: Callable[[str], ModuleType], name: str, serve: Any) -> None:
    """Requests in many threads each get a note of their own, and a later process has them all."""
    with serve(load(name).app) as app, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: app.post("/notes", {"text": f"note {number}"}), range(24)))
    assert {status for status, _ in answers} == {201}
    assert len({body["id"] for _, body in answers}) == 24
    module = load(name)  # as another process: it is bound anew
    with db_session:
        assert module.Note.select().count() == 24


@pytest.mark.parametrize(("name", "serve"), APPS)
def test_a_commit_that_was_not_stored_is_not_answered_as_stored(
    load: Callable[[str], ModuleType], tmp_path: Path, name: str, serve: Any
) -> None:
    """With the bucket gone, the client gets a 503 and not a 201."""
    with serve(load(name).app) as app:
        assert app.post("/notes", {"text": "kept"})[0] == 201
        shutil.move(tmp_path / "bucket", tmp_path / "elsewhere")
        assert app.post("/notes", {"text": "lost"}) == (503, {"error": "BucketNotFoundError"})


def test_fastapi_reads(load: Callable[[str], ModuleType]) -> None:
    """A note is read by its number; a missing one is a 404."""
    with serve_fastapi(load("fastapi_app").app) as app:
        number = app.post("/notes", {"text": "hello"})[1]["id"]
        assert app.get(f"/notes/{number}") == (200, {"id": number, "text": "hello"})
        assert app.get("/notes/99")[0] == 404


def test_flask_lists(load: Callable[[str], ModuleType]) -> None:
    """The newest note comes first."""
    with serve_flask(load("flask_app").app) as app:
        for text in ("first", "second"):
            app.post("/notes", {"text": text})
        assert [note["text"] for note in app.get("/notes")[1]] == ["second", "first"]


def test_ponys_flask_extension_commits_outside_of_error_handlers(
    load: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Why the example does without it: its session ends in the teardown, where no error handler and no retry is."""
    module = load("flask_app")
    app = Flask("other")
    Pony(app)
    app.register_error_handler(TemakiError, module.not_stored)
    app.register_error_handler(CommitException, module.not_stored)
    monkeypatch.setattr(logging.getLogger("werkzeug"), "disabled", True)

    @app.post("/notes")
    def add() -> tuple[dict[str, str], int]:
        module.Note(text="lost").flush()
        shutil.move(tmp_path / "bucket", tmp_path / "elsewhere")
        return {"it": "was added"}, 201

    with serve_flask(app) as served, pytest.raises(JSONDecodeError):
        served.post("/notes", {})  # a bare 500 in HTML: the handler, which answers in JSON, was not asked
