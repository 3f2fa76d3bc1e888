"""The child's side: an application of temaki, and what the programs of this folder share.

Each program is run as a file: with ``python -c`` Pony is interactive, and needs no ``db_session``.
"""

from __future__ import annotations

import atexit
import ctypes
import faulthandler
import json
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from pony.orm import PrimaryKey, Required, db_session

from temaki import Database, cause_of
from temaki.stores import open_store

PATIENCE = 50.0
RETRIES = 1000
UNSEEN = "UNSEEN_FORKS"
"""A variable of the environment: forks are made in C, behind Python's back."""
COMPACTS = "COMPACTS_ALL_THE_TIME"
"""Another one: databases in pages are maintained all the time; see ``_compacting.py``."""
_TURN = 0.2  # seconds


def say(message: Any) -> None:
    """Send the test a message, in one write."""
    os.write(1, json.dumps(message).encode() + b"\n")


def hear() -> Any:
    """Wait for a message of the test, in turns.

    A signal that comes when the last bytecode has run and the system call has not begun does not interrupt the call:
    the handler would run only when the message has come.
    """
    line = b""
    while not line.endswith(b"\n"):
        if select.select([0], [], [], _TURN)[0]:
            byte = os.read(0, 1)  # no more: what came after the line is for the next call
            if not byte:
                sys.exit("the test has ended")
            line += byte
    return json.loads(line)


def main(*actions: Callable[..., Any]) -> None:
    """Run the action that the command line names, and say what it returned."""
    if os.environ.get(COMPACTS):
        from tests.integration import _compacting

        _compacting.hurry()
    (action,) = (one for one in actions if one.__name__ == sys.argv[1])
    say(action(*json.loads(sys.argv[2])))


class Application:
    """A counter, and one row for each step that it has made: transactions that are stored in half show.

    Args:
        url: Where the database is.
        create: Whether to create it, with the counter at 0.
        create_tables: Whether to create it, without a counter.
        options: For ``bind_s3``.

    Attributes:
        db_session: Pony's own; subclasses may have temaki's.
    """

    db_session: ClassVar[Any] = db_session

    def __init__(self, url: str, *, create: bool = False, create_tables: bool = False, **options: Any) -> None:
        self.db = Database()

        class Counter(self.db.Entity):  # type: ignore[name-defined]
            id = PrimaryKey(int)
            value = Required(int)

        class Row(self.db.Entity):  # type: ignore[name-defined]
            id = PrimaryKey(int)
            text = Required(str)

        self.Counter: Any = Counter
        self.Row: Any = Row
        self.runs = 0
        self.db.bind_s3(url, **options)
        self.db.generate_mapping(create_tables=create or create_tables, check_tables=False)
        if create:
            with self.db_session:
                Counter(id=1, value=0)

    def value(self) -> int:
        """The counter, as a session of its own sees it; the rows agree."""
        with self.db_session:
            found: int = self.Counter[1].value
            rows = self.db.select("count(*) from Row")[0]
        assert rows == found, f"the counter is {found}, and there are {rows} rows"
        return found

    def step(self, size: int = 10, text: str = "") -> int:
        """What each transaction does; within a session. Its row has this text, or so many letters."""
        counter = self.Counter[1]
        self.runs += 1  # where temaki stops a second run, it does so before it has touched the database
        counter.value += 1
        self.Row(id=counter.value, text=text or "x" * size)
        return int(counter.value)

    def increment(
        self, *, retry: int = RETRIES, size: int = 10, text: str = "", then: Callable[[], object] = lambda: None
    ) -> int:
        """Add one, in a session that is retried; the value that was committed."""

        @self.db_session(retry=retry)
        def once() -> int:
            value = self.step(size, text)
            then()
            return value

        return int(once())

    def session(self) -> Any:
        """A session, for those who have no entity in hand."""
        return self.db_session

    def check(self) -> str:
        """SQLite's verdict on the working copy."""
        with self.db_session:
            return str(self.db.execute("PRAGMA integrity_check").fetchone()[0])


def create(url: str) -> None:
    """Create the database, in this process."""
    Application(url, create=True)


class Gate:
    """A store that tells the test when it has come to a point, and waits there for a word or a signal.

    Args:
        url: The database's.
        points: Of ``before put``, ``after put``, ``before get``, ``in get``.
    """

    def __init__(self, url: str, points: Iterable[str] = ()) -> None:
        self._store, self._key = open_store(url)
        self.points = set(points)
        self.wait: Callable[[str], object] = wait_for_word

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def _at(self, point: str) -> None:
        if point in self.points:
            self.points.discard(point)
            self.wait(point)

    def put(self, key: str, *args: Any, **kwargs: Any) -> str:
        """See the store's own."""
        self._at("before put")
        etag = self._store.put(key, *args, **kwargs)
        self._at("after put")
        return etag

    def get(self, key: str, **kwargs: Any) -> Any:
        """See the store's own."""
        self._at("before get")
        download = self._store.get(key, **kwargs)
        self._at("in get")
        return download


def wait_for_word(point: str) -> None:
    """Say where we are, and wait."""
    say(point)
    hear()


def kill_myself(*_: object, **__: object) -> None:
    """As ``kill -9`` from outside."""
    os.kill(os.getpid(), signal.SIGKILL)


_watched = False


def _end_in_time() -> None:
    """Do not hang for ever: say where, or, in a child's child, where this cannot be done again, only end."""
    global _watched  # noqa: PLW0603 - a process has one of these
    if _watched:
        signal.alarm(int(PATIENCE))
    else:
        faulthandler.dump_traceback_later(PATIENCE, exit=True)
    _watched = True


def fork() -> int:
    """Fork; as Python does, or as programs do that embed it, of which Python hears nothing."""
    return int(ctypes.PyDLL(None).fork()) if os.environ.get(UNSEEN) else os.fork()


class Forked:
    """A process of its own that this one has forked, to run one function.

    A process that has imported everything and bound nothing forks faster than a new one starts.

    Args:
        function: What to run; its result is sent back as JSON.
    """

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._reader, writer = os.pipe()
        self.pid = fork()
        if self.pid:
            os.close(writer)
            return
        status = 1
        try:
            _end_in_time()
            os.write(writer, json.dumps(function(*arguments)).encode())
            atexit._run_exitfuncs()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)

    def kill_after(self, seconds: float) -> None:
        """SIGKILL, after so many seconds or at the function's end."""
        select.select([self._reader], [], [], seconds)
        os.kill(self.pid, signal.SIGKILL)

    def end(self) -> tuple[int, Any]:
        """Wait for the end: the exit code, which is negative for a signal; and what the function returned, or None."""
        data = b""
        while piece := os.read(self._reader, 1 << 16):
            data += piece
        os.close(self._reader)
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status), json.loads(data) if data else None

    def result(self) -> Any:
        """What the function returned."""
        code, value = self.end()
        assert code == 0, f"a forked process ended with {code}"
        return value


def outcome_of(call: Callable[[], object]) -> str:
    """The name of what a call raised, without Pony's wrapping; empty if it returned."""
    try:
        call()
    except BaseException as error:
        return type(cause_of(error)).__name__
    return ""


def poll(condition: Callable[[], bool]) -> None:
    """Wait for an event that cannot be waited for."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.001)
