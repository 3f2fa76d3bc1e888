"""``--help`` without type names: a switch has no type, and the name of an argument says what it is."""

from __future__ import annotations

import re
from typing import Any, Final

from typer.core import TyperCommand, TyperGroup

_BREAK: Final = re.compile(r"(?<!\n)\n(?!\n)")  # a line break within a paragraph


class PlainCommand(TyperCommand):
    """A command whose help names values (``N``, ``COMMIT``, ``SQL``) instead of types (``<bool>``, ``<str>``).

    The paragraphs of the help are as wide as the terminal.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        if self.help:
            self.help = _BREAK.sub(" ", self.help)

    def get_params(self, ctx: Any) -> Any:
        """As of the base class, for the parser and for the help."""
        return _without_types(super().get_params(ctx))

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the options and the names of the arguments, without brackets around brackets."""
        parameters = self.get_params(ctx)
        names = [str(parameter.metavar) for parameter in parameters if parameter.param_type_name == "argument"]
        return [str(self.options_metavar), *names]


class PlainGroup(TyperGroup):
    """A group of commands whose help names no types."""

    def get_params(self, ctx: Any) -> Any:
        """As of the base class, for the parser and for the help."""
        return _without_types(super().get_params(ctx))


def _without_types(parameters: Any) -> Any:
    for parameter in parameters:
        if parameter.param_type_name == "argument":
            parameter.display_type_rich = _nothing
        elif getattr(parameter, "is_flag", False) and parameter.metavar is None:
            parameter.metavar = ""
    return parameters


def _nothing(ctx: Any) -> None:  # noqa: ARG001 - typer's
    return None
