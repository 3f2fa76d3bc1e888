"""The policy ``mirror``: rows that are no longer listed go, unless others still refer to them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from temaki.orm.seed.convert import Prepared
from temaki.orm.seed.failure import failure
from temaki.orm.seed.identity import converters_of, identity_of, keyless_identity
from temaki.orm.seed.links import of_class
from temaki.orm.seed.sql import Sql, Values

# Pony has no public names for what an entity maps to.

_NAMED = 5


def delete_unlisted(sql: Sql, rows: Prepared) -> None:
    """Delete the rows of exactly this entity that are not listed.

    Raises:
        SeedError: Another row refers to one of them.
    """
    stale = _unlisted(sql, rows)
    if not stale:
        return
    entity = rows.entity
    for attr in filter(lambda attr: attr.reverse, entity._attrs_):
        if attr.is_collection and attr.reverse.is_collection:
            _let_go_of_set(sql, rows, attr, stale)
        elif attr.reverse.columns and not attr.reverse.is_collection:
            _check_nobody_refers(sql, rows, attr, stale)
    sql.delete(entity._table_, entity._pk_columns_, stale)


def _unlisted(sql: Sql, rows: Prepared) -> list[Values]:
    """The primary keys, as parameters."""
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
    """Columns to look at, each with a function that says whether their values are listed."""
    if not rows.keyless:
        identify = identity_of(converters_of(rows.key))
        yield rows.key_columns, lambda values: identify(values) in rows.numbers
        return
    for batch in rows.batches:
        attrs = [attr for attr in rows.entity._attrs_with_columns_ if set(attr.columns) <= set(batch.columns)]
        by_all = keyless_identity(batch.columns, converters_of(attrs))
        yield batch.columns, lambda values, by_all=by_all: by_all(values) in rows.numbers


def _let_go_of_set(sql: Sql, rows: Prepared, attr: Any, stale: list[Values]) -> None:
    """Links of a set that the rows name are theirs and go with them; others are somebody else's."""
    mine = attr.columns if attr.symmetric else attr.reverse.columns
    theirs = attr.reverse_columns if attr.symmetric else attr.columns
    if attr in rows.sets:
        sql.delete(attr.table, mine, stale)
        if attr.symmetric:
            sql.delete(attr.table, theirs, stale)
        return
    other = attr.reverse.entity
    found = sql.select_any_of((*mine, *theirs), attr.table, mine, stale)
    size = len(mine)
    _refuse(rows, attr, other, [(values[:size], values[size:]) for values in found])


def _check_nobody_refers(sql: Sql, rows: Prepared, attr: Any, stale: list[Values]) -> None:
    reverse = attr.reverse
    child = reverse.entity
    size = len(reverse.columns)
    columns = (*reverse.columns, *child._pk_columns_)
    found = sql.select_any_of(columns, child._table_, reverse.columns, stale)
    pairs = [(values[:size], values[size:]) for values in found]
    if child._root_ is rows.entity._root_:
        identify = identity_of(child._pk_converters_)
        going = set(map(identify, stale))
        pairs = [pair for pair in pairs if identify(pair[1]) not in going]
    _refuse(rows, attr, child, pairs)


def _refuse(rows: Prepared, attr: Any, child: Any, pairs: Iterable[tuple[Values, Values]]) -> None:
    """Each pair is a row that would go, and one that refers to it."""
    by_row: dict[Values, list[Values]] = {}
    for gone, referring in pairs:
        by_row.setdefault(gone, []).append(referring)
    for gone, others in by_row.items():
        names = [f"{child.__name__}[{_shown(each)}]" for each in sorted(others, key=repr)[:_NAMED]]
        more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
        why = (
            f"{rows.entity.__name__}[{_shown(gone)}] is no longer listed, and cannot be deleted, since others refer to "
            f"it ({attr.reverse}): {', '.join(names)}{more}. List it, or change those first."
        )
        raise failure(rows.entity, why, value=gone[0] if len(gone) == 1 else gone)


def _shown(key: Values) -> str:
    return ", ".join(map(repr, key))
