"""Rows become parameters: which rows name which columns, and what is written when."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from operator import itemgetter
from typing import Any

from temaki.orm.seed.failure import failure
from temaki.orm.seed.identity import Key
from temaki.orm.seed.keys import check_unique, note_keys, note_references
from temaki.orm.seed.prepared import Batch, Prepared
from temaki.orm.seed.source import Row, check_names
from temaki.orm.seed.values import convert_column, convert_sets, default_columns, refuse_virtual
from temaki.orm.seeding import ALL_COLUMNS, Declaration

# Pony has no public names for what an attribute maps to.


def prepare(declaration: Declaration, rows: list[Row], later: set[Any]) -> Prepared:
    """Validate the rows of an entity and convert them to parameters.

    Args:
        declaration: The entity's declaration.
        rows: The entity's rows.
        later: The attributes whose columns are written after all rows exist.

    Raises:
        SeedError: A row cannot be stored.
    """
    entity = declaration.entity
    check_names(entity, rows)
    key = _key_attributes(declaration)
    prepared = Prepared(declaration, key, tuple(column for attr in key for column in attr.columns))
    for shape, numbers in _shapes(entity, rows).items():
        _prepare_shape(prepared, shape, numbers, [rows[number - 1] for number in numbers], later)
    check_unique(entity, rows, prepared)
    return prepared


def _key_attributes(declaration: Declaration) -> tuple[Any, ...]:
    entity = declaration.entity
    if not declaration.key or declaration.key == ALL_COLUMNS:
        return () if declaration.key else tuple(entity._pk_attrs_)
    for name in declaration.key:
        if name not in entity._adict_:
            raise failure(entity, "seed_key names it, but there is no such attribute. Correct seed_key.", column=name)
    key = tuple(entity._adict_[name] for name in declaration.key)
    keys = [tuple(entity._pk_attrs_), *entity._keys_]
    if set(key) not in map(set, keys):
        names = ", ".join(declaration.key)
        why = f"seed_key is {declaration.key!r}, which is not unique. Add unique=True, or composite_key({names})."
        raise failure(entity, why)
    return key


def _shapes(entity: Any, rows: list[Row]) -> dict[tuple[str, ...], list[int]]:
    """Group the row numbers by the attributes that the rows name."""
    defaulted = [attr.name for attr in entity._attrs_ if attr.sql_default]
    shapes: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for number, row in enumerate(rows, 1):
        # Pony leaves a None out of its INSERT, so that the database's own default applies.
        missing = [name for name in defaulted if name in row and row[name] is None]
        shapes[tuple(name for name in row if name not in missing) if missing else tuple(row)].append(number)
    return shapes


def _prepare_shape(
    prepared: Prepared, shape: tuple[str, ...], numbers: list[int], rows: list[Row], later: set[Any]
) -> None:
    entity = prepared.entity
    named = {entity._adict_[name] for name in shape}
    _check_key(prepared, named, numbers[0], later)
    columns: dict[str, Sequence[Any]] = {}
    waiting: list[tuple[Any, list[Any]]] = []
    for attr in entity._attrs_:
        if attr in named:
            column = list(map(itemgetter(attr.name), rows))
            if attr.is_collection:
                waiting.append((attr, convert_sets(entity, attr, column, numbers)))
                continue
            values = _named(prepared, attr, column, numbers)
            if attr in later:
                waiting.append((attr, list(zip(*values, strict=True))))
                continue
        else:
            values = [] if attr.is_collection or not attr.columns else default_columns(entity, attr, numbers)
        columns.update(zip(attr.columns if values else (), values, strict=True))
    tuples = list(zip(*columns.values(), strict=True)) if columns else [()] * len(rows)
    # Other rows refer to the primary key, so a row that is recognised by a seed_key keeps its primary key.
    fixed = {*prepared.key, *entity._pk_attrs_}
    updated = [column for attr in named - fixed if not attr.is_collection for column in attr.columns]
    keys, parameters = note_keys(prepared, list(columns), tuples, numbers)
    prepared.batches.append(
        Batch(tuple(columns), tuple(column for column in columns if column in updated), numbers, tuples, keys)
    )
    if waiting and prepared.keyless:
        why = "rows without a key of their own cannot have it. Give them an id, or a seed_key."
        raise failure(entity, why, row=numbers[0], column=waiting[0][0].name)
    if waiting:
        prepared.parameters.update(zip(keys, parameters, strict=True))
    for attr, items in waiting:
        target: dict[Any, dict[Key, Any]] = prepared.sets if attr.is_collection else prepared.links
        target.setdefault(attr, {}).update(zip(keys, items, strict=True))


def _named(prepared: Prepared, attr: Any, column: list[Any], numbers: list[int]) -> list[Sequence[Any]]:
    """Return the parameters of an attribute that the rows name, column by column."""
    if not attr.columns:
        refuse_virtual(prepared.entity, attr, numbers[0], column[0])
    values = convert_column(prepared.entity, attr, column, numbers)
    if attr.reverse:
        note_references(prepared, attr, values, numbers)
    return values


def _check_key(prepared: Prepared, named: set[Any], number: int, later: set[Any]) -> None:
    entity = prepared.entity
    for attr in prepared.key:
        if attr not in named:
            why = "it is missing, and without it the row cannot be recognised at the next start."
            if not prepared.declaration.key and attr.auto:
                unique = [tuple(part.name for part in key) for key in entity._keys_]
                example = repr(unique[0]) if unique else "the names of a unique key"
                why += f" Name it in the rows, or set seed_key = {example}."
            raise failure(entity, why, row=number, column=attr.name)
        if attr in later:
            why = (
                "it is part of the key, but refers to rows that can only be stored after this one. Set seed_key to "
                "other attributes."
            )
            raise failure(entity, why, row=number, column=attr.name)
