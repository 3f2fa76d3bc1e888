"""The three standard streams: closed ones, failing ones, and ones that cannot encode every letter."""

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
"""The signals that end a command."""


def make_whole() -> None:
    """Give the process all three streams, even if some are closed.

    The next file that is opened, such as the database, would get the number of a closed stream. Then output would
    corrupt that file. So a closed stdin becomes an empty stream, and a closed stderr becomes a silent one. A closed
    stdout becomes a stream that refuses writes, because a lost result must be an error.
    """
    for number, flags in ((_STDIN, os.O_RDONLY), (_STDOUT, os.O_RDONLY), (_STDERR, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, flags)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
    if sys.stdin is None:
        sys.stdin = open(_STDIN, encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = open(_STDOUT, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(_STDERR, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        # A letter that the terminal cannot show is printed as \x.
        with suppress(AttributeError, ValueError):  # a test's stream is no plain file
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def readable(argument: str) -> str:
    """Return an argument or a variable as it was typed, in UTF-8, in any locale.

    Under ``LC_ALL=C``, letters outside ASCII may have arrived as escaped bytes.
    """
    try:
        return os.fsencode(argument).decode()
    except UnicodeError:
        return argument


def silence(stream: TextIO) -> None:
    """Discard all further output to a stream that has failed. Otherwise Python tries again at exit and complains."""
    with suppress(OSError, ValueError):
        number = stream.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, number)
        os.close(nowhere)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Delay Ctrl-C while a short block runs that must not be interrupted, such as a cleanup."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
