"""Binding a Pony database to a file in a store."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pony.orm import core

from temaki.config import settings
from temaki.config.registry import load
from temaki.engine.engine import Engine, share
from temaki.errors import ConfigurationError, ConflictError, NotFoundError, TemakiError
from temaki.orm.cause import cause_of
from temaki.orm.provider import StoreProvider
from temaki.orm.seeding import Declaration, declarations
from temaki.stores import canonical_url, open_store
from temaki.strategy import Strategy

if TYPE_CHECKING:
    from temaki.orm.seed.seeder import Seeder
    from temaki.store import Store
    from temaki.sync import Sync

_log = logging.getLogger(__name__)

_FIRST_STARTS = 20
"""How often a first start looks again after another one was faster. Each such race has a winner, so this many lost in
a row means that something else is wrong."""


class _NoDatabaseError(NotFoundError, core.OperationalError):
    """Nothing is stored yet, for applications that expect Pony's error about a missing table."""

    def __init__(self, message: str, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.args = (message,)  # Pony's constructor takes those of the driver's error
        self.original_exc = self


class Database(core.Database):
    """A Pony ``Database`` that can live in an object store. Everything else is Pony's own.

    Use :meth:`bind_s3` instead of ``bind``; ``bind`` still works, for tests on ``:memory:`` or a later PostgreSQL.
    """

    _seeder: Seeder | None = None
    _schema: Any = None
    _was_unbound = False

    def bind_s3(
        self,
        url: str | None = None,
        *,
        strategy: str | Strategy | None = None,
        store: Store | None = None,
        client: Any = None,
        cache_dir: str | Path | None = None,
        **options: Any,
    ) -> None:
        """Keep this database in one object. Makes no request: the first session that touches the database does.

        Args:
            url: ``s3://bucket/key``, ``file:///folder/key`` or ``memory://name/key``. Without it, everything comes
                from the environment (``TEMAKI_URL``, …) or from ``[tool.temaki]``.
            strategy: A strategy's name or instance. ``"etag-cached"`` if nobody says otherwise.
            store: A store of your own to find the URL's key in, instead of the one that the URL names.
            client: A boto3 S3 client to use, instead of one made from boto3's own configuration.
            cache_dir: A folder in which the working copy outlives the process. Without it, a private temporary one.
            options: ``timeout`` in seconds, and the options of the strategy.

        Raises:
            ConfigurationError: Something in these, or in the environment and files, cannot work; or the database is
                already bound.
        """
        bind_s3(self, url, strategy=strategy, store=store, client=client, cache_dir=cache_dir, **options)

    @property
    def schema(self) -> Any:
        """Pony's tables and columns; None before the mapping. After :meth:`unbind` it goes on with the next binding.

        (``bind`` itself stays Pony's: it takes a relative file name to be relative to its caller's source file.)

        Raises:
            ConfigurationError: The database was unbound, or bound to another kind than it was mapped for.
        """
        if self._schema is not None:
            if self.provider is None:
                raise _unbound()
            if self._schema.provider is not self.provider:
                _keep_mapping(self, self._schema)
        return self._schema

    @schema.setter
    def schema(self, schema: Any) -> None:
        self._schema = schema

    def unbind(self) -> None:
        """Let go of what the database is bound to: its working copy, its files, its lease and their threads.

        It can then be bound again, to another place, too. Entities and mapping stay; call :meth:`generate_mapping`
        again to have the tables and rows completed there. Nothing happens if it is not bound. What other databases of
        this process share with it, because they are bound to the same URL, stays until they are unbound.

        Raises:
            ConfigurationError: A ``db_session`` is active, or a session of this database is open elsewhere.
        """
        unbind(self)

    @property
    def sync(self) -> Sync:
        """Counters, events and bookmarks of this database; see :class:`temaki.sync.Sync`.

        Raises:
            ConfigurationError: It is not bound, or not to an object store.
        """
        return sync_of(self)

    def generate_mapping(
        self,
        filename: str | None = None,
        check_tables: bool = True,
        create_tables: bool = False,
    ) -> None:
        """Map the entities to tables, as Pony's own, but create tables only where some are missing; then seed.

        Where nothing is missing, nothing is written and no other writer is kept waiting. Where several processes start
        at once on an empty database, one of them creates it and the others find it complete. The rows of ``Seeded``
        entities are stored in the transaction that creates the tables; with ``create_tables=False`` in one of their
        own, if the tables are there.

        After :meth:`unbind` and another binding, the mapping is there already; the rest is done as at the first time.

        Args:
            filename: As in Pony.
            check_tables: Whether to look for the tables and columns.
            create_tables: Whether to create what is missing.

        Raises:
            ConfigurationError: The database is not bound.
            SeedError: Rows cannot be stored; nothing was.
            TemakiError: The database could not be read or created.
        """
        if self.provider is None:
            raise _unbound()
        _ = self.schema  # raises if it was mapped for another kind of database
        found = declarations(self)
        if self._was_unbound:
            self._was_unbound = False
            self._seeder = self._make_seeder(found)
            if check_tables and not create_tables:
                self.check_tables()
            self._complete(self._seeder, create_tables=create_tables, check_tables=check_tables)
            return
        if not found and not (isinstance(self.provider, StoreProvider) and create_tables):
            super().generate_mapping(filename, check_tables=check_tables, create_tables=create_tables)
            return
        super().generate_mapping(filename, check_tables=False, create_tables=False)
        if check_tables and not create_tables:
            self.check_tables()
        self._seeder = self._make_seeder(found)
        self._complete(self._seeder, create_tables=create_tables, check_tables=check_tables)

    def _complete_anew(self) -> None:
        """The second half of a start, for a database that is mapped, and bound to another place since."""
        self._seeder = self._make_seeder(declarations(self))
        self._complete(self._seeder, create_tables=True, check_tables=True)

    def create_tables(self, check_tables: bool = False) -> None:
        """As Pony's; the rows of ``Seeded`` entities come with their tables."""
        if self._seeder is None:
            super().create_tables(check_tables)
        else:
            self._complete(self._seeder, create_tables=True, check_tables=check_tables)

    def seed(self, *, force: bool = False) -> None:
        """Store the rows of ``Seeded`` entities as :meth:`generate_mapping` does, in a transaction of its own.

        Args:
            force: Also those that were applied before. What the application has changed in columns that the rows name
                is changed back.

        Raises:
            ConfigurationError: There is no mapping yet, or a ``db_session`` is going on.
            SeedError: Rows cannot be stored; nothing was.
            TemakiError: The database could not be read or written.
        """
        if self.schema is None:
            raise ConfigurationError("seed() needs the tables: call generate_mapping() first.")
        if core.local.db_session is not None:
            raise ConfigurationError("seed() takes a transaction of its own: call it outside of the db_session.")
        seeder = self._make_seeder(declarations(self))
        if seeder is not None:
            is_due = (lambda: True) if force else (lambda: self._is_behind(seeder, create_tables=False))
            self._write(is_due, lambda: self._seed_alone(seeder, force=force))

    def _make_seeder(self, found: list[Declaration]) -> Seeder | None:
        if not found:
            return None
        from temaki.orm.seed.seeder import Seeder

        return Seeder(self, found)

    def _complete(self, seeder: Seeder | None, *, create_tables: bool, check_tables: bool) -> None:
        def write() -> None:
            if create_tables:
                self._create_and_seed(seeder, check_tables=check_tables)
            elif seeder is not None:
                self._seed_alone(seeder)

        if seeder is not None and create_tables:
            seeder.add_ledger()
        written = self._write(lambda: self._is_behind(seeder, create_tables=create_tables), write)
        if check_tables and create_tables and not written:
            self.check_tables()

    @staticmethod
    def _write(is_behind: Callable[[], bool], write: Callable[[], None]) -> bool:
        """Write where something is missing; if others were faster, look again whether there still is.

        Returns:
            Whether something was written.
        """
        for remaining in reversed(range(_FIRST_STARTS)):
            if not is_behind():
                break
            try:
                write()
            except core.CommitException as error:
                cause = cause_of(error)
                if not isinstance(cause, ConflictError) or not remaining:
                    raise cause if isinstance(cause, TemakiError) else error from None
            except ConflictError:
                if not remaining:
                    raise
            else:
                return True
        return False

    @core.db_session(ddl=True)
    def _create_and_seed(self, seeder: Seeder | None, *, check_tables: bool) -> None:
        if seeder is not None:
            seeder.lock()
        connection = self._get_cache().prepare_connection_for_query_execution()
        self.schema.create_tables(self.provider, connection)
        if check_tables:
            self.schema.check_tables(self.provider, connection)
        if seeder is not None:
            seeder.apply()

    @core.db_session(immediate=True)
    def _seed_alone(self, seeder: Seeder, *, force: bool = False) -> None:
        seeder.lock()
        seeder.apply(force=force)

    @core.db_session
    def _is_behind(self, seeder: Seeder | None, *, create_tables: bool) -> bool:
        """Whether a table or an index is missing, by Pony's own way of looking; or rows are due."""
        if create_tables:
            if self._incomplete():
                return True
        elif seeder is None or not seeder.has_tables():
            return False
        if seeder is None or not seeder.is_due():
            return False
        if isinstance(self.provider, StoreProvider) and not self.provider.engine.writes:
            _log.warning("%s: rows are due, and the strategy never writes", self.provider.engine.url)
            return False
        return True

    def _incomplete(self) -> bool:
        connection = self._get_cache().prepare_connection_for_query_execution()
        created: set[Any] = set()
        return any(
            part.exists(self.provider, connection, case_sensitive=False) != self.provider.base_name(part.name)
            for table in self.schema.order_tables_to_create()
            for part in table.get_objects_to_create(created)
        )

    def check_tables(self) -> None:
        """As Pony's; but where there is no database at all, say that, and not that a table is missing.

        Raises:
            NotFoundError: There is no database in the store yet. It is Pony's ``OperationalError`` as well, which a
                missing table would be.
        """
        try:
            super().check_tables()
        except core.OperationalError:
            if isinstance(self.provider, StoreProvider) and not self.provider.engine.has_database:
                url = self.provider.engine.url
                raise _NoDatabaseError(
                    f"There is no database at {url} yet. If the URL is right, create it with "
                    "generate_mapping(create_tables=True).",
                    url=url,
                ) from None
            raise

    def insert(self, table_name: Any, returning: Any = None, **kwargs: Any) -> Any:
        """As Pony's.

        Raises:
            ConfigurationError: The database is not bound.
        """
        if self.provider is None:
            raise _unbound()
        return super().insert(table_name, returning, **kwargs)

    def _exec_raw_sql(
        self, sql: str, variables: Any, local_variables: Any, frame_depth: int, start_transaction: bool = False
    ) -> Any:
        if self.provider is None:
            raise _unbound()
        # One frame more between the caller, whose variables the statement may name, and Pony.
        return super()._exec_raw_sql(sql, variables, local_variables, frame_depth + 1, start_transaction)

    def _get_cache(self) -> Any:
        if self.provider is None:
            raise _unbound()
        return super()._get_cache()


def bind_s3(
    db: core.Database,
    url: str | None = None,
    *,
    strategy: str | Strategy | None = None,
    store: Store | None = None,
    client: Any = None,
    cache_dir: str | Path | None = None,
    **options: Any,
) -> None:
    """:meth:`Database.bind_s3` for a plain ``pony.orm.Database``.

    With ``generate_mapping(create_tables=True)`` such a database opens a write transaction on every start, as Pony
    does; it uploads only if a table was missing. Of several first starts at once all but one raise ``CommitException``.
    """
    if db.provider is not None:
        bound = db.provider.engine.url if isinstance(db.provider, StoreProvider) else f"{db.provider.dialect} already"
        raise ConfigurationError(
            f"This Database is already bound, to {bound}; it has one place at a time. Make another Database for "
            "another place, or call unbind() first.",
            url=url,
        )
    chosen = settings.resolve(
        {"url": url, "strategy": strategy, "cache_dir": cache_dir, **options},
        environ=os.environ,
        folder=settings.working_folder(),
    )
    found, key = open_store(chosen.url, client=client)
    engine = Engine(
        share(
            canonical_url(chosen.url),
            key,
            store or found,
            given=client if store is None else store,
            cache_dir=chosen.cache_dir,
            timeout=chosen.timeout,
        ),
        strategy_of(chosen),
    )
    db.bind(StoreProvider, engine=engine)
    schema = mapping_of(db)
    if schema is not None:
        _keep_mapping(db, schema)
    db.provider_name = "sqlite"  # else @db.on_connect(provider="sqlite") would never be called


def unbind(db: core.Database) -> None:
    """:meth:`Database.unbind` for a plain ``pony.orm.Database``. Its tables are made by ``create_tables()`` then.

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
    if isinstance(db, Database):
        db._was_unbound = db._schema is not None  # noqa: SLF001 - one with its method


def mapping_of(db: core.Database) -> Any:
    """Pony's schema of a database, bound or not; None if it was never mapped."""
    return db._schema if isinstance(db, Database) else db.schema  # noqa: SLF001 - one with its property


def _keep_mapping(db: core.Database, schema: Any) -> None:
    """Have a mapping that is there already go on with the new provider.

    Raises:
        ConfigurationError: It is for another kind of database; the binding is undone.
    """
    if schema.dialect != db.provider.dialect:
        mapped, dialect = schema.dialect, db.provider.dialect
        unbind(db)
        raise ConfigurationError(
            f"The entities of this Database were mapped for {mapped}, and cannot be bound to {dialect} any more. Make "
            "another Database, and define the entities on it.",
        )
    schema.provider = db.provider


def sync_of(db: core.Database) -> Sync:
    """:attr:`Database.sync` of a plain ``pony.orm.Database``.

    Raises:
        ConfigurationError: It is not bound, or not to an object store.
    """
    from temaki.sync import Sync  # only who asks pays for it

    if db.provider is None:
        raise _unbound()
    if not isinstance(db.provider, StoreProvider):
        raise ConfigurationError(f"This Database is bound to {db.provider.dialect}: only bind_s3 syncs with a store.")
    return Sync(db.provider.engine)


def strategy_of(chosen: settings.Settings) -> Strategy:
    """The strategy that was configured.

    Raises:
        ConfigurationError: There is no such strategy, or it has no such options.
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


def _unbound() -> ConfigurationError:
    return ConfigurationError(
        'This Database is not bound to any place yet. Call db.bind_s3("s3://bucket/app.sqlite") before '
        "generate_mapping() and before the first db_session.",
    )
