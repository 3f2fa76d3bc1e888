"""Keys that are equal for the same row, whether they come from rows or from the database."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pony.orm.dbapiprovider import IntConverter, JsonConverter, StrConverter

Key = tuple[Any, ...]


def identity_of(converters: Sequence[Any]) -> Callable[[Iterable[Any]], Key]:
    """From parameters, or from what the database gives, to a key that is equal for the same row.

    A number that was given as text, or a date, comes back as another type on some databases.
    """
    if all(isinstance(converter, IntConverter | StrConverter) for converter in converters):
        return tuple
    return lambda values: tuple(map(_comparable, converters, values))


def keyless_identity(columns: Sequence[str], converters: Sequence[Any]) -> Callable[[Iterable[Any]], Key]:
    """As :func:`identity_of`, for rows that are recognised by all that they name."""
    identify = identity_of(converters)
    return lambda values: (*columns, *identify(values))


def _comparable(converter: Any, value: Any) -> Any:
    if value is None:
        return None
    if isinstance(converter, JsonConverter):
        return json.dumps(json.loads(value), sort_keys=True)
    value = converter.sql2py(value)
    return tuple(value) if isinstance(value, list) else value


def converters_of(attrs: Iterable[Any]) -> list[Any]:
    """The converters of the attributes' columns."""
    return [converter for attr in attrs for converter in attr.converters]
