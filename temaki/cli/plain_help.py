"""``--help`` without the words of a type checker: a switch has no type, and an argument's name says what it is."""

from __future__ import annotations

import re
from typing import Any, Final

from typer.core import TyperCommand, TyperGroup

_BREAK: Final = re.compile(r"(?<!\n)\n(?!\n)")  # of a line within a paragraph


class PlainCommand(TyperCommand):
    """A command whose help names values (``N``, ``COMMIT``, ``SQL``) and no types (``<bool>``, ``<str>``).

    Its paragraphs are as wide as the terminal, not as the source.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        if self.help:
            self.help = _BREAK.sub(" ", self.help)

    def get_params(self, ctx: Any) -> Any:
        """As of the base class, for the parser and for the help."""
        return _without_types(super().get_params(ctx))

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The arguments as they are named, without brackets around brackets."""
        named = [str(one.metavar) for one in self.get_params(ctx) if one.param_type_name == "argument"]
        return [str(self.options_metavar), *named]


class PlainGroup(TyperGroup):
    """The same for a group of commands."""

    def get_params(self, ctx: Any) -> Any:
        """As of the base class, for the parser and for the help."""
        return _without_types(super().get_params(ctx))


def _without_types(parameters: Any) -> Any:
    for one in parameters:
        if one.param_type_name == "argument":
            one.display_type_rich = _nothing
        elif getattr(one, "is_flag", False) and one.metavar is None:
            one.metavar = ""
    return parameters


def _nothing(ctx: Any) -> None:  # noqa: ARG001 - typer's
    return None
