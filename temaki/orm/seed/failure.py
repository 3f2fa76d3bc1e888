"""The error for a row that cannot be stored, and the words that it is made of."""

from __future__ import annotations

from typing import Any

from temaki.errors import SeedError

_LONGEST = 80


def failure(
    entity: Any, why: str, *, row: int | None = None, column: str | None = None, value: Any = None
) -> SeedError:
    """Return the error for something wrong in an entity's rows.

    Args:
        entity: The entity, or its name.
        why: What is wrong and what to do, in whole sentences.
        row: The number of the row, from 1.
        column: The name of the attribute.
        value: The value in question.
    """
    name = entity if isinstance(entity, str) else entity.__name__
    place = [f"row {row}"] if row is not None else []
    if column is not None:
        place.append(f"{column}={shorten(value)}" if row is not None else f"column {column!r}")
    where = f", {', '.join(place)}" if place else ""
    return SeedError(f"Rows of {name}{where}: {why}", entity=name, row=row, column=column, value=value)


def shorten(value: Any) -> str:
    """Return a value's ``repr``, cut to a bounded length."""
    text = repr(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def one_line(error: Exception) -> str:
    """Return an error's message without line breaks and without its final full stop."""
    return " ".join(str(error).split()).removesuffix(".")


def nearest(name: str, known: list[str]) -> str:
    """Return a hint for an unknown name: the most similar known name, and all known names."""
    import difflib

    close = difflib.get_close_matches(name, known, n=1)
    meant = f" Did you mean {close[0]!r}?" if close else ""
    return f"{meant} It can be {', '.join(map(repr, known))}."
