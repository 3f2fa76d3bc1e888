"""Inferring the attributes of an entity from its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from pony.orm.core import Attribute, Optional, PrimaryKey, Required
from pony.orm.ormtypes import Json

from temaki.orm.seed.failure import failure, shorten

_TYPES: dict[type, type] = {
    **{kind: kind for kind in (bool, int, float, Decimal, str, datetime, date, time, timedelta, UUID, bytes)},
    **dict.fromkeys((dict, list, tuple), Json),
}
_WIDER = {frozenset({int, float}): float, frozenset({int, Decimal}): Decimal}
_SETTINGS = {"rows", "get_rows", "rows_from", "testing_rows", "seed_policy", "seed_key", "after_seed"}
_SMALL = 1 << 31
_DECIMAL_DIGITS = 12


def infer_attributes(
    entity: str, rows: Sequence[Mapping[str, Any]], overrides: Mapping[str, Any]
) -> dict[str, Attribute]:
    """Return attributes for the columns of ``rows`` that ``overrides`` does not define.

    Raises:
        SeedError: See :meth:`temaki.Seeded.entity`.
    """
    columns = dict.fromkeys(column for row in rows for column in row)
    if not columns and not any(isinstance(each, Attribute) for each in overrides.values()):
        raise failure(entity, "there is no row to infer attributes from. Give a row, or attributes by keyword.")
    has_key = any(isinstance(each, Attribute) and each.is_pk for each in overrides.values())
    inferred = {}
    for column in columns:
        if isinstance(overrides.get(column), Attribute):
            continue
        if not str(column).isidentifier() or column in _SETTINGS:
            raise failure(
                entity, "it cannot be an attribute's name. Rename it, or define the entity as a class.", column=column
            )
        inferred[column] = _infer(entity, column, rows, is_key=column == "id" and not has_key)
    return inferred


def _infer(entity: str, column: str, rows: Sequence[Mapping[str, Any]], *, is_key: bool) -> Attribute:
    kind: type | None = None
    values = [row.get(column) for row in rows]
    for number, value in enumerate(values, 1):
        if value is None:
            continue
        new = next((_TYPES[each] for each in type(value).__mro__ if each in _TYPES), None)
        if new is None:
            why = f"no attribute can be inferred for type {type(value).__name__}. Give the attribute by keyword."
            raise failure(entity, why, row=number, column=column, value=value)
        if kind is not None and new is not kind:
            wider = _WIDER.get(frozenset({kind, new}))
            if wider is None:
                why = (
                    f"it is {new.__name__}, but in the rows before it was {kind.__name__}. Use one type, or give the "
                    "attribute by keyword."
                )
                raise failure(entity, why, row=number, column=column, value=value)
            new = wider
        kind = new
    if kind is None:
        why = "it cannot be inferred, since it is None in every row. Give the attribute by keyword."
        raise failure(entity, why, column=column)
    present = [value for value in values if value is not None]
    if is_key:
        return _primary_key(entity, kind, values)
    return _attribute(kind, present, missing=len(present) < len(values))


def _primary_key(entity: str, kind: type, values: list[Any]) -> Attribute:
    if None in values:
        why = "the primary key is missing. Give an id to every row, or to none."
        raise failure(entity, why, row=values.index(None) + 1, column="id")
    if kind in {float, Json}:
        why = f"{shorten(values[0])} cannot be a primary key. Rename the column, or give the attribute by keyword."
        raise failure(entity, why, row=1, column="id", value=values[0])
    return PrimaryKey(kind, **({"auto": True} if kind is int else {}), **_options(kind, values))


def _attribute(kind: type, present: list[Any], *, missing: bool) -> Attribute:
    options = _options(kind, present)
    if missing and kind in {str, Json}:  # Pony has "" and {} for None, unless the column may be NULL
        return Optional(kind, nullable=True, **options)
    if kind is not str:
        return (Optional if missing else Required)(kind, **options)
    return (Required if all(value.strip() for value in present) else Optional)(str, **options)


def _options(kind: type, present: list[Any]) -> dict[str, Any]:
    if kind is int and any(not -_SMALL <= value < _SMALL for value in present):
        return {"size": 64}
    if kind is Decimal:
        return _decimal_options([Decimal(value) for value in present])
    if kind is str and any(value != value.strip() for value in present):
        return {"autostrip": False}  # Pony would strip the values
    return {}


def _decimal_options(values: list[Decimal]) -> dict[str, int]:
    """Return the digits that the values need, but at least Pony's default: 12 digits, 2 of them after the point."""
    exponents = [int(value.as_tuple().exponent) for value in values if value.is_finite()]
    scale = max([2, *(-exponent for exponent in exponents)])
    whole = max([_DECIMAL_DIGITS - 2, *(value.adjusted() + 1 for value in values if value.is_finite())])
    return {"precision": whole + scale, "scale": scale}
