"""Links between rows: whether the other rows exist, links that are set last, and many-to-many sets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from temaki.orm.seed.failure import failure, one_line
from temaki.orm.seed.identity import Key, converters_of, identity_of
from temaki.orm.seed.prepared import Prepared
from temaki.orm.seed.sql import Sql, Values

# Pony has no public names for what an attribute maps to.


def check_references(sql: Sql, rows: Prepared, attrs: Iterable[Any]) -> None:
    """Check that the rows exist that these attributes refer to.

    Raises:
        SeedError: A row refers to a row that does not exist.
    """
    for attr in attrs:
        wanted = rows.references.get(attr, {})
        if issubclass(rows.entity, attr.reverse.entity) and not rows.declaration.key:
            wanted = {key: each for key, each in wanted.items() if key not in rows.numbers}
        missing = _missing(sql, attr.reverse.entity, wanted)
        if missing:
            raise _broken(rows, attr, *min(missing, key=itemgetter(0)))


def _missing(sql: Sql, target: Any, wanted: dict[Key, tuple[int, Values]]) -> list[tuple[int, Values]]:
    """Return the missing ones of the wanted keys: the number of the row that refers to each, and its parameters."""
    columns = target._pk_columns_
    parameters = [values for _, values in wanted.values()]
    stored = sql.select_any_of(columns, target._table_, columns, parameters, also=of_class(sql, target))
    present = set(map(identity_of(target._pk_converters_), stored))
    return [each for key, each in wanted.items() if key not in present]


def of_class(sql: Sql, entity: Any, *, with_subclasses: bool = True) -> tuple[str, Values]:
    """Return a condition for the rows of an entity that shares its table with others, and its parameters.

    The condition begins with ``AND``. It is empty if no condition is needed.
    """
    attr = entity._discriminator_attr_
    if attr is None or (with_subclasses and entity._root_ is entity):
        return "", ()
    classes = [entity, *(entity._subclasses_ if with_subclasses else ())]
    marks = tuple(each._discriminator_ for each in classes)
    return f" AND {sql.name(attr.column)} IN ({sql.marks(len(marks))})", marks


def _broken(rows: Prepared, attr: Any, number: int, key: Values) -> Exception:
    value = key[0] if len(key) == 1 else key
    target = attr.reverse.entity.__name__
    why = f"there is no {target} with this primary key. Add it to the rows of {target}, or correct the value."
    return failure(rows.entity, why, row=number, column=attr.name, value=value)


def set_links(sql: Sql, rows: Prepared, existing: set[Key] | None) -> None:
    """Set the links that had to wait until all rows exist.

    Args:
        sql: Runs the statements.
        rows: The rows, already written.
        existing: The keys of rows that existed before; None if the policy does not need them.

    Raises:
        SeedError: A link refers to a row that does not exist, or the database refuses it.
    """
    check_references(sql, rows, rows.links)
    for attr, by_key in rows.links.items():
        items = [
            (number, (values, rows.parameters[key]))
            for key, values in by_key.items()
            if not _untouchable(rows, key, existing)
            for number in [rows.numbers[key]]
        ]

        def write(some: Sequence[Any], attr: Any = attr) -> None:
            sql.update(rows.entity._table_, attr.columns, rows.key_columns, [each for _, each in some])

        sql.in_bulk(write, items, _refusal(rows, attr))


def _refusal(rows: Prepared, attr: Any) -> Callable[[Any, Exception], Exception]:
    return lambda item, error: failure(
        rows.entity, f"the database refuses it: {one_line(error)}.", row=item[0], column=attr.name, value=item[1][0]
    )


def _untouchable(rows: Prepared, key: Key, existing: set[Key] | None) -> bool:
    return existing is not None and rows.declaration.policy == "insert" and key in existing


# -- many-to-many ---------------------------------------------------------------------------------------------------


@dataclass
class _Relation:
    """The wanted content of a many-to-many table, from the rows of one side or both.

    Attributes:
        attr: The attribute of the side that was collected first.
        wanted: The pairs that must exist: their parameters, by their keys.
        left: The keys at the first side whose set is given. Their other pairs are deleted.
        right: The keys at the other side whose set is given.
    """

    attr: Any
    wanted: dict[tuple[Key, Key], Values] = field(default_factory=dict)
    left: dict[Key, Values] = field(default_factory=dict)
    right: dict[Key, Values] = field(default_factory=dict)

    @property
    def columns(self) -> tuple[list[str], list[str]]:
        """The columns of the first side and of the other side."""
        attr = self.attr
        return (attr.columns, attr.reverse_columns) if attr.symmetric else (attr.reverse.columns, attr.columns)


def write_sets(sql: Sql, all_rows: Sequence[tuple[Prepared, set[Key] | None]]) -> None:
    """Write the many-to-many tables. If a row names a set, the stored set becomes exactly that.

    Args:
        sql: Runs the statements.
        all_rows: The rows of each entity, with the keys of rows that existed before, or None.

    Raises:
        SeedError: A set names a row that does not exist.
    """
    relations: dict[Any, _Relation] = {}
    for rows, existing in all_rows:
        for attr, by_key in rows.sets.items():
            _check_items(sql, rows, attr, by_key)
            sets = {key: items for key, items in by_key.items() if not _untouchable(rows, key, existing)}
            _collect(relations.setdefault(attr.table, _Relation(attr)), attr, _by_primary_key(sql, rows, sets))
    for relation in relations.values():
        _bring_to(sql, relation)


def _check_items(sql: Sql, rows: Prepared, attr: Any, by_key: dict[Key, list[Values]]) -> None:
    identify = identity_of(attr.reverse.entity._pk_converters_)
    wanted: dict[Key, tuple[int, Values]] = {}
    for key, items in by_key.items():
        for item in items:
            wanted.setdefault(identify(item), (rows.numbers[key], item))
    missing = _missing(sql, attr.reverse.entity, wanted)
    if missing:
        raise _broken(rows, attr, *min(missing, key=itemgetter(0)))


def _by_primary_key(sql: Sql, rows: Prepared, by_key: dict[Key, list[Values]]) -> list[tuple[Values, list[Values]]]:
    if not rows.declaration.key:
        return [(rows.parameters[key], items) for key, items in by_key.items()]
    entity = rows.entity
    key_size = len(rows.key_columns)
    identify = identity_of(converters_of(rows.key))
    wanted = [rows.parameters[key] for key in by_key]
    columns = (*rows.key_columns, *entity._pk_columns_)
    stored = sql.select_any_of(columns, entity._table_, rows.key_columns, wanted)
    return [(values[key_size:], by_key[identify(values[:key_size])]) for values in stored]


def _collect(relation: _Relation, attr: Any, sets: list[tuple[Values, list[Values]]]) -> None:
    own, other = identity_of(attr.entity._pk_converters_), identity_of(attr.reverse.entity._pk_converters_)
    first = attr is relation.attr
    for key, items in sets:
        (relation.left if first else relation.right)[own(key)] = key
        if attr.symmetric:
            relation.right[own(key)] = key
        for item in items:
            pair = (own(key), other(item))
            forward, backward = (pair, key + item), (pair[::-1], item + key)
            relation.wanted.update([forward if first else backward])
            if attr.symmetric:
                relation.wanted.update([backward])


def _bring_to(sql: Sql, relation: _Relation) -> None:
    left, right = relation.columns
    attr = relation.attr
    columns = [*left, *right]
    identify_left = identity_of(attr.entity._pk_converters_)
    identify_right = identity_of(attr.reverse.entity._pk_converters_)
    stored: dict[tuple[Key, Key], Values] = {}
    for side, keys in ((left, relation.left), (right, relation.right)):
        for values in sql.select_any_of(columns, attr.table, side, keys.values()):
            stored[identify_left(values[: len(left)]), identify_right(values[len(left) :])] = values
    sql.delete(attr.table, columns, [values for pair, values in stored.items() if pair not in relation.wanted])
    sql.insert(attr.table, columns, [values for pair, values in relation.wanted.items() if pair not in stored])
