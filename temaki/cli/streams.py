"""The three standard streams, made fit to be used: closed ones, full ones, and ones that cannot say every letter."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final, TextIO

_STDIN, _STDOUT, _STDERR = 0, 1, 2
SIGNALS: Final = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
"""What ends a command from outside."""


def make_whole() -> None:
    """Give the process all three streams, whatever it was started with.

    A number that is closed would be given to the next file that is opened, such as the database, and whatever prints
    would write into it. So a closed stdin is an empty one and a closed stderr a silent one. A closed stdout is one that
    refuses to be written to: a result that nobody gets must not look like one.
    """
    for number, flags in ((_STDIN, os.O_RDONLY), (_STDOUT, os.O_RDONLY), (_STDERR, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            found = os.open(os.devnull, flags)
            if found != number:
                os.dup2(found, number)
                os.close(found)
    if sys.stdin is None:
        sys.stdin = open(_STDIN, encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = open(_STDOUT, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(_STDERR, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal has no letters for is better shown with \x than not at all.
        with suppress(AttributeError, ValueError):  # not a plain file: a test's
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def readable(argument: str) -> str:
    """An argument or a variable as it was typed, in UTF-8, whatever Python's locale made of it.

    Under ``LC_ALL=C`` every other letter may have arrived as an escaped byte.
    """
    try:
        return os.fsencode(argument).decode()
    except UnicodeError:
        return argument


def silence(stream: TextIO) -> None:
    """Let nothing more be written to a stream that has failed: Python would try again at exit, and complain."""
    with suppress(OSError, ValueError):
        number = stream.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, number)
        os.close(nowhere)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Let Ctrl-C wait while something short is done that must not be left half done, such as tidying up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
