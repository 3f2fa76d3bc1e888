"""The one way in which seeding says what is wrong with a row."""

from __future__ import annotations

from typing import Any

from temaki.errors import SeedError

_LONGEST = 80


def failure(
    entity: Any, why: str, *, row: int | None = None, column: str | None = None, value: Any = None
) -> SeedError:
    """The error for something in an entity's rows.

    Args:
        entity: The entity, or its name.
        why: What is wrong, and what to do; a sentence.
        row: The row's number, from 1.
        column: The attribute's name.
        value: The value.
    """
    name = entity if isinstance(entity, str) else entity.__name__
    place = [f"row {row}"] if row is not None else []
    if column is not None:
        place.append(f"{column}={shorten(value)}" if row is not None else f"column {column!r}")
    where = f", {', '.join(place)}" if place else ""
    return SeedError(f"Rows of {name}{where}: {why}", entity=name, row=row, column=column, value=value)


def shorten(value: Any) -> str:
    """A value's ``repr``, of bounded length."""
    text = repr(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def one_line(error: Exception) -> str:
    """What the database says, without line breaks."""
    return " ".join(str(error).split()).removesuffix(".")


def nearest(name: str, known: list[str]) -> str:
    """A suggestion for a name that is not known; and those that are."""
    import difflib

    close = difflib.get_close_matches(name, known, n=1)
    meant = f" Did you mean {close[0]!r}?" if close else ""
    return f"{meant} It can be {', '.join(map(repr, known))}."
