"""Rows into batches: what they name, with values that are checked, and with keys that do not repeat."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from temaki.orm.seed.convert import convert_column, convert_sets, default_values, refuse_virtual
from temaki.orm.seed.failure import failure
from temaki.orm.seed.identity import Key, converters_of, identity_of, keyless_identity
from temaki.orm.seed.source import Row, check_names
from temaki.orm.seeding import ALL_COLUMNS, Declaration


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
                waiting.append((attr, convert_sets(entity, attr, column, numbers)))
                continue
            values = _named(made, attr, column, numbers)
            if attr in later:
                waiting.append((attr, list(zip(*values, strict=True))))
                continue
        else:
            values = [] if attr.is_collection or not attr.columns else default_values(entity, attr, numbers)
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
        refuse_virtual(made.entity, attr, numbers[0], column[0])
    values = convert_column(made.entity, attr, column, numbers)
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
