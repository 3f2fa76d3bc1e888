"""``examples/link_shortener.py``: what plain SQLite serves to two workers is served after its bind was replaced."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest

from temaki.testing import Server

SOURCE = Path(__file__).parents[2] / "examples" / "link_shortener.py"
REQUESTS = 100
WORKERS = 2


def _moved(url: str, **options: str) -> str:
    """The application's source, with its bind replaced."""
    given = "".join(f", {name}={value!r}" for name, value in options.items())
    moved, count = re.subn(
        r"^db\.bind\(.*\)$", f"temaki.bind_s3(db, {url!r}{given})", SOURCE.read_text(), flags=re.MULTILINE
    )
    assert count == 1
    return moved.replace("\nimport os\n", "\nimport os\nimport temaki\n", 1)


@contextmanager
def _serving(folder: Path, source: str, environment: dict[str, str], workers: int) -> Iterator[int]:
    """The application under gunicorn; gives the port."""
    (folder / "links_app.py").write_text(source)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        fd = listening.fileno()
        command = [sys.executable, "-m", "gunicorn", "--workers", str(workers), "--bind", f"fd://{fd}"]
        command += ["--log-level", "warning", "--no-control-socket", "links_app:app"]
        path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
        env = {**os.environ, **environment, "PYTHONPATH": path, "LINKS": str(folder / "links.sqlite")}
        with (folder / "log").open("wb") as log:
            master = subprocess.Popen(command, cwd=folder, env=env, pass_fds=[fd], stdout=log, stderr=log)
    try:
        yield port
    finally:
        master.terminate()
        master.wait(60)


def _ask(port: int, method: str, path: str, body: str | None = None) -> tuple[int, str]:
    deadline = time.monotonic() + 60
    while True:
        connection = HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except ConnectionRefusedError:  # gunicorn has yet to listen
            assert time.monotonic() < deadline
        finally:
            connection.close()


def _drive(port: int) -> tuple[list[int], dict[str, str], dict[str, tuple[str, int]]]:
    """Shorten many addresses in four clients at once, and visit each; the statuses, the codes, and what is stored."""

    def one(number: int) -> tuple[int, int, str]:
        status, code = _ask(port, "POST", "/", f"https://example.com/{number}")
        visited, _ = _ask(port, "GET", f"/{code}") if status == 201 else (0, "")
        return status, visited, code

    assert _ask(port, "GET", "/")[0] == 200
    with ThreadPoolExecutor(4) as clients:
        found = list(clients.map(one, range(REQUESTS // 2)))
    statuses = [status for first, second, _ in found for status in (first, second)]
    codes = {f"https://example.com/{number}": code for number, (_, _, code) in enumerate(found)}
    stored = json.loads(_ask(port, "GET", "/")[1])
    return statuses, codes, {address: (code, visits) for code, (address, visits) in stored.items()}


def _assert_all_served(port: int) -> None:
    statuses, codes, stored = _drive(port)
    assert statuses == [201, 302] * (REQUESTS // 2)
    assert stored == {address: (code, 1) for address, code in codes.items()}


def test_plain(tmp_path: Path) -> None:
    """On plain SQLite two workers serve every request, and each code that was given is stored."""
    with _serving(tmp_path, SOURCE.read_text(), {}, WORKERS) as port:
        _assert_all_served(port)


@pytest.mark.parametrize("workers", [2, 4])
def test_moved_to_a_folder(tmp_path: Path, workers: int) -> None:
    """With its bind replaced: the same."""
    (tmp_path / "bucket").mkdir()
    source = _moved(f"file://{tmp_path}/bucket/links.sqlite", strategy="lease-locked", isolation="pony")
    with _serving(tmp_path, source, {}, workers) as port:
        _assert_all_served(port)


@pytest.mark.server
def test_moved_to_a_server(tmp_path: Path, seaweedfs: Server) -> None:
    """The same on a real server."""
    source = _moved(f"s3://{seaweedfs.bucket()}/links.sqlite", strategy="lease-locked", isolation="pony")
    with _serving(tmp_path, source, dict(seaweedfs.environment), WORKERS) as port:
        _assert_all_served(port)
