"""The command line application, assembled from its commands."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from temaki._version import __version__
from temaki.cli.bench import bench
from temaki.cli.compact import compact
from temaki.cli.convert import convert
from temaki.cli.copy import copy
from temaki.cli.doctor import doctor
from temaki.cli.history import diff, history, restore
from temaki.cli.lease import lease
from temaki.cli.look import status, verify
from temaki.cli.move import pull, push
from temaki.cli.plain_help import PlainCommand, PlainGroup
from temaki.cli.results import RESULTS, schema
from temaki.cli.shell import shell
from temaki.cli.terminal import terminal
from temaki.errors import ConfigurationError

_EPILOG = (
    "Exit codes: 0 done; 1 something was found, or failed; 2 usage or configuration; 3 another writer came first; "
    "4 no such database, bucket or version; 5 the store refused or did not answer; 6 unknown whether it was stored; "
    "130 interrupted."
)

app = typer.Typer(
    name="temaki",
    help="A Pony ORM database in one SQLite file on S3: look at it, move it, mend it, and find out what it costs.",
    cls=PlainGroup,
    epilog=_EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"temaki {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Take the options of the command itself. Its help text is that of ``app``."""


def schema_of(
    command: Annotated[list[str], typer.Argument(metavar="COMMAND", help=f"One of: {', '.join(RESULTS)}.")],
) -> None:
    """Print the JSON schema of a command's output with --json.

    Example: temaki schema lease show
    """
    with terminal(as_json=False) as out:
        name = " ".join(command)
        if name not in RESULTS:
            raise ConfigurationError(f"There is no command {name!r}. Commands with a schema: {', '.join(RESULTS)}.")
        out.write(json.dumps(schema(name), indent=2) + "\n")


for function in (status, pull, push, verify, history, diff, restore, copy, convert, compact):
    app.command(cls=PlainCommand)(function)
app.add_typer(lease, name="lease")
for function in (shell, doctor, bench):
    app.command(cls=PlainCommand)(function)
app.command("schema", cls=PlainCommand)(schema_of)
