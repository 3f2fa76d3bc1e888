"""How many tries a slow session needs beside a fast writer: Pony's retry and temaki's, in one process and in two.

    .venv/bin/python benchmarks/slow_session.py [server] [milliseconds]

``server`` is ``moto``, ``seaweedfs``, or ``file`` (a folder; the default).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from pony.orm import PrimaryKey, Required, flush
from pony.orm import db_session as ponys

import temaki
from temaki.testing import moto_server, seaweedfs_server

ROUNDS = 3
MOST = 60  # tries
db = temaki.Database()


class Counter(db.Entity):  # type: ignore[name-defined]
    """Two rows: one for the fast writer, one for the slow session."""

    id = PrimaryKey(int)
    value = Required(int)


@temaki.db_session(retry=MOST)
def fast(number: int) -> None:
    """A writer's whole session."""
    Counter.get(id=number).value += 1


def write_until(stop: Callable[[], bool], number: int = 1) -> int:
    """The fast writer."""
    count = 0
    while not stop():
        fast(number)
        count += 1
    return count


def slow(decorate: Any, milliseconds: float) -> tuple[int, float]:
    """Tries and seconds of one slow session, from its first try to its commit."""
    tries = [0]

    @decorate(retry=MOST)  # type: ignore[untyped-decorator, unused-ignore]
    def session() -> None:
        tries[0] += 1
        row = Counter.get(id=2)
        value = row.value
        time.sleep(milliseconds / 1000)
        row.value = value + 1
        flush()

    begun = time.perf_counter()
    try:
        session()
    except Exception as error:  # noqa: BLE001 - a result, too
        print("   not stored:", type(temaki.cause_of(error)).__name__)
    return tries[0], time.perf_counter() - begun


def main() -> None:
    """Print a table."""
    if sys.argv[1:2] == ["write"]:
        db.bind_s3(sys.argv[2])
        db.generate_mapping()
        print("begun", flush=True)
        threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
        write_until(lambda: False)
    kind = (sys.argv[1:] or ["file"])[0]
    milliseconds = float((sys.argv[2:] or ["150"])[0])
    with ExitStack() as stack:
        url = f"file://{tempfile.mkdtemp()}/app.sqlite"
        if kind != "file":
            server = stack.enter_context({"moto": moto_server, "seaweedfs": seaweedfs_server}[kind]())
            os.environ.update(server.environment)
            url = f"s3://{server.bucket()}/app.sqlite"
        db.bind_s3(url)
        db.generate_mapping(create_tables=True)
        with temaki.db_session:
            Counter(id=1, value=0)
            Counter(id=2, value=0)
        print(f"{kind}, a session of {milliseconds:g} ms beside one fast writer, {ROUNDS} rounds: tries (seconds)")
        for name, decorate in (("temaki's", temaki.db_session), ("Pony's retry", ponys)):
            print(f"  {name}, another process:", measured(decorate, milliseconds, url), flush=True)
            print(f"  {name}, another thread: ", measured(decorate, milliseconds, ""), flush=True)


def measured(decorate: Any, milliseconds: float, url: str) -> str:
    """One line."""
    if url:
        writer = subprocess.Popen(
            [sys.executable, __file__, "write", url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        writer.stdout.readline()
    else:
        stop: list[int] = []
        thread = threading.Thread(target=write_until, args=[lambda: bool(stop), 2])
        thread.start()
    try:
        results = [slow(decorate, milliseconds) for _ in range(ROUNDS)]
    finally:
        if url:
            writer.kill()
            writer.wait()
        else:
            stop.append(1)
            thread.join()
    return ", ".join(f"{tries} ({seconds:.1f})" for tries, seconds in results)


if __name__ == "__main__":
    main()
