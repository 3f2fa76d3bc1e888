"""Requests at once: in order, the first failure counts, and nobody waits for the rest."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from temaki.cli.parallel import in_parallel


def test_the_results_are_in_order() -> None:
    """Whichever call is first; and as many at once as was said."""
    line = threading.Barrier(4)

    def call(number: int) -> int:
        line.wait(30)
        return number * 2

    assert in_parallel(call, range(8), at_once=4) == [0, 2, 4, 6, 8, 10, 12, 14]
    assert in_parallel(call, [], at_once=4) == []


def test_the_first_failure_ends_it() -> None:
    """Without waiting for a call that never answers, and without beginning another one."""
    never, begun = threading.Event(), []

    def call(number: int) -> None:
        begun.append(number)
        if number:
            raise LookupError(number)
        never.wait(60)

    with pytest.raises(LookupError):
        in_parallel(call, range(100), at_once=2)
    never.set()
    assert len(begun) == 2


def test_exit_waits_for_no_call() -> None:
    """A process whose Ctrl-C came in the middle of a request ends at once."""
    code = (
        "import os, signal, threading; from temaki.cli.parallel import in_parallel\n"
        "def call(_):\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    threading.Event().wait()\n"
        "try: in_parallel(call, [1], at_once=1)\n"
        "except KeyboardInterrupt: print('interrupted')\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert (run.returncode, run.stdout) == (0, "interrupted\n")
