"""Reading seeded rows back: the database must return the values that the rows gave.

Databases round, truncate and convert silently. SQLite stores a Decimal as a floating-point number of some 15 digits, a
datetime with a time zone as text that Pony cannot read, and NaN as NULL. So the stored values are read through Pony's
converters, as a session reads them, and compared with the rows.

A change that the declaration asks for is no difference. The comparison uses the value that the attribute's own
validation returns: ``7`` for ``"7"`` in an int, text without surrounding whitespace, microseconds up to the declared
precision.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, time
from decimal import Decimal
from itertools import compress
from typing import Any

from pony.orm.dbapiprovider import (
    ArrayConverter,
    BlobConverter,
    BoolConverter,
    DecimalConverter,
    IntConverter,
    JsonConverter,
    RealConverter,
    StrConverter,
)
from pony.orm.ormtypes import Json

from temaki.orm.seed.failure import failure, shorten
from temaki.orm.seed.identity import Key, converters_of, identity_of, keyless_identity
from temaki.orm.seed.prepared import Batch, Prepared
from temaki.orm.seed.source import Row
from temaki.orm.seed.sql import Sql, Values, balanced
from temaki.orm.seeding import INSERT, is_inferred

_log = logging.getLogger("temaki.seed")

_UNCHANGED = (BlobConverter, BoolConverter, IntConverter, RealConverter, StrConverter)
"""Converters that return the driver's value unchanged if it equals the parameter and the row's value."""


def check_stored(sql: Sql, rows: Prepared, listed: Sequence[Row], existing: set[Key] | None) -> None:
    """Read the rows that were just written, and compare them with the rows that the entity gave.

    Args:
        sql: The session that wrote the rows.
        rows: The written rows.
        listed: The rows as the entity gave them.
        existing: The keys of rows that existed before; None if the policy does not need them.

    Raises:
        SeedError: The database returns another value than a row gave.
    """
    untouched = existing if existing is not None and rows.declaration.policy == INSERT else set()
    for batch in rows.batches:
        attrs = _compared(rows, batch, listed)
        if not attrs:
            continue
        written = [key not in untouched for key in batch.keys]
        numbers = list(compress(batch.numbers, written))
        stored = _read(sql, rows, batch, written)
        for attr in attrs:
            place = batch.columns.index(attr.columns[0])
            given = [listed[number - 1][attr.name] for number in numbers]
            _check_column(rows, attr, given, [values[place] for values in stored], numbers)


def _compared(rows: Prepared, batch: Batch, listed: Sequence[Row]) -> list[Any]:
    """Return the attributes that the rows of a batch name, without links, which were looked up already."""
    if not batch.numbers:
        return []
    named = listed[batch.numbers[0] - 1]
    stays = set() if rows.keyless else set(rows.entity._pk_attrs_) - set(rows.key)  # an existing row keeps its key
    return [
        attr
        for attr in rows.entity._attrs_with_columns_
        if attr.name in named
        and not (attr.reverse or attr.is_volatile or attr.is_discriminator or attr in stays)
        and attr.columns[0] in batch.columns
    ]


# Pony has no public names for what an attribute maps to.


# -- reading ----------------------------------------------------------------------------------------------------------


def _read(sql: Sql, rows: Prepared, batch: Batch, written: Sequence[bool]) -> list[Values]:
    """Return the stored values of the batch's columns, in the order of its rows."""
    columns = batch.columns
    keys = list(compress(batch.keys, written))
    values = list(compress(batch.values, written))
    stored: dict[Key, Values] = {}
    if rows.keyless:
        attrs = [attr for attr in rows.entity._attrs_with_columns_ if set(attr.columns) <= set(columns)]
        identify = keyless_identity(columns, converters_of(attrs))
        for each in sql.select(columns, rows.entity._table_):
            stored.setdefault(identify(each), each)
    else:
        places = [columns.index(column) for column in rows.key_columns]
        identify = identity_of(converters_of(rows.key))
        wanted = [tuple([each[place] for place in places]) for each in values]
        for each in sql.select_any_of(columns, rows.entity._table_, rows.key_columns, wanted):
            stored[identify([each[place] for place in places])] = each
    numbers = compress(batch.numbers, written)
    return [
        stored[key] if key in stored else _read_one(sql, rows, columns, each, number)
        for key, each, number in zip(keys, values, numbers, strict=True)
    ]


def _read_one(sql: Sql, rows: Prepared, columns: tuple[str, ...], values: Values, number: int) -> Values:
    """Return the stored values of one row whose key reads back differently. The database itself finds it by key."""
    by = columns if rows.keyless else rows.key_columns
    parameters = [values[columns.index(column)] for column in by]
    if sql.dialect == "SQLite":
        conditions = [f"{sql.name(column)} IS {sql.mark}" for column in by]
    else:
        conditions = [f"NOT ({sql.differs(sql.name(column), sql.mark)})" for column in by]
    matching = sql.select(columns, rows.entity._table_, balanced("AND", conditions), parameters)
    if not matching:
        why = (
            "the row cannot be found again by the values that were stored. Name a key whose values the database keeps."
        )
        raise failure(rows.entity, why, row=number)
    return matching[-1]


# -- comparing --------------------------------------------------------------------------------------------------------


def _check_column(
    rows: Prepared, attr: Any, given: Sequence[Any], stored: Sequence[Any], numbers: Sequence[int]
) -> None:
    converter = attr.converters[0]
    if isinstance(converter, _UNCHANGED) and given == stored:  # most columns; at the speed of C
        return
    rounded: list[int] = []
    for number, value, raw in zip(numbers, given, stored, strict=True):
        try:
            read = None if raw is None else converter.dbval2val(converter.sql2py(raw))
        except Exception as error:
            why = f"it is stored as {shorten(raw)}, which cannot be read back. {_advice(attr, value)}"
            raise failure(rows.entity, why, row=number, column=attr.name, value=value) from error
        if _same(rows.entity, attr, value, read):
            continue
        if _is_declared_rounding(attr, value, read):
            rounded.append(number)
            continue
        why = f"it reads back as {shorten(read)}. {_advice(attr, value)}"
        raise failure(rows.entity, why, row=number, column=attr.name, value=value)
    if rounded:
        _log.warning(
            "%s.%s: SQLite keeps some 15 digits of a Decimal. The values of %d rows, the first of them row %d, "
            "read back rounded.",
            rows.entity.__name__,
            attr.name,
            len(rounded),
            rounded[0],
        )


def _same(entity: Any, attr: Any, given: Any, read: Any) -> bool:
    """Whether a program that reads the attribute gets the given value."""
    if given is None or read is None:
        return given is read
    converter = attr.converters[0]
    expected = attr.validate(given, None, entity)
    compare = next((how for kind, how in _COMPARISONS.items() if isinstance(converter, kind)), _same_value)
    try:
        return compare(converter, given, expected, read)
    except (ArithmeticError, TypeError, ValueError):  # the values cannot be compared
        return False


def _same_value(converter: Any, given: Any, expected: Any, read: Any) -> bool:  # noqa: ARG001 - one shape for all
    if isinstance(expected, datetime | time) and isinstance(read, datetime | time):
        return bool(expected == read) and expected.tzinfo == read.tzinfo
    if expected == read:
        return True
    defines_equality = any("__eq__" in each.__dict__ for each in type(read).__mro__ if each is not object)
    if type(expected) is not type(read) or defines_equality:
        return False
    # A type of the user's own without equality: compare the parameters.
    expected_parameter, read_parameter = (converter.py2sql(converter.val2dbval(value)) for value in (expected, read))
    return bool(expected_parameter == read_parameter)


def _same_number(converter: Any, given: Any, expected: Any, read: Any) -> bool:  # noqa: ARG001 - one shape for all
    if isinstance(given, int):  # a float may not have all its digits
        return bool(given == read)
    return bool(expected == read)


def _same_bool(converter: Any, given: Any, expected: Any, read: Any) -> bool:  # noqa: ARG001 - one shape for all
    return bool(given == read)  # Pony converts any value to a bool: "false" becomes True


def _same_decimal(converter: Any, given: Any, expected: Any, read: Any) -> bool:
    if not isinstance(read, Decimal):
        return False
    if expected.is_nan():
        return read.is_nan()
    if isinstance(given, float) and converter.exp is not None:  # a float has no decimal digits of its own
        expected = expected.quantize(converter.exp)
    return bool(expected == read)


def _same_json(converter: Any, given: Any, expected: Any, read: Any) -> bool:  # noqa: ARG001 - one shape for all
    return _same_content(given, read)


def _same_array(converter: Any, given: Any, expected: Any, read: Any) -> bool:  # noqa: ARG001 - one shape for all
    return _same_content(list(expected), list(read))


def _same_content(given: Any, read: Any) -> bool:
    """Whether JSON kept everything. JSON has no tuples, no keys but text, no NaN and no infinity."""
    if isinstance(given, Json):
        given = given.wrapped
    if isinstance(given, dict):
        return (
            isinstance(read, dict)
            and len(given) == len(read)
            and all(isinstance(key, str) and key in read and _same_content(given[key], read[key]) for key in given)
        )
    if isinstance(given, list):
        return isinstance(read, list) and len(given) == len(read) and all(map(_same_content, given, read))
    if isinstance(given, float) and not math.isfinite(given):
        return False
    if isinstance(given, float) and type(read) is int:
        return _as_float(read) == given  # PostgreSQL writes 7e127 with all its digits
    return bool(given == read)


def _as_float(number: int) -> float | None:
    """The number as JSON readers with floats alone have it; None if it is beyond them."""
    try:
        return float(number)
    except OverflowError:
        return None


_COMPARISONS: dict[type, Callable[[Any, Any, Any, Any], bool]] = {
    BoolConverter: _same_bool,
    RealConverter: _same_number,
    DecimalConverter: _same_decimal,
    ArrayConverter: _same_array,
    JsonConverter: _same_json,
}


def _is_declared_rounding(attr: Any, given: Any, read: Any) -> bool:
    """Whether the user declared more digits than SQLite keeps, and SQLite rounded the value to the nearest float.

    SQLite does that with every value that the application stores in this column. The declaration is the cause, not
    the rows.
    """
    converter = attr.converters[0]
    if not isinstance(converter, DecimalConverter) or is_inferred(attr):
        return False
    if attr.entity._database_.provider.dialect != "SQLite" or not isinstance(read, Decimal) or not read.is_finite():
        return False
    value = attr.validate(given, None, attr.entity)
    with suppress(ArithmeticError):
        fits = value.is_finite() and value.adjusted() < converter.precision - converter.scale
        whole = -value.as_tuple().exponent <= converter.scale
        nearest = converter.sql2py(float(value))
        return bool(fits and whole and nearest == read)
    return False


# -- what to do -------------------------------------------------------------------------------------------------------


def _advice(attr: Any, given: Any) -> str:  # noqa: PLR0911 - one for each type
    converter = attr.converters[0]
    if isinstance(given, datetime | time) and given.tzinfo is not None:
        utc = "UTC without one: value.astimezone(UTC).replace(tzinfo=None)"
        return f"The column keeps no time zone. Give {utc if isinstance(given, datetime) else 'the time without one'}."
    if isinstance(converter, BoolConverter):
        return "Give True or False."
    if isinstance(converter, JsonConverter | ArrayConverter):
        return "JSON has lists, text as keys, and finite numbers: no tuples, no other keys, no NaN, no infinity."
    if isinstance(converter, RealConverter):
        return "A float cannot hold it. Large integers need an attribute of type int."
    if isinstance(converter, DecimalConverter):
        with suppress(ArithmeticError, ValueError):
            if converter.exp is not None and Decimal(str(given)) != Decimal(str(given)).quantize(converter.exp):
                return f"The attribute has scale={converter.scale}: round the value, or declare a larger one."
        if attr.entity._database_.provider.dialect == "SQLite":
            return (
                "SQLite keeps a Decimal as a floating-point number, of some 15 digits. Give fewer digits, or declare "
                "the attribute as str, or as int in the smallest unit."
            )
    return "The database cannot keep it. Give a value that it keeps, or declare another type for the attribute."
