"""Binding a Pony database to an object in a store, and unbinding it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pony.orm import core

from temaki.config import settings
from temaki.config.registry import load
from temaki.engine.engine import Engine
from temaki.engine.shared import share
from temaki.errors import ConfigurationError
from temaki.orm.provider import StoreProvider
from temaki.stores import canonical_url, open_store
from temaki.strategy import Strategy

if TYPE_CHECKING:
    from temaki.store import Store
    from temaki.sync import Sync


class Rebindable(core.Database):
    """A Pony ``Database`` whose mapping survives :func:`unbind` and goes on with the next binding.

    ``bind`` itself stays Pony's: it resolves a relative file name against its caller's source file.
    """

    _schema: Any = None
    _was_unbound = False

    @property
    def schema(self) -> Any:
        """Pony's tables and columns; None before ``generate_mapping()``.

        After :func:`unbind`, the first access moves the mapping to the next binding.

        Raises:
            ConfigurationError: The database is unbound, or bound to another kind of database than it was mapped for.
        """
        if self._schema is not None:
            if self.provider is None:
                raise unbound_error()
            if self._schema.provider is not self.provider:
                _keep_mapping(self, self._schema)
        return self._schema

    @schema.setter
    def schema(self, schema: Any) -> None:
        self._schema = schema


def bind_s3(
    db: core.Database,
    url: str | None = None,
    *,
    strategy: str | Strategy | None = None,
    store: Store | None = None,
    client: Any = None,
    format: str | None = None,  # noqa: A002 - the setting's name
    cache_dir: str | Path | None = None,
    allow_stale_seeds: bool | None = None,
    **options: Any,
) -> None:
    """Bind a plain ``pony.orm.Database``, as :meth:`Database.bind_s3` does.

    With ``generate_mapping(create_tables=True)``, a plain Pony database opens a write transaction on every start.
    It uploads only if a table was missing. If several first starts race, one succeeds and the others raise
    ``CommitException``.
    """
    if db.provider is not None:
        place = db.provider.engine.url if isinstance(db.provider, StoreProvider) else f"{db.provider.dialect} already"
        raise ConfigurationError(
            f"This Database is already bound, to {place}; it has one place at a time. Make another Database for "
            "another place, or call unbind() first.",
            url=url,
        )
    chosen = settings.resolve(
        {
            "url": url,
            "strategy": strategy,
            "format": format,
            "cache_dir": cache_dir,
            "allow_stale_seeds": allow_stale_seeds,
            **options,
        },
        environ=os.environ,
        folder=settings.working_folder(),
    )
    opened, key = open_store(chosen.url, client=client)
    engine = Engine(
        share(
            canonical_url(chosen.url),
            key,
            store or opened,
            given=client if store is None else store,
            cache_dir=chosen.cache_dir,
            timeout=chosen.timeout,
            format=chosen.format,
            compact=chosen.compact,
        ),
        strategy_of(chosen),
    )
    db.bind(StoreProvider, engine=engine, allow_stale_seeds=chosen.allow_stale_seeds)
    schema = mapping_of(db)
    if schema is not None:
        _keep_mapping(db, schema)
    db.provider_name = "sqlite"  # else Pony never calls handlers of @db.on_connect(provider="sqlite")


def unbind(db: core.Database) -> None:
    """Unbind a plain ``pony.orm.Database``, as :meth:`Database.unbind` does.

    After the next binding, call ``create_tables()`` to create its tables.

    Raises:
        ConfigurationError: A ``db_session`` is active, or a session of this database is open elsewhere.
    """
    if db.provider is None:
        return
    if core.local.db_context_counter:
        raise ConfigurationError("unbind() was called inside of a db_session. Call it outside.")
    cache = core.local.db2cache.get(db)
    if cache is not None:  # Pony's interactive mode has sessions without db_session
        cache.rollback()
    if isinstance(db.provider, StoreProvider):
        db.provider.let_go()
    else:
        db.provider.disconnect()
    db.provider = db.provider_name = None
    if isinstance(db, Rebindable):
        db._was_unbound = db._schema is not None  # noqa: SLF001 - one with its class


def sync_of(db: core.Database) -> Sync:
    """Return :attr:`Database.sync` of a plain ``pony.orm.Database``.

    Raises:
        ConfigurationError: The database is not bound, or it is not bound to an object store.
    """
    from temaki.sync import Sync  # only programs that use it pay for the import

    if db.provider is None:
        raise unbound_error()
    if not isinstance(db.provider, StoreProvider):
        raise ConfigurationError(f"This Database is bound to {db.provider.dialect}: only bind_s3 syncs with a store.")
    return Sync(db.provider.engine)


def mapping_of(db: core.Database) -> Any:
    """Return Pony's schema of a database, bound or not; None if the database was never mapped."""
    return db._schema if isinstance(db, Rebindable) else db.schema  # noqa: SLF001 - one with its property


def _keep_mapping(db: core.Database, schema: Any) -> None:
    """Move an existing mapping to the new provider.

    Raises:
        ConfigurationError: The mapping is for another kind of database. The binding is undone.
    """
    if schema.dialect != db.provider.dialect:
        mapped, dialect = schema.dialect, db.provider.dialect
        unbind(db)
        raise ConfigurationError(
            f"The entities of this Database were mapped for {mapped}, and cannot be bound to {dialect} any more. Make "
            "another Database, and define the entities on it.",
        )
    schema.provider = db.provider


def strategy_of(chosen: settings.Settings) -> Strategy:
    """Return the configured strategy, ready to use.

    Raises:
        ConfigurationError: No strategy has this name, or the strategy does not have these options.
    """
    if isinstance(chosen.strategy, str):
        return settings.make_strategy(
            load(chosen.strategy, origin=chosen.origins.get("strategy", "strategy")), chosen.options
        )
    if isinstance(chosen.strategy, Strategy):
        return chosen.strategy
    raise ConfigurationError(
        f"strategy= of bind_s3: expected a name or an instance of temaki.strategy.Strategy; got {chosen.strategy!r}."
    )


def unbound_error() -> ConfigurationError:
    """Return the error for a database that is used before it is bound."""
    return ConfigurationError(
        'This Database is not bound to any place yet. Call db.bind_s3("s3://bucket/app.sqlite") before '
        "generate_mapping() and before the first db_session.",
    )
