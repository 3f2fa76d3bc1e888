"""The tables of docs/reference/settings.md, made from the code: ``python -m tests.docs.reference`` writes them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from temaki import Database
from temaki.config import settings
from temaki.config.options import GENERAL
from temaki.config.registry import available, load
from tests.docs.pages import ROOT

PAGE = ROOT / "docs" / "reference" / "settings.md"


def generated(text: str) -> str:
    """The page with its tables made anew."""
    for name, table in {"general": _general(), "options": _options()}.items():
        text = re.sub(
            rf"(<!-- generated: {name} -->\n).*?(<!-- end -->)",
            lambda found, table=table: f"{found[1]}\n{table}\n{found[2]}",  # type: ignore[misc]
            text,
            flags=re.DOTALL,
        )
    return text


def _general() -> str:
    described = {**_attributes(settings.Settings), **_attributes(Database.bind_s3)}
    rows = [
        (
            f"`{name}`",
            f"`TEMAKI_{name.upper()}`",
            _default(getattr(settings.Settings(url=""), name) or None),
            described[name],
        )
        for name in GENERAL
    ]
    return _table(("setting", "environment", "default", "what"), rows)


def _options() -> str:
    rows: list[tuple[str, ...]] = []
    for strategy in available():
        cls = load(strategy)
        described = _attributes(cls)
        hints = get_type_hints(cls.__init__)
        for name, parameter in inspect.signature(cls).parameters.items():
            what = described.get(name, "")
            default = f"{_default(parameter.default)} ({_type(hints[name])})"
            rows.append((f"`{strategy}`", f"`{name}`", f"`TEMAKI_{name.upper()}`", default, what))
    return _table(("strategy", "option", "environment", "default", "what"), rows)


def _type(hint: Any) -> str:
    """Name of a type, without the None that stands for a default that depends on others."""
    if get_origin(hint) is Literal:
        return " or ".join(f'"{value}"' for value in get_args(hint))
    (kind,) = {hint} if isinstance(hint, type) else set(get_args(hint)) - {NoneType}
    return str(kind.__name__)


def _attributes(cls: object) -> dict[str, str]:
    """Name and description of what a docstring lists under Args or Attributes."""
    text = inspect.getdoc(cls) or ""
    section = re.search(r"(?:Args|Attributes):\n(.*?)(?:\n\n|\Z)", text, re.DOTALL)
    if section is None:
        return {}
    entries = re.findall(r"^    (\w+): (.*?)(?=^    \w+: |\Z)", section[1] + "\n", re.DOTALL | re.MULTILINE)
    return {name: " ".join(what.split()).replace("``", "`") for name, what in entries}


def _default(value: object) -> str:
    if value is None:
        return "none"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(generated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
