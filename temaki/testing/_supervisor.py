"""Runs one server for as long as whoever started it lives: even ``kill -9`` of a test run leaves nothing behind.

Started as a script, with a folder and a command line. Its standard input is a pipe from the test run; when that ends,
for whatever reason, the server is terminated, killed after a grace, and the folder is removed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading

GRACE = 2.0


def main(folder: str, command: list[str]) -> int:
    """Run ``command`` until it or the standard input ends."""
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603 - the caller's own command

    def watch() -> None:
        sys.stdin.buffer.read()
        server.terminate()
        try:
            server.wait(GRACE)
        except subprocess.TimeoutExpired:
            server.kill()

    threading.Thread(target=watch, daemon=True).start()
    try:
        return server.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
