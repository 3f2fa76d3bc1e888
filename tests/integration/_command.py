"""The installed ``temaki`` command, in a folder of its own."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
        run = subprocess.run(
            [COMMAND, *arguments],
            cwd=self.home,
            env=self.env,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert "Traceback" not in run.stderr, run.stderr
        assert list(self.temporary.iterdir()) == []
        return Ran(run.returncode, run.stdout, run.stderr)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start one, without input."""
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
