"""One command's way to the terminal: results, questions, errors, exit codes.

Results go to stdout, everything else to stderr. Exit codes:

====  =================================================================================================
0     done, and nothing to complain of
1     done, and something was found (``verify``, ``doctor``); or it failed in a way that is not listed here
2     wrong usage or configuration
3     another writer came first, or what was expected is no longer so: nothing was changed
4     there is no such database, bucket or version
5     the store refused (credentials, permissions), or did not answer
6     the store never said whether it accepted a commit
130   interrupted
====  =================================================================================================
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Final

import msgspec
import typer
from rich.console import Console, RenderableType
from rich.text import Text

from temaki.cli.results import Failure
from temaki.cli.tables import shown
from temaki.errors import (
    AccessDeniedError,
    BucketNotFoundError,
    CommitUnknownError,
    ConfigurationError,
    ConflictError,
    LeaseLostError,
    NotFoundError,
    PreconditionFailedError,
    StoreError,
    StoreUnavailableError,
    TemakiError,
)

OK, FOUND, USAGE, CONFLICT, MISSING, STORE, UNKNOWN, INTERRUPTED = 0, 1, 2, 3, 4, 5, 6, 130

_PIPE: Final = 200  # columns

_CODES: tuple[tuple[tuple[type[TemakiError], ...], int], ...] = (
    ((ConfigurationError,), USAGE),
    ((ConflictError, LeaseLostError, PreconditionFailedError), CONFLICT),
    ((NotFoundError, BucketNotFoundError), MISSING),
    ((AccessDeniedError, StoreUnavailableError), STORE),
    ((CommitUnknownError,), UNKNOWN),
    ((StoreError,), STORE),
)


def exit_code(error: BaseException) -> int:
    """The exit code for an error."""
    for classes, code in _CODES:
        if isinstance(error, classes):
            return code
    return INTERRUPTED if isinstance(error, KeyboardInterrupt) else FOUND


class Terminal:
    """Where one command prints to.

    Args:
        as_json: Whether results are printed as JSON.

    Attributes:
        notes: stderr, for what is no result.
    """

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.notes = Console(stderr=True, highlight=False, markup=False, emoji=False)
        # In a pipe nothing is cut to the width of a terminal that is not there.
        self._results = Console(
            highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else _PIPE
        )

    @property
    def can_ask(self) -> bool:
        """Whether somebody is there to answer."""
        return sys.stdin.isatty() and sys.stderr.isatty() and not self.as_json

    def show(self, result: msgspec.Struct) -> None:
        """Print what a command found out."""
        if self.as_json:
            data = msgspec.json.format(msgspec.json.encode(result), indent=2)
            sys.stdout.write(data.decode() + "\n")
            sys.stdout.flush()
        else:
            for part in shown(result):
                self.print(part)

    def print(self, part: RenderableType) -> None:
        """Print a part of a result, as it comes."""
        self._results.print(part, soft_wrap=isinstance(part, Text))

    def note(self, text: str) -> None:
        """Say something that is no result."""
        self.notes.print(text, markup=False, soft_wrap=True)

    def confirm(self, question: str, *, yes: bool) -> None:
        """Go on only if somebody agrees.

        Args:
            question: What is about to happen.
            yes: ``--yes`` was given: do not ask.

        Raises:
            ConfigurationError: Nobody is there to ask.
            typer.Exit: The answer was no.
        """
        if yes:
            return
        if not self.can_ask:
            raise ConfigurationError(f"{question} Nobody is there to agree to that: say --yes if you do.")
        self.notes.print(f"{question} [y/N] ", end="", markup=False, soft_wrap=True)
        if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
            self.note("Nothing was changed.")
            raise typer.Exit(FOUND)

    def fail(self, error: BaseException) -> int:
        """Say what went wrong; gives the exit code."""
        code = exit_code(error)
        message = "Interrupted." if isinstance(error, KeyboardInterrupt) else str(error)
        if self.as_json:
            self.show(Failure(error=type(error).__name__, message=message, exit_code=code))
        self.note(f"temaki: {message}")
        return code


@contextmanager
def terminal(*, as_json: bool) -> Iterator[Terminal]:
    """Run a command's body: errors become a message and an exit code, and no traceback.

    SIGTERM ends the body as Ctrl-C does, so that what it has begun is tidied up.
    """
    this = Terminal(as_json=as_json)
    with suppress(ValueError):  # not the main thread: a test
        signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield this
    except (TemakiError, KeyboardInterrupt) as error:
        raise typer.Exit(this.fail(error)) from None
    except BrokenPipeError:
        # Whoever read the output has seen enough. Python would complain again at exit, when it flushes.
        with suppress(OSError, ValueError):
            sys.stdout.close()
        raise typer.Exit(OK) from None
    except OSError as error:
        raise typer.Exit(this.fail(error)) from None


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
