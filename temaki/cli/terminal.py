"""The terminal of one command: results, questions, errors, exit codes.

Results go to stdout, everything else goes to stderr. Exit codes:

====  =================================================================================================
0     the command succeeded and found no problem
1     the command succeeded and found a problem (``verify``, ``doctor``); or it failed in a way that is not listed
      here, for instance because its result could not be written to stdout
2     wrong usage or configuration
3     another writer came first, or an expectation is no longer true: nothing was changed
4     there is no such database, bucket or version
5     the store refused (credentials, permissions), or did not answer
6     the store never said whether it accepted a commit
130   interrupted
====  =================================================================================================
"""

from __future__ import annotations

import signal
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import BinaryIO, Final

import msgspec
import typer
from rich.console import Console, RenderableType
from rich.text import Text

from temaki.cli.output import Canvas, OutputError, as_document, done_already, unwritable
from temaki.cli.results import Failure
from temaki.cli.streams import SIGNALS, silence
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

_PIPE: Final = 1_000_000  # columns: in a pipe there is no terminal whose width would cut lines

_CODES: tuple[tuple[tuple[type[TemakiError], ...], int], ...] = (
    ((ConfigurationError,), USAGE),
    ((ConflictError, LeaseLostError, PreconditionFailedError), CONFLICT),
    ((NotFoundError, BucketNotFoundError), MISSING),
    ((AccessDeniedError, StoreUnavailableError), STORE),
    ((CommitUnknownError,), UNKNOWN),
    ((StoreError,), STORE),
)


def exit_code(error: BaseException) -> int:
    """Return the exit code for an error."""
    for classes, code in _CODES:
        if isinstance(error, classes):
            return code
    return INTERRUPTED if isinstance(error, KeyboardInterrupt) else FOUND


class Terminal:
    """The terminal of one command.

    Args:
        as_json: Whether results are printed as JSON.

    Attributes:
        notes: The console on stderr, for everything but results.
        so_far: What the command has done so far, as a sentence. It is printed after an interrupt.
    """

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.so_far = "Nothing was changed."
        self.notes = Console(stderr=True, highlight=False, markup=False, emoji=False)
        self._is_piped = not sys.stdout.isatty()
        # rich draws on a canvas, not on stdout itself, because it handles failed writes in its own way.
        self._canvas = Canvas()
        self._results = Console(
            file=self._canvas,
            force_terminal=None if self._is_piped else True,
            highlight=False,
            markup=False,
            emoji=False,
            width=_PIPE if self._is_piped else None,
        )
        self._is_asking = False
        self._is_unread = False

    @property
    def can_ask(self) -> bool:
        """Whether a person can answer a question."""
        return sys.stdin.isatty() and sys.stderr.isatty() and not self.as_json

    def show(self, result: msgspec.Struct) -> None:
        """Print the result of a command.

        Raises:
            OutputError: The result cannot be printed. If it only says what the command has done, a note on stderr
                replaces the error.
        """
        try:
            if self.as_json:
                self.write(as_document(result))
            else:
                self.print(*shown(result))
        except OutputError as error:
            done = done_already(result)
            if done is None:
                raise
            if self.as_json:
                raise OutputError(error.errno, f"{error.strerror} All the same: {done}") from None
            self.note(f"temaki: {done} ({error.strerror})")

    def print(self, *parts: RenderableType) -> None:
        """Print parts of a result, with a blank line between a table and its neighbours."""
        blocks = [(self._drawn(part), not isinstance(part, Text)) for part in parts]
        text = ""
        for number, (block, is_table) in enumerate(blocks):
            if number and (is_table or blocks[number - 1][1]):
                text += "\n"
            text += block
        self.write(text)

    def _drawn(self, part: RenderableType) -> str:
        self._results.print(part, soft_wrap=isinstance(part, Text))
        drawn = self._canvas.getvalue()
        self._canvas.seek(0)
        self._canvas.truncate()
        if isinstance(part, Text):
            return drawn
        lines = drawn.split("\n")
        if self._is_piped:
            lines = [line.rstrip() for line in lines]
        while lines and not lines[0].strip():
            del lines[0]
        while lines and not lines[-1].strip():
            del lines[-1]
        return "".join(f"{line}\n" for line in lines)

    def write(self, text: str) -> None:
        """Write text to stdout as it is.

        Raises:
            OutputError: The text cannot be written. A reader that has gone away is no error.
        """
        if self._is_unread:
            return
        try:
            # A JSON document is always UTF-8. Other text has the terminal's encoding.
            if self.as_json and hasattr(sys.stdout, "buffer"):
                sys.stdout.flush()
                sys.stdout.buffer.write(text.encode(errors="backslashreplace"))
            else:
                sys.stdout.write(text)
            sys.stdout.flush()
        except BrokenPipeError:
            # The reader has gone away. The exit code still tells what the command found.
            self._is_unread = True
            silence(sys.stdout)
        except (OSError, ValueError) as error:
            self._is_unread = True
            silence(sys.stdout)
            raise unwritable(error) from error

    def bytes_out(self) -> BinaryIO:
        """Return stdout for a file's bytes.

        Raises:
            ConfigurationError: stdout is a terminal, or the command was also called with ``--json``.
        """
        if self.as_json:
            raise ConfigurationError("--json and PATH - both mean stdout. Leave one of them out.")
        if not self._is_piped:
            raise ConfigurationError(
                "PATH - writes the database's bytes to stdout, which is a terminal here. Redirect it, or name a file."
            )
        return sys.stdout.buffer

    def broken_off(self, error: OSError) -> OutputError:
        """Silence stdout, and return the error for bytes that it did not take completely."""
        silence(sys.stdout)
        return unwritable(error)

    def note(self, text: str) -> None:
        """Print a note to stderr. If stderr cannot be written to, the note is lost."""
        try:
            self.notes.print(text, markup=False, soft_wrap=True)
            self.notes.file.flush()
        except (OSError, ValueError, SystemExit):  # rich raises SystemExit for a broken pipe
            silence(sys.stderr)

    def confirm(self, question: str, *, yes: bool) -> None:
        """Ask a question, and go on only if the answer is yes.

        Args:
            question: The question: what is about to happen.
            yes: Whether to go on without asking, because of ``--yes``.

        Raises:
            ConfigurationError: Nobody can answer.
            typer.Exit: The answer was no.
        """
        if yes:
            return
        if not self.can_ask:
            raise ConfigurationError(f"{question} Nobody can answer here. Add --yes to agree.")
        self._is_asking = True
        self.notes.print(f"{question} [y/N] ", end="", markup=False, soft_wrap=True)
        agreed = sys.stdin.readline().strip().lower() in {"y", "yes"}
        self._is_asking = False
        if not agreed:
            self.note("Nothing was changed.")
            raise typer.Exit(FOUND)

    def fail(self, error: BaseException) -> int:
        """Print an error.

        Returns:
            The exit code.
        """
        code = exit_code(error)
        message = self._message(error)
        if self.as_json and not isinstance(error, OutputError):
            with suppress(OutputError):  # stderr has it too
                self.write(as_document(Failure(error=type(error).__name__, message=message, exit_code=code)))
        self.note(("\n" if self._is_asking else "") + f"temaki: {message}")
        return code

    def _message(self, error: BaseException) -> str:
        if isinstance(error, KeyboardInterrupt):
            return f"Interrupted. {self.so_far}"
        if isinstance(error, OutputError):
            return str(error.strerror)
        if isinstance(error, sqlite3.Error):
            return (
                f"The local copy of the database cannot be used: {error}. Check that there is room in the temporary "
                "folder (TMPDIR)."
            )
        if isinstance(error, OSError) and error.strerror:
            return f"{error.filename or 'A file'} cannot be used: {error.strerror}."
        if isinstance(error, UnicodeError):
            return (
                f"A name has letters that cannot be used here: {error}. Set LANG to a locale with UTF-8, as in C.UTF-8."
            )
        return str(error)


@contextmanager
def terminal(*, as_json: bool) -> Iterator[Terminal]:
    """Run a command's body, and turn errors into a message and an exit code, without a traceback.

    SIGTERM and SIGHUP end the body as Ctrl-C does, so that it cleans up.
    """
    this = Terminal(as_json=as_json)
    with suppress(ValueError):  # a test may run this outside of the main thread
        for number in SIGNALS - {signal.SIGINT}:
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP
                signal.signal(number, _interrupt)
    try:
        yield this
    except (TemakiError, KeyboardInterrupt, OSError, sqlite3.Error, UnicodeError) as error:
        raise typer.Exit(this.fail(error)) from None


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
