"""The order in which entities are written: each one before those that refer to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from temaki.orm.seed.failure import failure


def in_order(entities: Sequence[Any]) -> tuple[list[Any], set[Any]]:
    """Put entities after those that they refer to.

    If entities refer to each other in a cycle, links that may be NULL are set after all rows exist. An entity's links
    to itself are set then, too.

    Returns:
        The entities in order, and the attributes to set later.

    Raises:
        SeedError: All links of a cycle are required.
    """
    links = {entity: _links(entity, entities) for entity in entities}
    later = {attr for entity in entities for attr, target in links[entity] if target is entity and attr.nullable}
    ordered: list[Any] = []
    waiting = list(entities)
    while waiting:
        ready = [entity for entity in waiting if not _blocking(entity, links, waiting, later)]
        if ready:
            ordered += ready
            waiting = [entity for entity in waiting if entity not in ready]
            continue
        nullable = {attr for each in waiting for attr, _ in _blocking(each, links, waiting, later) if attr.nullable}
        if not nullable:
            raise _cycle(waiting, links, later)
        later |= nullable
    return ordered, later


def _links(entity: Any, entities: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Return the attributes that refer to one of the entities, each with the entity it refers to."""
    return [
        (attr, target)
        for attr in entity._attrs_with_columns_
        if attr.reverse
        for target in entities
        if issubclass(target, attr.reverse.entity)
    ]


def _blocking(
    entity: Any, links: dict[Any, list[tuple[Any, Any]]], waiting: list[Any], later: set[Any]
) -> list[tuple[Any, Any]]:
    return [
        (attr, target)
        for attr, target in links[entity]
        if target in waiting and target is not entity and attr not in later
    ]


def _cycle(waiting: list[Any], links: dict[Any, list[tuple[Any, Any]]], later: set[Any]) -> Exception:
    """Follow the links until an entity repeats. The entities before it lead to the cycle, but are not in it."""
    path = [waiting[0]]
    names: list[str] = []
    while True:
        attr, target = _blocking(path[-1], links, waiting, later)[0]
        names.append(f"{path[-1].__name__}.{attr.name}")
        if target in path:
            start = path.index(target)
            break
        path.append(target)
    chain = " -> ".join((*names[start:], names[start].partition(".")[0]))
    why = (
        f"they cannot be stored before those that they refer to, and those not before them: {chain}. Make one of these "
        "attributes Optional: it is then set after all rows are there."
    )
    return failure(path[start], why, column=names[start].partition(".")[2])
