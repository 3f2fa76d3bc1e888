"""The ``temaki`` command: look at a database in its bucket, move it, mend it, and find out what it costs.

The command needs the extra ``temaki[cli]`` (typer and rich), which nothing else in temaki imports.
"""

from __future__ import annotations

import sys
from typing import Final

__all__ = ["main"]

_FAILED: Final = 1
_USAGE: Final = 2
_INTERRUPTED: Final = 130


def main() -> None:
    """Run the command that ``sys.argv`` names, and exit. See :mod:`temaki.cli.terminal` for the exit codes."""
    from temaki.cli.streams import make_whole, silence

    make_whole()
    try:
        code = _run()
        sys.stdout.flush()
    except KeyboardInterrupt:  # before the command began; once it runs, the command handles it
        code = _fail(_INTERRUPTED, "Interrupted before the command began. Nothing was changed.")
    except BrokenPipeError:  # the reader of the help has gone away
        silence(sys.stdout)
        code = 0
    except OSError as error:
        silence(sys.stdout)
        code = _fail(_FAILED, f"stdout cannot be written to: {error.strerror}. Redirect it, to /dev/null at least.")
    raise SystemExit(code)


def _run() -> int:
    try:
        import rich  # noqa: F401 - only to find out whether it is installed
        import typer  # noqa: F401 - only to find out whether it is installed
    except ImportError as error:
        return _fail(
            _USAGE,
            f"the command line needs {error.name}, which is not installed. Install it with: pip install 'temaki[cli]'",
        )
    import logging

    # A command reports what the library logs in its own words.
    logging.getLogger("temaki").addHandler(logging.NullHandler())
    from temaki.cli.app import app
    from temaki.cli.arguments import arranged
    from temaki.cli.streams import readable

    sys.argv[1:] = arranged([readable(argument) for argument in sys.argv[1:]])
    try:
        app()
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    return 0


def _fail(code: int, message: str) -> int:
    from contextlib import suppress

    from temaki.cli.streams import silence

    try:
        sys.stderr.write(f"temaki: {message}\n")
        sys.stderr.flush()
    except OSError:
        with suppress(OSError):
            silence(sys.stderr)
    return code
