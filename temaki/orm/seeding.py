"""``Seeded``: the declaration of the rows that an entity brings.

Only the declaration is here, since ``import temaki`` imports it. :mod:`temaki.orm.seed` stores the rows. It is imported
only if a database has such entities.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pony.orm.core import Attribute, EntityMeta

from temaki.errors import ConfigurationError, SeedError

UPSERT, INSERT, MIRROR = "upsert", "insert", "mirror"
_POLICIES = (UPSERT, INSERT, MIRROR)
_SOURCES = ("rows", "get_rows", "rows_from")
_SETTINGS = (*_SOURCES, "testing_rows", "seed_policy", "seed_key", "after_seed")


class Seeded:
    """A mixin for entities that bring rows, which ``generate_mapping`` stores where they are missing.

    These class attributes of the entity configure it. A sub-entity inherits none of them.

    - One of these is the source of the rows. ``rows`` is a list of dicts, attribute to value. ``get_rows()`` is a class
      method that returns such a list; it is called once per start. ``rows_from`` is the name of a ``.csv`` or ``.json``
      file beside the module. The value of a relationship is the primary key of the other row, a tuple if it is
      composite. The value of a many-to-many set is a list of such keys.
    - ``testing_rows()``: a class method. Inside :func:`temaki.testing.use_testing_rows`, its rows replace the others.
    - ``seed_policy``: ``"upsert"`` (the default) inserts missing rows and updates the columns that the rows name.
      ``"insert"`` never touches an existing row. ``"mirror"`` upserts, and deletes rows that are not listed.
    - ``seed_key``: the names of the attributes of a unique key. Rows are recognised by it instead of the primary key.
    - ``after_seed()``: a class method. It is called after the rows of all entities are written, in their transaction.

    Rows are written in bulk: Pony's hooks (``before_insert``, …) are not called. See ``docs/seeding.md`` for when rows
    are applied, and for what is not promised.
    """

    __slots__ = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for base in cls.__bases__:
            db = getattr(base, "_database_", None)
            if db is not None and not hasattr(db, "seed"):
                raise ConfigurationError(
                    f"{cls.__name__} is Seeded, but its database is a plain Pony Database, which would never store its "
                    "rows. Use temaki.Database; its bind() takes every provider that Pony's takes. ('from pony.orm "
                    "import *' after 'from temaki import *' replaces it: import temaki's names last.)"
                )

    @staticmethod
    def entity(db: Any, name: str, rows: Iterable[Mapping[str, Any]] = (), **overrides: Any) -> Any:
        """Define an entity whose attributes are inferred from all of its rows.

        Each column becomes an attribute with the type of its values: int, float, Decimal, str, bool, date, datetime,
        time, timedelta, UUID or bytes; dict and list become Json. An attribute is optional if a row has None for it or
        does not name it.

        A column ``id`` becomes the primary key. Without it, the primary key is automatic. Then, unless there is a
        ``seed_key``, a row is recognised by all the values that it names: a changed row is a new row.

        Args:
            db: The :class:`temaki.Database`.
            name: The name of the entity.
            rows: The rows as dicts, column to value.
            overrides: Pony attributes (``code=PrimaryKey(str)``) that replace or add to the inferred ones, and
                anything else from an entity's class body (``seed_policy="mirror"``, ``_table_="countries"``).

        Returns:
            The entity.

        Raises:
            SeedError: A column has values of types that cannot be combined, or nothing but None.
        """
        from temaki.orm.seed.infer import infer_attributes

        listed = [dict(row) for row in rows]
        inferred = infer_attributes(name, listed, overrides)
        namespace = {
            "__module__": sys._getframe(1).f_globals.get("__name__", __name__),  # noqa: SLF001 - as `class` sets it
            **inferred,
            **overrides,
            _INFERRED: frozenset(inferred),
            "rows": listed,
        }
        if not any(isinstance(each, Attribute) and each.is_pk for each in namespace.values()):
            namespace.setdefault("seed_key", ALL_COLUMNS)
        return type(db.Entity)(name, (db.Entity, Seeded), namespace)


_INFERRED = "_inferred_"


def is_inferred(attr: Any) -> bool:
    """Whether an attribute was inferred from rows, so that temaki chose its type and size."""
    return attr.name in attr.entity.__dict__.get(_INFERRED, ())


ALL_COLUMNS = ("*",)
"""The ``seed_key`` of an inferred entity without a key: a row is recognised by all the values that it names."""


@dataclass(frozen=True)
class Declaration:
    """The declaration of one seeded entity.

    Attributes:
        entity: The entity.
        source: The name of the class attribute that gives the rows: ``"rows"``, ``"get_rows"``, ``"rows_from"`` or
            ``"testing_rows"``.
        value: The value of that class attribute.
        policy: The policy: ``"upsert"``, ``"insert"`` or ``"mirror"``.
        key: The names of the attributes of ``seed_key``; empty for the primary key.
        after_seed: Whether the entity has a method ``after_seed``.
    """

    entity: Any
    source: str
    value: Any
    policy: str
    key: tuple[str, ...]
    after_seed: bool


_testing = False


def set_testing(active: bool) -> bool:
    """Switch the use of ``testing_rows()`` on or off. See :func:`temaki.testing.use_testing_rows`.

    Returns:
        The setting before.
    """
    global _testing
    before, _testing = _testing, active
    return before


def declarations(db: Any) -> list[Declaration]:
    """Return the declarations of a database's seeded entities, in the order in which the entities were defined.

    Raises:
        SeedError: A declaration contradicts itself.
    """
    entities = sorted(db.entities.values(), key=lambda entity: entity._id_)
    declared = (_declaration(entity) for entity in entities if issubclass(entity, Seeded))
    return [declaration for declaration in declared if declaration is not None]


def _declaration(entity: Any) -> Declaration | None:
    own = _own_settings(entity)
    name = entity.__name__
    sources = [source for source in _SOURCES if source in own]
    if _testing and "testing_rows" in own:
        sources = ["testing_rows"]
    if not sources:
        return None
    if len(sources) > 1:
        raise SeedError(
            f"{name} has {' and '.join(sources)}: rows come from one of them. Remove the other.", entity=name
        )
    policy = own.get("seed_policy", UPSERT)
    if policy not in _POLICIES:
        raise SeedError(f"{name}.seed_policy is {policy!r}. It can be {', '.join(map(repr, _POLICIES))}.", entity=name)
    key = own.get("seed_key", ())
    key = (key,) if isinstance(key, str) else tuple(key)
    value = own[sources[0]]
    if hasattr(value, "__get__"):  # getattr on the entity could find the value of another mixin
        value = value.__get__(None, entity)
    return Declaration(entity, sources[0], value, policy, key, "after_seed" in own)


def _own_settings(entity: Any) -> dict[str, Any]:
    """Return the settings of an entity and its plain mixins, without those of entities that it inherits from."""
    parents = [base for base in entity.__bases__ if isinstance(base, EntityMeta) and base.__name__ != "Entity"]
    inherited = {each for parent in parents for each in parent.__mro__}
    settings: dict[str, Any] = {}
    for each in reversed(entity.__mro__):
        if each not in inherited and each is not Seeded:
            settings.update((name, each.__dict__[name]) for name in _SETTINGS if name in each.__dict__)
    return {name: value for name, value in settings.items() if not isinstance(value, Attribute)}
