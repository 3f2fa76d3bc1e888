"""Programs that load an application, let it use its database, and then fork: the real uWSGI, gunicorn and billiard.

uWSGI forks in C, and Python's own hooks do not run there.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from temaki.testing import Server
from tests.integration._children import PATIENCE, ROOT, Place, in_pages

BIN = Path(sys.executable).parent
APPLICATION = "tests.integration._prefork:application"
UWSGI = ["--master", "--need-app", "--die-on-term", "--home", sys.prefix, "--module", APPLICATION, "--processes", "2"]
SERVERS: Mapping[str, Callable[[str], list[str]]] = {
    "uwsgi": lambda path: [str(BIN / "uwsgi"), "--http-socket", path, *UWSGI],
    "uwsgi with threads": lambda path: [str(BIN / "uwsgi"), "--http-socket", path, *UWSGI, "--threads", "2"],
    "gunicorn": lambda path: [str(BIN / "gunicorn"), "--bind", f"unix:{path}", "-w2", "--preload", APPLICATION],
}
"""Each listens on a socket in the file system: nobody else can have taken that."""


class Web:
    """A server with two workers, on a socket.

    Args:
        server: Which one.
        env: What the application is told.
    """

    def __init__(self, server: str, env: Mapping[str, str]) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="web-"))  # such a path is short
        self._socket = str(self._folder / "s")
        self._log = self._folder / "log"
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                SERVERS[server](self._socket),
                env={**os.environ, "PYTHONPATH": path, **env},
                stdout=log,
                stderr=log,
                process_group=0,
            )

    def ask(self, path: str) -> tuple[int, str]:
        """The status and the body of an answer."""
        connection = http.client.HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(PATIENCE)
        try:
            connection.sock.connect(self._socket)
            connection.request("GET", path, headers={"Connection": "close"})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def wait(self) -> None:
        """Until it answers."""
        deadline = time.monotonic() + PATIENCE
        while True:
            assert self.process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, self._log.read_text()
            with suppress(OSError, http.client.HTTPException):
                assert self.ask("/look")[0] == 200
                return
            time.sleep(0.05)

    def end(self) -> None:
        """End it, with its workers."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        shutil.rmtree(self._folder)


def _counted(web: Web, times: int) -> None:
    """Both workers count, at once; each value is acknowledged once, and everybody sees the last one."""
    web.wait()
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: web.ask("/add"), range(times)))
    assert [answer for answer in answers if answer[0] != 200] == []
    found = [json.loads(body) for _, body in answers]
    assert sorted(value for value, _ in found) == list(range(2, times + 2))
    seen = [json.loads(web.ask("/look")[1]) for _ in range(12)]
    assert {value for value, _ in seen} == {times + 1}
    assert len({process for _, process in [*found, *seen]}) == 2, "both were asked"


@pytest.fixture(params=["etag-cached", "lease-locked"])
def strategy(request: pytest.FixtureRequest) -> str:
    """With which the application is bound."""
    name: str = request.param
    return name


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> str:
    """The server's name."""
    name: str = request.param
    return name


@pytest.fixture
def serve() -> Iterator[Callable[[str, Mapping[str, str]], Web]]:
    """Starts a server that ends with the test."""
    started: list[Web] = []

    def start(server: str, env: Mapping[str, str]) -> Web:
        started.append(Web(server, env))
        return started[-1]

    try:
        yield start
    finally:
        for web in started:
            web.end()


def test_workers_lose_no_increment(place: Place, serve: Any, server: str, strategy: str) -> None:
    """Each worker has a working copy, connections, locks and a lease of its own, though the master had them first."""
    place.run("_fork.py", "create", place.url)
    _counted(serve(server, {**place.env, "URL": place.url, "STRATEGY": strategy}), 40)
    assert place.stored() == 41


@in_pages
@pytest.mark.server
def test_workers_lose_no_increment_on_s3(place: Place, moto: Server, serve: Any, server: str, strategy: str) -> None:
    """They also have a client, with connections, of their own."""
    url = f"s3://{moto.bucket()}/app.sqlite"
    place.run("_fork.py", "create", url, env=moto.environment)
    _counted(serve(server, {**place.env, **moto.environment, "URL": url, "STRATEGY": strategy}), 24)


def test_a_killed_worker_holds_nobody_up(place: Place, serve: Any, server: str) -> None:
    """Its server starts another one, and everybody goes on, whatever the default ttl."""
    place.run("_fork.py", "create", place.url)
    web = serve(server, {**place.env, "URL": place.url, "STRATEGY": "lease-locked"})
    web.wait()
    _, worker = json.loads(web.ask("/add")[1])
    os.kill(worker, signal.SIGKILL)
    values: list[Any] = []
    while len(values) < 10:
        with suppress(OSError, http.client.HTTPException):  # what was on its way to the dead one
            status, body = web.ask("/add")
            assert status == 200, body
            values.append(json.loads(body)[0])
    assert values == sorted(values)
    assert place.stored() == values[-1]


def test_a_pool_of_celerys(place: Place, strategy: str) -> None:
    """Celery's workers are billiard's: forked by Python, ended in ways of their own."""
    place.run("_fork.py", "create", place.url)
    program = (
        "import billiard, json\n"
        "from tests.integration._prefork import app\n"
        "def add(_): return app.increment()\n"
        "context = billiard.get_context('fork')\n"
        "pool = context.Pool(2)\n"
        "print(json.dumps(sorted(pool.map(add, range(20), chunksize=1))))\n"
        "pool.close(); pool.join()\n"
    )
    env = {**os.environ, **place.env, "PYTHONPATH": str(ROOT), "URL": place.url, "STRATEGY": strategy}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, check=False, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr.decode()
    assert json.loads(done.stdout) == list(range(2, 22))
    assert place.stored() == 21
