"""Rows into the values that Pony would store: its own validation, its own converters.

Values go column by column, which is several times as fast as row by row; only where a column has a value that will not
do is the row looked for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from pony.orm.core import DEFAULT
from pony.orm.dbapiprovider import BoolConverter, IntConverter, StrConverter

from temaki.orm.seed.failure import failure
from temaki.orm.seed.identity import Key, converters_of, identity_of, keyless_identity
from temaki.orm.seed.source import Row, check_names
from temaki.orm.seeding import ALL_COLUMNS, Declaration

# Pony has no public names for what an attribute maps to.


@dataclass
class Batch:
    """Rows that name the same columns.

    Attributes:
        columns: What is inserted.
        updated: Which of these change a row that exists: those that the rows name, without the key.
        numbers: The rows' numbers.
        values: Parameters, row by row, one for each of ``columns``.
        keys: The rows' keys.
    """

    columns: tuple[str, ...]
    updated: tuple[str, ...]
    numbers: list[int]
    values: list[tuple[Any, ...]]
    keys: list[Key] = field(default_factory=list)


@dataclass
class Prepared:
    """All rows of an entity, ready to be written.

    Attributes:
        declaration: What the entity says.
        key: The attributes by which a row is recognised.
        key_columns: Their columns.
        batches: The rows.
        numbers: By key, the row's number.
        parameters: By key, its parameters; of those rows that have links or sets.
        links: By attribute and key, the parameters of a link that is set after all rows are there.
        sets: By attribute and key, the parameters of the keys at the other side of a many-to-many relationship.
        references: By attribute, the keys that it refers to, each with the number of a row that does, and parameters.
    """

    declaration: Declaration
    key: tuple[Any, ...]
    key_columns: tuple[str, ...]
    batches: list[Batch] = field(default_factory=list)
    numbers: dict[Key, int] = field(default_factory=dict)
    parameters: dict[Key, tuple[Any, ...]] = field(default_factory=dict)
    links: dict[Any, dict[Key, tuple[Any, ...]]] = field(default_factory=dict)
    sets: dict[Any, dict[Key, list[tuple[Any, ...]]]] = field(default_factory=dict)
    references: dict[Any, dict[Key, tuple[int, tuple[Any, ...]]]] = field(default_factory=lambda: defaultdict(dict))

    @property
    def entity(self) -> Any:
        """The entity."""
        return self.declaration.entity

    @property
    def keyless(self) -> bool:
        """Whether a row is recognised by all that it names, with no index to find it."""
        return self.declaration.key == ALL_COLUMNS


def prepare(declaration: Declaration, rows: list[Row], later: set[Any]) -> Prepared:
    """Validate and convert.

    Args:
        declaration: What the entity says.
        rows: Its rows.
        later: Attributes whose columns are written after all rows are there.

    Raises:
        SeedError: A row cannot be stored.
    """
    entity = declaration.entity
    check_names(entity, rows)
    key = _key_attributes(declaration)
    made = Prepared(declaration, key, tuple(column for attr in key for column in attr.columns))
    for shape, numbers in _shapes(entity, rows).items():
        _prepare_shape(made, shape, numbers, [rows[number - 1] for number in numbers], later)
    _check_unique(entity, rows, made)
    return made


def _key_attributes(declaration: Declaration) -> tuple[Any, ...]:
    entity = declaration.entity
    if not declaration.key or declaration.key == ALL_COLUMNS:
        return () if declaration.key else tuple(entity._pk_attrs_)
    for name in declaration.key:
        if name not in entity._adict_:
            raise failure(entity, "seed_key names it, and there is no such attribute.", column=name)
    key = tuple(entity._adict_[name] for name in declaration.key)
    keys = [tuple(entity._pk_attrs_), *entity._keys_]
    if set(key) not in map(set, keys):
        names = ", ".join(declaration.key)
        why = f"seed_key is {declaration.key!r}, which is not unique. Say unique=True, or composite_key({names})."
        raise failure(entity, why)
    return key


def _shapes(entity: Any, rows: list[Row]) -> dict[tuple[str, ...], list[int]]:
    """The row numbers by the attributes that the rows name."""
    defaulted = [attr.name for attr in entity._attrs_ if attr.sql_default]
    found: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for number, row in enumerate(rows, 1):
        # Pony leaves a None out of its INSERT, so that the database's own default comes in.
        missing = [name for name in defaulted if name in row and row[name] is None]
        found[tuple(name for name in row if name not in missing) if missing else tuple(row)].append(number)
    return found


def _prepare_shape(
    made: Prepared, shape: tuple[str, ...], numbers: list[int], rows: list[Row], later: set[Any]
) -> None:
    entity = made.entity
    named = {entity._adict_[name] for name in shape}
    _check_key(made, named, numbers[0], later)
    columns: dict[str, Sequence[Any]] = {}
    waiting: list[tuple[Any, list[Any]]] = []
    for attr in entity._attrs_:
        if attr in named:
            column = list(map(itemgetter(attr.name), rows))
            if attr.is_collection:
                waiting.append((attr, _sets(entity, attr, column, numbers)))
                continue
            values = _named(made, attr, column, numbers)
            if attr in later:
                waiting.append((attr, list(zip(*values, strict=True))))
                continue
        else:
            values = [] if attr.is_collection or not attr.columns else _defaults(entity, attr, numbers)
        columns.update(zip(attr.columns if values else (), values, strict=True))
    tuples = list(zip(*columns.values(), strict=True)) if columns else [()] * len(rows)
    fixed = {*made.key, *entity._pk_attrs_}  # others refer to the primary key: found by a seed_key, a row keeps it
    updated = [column for attr in named - fixed if not attr.is_collection for column in attr.columns]
    keys, parameters = _note_keys(made, list(columns), tuples, numbers)
    made.batches.append(
        Batch(tuple(columns), tuple(column for column in columns if column in updated), numbers, tuples, keys)
    )
    if waiting and made.keyless:
        why = "rows that are recognised by all that they name cannot have it. Give them an id, or a seed_key."
        raise failure(entity, why, row=numbers[0], column=waiting[0][0].name)
    if waiting:
        made.parameters.update(zip(keys, parameters, strict=True))
    for attr, items in waiting:
        target: dict[Any, dict[Key, Any]] = made.sets if attr.is_collection else made.links
        target.setdefault(attr, {}).update(zip(keys, items, strict=True))


def _named(made: Prepared, attr: Any, column: list[Any], numbers: list[int]) -> list[Sequence[Any]]:
    """The parameters of an attribute that the rows name, column by column."""
    if not attr.columns:
        _refuse_virtual(made.entity, attr, numbers[0], column[0])
    values = _convert_column(made.entity, attr, column, numbers)
    if attr.reverse:
        _note_references(made, attr, values, numbers)
    return values


def _check_key(made: Prepared, named: set[Any], number: int, later: set[Any]) -> None:
    entity = made.entity
    for attr in made.key:
        if attr not in named:
            why = "it is missing, and the row cannot be recognised at the next start without it."
            if not made.declaration.key and attr.auto:
                unique = [tuple(one.name for one in key) for key in entity._keys_]
                example = repr(unique[0]) if unique else "the names of a unique key"
                why += f" Name it in the rows, or set seed_key = {example}."
            raise failure(entity, why, row=number, column=attr.name)
        if attr in later:
            why = "it is part of the key, and refers to rows that can only be stored after this one."
            raise failure(entity, why, row=number, column=attr.name)


def _refuse_virtual(entity: Any, attr: Any, number: int, value: Any) -> None:
    other = attr.reverse
    why = (
        f"it has no column; the link is stored as {other}. Name {other.name!r} in the rows of {other.entity.__name__}."
    )
    raise failure(entity, why, row=number, column=attr.name, value=value)


# -- values ---------------------------------------------------------------------------------------------------------


def _convert_column(entity: Any, attr: Any, column: list[Any], numbers: Sequence[int]) -> list[Sequence[Any]]:
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


def _defaults(entity: Any, attr: Any, numbers: Sequence[int]) -> list[Sequence[Any]]:
    """The parameters of an attribute that the rows do not name; none where the database has its own."""
    if attr.is_pk and attr.auto:
        return []
    convert = converter_of(entity, attr) if not attr.reverse else None
    if convert is None or (attr.default is None and not attr.is_discriminator):
        if attr.is_required and not (attr.auto or attr.is_volatile or attr.sql_default):
            raise failure(entity, "a value is required, and the row names none.", row=numbers[0], column=attr.name)
        return []
    times = len(numbers) if callable(attr.default) else 1
    column = _convert_column(entity, attr, [DEFAULT] * times, numbers)[0]
    return [column if times == len(numbers) else [column[0]] * len(numbers)]


def _sets(entity: Any, attr: Any, column: list[Any], numbers: Sequence[int]) -> list[list[tuple[Any, ...]]]:
    target = attr.reverse.entity
    if not attr.reverse.is_collection:
        _refuse_virtual(entity, attr, numbers[0], column[0])
    convert = key_converter(target)

    def convert_all(value: Any) -> list[tuple[Any, ...]]:
        if value is None:
            return []
        if isinstance(value, str | bytes | dict) or not hasattr(value, "__iter__"):
            raise TypeError(f"it has to be a list of primary keys of {target.__name__}")
        return [convert(item) for item in value]

    try:
        return [convert_all(value) for value in column]
    except Exception:  # noqa: BLE001 - as in _convert_column
        raise _first_failure(entity, attr, convert_all, column, numbers) from None


# -- keys -----------------------------------------------------------------------------------------------------------


def _note_keys(
    made: Prepared, columns: list[str], values: list[tuple[Any, ...]], numbers: list[int]
) -> tuple[list[Key], list[tuple[Any, ...]]]:
    """The rows' keys, each only once; and the parameters that they consist of."""
    parameters = values
    if made.keyless:
        attrs = [attr for attr in made.entity._attrs_with_columns_ if set(attr.columns) <= set(columns)]
        identify = keyless_identity(columns, converters_of(attrs))
    else:
        places = [columns.index(column) for column in made.key_columns]
        parameters = (
            [(row[places[0]],) for row in values] if len(places) == 1 else list(map(itemgetter(*places), values))
        )
        identify = identity_of(converters_of(made.key))
    keys = list(map(identify, parameters))
    if not made.keyless:
        missing = next((place for place, key in enumerate(keys) if None in key), None)
        if missing is not None:
            why = "a row without a value in its key cannot be recognised."
            raise failure(made.entity, why, row=numbers[missing], column=made.key[0].name)
    both = made.numbers | dict(zip(keys, numbers, strict=True))
    if len(both) != len(made.numbers) + len(keys):
        raise _duplicate(made, keys, numbers)
    made.numbers = both
    return keys, parameters


def _duplicate(made: Prepared, keys: list[Key], numbers: list[int]) -> Exception:
    first = dict(made.numbers)
    for key, number in zip(keys, numbers, strict=True):
        if key in first:
            what = "it repeats" if made.keyless else "it has the key of"
            column = made.key[0].name if len(made.key) == 1 else None
            value = key[0] if len(key) == 1 else key
            shown = "" if made.keyless or column else f", {value!r}"
            why = f"{what} row {first[key]}{shown}."
            return failure(made.entity, why, row=number, column=column, value=value)
        first[key] = number
    raise AssertionError("a key that was there twice was there once")


def _check_unique(entity: Any, rows: list[Row], made: Prepared) -> None:
    """Unique attributes besides the key: say which two rows, where the database would say that there are two."""
    for attrs in entity._keys_:
        if set(attrs) == set(made.key):
            continue
        columns = [column for attr in attrs for column in attr.columns]
        seen: dict[Key, int] = {}
        for batch in made.batches:
            if not set(columns) <= set(batch.columns):
                continue
            places = [batch.columns.index(column) for column in columns]
            for number, values in zip(batch.numbers, batch.values, strict=True):
                key = tuple([values[place] for place in places])
                if None in key:
                    continue
                if seen.setdefault(key, number) != number:
                    name = attrs[0].name if len(attrs) == 1 else None
                    value = rows[number - 1].get(name) if name else key
                    names = ", ".join(attr.name for attr in attrs)
                    why = f"{names} is unique, and row {seen[key]} has the same."
                    raise failure(entity, why, row=number, column=name, value=value)


def _note_references(made: Prepared, attr: Any, converted: list[Sequence[Any]], numbers: list[int]) -> None:
    identify = identity_of(attr.converters)
    found = made.references[attr]
    for number, values in zip(numbers, zip(*converted, strict=True), strict=True):
        if values[0] is not None:
            found.setdefault(identify(values), (number, values))
