"""The arguments and options that several commands have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from temaki.cli.arguments import is_url
from temaki.errors import ConfigurationError

URL_HELP = "s3://bucket/key, file:///folder/key; without it TEMAKI_URL, temaki.toml or pyproject.toml decides."

Url = Annotated[str | None, typer.Argument(metavar="[URL]", help=URL_HELP, show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON; see: temaki schema COMMAND")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def apart(arguments: Sequence[str] | None, *, least: int, most: int, what: str) -> tuple[str | None, list[str]]:
    """Return the URL, None if it is left out, and the other arguments.

    Args:
        arguments: The arguments of the command line. The URL is the argument with a scheme, at any place: no file and
            no version looks like it.
        least: The smallest number of other arguments.
        most: The largest number of other arguments.
        what: The names of the arguments, for the message.

    Raises:
        ConfigurationError: There are more or fewer arguments, or two URLs.
    """
    given = [argument for argument in arguments or () if not is_url(argument)]
    urls = [argument for argument in arguments or () if is_url(argument)]
    if len(urls) > 1:
        raise ConfigurationError(
            f"Two URLs were given, {urls[0]} and {urls[1]}: expected the arguments {what}. To copy a database, use: "
            f"temaki copy {urls[0]} {urls[1]}"
        )
    if not least <= len(given) <= most:
        raise ConfigurationError(
            f"Expected the arguments {what}; got {' '.join(arguments or ()) or 'none'}. A URL begins with s3://, "
            "file:// or memory://."
        )
    return (urls[0] if urls else None), given
