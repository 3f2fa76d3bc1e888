"""``examples/lambda_handler.py``: warm starts, freeze and thaw, and events that come twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import uuid4

import pytest

from temaki.testing import Server
from tests.network.policies import LoseReply
from tests.network.relay import Relay

ROOT = Path(__file__).parents[2]


class Environment:
    """An execution environment of Lambda's: a process with the handler, which can be frozen."""

    def __init__(self, url: str, server: Server, endpoint: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.examples._runtime"],
            cwd=ROOT,
            env={**os.environ, **server.environment, "AWS_ENDPOINT_URL_S3": endpoint, "TEMAKI_URL": url},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._answer() == "ready"

    def invoke(self, **event: str) -> Any:
        """One invocation."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(event) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def freeze(self) -> None:
        """Returns when it is frozen."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitpid(self._process.pid, os.WUNTRACED)

    def thaw(self) -> None:
        """It goes on where it was."""
        self._process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        """Killed, as Lambda does it."""
        self._process.kill()
        self._process.communicate()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


@contextmanager
def environment(url: str, server: Server, endpoint: str | None = None) -> Iterator[Environment]:
    """One that ends with the test."""
    this = Environment(url, server, endpoint or server.endpoint)
    try:
        yield this
    finally:
        this.end()


@pytest.mark.server
def test_frozen_with_its_connections_cut(seaweedfs: Server) -> None:
    """A thawed environment reads what others have stored meanwhile, and books on, though answers are lost as well."""
    url = f"s3://{seaweedfs.bucket()}/seats.sqlite"
    with (
        Relay(seaweedfs.endpoint) as way,
        environment(url, seaweedfs, way.endpoint) as first,
        environment(url, seaweedfs) as second,
    ):
        assert first.invoke(id="a", name="Ada")["body"] == "Ada: seat 1"
        warm = way.accepted
        assert first.invoke(id="b", name="Bob")["body"] == "Bob: seat 2"
        assert way.accepted == warm  # a warm start uses the connections that there are
        for number in range(3, 9):
            first.freeze()
            assert second.invoke(id=f"c{number}", name="Cy")["body"] == f"Cy: seat {2 * number - 3}"
            way.cut()
            if number % 2:
                way.policy = LoseReply("PUT")
            before = way.resets
            first.thaw()
            assert first.invoke(id=f"d{number}", name="Dee")["body"] == f"Dee: seat {2 * number - 2}"
            assert way.resets > before + number % 2  # the dead connection was noticed, and the answer was lost


def test_an_event_that_comes_twice_is_done_once(load: Callable[[str], ModuleType]) -> None:
    """Lambda delivers at least once; the second delivery gets the first one's answer, also in another process."""
    handler = load("lambda_handler").handler
    event = {"id": uuid4().hex, "name": "Ada"}
    assert handler(event, None) == handler(event, None) == {"statusCode": 200, "body": "Ada: seat 1"}
    assert load("lambda_handler").handler(event)["body"] == "Ada: seat 1"


def test_the_last_seat(load: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is sold out is answered, and not stored."""
    module = load("lambda_handler")
    monkeypatch.setattr(module, "SEATS", 1)
    assert module.handler({"id": "1", "name": "Ada"})["statusCode"] == 200
    assert module.handler({"id": "2", "name": "Bob"})["statusCode"] == 409
