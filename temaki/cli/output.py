"""Output to stdout: JSON documents, and the error if stdout does not take them."""

from __future__ import annotations

import errno
import io
import os
import sys

import msgspec

from temaki.cli.results import Compacted, Converted, Copied, LeaseResult, Pulled, Pushed, ShellResult


class Canvas(io.StringIO):
    """A buffer in which results are drawn before they are written, with stdout's encoding."""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of stdout."""
        return getattr(sys.stdout, "encoding", None) or "utf-8"


class OutputError(OSError):
    """A result could not be written to stdout completely."""


def as_document(result: msgspec.Struct) -> str:
    """Return a result as JSON text."""
    try:
        encoded = msgspec.json.encode(result)
    except UnicodeEncodeError:  # a file's name is not UTF-8: its other bytes are escaped
        encoded = msgspec.json.encode(_without_surrogates(msgspec.to_builtins(result)))
    return msgspec.json.format(encoded, indent=2).decode() + "\n"


def _without_surrogates(value: object) -> object:
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {name: _without_surrogates(item) for name, item in value.items()}
    return [_without_surrogates(item) for item in value] if isinstance(value, list) else value


def done_already(result: msgspec.Struct) -> str | None:
    """Return a sentence about what a command did before it printed a result; None if it changed nothing."""
    if isinstance(result, Pulled):
        return f"{result.path} was written."
    if isinstance(result, Compacted):
        return None if result.dry_run else f"{result.url} was compacted."
    version = result.version if isinstance(result, (Copied, Pushed)) else None
    if isinstance(result, Converted) and result.replaced is not None:
        version = result.version
    if isinstance(result, ShellResult):
        version = result.published
    if version is not None:
        return f"Version {version.sequence} was stored, as commit {version.commit}."
    if isinstance(result, LeaseResult) and result.evicted is not None:
        return f"{result.evicted} was evicted."
    return None


def unwritable(error: Exception) -> OutputError:
    """Return the error for a stdout that cannot be written to."""
    number = (error.errno if isinstance(error, OSError) else None) or errno.EBADF
    what = "is closed" if number == errno.EBADF else f"cannot be written to: {os.strerror(number)}"
    return OutputError(number, f"The result was not printed: stdout {what}. Redirect it, to /dev/null at least.")
