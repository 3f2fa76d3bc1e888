"""The ``temaki`` command: look at a database in its bucket, move it, mend it, and find out what it costs.

Needs the extra ``temaki[cli]`` (typer and rich), which nothing else in temaki imports.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command that ``sys.argv`` names, and exit. See :mod:`temaki.cli.terminal` for the exit codes."""
    try:
        import rich  # noqa: F401 - see below
        import typer  # noqa: F401 - only to find out
    except ImportError as error:
        sys.stderr.write(
            f"temaki: the command line needs {error.name}, which is not installed. Install it with: "
            "pip install 'temaki[cli]'\n"
        )
        raise SystemExit(2) from None
    from temaki.cli.app import app

    app()
