"""Values of rows into those that Pony would store: its own validation, its own converters.

Values go column by column, which is several times as fast as row by row; only where a column has a value that will not
do is the row looked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pony.orm.core import DEFAULT
from pony.orm.dbapiprovider import BoolConverter, IntConverter, StrConverter

from temaki.orm.seed.failure import failure

# Pony has no public names for what an attribute maps to.


def refuse_virtual(entity: Any, attr: Any, number: int, value: Any) -> None:
    """Refuse a value for the side of a relationship that has no column, as Pony does."""
    other = attr.reverse
    why = (
        f"it has no column; the link is stored as {other}. Name {other.name!r} in the rows of {other.entity.__name__}."
    )
    raise failure(entity, why, row=number, column=attr.name, value=value)


def convert_column(entity: Any, attr: Any, column: list[Any], numbers: Sequence[int]) -> list[Sequence[Any]]:
    """The parameters of an attribute's columns, column by column."""
    if not attr.reverse:
        quick = _converted_at_once(attr, column)
        if quick is not None:
            return [quick]
    convert = converter_of(entity, attr)
    try:
        converted = list(map(convert, column))
    except Exception:  # noqa: BLE001 - which row it was is found out below, and raised
        raise _first_failure(entity, attr, convert, column, numbers) from None
    return list(zip(*converted, strict=True)) if attr.reverse else [converted]


def _converted_at_once(attr: Any, column: list[Any]) -> list[Any] | None:
    """The parameters of a column whose values need no more than a look; None where one may need more."""
    converter = attr.converters[0]
    kinds = set(map(type, column))
    if attr.py_check is not None or attr.is_discriminator or len(kinds) != 1:
        return None
    kind = kinds.pop()
    if kind is int and isinstance(converter, IntConverter):
        low, high = converter.min_val, converter.max_val
        fits = (low is None or min(column) >= low) and (high is None or max(column) <= high)
        return column if fits else None
    if kind is bool and isinstance(converter, BoolConverter):
        return column
    if kind is str and type(converter) is StrConverter:
        stripped = list(map(str.strip, column)) if converter.autostrip else column
        too_long = converter.max_len and max(map(len, stripped)) > converter.max_len
        return None if too_long or (attr.is_required and "" in stripped) else stripped
    return None


def converter_of(entity: Any, attr: Any) -> Callable[[Any], Any]:
    """From a value to a parameter; for a relationship, from a primary key to a tuple of parameters."""
    if attr.reverse:
        return _reference_converter(attr)
    converter = attr.converters[0]
    validate, to_db, to_sql = attr.validate, converter.val2dbval, converter.py2sql

    def convert(value: Any) -> Any:
        value = validate(value, None, entity)
        return None if value is None else to_sql(to_db(value))

    return convert


def _reference_converter(attr: Any) -> Callable[[Any], tuple[Any, ...]]:
    target = attr.reverse.entity
    to_key = key_converter(target)
    nothing = (None,) * len(target._pk_columns_)

    def convert(value: Any) -> tuple[Any, ...]:
        if value is not None:
            return to_key(value)
        if attr.is_required:  # not attr.nullable: the columns of a sub-entity always are
            raise ValueError("a value is required")
        return nothing

    return convert


def key_converter(entity: Any) -> Callable[[Any], tuple[Any, ...]]:
    """From an entity's primary key, as users write it, to parameters."""
    converters = entity._pk_converters_

    def convert(value: Any) -> tuple[Any, ...]:
        parts = list(_flat(value))
        if len(parts) != len(converters):
            raise TypeError(f"a primary key of {entity.__name__} has {len(converters)} values, this has {len(parts)}")
        if None in parts:
            raise ValueError(f"a primary key of {entity.__name__} has no None")
        return tuple(
            converter.py2sql(converter.val2dbval(converter.validate(part)))
            for converter, part in zip(converters, parts, strict=True)
        )

    return convert


def _flat(value: Any) -> Iterable[Any]:
    if isinstance(value, tuple | list):
        for each in value:
            yield from _flat(each)
    else:
        yield value


def _first_failure(
    entity: Any, attr: Any, convert: Callable[[Any], Any], column: list[Any], numbers: Sequence[int]
) -> Exception:
    for number, value in zip(numbers, column, strict=True):
        try:
            convert(value)
        except Exception as error:  # noqa: BLE001 - whatever a converter raises is about the value
            missing = attr.is_required and (value is None or (isinstance(value, str) and not value.strip()))
            why = "a value is required." if missing else f"{str(error).removesuffix('.') or type(error).__name__}."
            made = failure(entity, why, row=number, column=attr.name, value=value)
            made.__cause__ = error
            return made
    raise AssertionError("a value that could not be converted could be converted")


def default_values(entity: Any, attr: Any, numbers: Sequence[int]) -> list[Sequence[Any]]:
    """The parameters of an attribute that the rows do not name; none where the database has its own."""
    if attr.is_pk and attr.auto:
        return []
    convert = converter_of(entity, attr) if not attr.reverse else None
    if convert is None or (attr.default is None and not attr.is_discriminator):
        if attr.is_required and not (attr.auto or attr.is_volatile or attr.sql_default):
            raise failure(entity, "a value is required, and the row names none.", row=numbers[0], column=attr.name)
        return []
    times = len(numbers) if callable(attr.default) else 1
    column = convert_column(entity, attr, [DEFAULT] * times, numbers)[0]
    return [column if times == len(numbers) else [column[0]] * len(numbers)]


def convert_sets(entity: Any, attr: Any, column: list[Any], numbers: Sequence[int]) -> list[list[tuple[Any, ...]]]:
    """The keys of the objects that each row's set names."""
    target = attr.reverse.entity
    if not attr.reverse.is_collection:
        refuse_virtual(entity, attr, numbers[0], column[0])
    convert = key_converter(target)

    def convert_all(value: Any) -> list[tuple[Any, ...]]:
        if value is None:
            return []
        if isinstance(value, str | bytes | dict) or not hasattr(value, "__iter__"):
            raise TypeError(f"it has to be a list of primary keys of {target.__name__}")
        return [convert(item) for item in value]

    try:
        return [convert_all(value) for value in column]
    except Exception:  # noqa: BLE001 - as in convert_column
        raise _first_failure(entity, attr, convert_all, column, numbers) from None
