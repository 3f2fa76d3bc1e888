"""The test's side of its child processes: start a program of this folder, talk to it in lines of JSON, end it."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.stored import database, is_in_pages, opened

ROOT = Path(__file__).parents[2]
in_both_formats = pytest.mark.parametrize("stored_format", ["file", "pages"], indirect=True)
"""Runs a test, or each test of a module, on databases in each of the formats."""
in_pages = pytest.mark.parametrize("stored_format", ["pages"], indirect=True)

PATIENCE = 60.0
"""Seconds after which a child is taken to hang."""


class Child:
    """A process that runs one action of a program in this folder.

    Args:
        program: The program's file name.
        action: The function to run in it.
        arguments: What to call it with.
        env: More environment.
    """

    def __init__(self, program: str, action: str, *arguments: Any, env: Mapping[str, str]) -> None:
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name(program)), action, json.dumps(arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path, **env},
            process_group=0,  # Ctrl-C in the terminal is for the tests
        )
        self._received = b""

    @property
    def pid(self) -> int:
        """The process's id."""
        return self.process.pid

    def tell(self, message: Any = "go") -> None:
        """Send a message."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        self.process.stdin.flush()

    def hear(self, expected: Any = None, *, patience: float = PATIENCE) -> Any:
        """Wait for the next message, for so many seconds; it has to be ``expected``, where given."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + patience
        readable = select.poll()  # select() knows no file descriptor above 1023
        readable.register(self.process.stdout, select.POLLIN)
        while b"\n" not in self._received:
            is_ready = readable.poll(max(0.0, deadline - time.monotonic()) * 1000)
            assert is_ready, f"no message within {patience} s: {self.process.args!r}"
            data = os.read(self.process.stdout.fileno(), 1 << 16)
            assert data, f"ended without a message, status {self.process.wait(PATIENCE)}: {self.process.args!r}"
            self._received += data
        line, _, self._received = self._received.partition(b"\n")
        message = json.loads(line)
        assert expected is None or message == expected
        return message

    def ask(self, message: Any) -> Any:
        """Send a message and wait for the answer."""
        self.tell(message)
        return self.hear()

    def result(self, *, patience: float = PATIENCE) -> Any:
        """What the action returned, within so many seconds; the process has ended well."""
        message = self.hear(patience=patience)
        assert self.wait() == 0
        return message

    def wait(self) -> int:
        """Wait for the end; the exit status."""
        return self.process.wait(PATIENCE)

    def signal(self, number: int) -> None:
        """Send a signal to this process alone."""
        os.kill(self.pid, number)

    def end(self) -> None:
        """Make sure that it is gone."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with suppress(BrokenPipeError):
                if pipe is not None:
                    pipe.close()


class Place:
    """A database in a folder that is a bucket, with room for what belongs to the processes that use it.

    Attributes:
        url: The database's.
        object: The file that is the stored object.
        cache: For the working copies that outlive their process.
        tmp: The children's folder for temporary files.
        env: The children's environment.
        format: In which they create a database.
    """

    def __init__(self, root: Path, format: str = "file") -> None:  # noqa: A002 - the setting's name
        bucket, self.cache, self.tmp = root / "bucket", root / "cache", root / "tmp"
        for folder in (bucket, self.tmp):
            folder.mkdir()
        self.object = bucket / "app.sqlite"
        self.url = f"file://{self.object}"
        self.env = {"TMPDIR": str(self.tmp), "TEMAKI_FORMAT": format}
        self.format = format
        self.root = root
        self._children: list[Child] = []

    def start(self, program: str, action: str, *arguments: Any, env: Mapping[str, str] | None = None) -> Child:
        """Start a child; see :class:`Child`."""
        child = Child(program, action, *arguments, env={**self.env, **(env or {})})
        self._children.append(child)
        return child

    def run(self, program: str, action: str, *arguments: Any, env: Mapping[str, str] | None = None) -> Any:
        """Start a child, wait for its end, and give what it returned."""
        return self.start(program, action, *arguments, env=env).result()

    def end(self) -> None:
        """End all children."""
        for child in self._children:
            child.end()

    def stored(self) -> int:
        """The counter in the stored database, read without temaki; the database is sound, and in the format asked for.

        Nobody may write meanwhile.
        """
        assert is_in_pages(self.object) == (self.format == "pages")
        with opened(database(self.object)) as connection:
            ((value, rows),) = connection.execute("SELECT value, (SELECT count(*) FROM Row) FROM Counter")
        assert value == rows, "half a transaction is stored"
        return int(value)

    def home(self) -> Path:
        """The folder that processes with the cache take over from each other."""
        (found,) = (entry for entry in self.cache.iterdir() if "-" not in entry.name)
        return found

    def private_folders(self) -> list[str]:
        """The folders of processes that do not share theirs."""
        places = [self.tmp, self.cache] if self.cache.exists() else [self.tmp]
        return [entry.name for place in places for entry in place.iterdir() if "-" in entry.name]
