"""Keys of rows: a row that was listed and the same row in the database have equal keys."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pony.orm.dbapiprovider import IntConverter, JsonConverter, StrConverter

Key = tuple[Any, ...]


def identity_of(converters: Sequence[Any]) -> Callable[[Iterable[Any]], Key]:
    """Return a function from the values of a key to a key that can be compared.

    The values may be parameters, or come from the database. Some databases return another type for a date, or for a
    number that was given as text.
    """
    if all(isinstance(converter, IntConverter | StrConverter) for converter in converters):
        return tuple
    return lambda values: tuple(map(_comparable, converters, values))


def keyless_identity(columns: Sequence[str], converters: Sequence[Any]) -> Callable[[Iterable[Any]], Key]:
    """Return a function as :func:`identity_of` does, for rows that are recognised by all their values."""
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
    """Return the converters of the attributes' columns."""
    return [converter for attr in attrs for converter in attr.converters]
