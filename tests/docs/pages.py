"""What README and docs show, cut into what can be run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

_BLOCK = re.compile(
    r"^(?:<!-- (?P<mark>[a-z ]+) -->\n+)?```(?P<language>[a-z]+)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<text>.*?)^```",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        language: As after the fence.
        title: The name of the file that it is, or empty.
        mark: What an invisible comment before it says: ``continues`` (the Python block before it), ``on a server``
            (needs a real bucket), ``not run`` (a shell block that a reader's own machine or account is needed for).
        text: Its lines.
    """

    language: str
    title: str
    mark: str
    text: str


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, in their order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(each["language"], each["title"] or "", each["mark"] or "", each["text"]) for each in _BLOCK.finditer(text)
    ]


def snippets(page: Path) -> list[tuple[str, bool]]:
    """The Python blocks that are no files, each with those that continue it; and whether they need a real bucket."""
    found: list[tuple[str, bool]] = []
    for block in blocks(page):
        if block.language != "python" or block.title:
            continue
        if block.mark == "continues":
            text, on_a_server = found.pop()
            found.append((f"{text}\n{block.text}", on_a_server))
        else:
            found.append((block.text, block.mark == "on a server"))
    return found


def is_project(page: Path) -> bool:
    """Whether a page builds something: files, and commands that run them."""
    return any(block.title for block in blocks(page))


def commands(text: str) -> Iterator[tuple[str, str]]:
    """The commands of a shell block, each with what it prints."""
    for each in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        lines = each.split("\n")
        end = next(number for number, line in enumerate(lines) if not line.endswith("\\"))
        yield "\n".join(lines[: end + 1]), "\n".join(lines[end + 1 :]).strip()
