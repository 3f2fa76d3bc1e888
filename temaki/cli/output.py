"""What goes to stdout, and what it means where it does not arrive."""

from __future__ import annotations

import errno
import io
import os
import sys

import msgspec

from temaki.cli.results import LeaseResult, Pulled, Pushed, ShellResult


class Canvas(io.StringIO):
    """Where results are drawn before they are written: it has the letters that stdout has."""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Of stdout."""
        return getattr(sys.stdout, "encoding", None) or "utf-8"


class OutputError(OSError):
    """A result cannot be written to stdout, or not all of it."""


def as_document(result: msgspec.Struct) -> str:
    """A result as JSON."""
    try:
        encoded = msgspec.json.encode(result)
    except UnicodeEncodeError:  # a file's name that is not UTF-8: shown as far as it can be
        encoded = msgspec.json.encode(_without_surrogates(msgspec.to_builtins(result)))
    return msgspec.json.format(encoded, indent=2).decode() + "\n"


def _without_surrogates(value: object) -> object:
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {name: _without_surrogates(one) for name, one in value.items()}
    return [_without_surrogates(one) for one in value] if isinstance(value, list) else value


def done_already(result: msgspec.Struct) -> str | None:
    """What a command has done already when it prints this, whether or not that succeeds; None where it only looked."""
    if isinstance(result, Pulled):
        return f"{result.path} was written."
    version = result.version if isinstance(result, Pushed) else None
    if isinstance(result, ShellResult):
        version = result.published
    if version is not None:
        return f"Version {version.sequence} was stored, as commit {version.commit}."
    if isinstance(result, LeaseResult) and result.evicted is not None:
        return f"{result.evicted} was evicted."
    return None


def unwritable(error: Exception) -> OutputError:
    """What it means that stdout cannot be written to."""
    number = (error.errno if isinstance(error, OSError) else None) or errno.EBADF
    what = "is closed" if number == errno.EBADF else f"cannot be written to: {os.strerror(number)}"
    return OutputError(number, f"The result was not printed: stdout {what}. Redirect it, to /dev/null at least.")
