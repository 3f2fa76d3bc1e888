"""The ``temaki`` command, in processes and a folder of its own."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from jsonschema import Draft202012Validator

from temaki.cli.results import schema

COMMAND = str(Path(sys.executable).with_name("temaki"))


@dataclass
class Ran:
    """A command that has ended."""

    code: int
    out: str
    err: str

    def json(self, command: str) -> Any:
        """What it printed with ``--json``, which is as its schema says."""
        found = json.loads(self.out)
        Draft202012Validator(schema(command)).validate(found)
        return found


class _Zygote:
    """The process from which commands are forked; see ``_zygote.py``. It ends with this one."""

    _only: _Zygote | None = None

    def __init__(self) -> None:
        self._orders, theirs = socket.socketpair()
        with theirs:
            script = Path(__file__).with_name("_zygote.py")
            self._process = subprocess.Popen(
                [sys.executable, str(script), str(theirs.fileno())], pass_fds=[theirs.fileno()]
            )
        self._answers = self._orders.makefile("rb")

    @classmethod
    def get(cls) -> _Zygote:
        """The one of this process."""
        if cls._only is None or cls._only._process.poll() is not None:
            cls._only = cls()
        return cls._only

    def run(self, arguments: tuple[str, ...], folder: Path, env: Mapping[str, str], files: list[IO[bytes]]) -> int:
        """Run a command to its end, and give its exit code as :mod:`subprocess` does."""
        order = json.dumps({"arguments": arguments, "folder": str(folder), "env": dict(env)}).encode()
        socket.send_fds(self._orders, [order], [file.fileno() for file in files])
        self._orders.settimeout(60)
        child = int(self._answers.readline())
        try:
            return os.waitstatus_to_exitcode(int(self._answers.readline()))
        except TimeoutError:
            os.kill(child, 9)
            type(self)._only = None
            raise


class Commands:
    """Runs commands in a folder, whose temporary files are in another.

    Args:
        folder: For both.
        env: On top of this process's environment.
    """

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self.home, self.temporary = folder / "home", folder / "temporary"
        for one in (self.home, self.temporary):
            one.mkdir(parents=True, exist_ok=True)
        clean = {name: value for name, value in os.environ.items() if not name.startswith("TEMAKI_")}
        self.env = {**clean, "TMPDIR": str(self.temporary), "COLUMNS": "140", **env}

    def __call__(self, *arguments: str, stdin: str = "") -> Ran:
        """Run one to its end. It leaves nothing in the folder for temporary files."""
        with tempfile.TemporaryFile() as read, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            read.write(stdin.encode())
            read.seek(0)
            code = _Zygote.get().run(arguments, self.home, self.env, [read, out, err])
            out.seek(0)
            err.seek(0)
            ran = Ran(code, out.read().decode(), err.read().decode())
        assert "Traceback" not in ran.err, ran.err
        assert list(self.temporary.iterdir()) == []
        return ran

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start the installed command, without input."""
        return subprocess.Popen(
            [COMMAND, *arguments],
            cwd=self.home,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def file(self, name: str, *statements: str) -> Path:
        """Make a SQLite file in the home folder."""
        path = self.home / name
        path.unlink(missing_ok=True)
        with closing(sqlite3.connect(path)) as database, database:
            for statement in statements:
                database.execute(statement)
        return path


USERS = (
    "CREATE TABLE user (id INTEGER PRIMARY KEY, name TEXT)",
    "INSERT INTO user VALUES (1, 'Ada'), (2, 'Bob')",
)


def rows(path: Path, statement: str = "SELECT * FROM user ORDER BY 1") -> list[tuple[Any, ...]]:
    """What is in a SQLite file."""
    with closing(sqlite3.connect(path)) as database:
        return database.execute(statement).fetchall()
