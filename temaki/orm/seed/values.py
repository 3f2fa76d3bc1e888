"""Values become parameters, by Pony's own validation and converters.

The conversion goes column by column, which is several times as fast as row by row. It looks for a single row only if a
column has an invalid value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pony.orm.core import DEFAULT
from pony.orm.dbapiprovider import BoolConverter, IntConverter, StrConverter

from temaki.orm.seed.failure import failure

# Pony has no public names for what an attribute maps to.


def convert_column(entity: Any, attr: Any, column: list[Any], numbers: Sequence[int]) -> list[Sequence[Any]]:
    """Return the parameters of an attribute's columns, column by column.

    Raises:
        SeedError: A value is invalid.
    """
    if not attr.reverse:
        quick = _converted_at_once(attr, column)
        if quick is not None:
            return [quick]
    convert = converter_of(entity, attr)
    try:
        converted = list(map(convert, column))
    except Exception:  # noqa: BLE001 - the next line finds the row and raises its error
        raise _first_failure(entity, attr, convert, column, numbers) from None
    return list(zip(*converted, strict=True)) if attr.reverse else [converted]


def _converted_at_once(attr: Any, column: list[Any]) -> list[Any] | None:
    """Return the parameters of a column of plain values; None if a value may need Pony's own conversion."""
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
        missing = attr.is_required and "" in stripped
        return None if too_long or missing or not _all_encodable(stripped) else stripped
    return None


def converter_of(entity: Any, attr: Any) -> Callable[[Any], Any]:
    """Return a function from a value to a parameter.

    For a relationship, the function takes a primary key and returns a tuple of parameters.
    """
    if attr.reverse:
        return _reference_converter(attr)
    converter = attr.converters[0]
    validate, to_db, to_sql = attr.validate, converter.val2dbval, converter.py2sql
    has_nan = entity._database_.provider.dialect != "SQLite"

    def convert(value: Any) -> Any:
        value = validate(value, None, entity)
        if value is None:
            return None
        parameter = to_sql(to_db(value))
        if isinstance(parameter, float) and parameter != parameter and not has_nan:  # noqa: PLR0124 - that is NaN
            raise ValueError("SQLite has no NaN, and would store NULL. Give None")
        return _encodable(parameter)

    return convert


def _encodable(parameter: Any) -> Any:
    """Return the parameter. Raise UnicodeEncodeError for text with lone surrogates, which no statement can take."""
    if isinstance(parameter, str):
        parameter.encode()
    return parameter


def _all_encodable(column: list[str]) -> bool:
    try:
        "".join(column).encode()
    except UnicodeEncodeError:
        return False
    return True


def _reference_converter(attr: Any) -> Callable[[Any], tuple[Any, ...]]:
    target = attr.reverse.entity
    to_key = key_converter(target)
    nothing = (None,) * len(target._pk_columns_)

    def convert(value: Any) -> tuple[Any, ...]:
        if value is not None:
            return to_key(value)
        if attr.is_required:  # not attr.nullable: the columns of a sub-entity are always nullable
            raise ValueError("a value is required")
        return nothing

    return convert


def key_converter(entity: Any) -> Callable[[Any], tuple[Any, ...]]:
    """Return a function from an entity's primary key, as users write it, to parameters."""
    converters = entity._pk_converters_

    def convert(value: Any) -> tuple[Any, ...]:
        parts = list(_flat(value))
        if len(parts) != len(converters):
            raise TypeError(f"a primary key of {entity.__name__} has {len(converters)} values, this has {len(parts)}")
        if None in parts:
            raise ValueError(f"a primary key of {entity.__name__} has no None")
        return tuple(
            _encodable(converter.py2sql(converter.val2dbval(converter.validate(part))))
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
        except Exception as error:  # noqa: BLE001 - any error of a converter is about the value
            missing = attr.is_required and (value is None or (isinstance(value, str) and not value.strip()))
            why = "a value is required." if missing else f"{str(error).removesuffix('.') or type(error).__name__}."
            invalid_value = failure(entity, why, row=number, column=attr.name, value=value)
            invalid_value.__cause__ = error
            return invalid_value
    raise AssertionError("a column failed to convert, but each of its values converts")


def default_columns(entity: Any, attr: Any, numbers: Sequence[int]) -> list[Sequence[Any]]:
    """Return the parameters of an attribute that the rows do not name; none if the database sets its own.

    Raises:
        SeedError: The attribute is required and has no default.
    """
    if attr.is_pk and attr.auto:
        return []
    convert = converter_of(entity, attr) if not attr.reverse else None
    if convert is None or (attr.default is None and not attr.is_discriminator):
        if attr.is_required and not (attr.auto or attr.is_volatile or attr.sql_default):
            why = "a value is required, but the row names none."
            raise failure(entity, why, row=numbers[0], column=attr.name)
        return []
    times = len(numbers) if callable(attr.default) else 1
    column = convert_column(entity, attr, [DEFAULT] * times, numbers)[0]
    return [column if times == len(numbers) else [column[0]] * len(numbers)]


def refuse_virtual(entity: Any, attr: Any, number: int, value: Any) -> None:
    """Refuse an attribute without a column: the link is stored at its other side.

    Raises:
        SeedError: Always.
    """
    other = attr.reverse
    why = (
        f"it has no column; the link is stored as {other}. Name {other.name!r} in the rows of {other.entity.__name__}."
    )
    raise failure(entity, why, row=number, column=attr.name, value=value)


def convert_sets(entity: Any, attr: Any, column: list[Any], numbers: Sequence[int]) -> list[list[tuple[Any, ...]]]:
    """Return the parameters of the keys in each value of a many-to-many attribute.

    Raises:
        SeedError: A value is not a list of primary keys.
    """
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
    except Exception:  # noqa: BLE001 - the next line finds the row and raises its error
        raise _first_failure(entity, attr, convert_all, column, numbers) from None
