"""The rows of an entity as parameters of statements, ready to be written."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from temaki.orm.seed.identity import Key
from temaki.orm.seeding import ALL_COLUMNS, Declaration


@dataclass
class Batch:
    """Rows of an entity that name the same columns.

    Attributes:
        columns: The columns that an INSERT sets.
        updated: The columns that an UPDATE of an existing row sets: those that the rows name, without the key.
        numbers: The numbers of the rows, from 1.
        values: The parameters of each row, one for each of ``columns``.
        keys: The keys of the rows.
    """

    columns: tuple[str, ...]
    updated: tuple[str, ...]
    numbers: list[int]
    values: list[tuple[Any, ...]]
    keys: list[Key] = field(default_factory=list)


@dataclass
class Prepared:
    """All rows of an entity, ready to be written.

    Attributes:
        declaration: The entity's declaration.
        key: The attributes by which a row is recognised.
        key_columns: The columns of ``key``.
        batches: The rows, grouped by the columns that they name.
        numbers: The number of each row, by the row's key.
        parameters: The parameters of each key, for rows with links or sets.
        links: The parameters of links that are set after all rows exist, by attribute and key.
        sets: The parameters of the keys at the other side of a many-to-many relationship, by attribute and key.
        references: The keys that each attribute refers to, with the number of a row that refers to them and their
            parameters.
    """

    declaration: Declaration
    key: tuple[Any, ...]
    key_columns: tuple[str, ...]
    batches: list[Batch] = field(default_factory=list)
    numbers: dict[Key, int] = field(default_factory=dict)
    parameters: dict[Key, tuple[Any, ...]] = field(default_factory=dict)
    links: dict[Any, dict[Key, tuple[Any, ...]]] = field(default_factory=dict)
    sets: dict[Any, dict[Key, list[tuple[Any, ...]]]] = field(default_factory=dict)
    references: dict[Any, dict[Key, tuple[int, tuple[Any, ...]]]] = field(default_factory=lambda: defaultdict(dict))

    @property
    def entity(self) -> Any:
        """The entity."""
        return self.declaration.entity

    @property
    def keyless(self) -> bool:
        """Whether a row is recognised by all its values, because there is no key."""
        return self.declaration.key == ALL_COLUMNS
