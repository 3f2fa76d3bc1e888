"""Binds one ``Database`` again for each test, each time to another store. Pony itself does not allow that.

Pony binds a database once, and maps its entities once. The mapping depends on the kind of database, and not on its
address. So a new provider replaces the old one, and the mapping stays.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from pony.orm import core
from pony.orm.dbproviders.sqlite import SQLiteProvider

from temaki.config import settings
from temaki.engine.engine import Engine
from temaki.engine.shared import share
from temaki.errors import ConfigurationError
from temaki.orm.binding import mapping_of, strategy_of
from temaki.orm.database import Database
from temaki.orm.provider import StoreProvider
from temaki.store import Store


@dataclass
class _Before:
    """The binding of a database before a test."""

    db: core.Database
    provider: Any
    provider_name: str | None


class Binder:
    """Binds databases to one store, until :meth:`unbind`.

    Args:
        store: The bucket that keeps the databases.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._before: list[_Before] = []

    def __call__(
        self, db: core.Database, *, key: str = "app.sqlite", create_tables: bool = True, **options: Any
    ) -> Store:
        """Bind a database, and map its entities.

        The first call for a database maps it with ``generate_mapping``, so define all entities before. A later call
        with the same database starts anew on what is stored, as another process would.

        Args:
            db: A :class:`temaki.Database`, or a plain Pony database; bound already or not. No ``db_session`` may be
                active.
            key: Key of the object. Two databases in one test need two keys.
            create_tables: True to create the tables (and the rows of ``Seeded`` entities).
            options: Arguments of ``bind_s3``: ``strategy``, its options, ``format``, ``timeout``,
                ``cache_dir``. Neither the environment nor a file is read.

        Returns:
            The store.

        Raises:
            ConfigurationError: A ``db_session`` is active, or the entities were mapped for a database of another kind.
        """
        if core.local.db_context_counter:
            raise ConfigurationError(
                "temaki_bind was called inside of a db_session. Call it before the first db_session."
            )
        schema = mapping_of(db)
        if schema is not None and not isinstance(schema.provider, (SQLiteProvider, type(None))):
            raise ConfigurationError(
                f"This Database was mapped for {schema.dialect}. Its entities cannot be bound to SQLite any more. "
                "Map another Database in the tests."
            )
        if not any(before.db is db for before in self._before):
            self._before.append(_Before(db, db.provider, db.provider_name))
        else:
            _let_go(db)
        db.provider = None
        # One URL has one working copy per process: each binding gets its own.
        url = f"memory://test-{uuid4().hex}/{key}"
        _bind(db, url, key, self.store, options)
        if schema is None:
            db.generate_mapping(check_tables=create_tables, create_tables=create_tables)
        else:
            schema.provider = db.provider
            if create_tables:
                _make_tables(db)
        return self.store

    def unbind(self) -> None:
        """Bind the databases to what they were bound to before, or to nothing."""
        while self._before:
            before = self._before.pop()
            _let_go(before.db)
            before.db.provider, before.db.provider_name = before.provider, before.provider_name
            schema = mapping_of(before.db)
            if schema is not None:
                schema.provider = before.provider


def _bind(db: core.Database, url: str, key: str, store: Store, arguments: dict[str, Any]) -> None:
    """Bind as ``bind_s3`` does, but with these arguments alone: tests ignore the application's configuration."""
    chosen = settings.resolve({**arguments, "url": url}, environ={}, folder=os.devnull)
    shared = share(
        url,
        key,
        store,
        given=store,
        cache_dir=chosen.cache_dir,
        timeout=chosen.timeout,
        format=chosen.format,
        compact=chosen.compact,
    )
    db.bind(StoreProvider, engine=Engine(shared, strategy_of(chosen)), allow_stale_seeds=chosen.allow_stale_seeds)
    db.provider_name = "sqlite"


def _make_tables(db: core.Database) -> None:
    if isinstance(db, Database):
        db._complete_anew()  # noqa: SLF001 - the second half of its generate_mapping
    else:
        db.create_tables()


def _let_go(db: core.Database) -> None:
    """Roll back and disconnect what a test has left open in this thread."""
    cache = core.local.db2cache.get(db)
    if cache is not None:
        cache.rollback()
    if db.provider is not None:
        db.provider.disconnect()
