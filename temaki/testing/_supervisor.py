"""Runs one server for as long as the test run lives: even ``kill -9`` of the test run leaves nothing behind.

Run it as a script, with a folder and a command line. Its standard input is a pipe from the test run. When the pipe
ends, for whatever reason, the supervisor terminates the server, kills it after a grace period, and removes the folder.
Until then each line is an order: the number of a signal that ends the server, or ``start``. A line on standard output
confirms each order. The output of the server goes to standard error.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys

GRACE = 2.0


def main(folder: str, command: list[str]) -> int:
    """Run ``command`` until it ends by itself, or until the standard input ends."""
    try:
        return _obey(command)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _obey(command: list[str]) -> int:
    ended = _children_ended()
    server: subprocess.Popen[bytes] | None = _start(command)
    while True:
        ready, _, _ = select.select([0, ended], [], [])
        if ended in ready:
            os.read(ended, 4096)
        if server is not None and (status := server.poll()) is not None:
            return status
        if 0 not in ready:
            continue
        order = os.read(0, 100).decode().strip()
        if not order:
            return 0 if server is None else _stop(server, signal.SIGTERM, GRACE)
        if order == "start":
            server = server or _start(command)
        elif server is not None:
            _stop(server, int(order), None)
            server = None
        os.write(1, b"done\n")


def _children_ended() -> int:
    """Make a descriptor that is readable when a child has ended."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(writer)
    return reader


def _start(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=2)  # noqa: S603 - the caller's own command


def _stop(server: subprocess.Popen[bytes], number: int, grace: float | None) -> int:
    server.send_signal(number)
    try:
        return server.wait(grace)
    except subprocess.TimeoutExpired:
        server.kill()
        return server.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
