"""Docstrings name things as Sphinx does (``:class:`Sync```), which editors understand; here only the name is shown."""

from __future__ import annotations

import re
from typing import Any

_ROLE = re.compile(r":(?:class|meth|func|mod|attr|data|exc):(?=<(?:code|a|autoref|span)\b)")
_PATH = re.compile(r"<code>~(?:\w+\.)*(\w+)</code>")


def on_page_content(html: str, **_: Any) -> str:
    """Drop the roles before names, and the path of a name that a tilde asks to drop."""
    return _PATH.sub(r"<code>\1</code>", _ROLE.sub("", html))
