"""The keys of rows: each key occurs once, each unique value occurs once, and which keys rows refer to."""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import Any

from temaki.orm.seed.failure import failure
from temaki.orm.seed.identity import Key, converters_of, identity_of, keyless_identity
from temaki.orm.seed.prepared import Prepared
from temaki.orm.seed.source import Row

# Pony has no public names for what an attribute maps to.


def note_keys(
    prepared: Prepared, columns: list[str], values: list[tuple[Any, ...]], numbers: list[int]
) -> tuple[list[Key], list[tuple[Any, ...]]]:
    """Record the keys of rows.

    Args:
        prepared: The rows so far; it gets the new keys.
        columns: The columns that the rows name.
        values: The parameters of each row, one for each column.
        numbers: The numbers of the rows, from 1.

    Returns:
        The key of each row, and the parameters of each key.

    Raises:
        SeedError: A key occurs twice, or a row has no value in its key.
    """
    parameters = values
    if prepared.keyless:
        attrs = [attr for attr in prepared.entity._attrs_with_columns_ if set(attr.columns) <= set(columns)]
        identify = keyless_identity(columns, converters_of(attrs))
    else:
        places = [columns.index(column) for column in prepared.key_columns]
        parameters = (
            [(row[places[0]],) for row in values] if len(places) == 1 else list(map(itemgetter(*places), values))
        )
        identify = identity_of(converters_of(prepared.key))
    keys = list(map(identify, parameters))
    if not prepared.keyless:
        missing = next((place for place, key in enumerate(keys) if None in key), None)
        if missing is not None:
            why = "a row without a value in its key cannot be recognised. Give it a value."
            raise failure(prepared.entity, why, row=numbers[missing], column=prepared.key[0].name)
    all_numbers = prepared.numbers | dict(zip(keys, numbers, strict=True))
    if len(all_numbers) != len(prepared.numbers) + len(keys):
        raise _duplicate(prepared, keys, numbers)
    prepared.numbers = all_numbers
    return keys, parameters


def _duplicate(prepared: Prepared, keys: list[Key], numbers: list[int]) -> Exception:
    first = dict(prepared.numbers)
    for key, number in zip(keys, numbers, strict=True):
        if key in first:
            what = "it repeats" if prepared.keyless else "it has the key of"
            column = prepared.key[0].name if len(prepared.key) == 1 else None
            value = key[0] if len(key) == 1 else key
            shown = "" if prepared.keyless or column else f", {value!r}"
            why = f"{what} row {first[key]}{shown}."
            return failure(prepared.entity, why, row=number, column=column, value=value)
        first[key] = number
    raise AssertionError("the number of keys shows a duplicate, but no key occurs twice")


def check_unique(entity: Any, rows: list[Row], prepared: Prepared) -> None:
    """Check that unique attributes besides the key are unique among the rows.

    The database would refuse a duplicate, too, but its message does not name both rows.

    Raises:
        SeedError: Two rows have the same value.
    """
    for attrs in entity._keys_:
        if set(attrs) == set(prepared.key):
            continue
        columns = [column for attr in attrs for column in attr.columns]
        seen: dict[Key, int] = {}
        for batch in prepared.batches:
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


def note_references(prepared: Prepared, attr: Any, converted: list[Sequence[Any]], numbers: list[int]) -> None:
    """Record the keys that an attribute refers to, each with the first row that does.

    Args:
        prepared: The rows; it gets the references.
        attr: The attribute.
        converted: The attribute's parameters, column by column.
        numbers: The numbers of the rows, from 1.
    """
    identify = identity_of(attr.converters)
    references = prepared.references[attr]
    for number, values in zip(numbers, zip(*converted, strict=True), strict=True):
        if values[0] is not None:
            references.setdefault(identify(values), (number, values))
