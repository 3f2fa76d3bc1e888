"""The policy ``mirror``: delete rows that are no longer listed, unless other rows refer to them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from temaki.orm.seed.failure import failure
from temaki.orm.seed.identity import converters_of, identity_of, keyless_identity
from temaki.orm.seed.links import of_class
from temaki.orm.seed.prepared import Prepared
from temaki.orm.seed.sql import Sql, Values
from temaki.orm.seeding import MIRROR

# Pony has no public names for what an entity maps to.

_NAMED = 5


def delete_unlisted(sql: Sql, rows: Prepared, *, force: bool = False) -> None:
    """Delete the rows of exactly this entity that are not listed.

    Args:
        sql: The session that wrote the listed rows.
        rows: The listed rows.
        force: Whether an empty list may delete all rows. Usually, an empty list is an outage or a mistake.

    Raises:
        SeedError: Another row refers to an unlisted one, or all rows would be deleted.
    """
    stale = _unlisted(sql, rows)
    if not stale:
        return
    entity = rows.entity
    if not rows.numbers and not force:
        why = (
            f"{rows.declaration.source} gave none, and the policy {MIRROR!r} would delete all that are stored "
            f"({len(stale)}). If you mean that, call db.seed(force=True) once."
        )
        raise failure(entity, why)
    for attr in filter(lambda attr: attr.reverse, entity._attrs_):
        if attr.is_collection and attr.reverse.is_collection:
            _delete_set(sql, rows, attr, stale)
        elif attr.reverse.columns and not attr.reverse.is_collection:
            _check_nobody_refers(sql, rows, attr, stale)
    sql.delete(entity._table_, entity._pk_columns_, stale)


def _unlisted(sql: Sql, rows: Prepared) -> list[Values]:
    """Return the primary keys of the stored rows that are not listed, as parameters."""
    entity = rows.entity
    primary = entity._pk_columns_
    condition, marks = of_class(sql, entity, with_subclasses=False)
    where = condition.removeprefix(" AND ")
    identify = identity_of(entity._pk_converters_)
    everything = {identify(key): key for key in sql.select(primary, entity._table_, where, marks)}
    for columns, listed in _listings(rows):
        for values in sql.select((*primary, *columns), entity._table_, where, marks):
            if listed(values[len(primary) :]):
                everything.pop(identify(values[: len(primary)]), None)
    return list(everything.values())


def _listings(rows: Prepared) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield columns to read, each time with a function that says whether their values are listed."""
    if not rows.keyless:
        identify = identity_of(converters_of(rows.key))
        yield rows.key_columns, lambda values: identify(values) in rows.numbers
        return
    for batch in rows.batches:
        attrs = [attr for attr in rows.entity._attrs_with_columns_ if set(attr.columns) <= set(batch.columns)]
        identify = keyless_identity(batch.columns, converters_of(attrs))
        yield batch.columns, lambda values, identify=identify: identify(values) in rows.numbers


def _delete_set(sql: Sql, rows: Prepared, attr: Any, stale: list[Values]) -> None:
    """Delete the many-to-many links of stale rows if the rows name that set. Otherwise, refuse if there are any."""
    own_columns = attr.columns if attr.symmetric else attr.reverse.columns
    other_columns = attr.reverse_columns if attr.symmetric else attr.columns
    if attr in rows.sets:
        sql.delete(attr.table, own_columns, stale)
        if attr.symmetric:
            sql.delete(attr.table, other_columns, stale)
        return
    linked = sql.select_any_of((*own_columns, *other_columns), attr.table, own_columns, stale)
    size = len(own_columns)
    _refuse(rows, attr, attr.reverse.entity, [(values[:size], values[size:]) for values in linked])


def _check_nobody_refers(sql: Sql, rows: Prepared, attr: Any, stale: list[Values]) -> None:
    reverse = attr.reverse
    child = reverse.entity
    size = len(reverse.columns)
    columns = (*reverse.columns, *child._pk_columns_)
    referring = sql.select_any_of(columns, child._table_, reverse.columns, stale)
    pairs = [(values[:size], values[size:]) for values in referring]
    if child._root_ is rows.entity._root_:
        identify = identity_of(child._pk_converters_)
        going = set(map(identify, stale))
        pairs = [pair for pair in pairs if identify(pair[1]) not in going]
    _refuse(rows, attr, child, pairs)


def _refuse(rows: Prepared, attr: Any, child: Any, pairs: Iterable[tuple[Values, Values]]) -> None:
    """Raise if there are pairs: each is a row that would be deleted and a row that refers to it."""
    by_row: dict[Values, list[Values]] = {}
    for gone, referring in pairs:
        by_row.setdefault(gone, []).append(referring)
    for gone, others in by_row.items():
        names = [f"{child.__name__}[{_shown(each)}]" for each in sorted(others, key=repr)[:_NAMED]]
        more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
        why = (
            f"{rows.entity.__name__}[{_shown(gone)}] is no longer listed, but cannot be deleted: other rows refer to "
            f"it ({attr.reverse}): {', '.join(names)}{more}. List it, or change the other rows first."
        )
        raise failure(rows.entity, why, value=gone[0] if len(gone) == 1 else gone)


def _shown(key: Values) -> str:
    return ", ".join(map(repr, key))
