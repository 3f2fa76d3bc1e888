"""Writing rows into their table: insert missing rows, update changed ones, touch nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from typing import Any

from temaki.orm.seed.failure import failure, one_line
from temaki.orm.seed.identity import Key, converters_of, identity_of, keyless_identity
from temaki.orm.seed.prepared import Batch, Prepared
from temaki.orm.seed.sql import Sql, Values, balanced
from temaki.orm.seeding import INSERT

# Pony has no public names for what an entity maps to.


def write_rows(sql: Sql, rows: Prepared) -> set[Key] | None:
    """Write the rows of an entity into its table.

    Returns:
        The keys of rows that existed before; None if neither the policy nor the statements need them.

    Raises:
        SeedError: The database refused a row.
    """
    entity = rows.entity
    if entity._discriminator_attr_ is not None and not rows.keyless:
        _check_class(sql, rows)
    looks_first = _has_to_look(sql, rows)
    # With the policy "insert", an existing row may differ from ours, so it must not be compared with them.
    existing = _existing_keys(sql, rows) if looks_first or rows.declaration.policy == INSERT else None
    for batch in rows.batches:
        if looks_first and existing is not None:
            _insert_or_update(sql, rows, batch, existing)
        else:
            _upsert(sql, rows, batch)
    if sql.dialect == "PostgreSQL":
        _advance_sequence(sql, rows)
    return existing


def _has_to_look(sql: Sql, rows: Prepared) -> bool:
    """Whether to look up existing rows before writing, because the database's upsert is not enough."""
    if rows.keyless or not sql.on_conflict:
        return True
    if rows.declaration.policy == INSERT and (rows.links or rows.sets):
        return True
    # An upsert takes a new number from the sequence for every row, so it writes even if it changes no row.
    key = rows.entity._pk_attrs_
    return len(key) == 1 and bool(key[0].auto) and any(key[0].column not in batch.columns for batch in rows.batches)


def _existing_keys(sql: Sql, rows: Prepared) -> set[Key]:
    entity = rows.entity
    existing: set[Key] = set()
    for batch in rows.batches:
        if rows.keyless:
            attrs = [attr for attr in entity._attrs_with_columns_ if set(attr.columns) <= set(batch.columns)]
            identify = keyless_identity(batch.columns, converters_of(attrs))
            existing.update(map(identify, sql.select(batch.columns, entity._table_)))
        else:
            columns = rows.key_columns
            existing.update(
                map(
                    identity_of(converters_of(rows.key)),
                    sql.select_any_of(columns, entity._table_, columns, _keys(batch, columns)),
                )
            )
    return existing


def _keys(batch: Batch, columns: Sequence[str]) -> list[Values]:
    places = [batch.columns.index(column) for column in columns]
    return [tuple([values[place] for place in places]) for values in batch.values]


def _upsert(sql: Sql, rows: Prepared, batch: Batch) -> None:
    table = rows.entity._table_
    ending = f" ON CONFLICT ({sql.names(rows.key_columns)}) DO "
    if rows.declaration.policy == INSERT or not batch.updated:
        ending += "NOTHING"
    else:
        name = sql.name(table)
        settings, changed = [], []
        for column in map(sql.name, batch.updated):
            settings.append(f"{column} = excluded.{column}")
            changed.append(sql.differs(f"{name}.{column}", f"excluded.{column}"))
        ending += f"UPDATE SET {', '.join(settings)} WHERE {balanced('OR', changed)}"
    _write(sql, rows, batch.numbers, batch.values, lambda some: sql.insert(table, batch.columns, some, ending))


def _insert_or_update(sql: Sql, rows: Prepared, batch: Batch, existing: set[Key]) -> None:
    table = rows.entity._table_
    old = [key in existing for key in batch.keys]
    new = [not each for each in old]
    numbers = list(compress(batch.numbers, new))
    _write(sql, rows, numbers, list(compress(batch.values, new)), lambda some: sql.insert(table, batch.columns, some))
    if rows.declaration.policy == INSERT or not batch.updated or rows.keyless:
        return
    places = [batch.columns.index(column) for column in batch.updated]
    updates = [
        (tuple([values[place] for place in places]), key)
        for values, key in zip(batch.values, _keys(batch, rows.key_columns), strict=True)
    ]
    numbers = list(compress(batch.numbers, old))
    _write(
        sql,
        rows,
        numbers,
        list(compress(updates, old)),
        lambda some: sql.update(table, batch.updated, rows.key_columns, some),
    )


def _write(sql: Sql, rows: Prepared, numbers: Sequence[int], values: Sequence[Any], write: Any) -> None:
    def explain(item: tuple[int, Any], error: Exception) -> Exception:
        return failure(rows.entity, f"the database refuses it: {one_line(error)}.", row=item[0], value=item[1])

    items = list(zip(numbers, values, strict=True))
    sql.in_bulk(lambda some: write([each for _, each in some]), items, explain)


def _check_class(sql: Sql, rows: Prepared) -> None:
    """Check that no row changes the class of an existing one. Entities that inherit share a table and its keys.

    Raises:
        SeedError: A row of another class has the same key.
    """
    entity = rows.entity
    attr = entity._discriminator_attr_
    columns = (*rows.key_columns, attr.column)
    identify = identity_of(converters_of(rows.key))
    for batch in rows.batches:
        stored = sql.select_any_of(columns, entity._table_, rows.key_columns, _keys(batch, rows.key_columns))
        for *key, mark in stored:
            if mark != entity._discriminator_:
                other = attr.code2cls.get(mark)
                name = other.__name__ if other else repr(mark)
                why = f"there is a row with this key already, and it is a {name}. Give the row another key."
                value = key[0] if len(key) == 1 else tuple(key)
                column = rows.key[0].name if len(rows.key) == 1 else None
                raise failure(entity, why, row=rows.numbers[identify(key)], column=column, value=value)


def _advance_sequence(sql: Sql, rows: Prepared) -> None:
    """Move PostgreSQL's sequence past the keys that the rows gave. Otherwise the next row would get one of them."""
    (attr, *others) = rows.entity._pk_attrs_
    if others or not attr.auto or not any(attr.column in batch.columns for batch in rows.batches):
        return
    table, column = sql.name(rows.entity._table_), sql.name(attr.column)
    name = sql.run("SELECT pg_get_serial_sequence(%s, %s)", (table.replace("%%", "%"), attr.column)).fetchone()[0]
    if name is not None:
        sql.run(
            f"SELECT setval(%s, (SELECT max({column}) FROM {table})) "
            f"WHERE (SELECT max({column}) FROM {table}) >= (SELECT last_value FROM {name.replace('%', '%%')})",
            (name,),
        )
