"""``Seeded``: what an entity says about the rows that it brings.

Only the declaration is here, since ``import temaki`` imports it. What is done about it is in :mod:`temaki.orm.seed`,
which is imported where a database has such entities.
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
    """Mix this into an entity, and it brings its rows: ``generate_mapping`` stores them where they are missing.

    The entity says, as class attributes (a sub-entity inherits none of them):

    - one of ``rows``, a list of dicts, attribute to value; ``get_rows()``, a class method that returns such rows,
      called once per start; ``rows_from``, the name of a ``.csv`` or ``.json`` file beside the module. A relationship
      is given as the primary key of the other row, a tuple if composite; a many-to-many set as a list of those.
    - ``testing_rows()``: a class method whose rows are used instead inside :func:`temaki.testing.use_testing_rows`.
    - ``seed_policy``: ``"upsert"`` (the default: insert what is missing, update the columns that the rows name),
      ``"insert"`` (never touch an existing row) or ``"mirror"`` (upsert, and delete what is not listed).
    - ``seed_key``: names of the attributes of a unique key by which rows are recognised, instead of the primary key.
    - ``after_seed()``: a class method, called after the rows of all entities were written, in their transaction.

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

        A column is an attribute of the type of its values (int, float, Decimal, str, bool, date, datetime, time,
        timedelta, UUID, bytes; dict and list are Json), optional where a row has None or does not name it. ``id``, if
        there is such a column, is the primary key. Without one it is automatic, and unless there is a ``seed_key``, a
        row is recognised by all that it names: a changed row is a new one.

        Args:
            db: The :class:`temaki.Database`.
            name: The entity's.
            rows: Dicts, column to value.
            overrides: Pony attributes (``code=PrimaryKey(str)``) in place of inferred ones or beside them, and
                whatever else stands in an entity's class body (``seed_policy="mirror"``, ``_table_="countries"``).

        Returns:
            The entity.

        Raises:
            SeedError: A column has values of types that do not go together, or there is nothing to infer it from.
        """
        from temaki.orm.seed.infer import infer_attributes

        listed = [dict(row) for row in rows]
        inferred = infer_attributes(name, listed, overrides)
        namespace = {
            "__module__": sys._getframe(1).f_globals.get("__name__", __name__),  # noqa: SLF001 - as `class` would have it
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
    """Whether an attribute was inferred from rows, so that nobody but temaki chose its type and size."""
    return attr.name in attr.entity.__dict__.get(_INFERRED, ())


ALL_COLUMNS = ("*",)
"""The ``seed_key`` of an inferred entity without a key: a row is recognised by all that it names."""


@dataclass(frozen=True)
class Declaration:
    """What one entity says.

    Attributes:
        entity: The entity.
        source: ``"rows"``, ``"get_rows"``, ``"rows_from"`` or ``"testing_rows"``.
        value: What it has there.
        policy: One of the three.
        key: The names of the attributes of ``seed_key``; empty for the primary key.
        after_seed: Whether there is such a hook.
    """

    entity: Any
    source: str
    value: Any
    policy: str
    key: tuple[str, ...]
    after_seed: bool


_testing = False


def set_testing(active: bool) -> bool:
    """Have ``testing_rows()`` used, or not; returns what it was before. See :func:`temaki.testing.use_testing_rows`."""
    global _testing
    before, _testing = _testing, active
    return before


def declarations(db: Any) -> list[Declaration]:
    """What the seeded entities of a database say, in the order in which they were defined.

    Raises:
        SeedError: One of them contradicts itself.
    """
    entities = sorted(db.entities.values(), key=lambda entity: entity._id_)
    found = (_declaration(entity) for entity in entities if issubclass(entity, Seeded))
    return [each for each in found if each is not None]


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
    if hasattr(value, "__get__"):  # not by getattr: with several mixins it could find another one's
        value = value.__get__(None, entity)
    return Declaration(entity, sources[0], value, policy, key, "after_seed" in own)


def _own_settings(entity: Any) -> dict[str, Any]:
    """The settings of this entity and of its plain mixins, without those of entities that it inherits from."""
    parents = [base for base in entity.__bases__ if isinstance(base, EntityMeta) and base.__name__ != "Entity"]
    inherited = {each for parent in parents for each in parent.__mro__}
    found: dict[str, Any] = {}
    for each in reversed(entity.__mro__):
        if each not in inherited and each is not Seeded:
            found.update((name, each.__dict__[name]) for name in _SETTINGS if name in each.__dict__)
    return {name: value for name, value in found.items() if not isinstance(value, Attribute)}
