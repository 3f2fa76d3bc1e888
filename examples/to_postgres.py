"""Copy a Pony database into another one, row by row, through the entities that both have.

Everything goes through Pony's own converters, so dates, decimals, UUIDs and JSON arrive as what they are. Meant
for databases that one file could hold: all rows are in memory at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from typing import Any

from pony.orm import Database, Optional, Required, Set, commit, count

from temaki import db_session


def copy(source: Database, target: Database) -> dict[str, int]:
    """Copy all rows, keys included, and compare them afterwards.

    Args:
        source: Bound and mapped. Bind it read-only, and stop the writers first: what they store later is not copied.
        target: Bound and mapped by the same definitions, with empty tables.

    Returns:
        How many rows each entity has.

    Raises:
        ValueError: The target has rows, or entities require each other in a circle.
        AssertionError: The target does not hold what the source does; nothing was committed.
    """
    order = _in_order(source)
    with db_session:
        filled = [name for name in order if target.entities[name].select().exists()]
        if filled:
            message = f"The target has rows already: {', '.join(filled)}."
            raise ValueError(message)
        rows = [each for name in order for each in source.entities[name].select()]
        for row in rows:
            target.entities[type(row).__name__](**_values(row, _is_stored_at_once))
        target.flush()
        for row in rows:  # now there is everything that these may point to
            _link(target.entities[type(row).__name__][row.get_pk()], _values(row, _is_stored_later))
        if target.provider.dialect == "PostgreSQL":
            _move_sequences(target)
        target.flush()
        result = {name: count(each for each in target.entities[name]) for name in order}
        assert result == {name: count(each for each in source.entities[name]) for name in order}
        for row in rows:
            copied = target.entities[type(row).__name__][row.get_pk()]
            assert _values(copied, _is_stored) == _values(row, _is_stored), f"{copied} is not what {row} is"
        commit()
    return result


def _link(copied: Any, values: dict[str, Any]) -> None:
    for name, value in values.items():
        if isinstance(value, list):  # of keys, where Pony wants rows
            partner = getattr(type(copied), name).py_type
            getattr(copied, name).add([partner[key] for key in value])
        else:
            setattr(copied, name, value)


def _in_order(db: Database) -> list[str]:
    """The names of the entities with tables of their own, each after those that it requires."""
    roots = {entity._root_ for entity in db.entities.values()}
    requires = {
        root.__name__: {
            attribute.py_type._root_.__name__
            for entity in (root, *root._subclasses_)
            for attribute in entity._attrs_
            if attribute.is_relation and isinstance(attribute, Required) and attribute.py_type._root_ is not root
        }
        for root in roots
    }
    try:
        return list(TopologicalSorter(requires).static_order())
    except CycleError as error:
        message = f"These entities require each other: {', '.join(error.args[1])}."
        raise ValueError(message) from error


def _is_stored(attribute: Any) -> bool:
    return not attribute.is_discriminator and (bool(attribute.columns) or isinstance(attribute, Set))


def _is_stored_later(attribute: Any) -> bool:
    """Links that may be missing at first; of a many-to-many relationship, one of its two sides."""
    if isinstance(attribute, Set):
        return bool(attribute.reverse.is_collection)
    return bool(attribute.is_relation and isinstance(attribute, Optional) and attribute.columns)


def _is_stored_at_once(attribute: Any) -> bool:
    if attribute.is_collection or _is_stored_later(attribute):
        return False
    return bool(attribute.columns) and _is_stored(attribute)


def _values(row: Any, wanted: Any) -> dict[str, Any]:
    """A row's values by name; a link as the key of what it points to."""
    names = [attribute.name for attribute in type(row)._attrs_ if wanted(attribute)]
    return row.to_dict(only=names, with_collections=True, with_lazy=True) if names else {}


def _move_sequences(target: Database) -> None:
    """Rows that came with their keys do not move PostgreSQL's sequences."""
    for table, column in _automatic_keys(target):
        target.execute(
            f"SELECT setval(pg_get_serial_sequence('\"{table}\"', '{column}'), "  # noqa: S608 - the application's names
            f'(SELECT coalesce(max("{column}"), 0) + 1 FROM "{table}"), false)'
        )


def _automatic_keys(db: Database) -> Iterator[tuple[str, str]]:
    for entity in db.entities.values():
        key = entity._pk_
        if entity._root_ is entity and getattr(key, "auto", False):
            yield entity._table_, key.column
