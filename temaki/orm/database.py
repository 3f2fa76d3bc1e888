"""``temaki.Database``: Pony's ``Database``, which can live in an object store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pony.orm import core
from pony.orm.dbproviders.sqlite import SQLiteProvider

from temaki.errors import ConfigurationError, NotFoundError
from temaki.orm.binding import Rebindable, bind_s3, sync_of, unbind, unbound_error
from temaki.orm.plain import explain_missing_names
from temaki.orm.provider import StoreProvider
from temaki.orm.seeding import Declaration, declarations
from temaki.orm.sqlite_time import with_time
from temaki.orm.starting import Start, make_seeder

if TYPE_CHECKING:
    from temaki.orm.seed.seeder import Seeder
    from temaki.store import Store
    from temaki.strategy import Strategy
    from temaki.sync import Sync

explain_missing_names()


class _NoDatabaseError(NotFoundError, core.OperationalError):
    """Nothing is stored yet, for applications that expect Pony's error about a missing table."""

    def __init__(self, message: str, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.args = (message,)  # Pony's constructor takes those of the driver's error
        self.original_exc = self


class Database(Rebindable):
    """A Pony ``Database`` that can live in an object store. Everything else works as in Pony.

    Use :meth:`bind_s3` instead of ``bind``. ``bind`` still works, for tests on ``:memory:`` or a later PostgreSQL.
    """

    _seeder: Seeder | None = None
    _allow_stale_seeds: bool | None = None

    def bind_s3(
        self,
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
        """Keep this database in one object of a store.

        This method makes no request. The first session that touches the database does.

        Args:
            url: The object's URL: ``s3://bucket/key``, ``file:///folder/key`` or ``memory://name/key``. Without it,
                the settings come from the environment (``TEMAKI_URL``, …) or from ``[tool.temaki]``.
            strategy: The name or an instance of a strategy. The default is ``"etag-cached"``.
            store: A store of your own that holds the URL's key, instead of the store that the URL names.
            client: A boto3 S3 client to use, instead of one with boto3's own configuration.
            format: How a new database is stored. ``"file"`` (the default) stores it as one ordinary SQLite file, which
                each commit uploads whole. ``"pages"`` stores what each commit changes. A stored database keeps its
                format, whatever this says; ``temaki convert`` changes it.
            cache_dir: A folder for the working copy, which then outlives the process. Without it, the working copy is
                in a private temporary folder.
            allow_stale_seeds: Whether ``generate_mapping()`` may start with stored rows of ``Seeded`` entities if
                their source fails (for example, if ``get_rows`` raises). It then logs a warning.
            options: ``timeout`` in seconds, ``compact`` (``"auto"`` or ``"manual"``), and the options of the strategy.

        Raises:
            ConfigurationError: An argument, a variable or a setting in a file cannot work, or the database is already
                bound.
        """
        bind_s3(
            self,
            url,
            strategy=strategy,
            store=store,
            client=client,
            format=format,
            cache_dir=cache_dir,
            allow_stale_seeds=allow_stale_seeds,
            **options,
        )

    def unbind(self) -> None:
        """Release what the database is bound to: its working copy, its files, its lease and their threads.

        You can bind the database again afterwards, also to another place. Entities and mapping stay. Call
        :meth:`generate_mapping` again to create missing tables and rows there.

        The call does nothing if the database is not bound. Other databases of this process may be bound to the same
        URL. What they share with this one stays until they are unbound, too.

        Raises:
            ConfigurationError: A ``db_session`` is active, or a session of this database is open elsewhere.
        """
        unbind(self)

    @property
    def sync(self) -> Sync:
        """Counters, events and bookmarks of this database; see :class:`temaki.sync.Sync`.

        Raises:
            ConfigurationError: The database is not bound, or it is not bound to an object store.
        """
        return sync_of(self)

    def generate_mapping(
        self,
        filename: str | None = None,
        check_tables: bool = True,
        create_tables: bool = False,
        *,
        allow_stale_seeds: bool | None = None,
    ) -> None:
        """Map the entities to tables, create the missing tables, and store the rows of ``Seeded`` entities.

        If nothing is missing, this method writes nothing and blocks no other writer. If several processes start at
        once on an empty database, one of them creates it. The others find it complete.

        The rows of ``Seeded`` entities are stored in the transaction that creates the tables. With
        ``create_tables=False`` they are stored in a transaction of their own, if the tables exist.

        After :meth:`unbind` and another binding, the mapping exists already. Everything else happens as on the first
        call.

        Args:
            filename: As in Pony.
            check_tables: Whether to check that the tables and columns exist.
            create_tables: Whether to create missing tables.
            allow_stale_seeds: Whether rows of an earlier start may be kept, with a warning in the log, if the rows of
                an entity cannot be had. That is so if ``get_rows`` raises, if a file is missing, or if an entity with
                the policy ``"mirror"`` lists no rows. None: the setting of :meth:`bind_s3`, False by default.

        Raises:
            ConfigurationError: The database is not bound.
            SeedError: A row cannot be stored. Nothing was stored.
            TemakiError: The database could not be read or created.
        """
        if self.provider is None:
            raise unbound_error()
        if isinstance(self.provider, SQLiteProvider):
            self.provider.converter_classes = with_time(self.provider.converter_classes)
        self._allow_stale_seeds = allow_stale_seeds
        _ = self.schema  # raises if it was mapped for another kind of database
        declared = declarations(self)
        if self._was_unbound:
            self._was_unbound = False
            self._seeder = self._make_seeder(declared)
            if check_tables and not create_tables:
                self.check_tables()
            self._complete(create_tables=create_tables, check_tables=check_tables)
            return
        if not declared and not (isinstance(self.provider, StoreProvider) and create_tables):
            super().generate_mapping(filename, check_tables=check_tables, create_tables=create_tables)
            return
        super().generate_mapping(filename, check_tables=False, create_tables=False)
        if check_tables and not create_tables:
            self.check_tables()
        self._seeder = self._make_seeder(declared)
        self._complete(create_tables=create_tables, check_tables=check_tables)

    def _make_seeder(self, declared: list[Declaration]) -> Seeder | None:
        return make_seeder(self, declared, allow_stale=self._allow_stale_seeds)

    def _complete(self, *, create_tables: bool, check_tables: bool) -> None:
        Start(self, self._seeder).complete(create_tables=create_tables, check_tables=check_tables)

    def _complete_anew(self) -> None:
        """Create tables and rows of a mapped database in the place that it was bound to since."""
        self._seeder = self._make_seeder(declarations(self))
        self._complete(create_tables=True, check_tables=True)

    def create_tables(self, check_tables: bool = False) -> None:
        """Create the missing tables, as in Pony, with the rows of ``Seeded`` entities."""
        if self._seeder is None:
            super().create_tables(check_tables)
        else:
            self._complete(create_tables=True, check_tables=check_tables)

    def seed(self, *, force: bool = False) -> None:
        """Store the rows of ``Seeded`` entities as :meth:`generate_mapping` does, in a transaction of its own.

        Args:
            force: Whether to store rows again that were applied before. This overwrites changes that the application
                made in columns that the rows name.

        Raises:
            ConfigurationError: There is no mapping yet, or a ``db_session`` is active.
            SeedError: A row cannot be stored. Nothing was stored.
            TemakiError: The database could not be read or written.
        """
        if self.schema is None:
            raise ConfigurationError("seed() needs the tables: call generate_mapping() first.")
        if core.local.db_session is not None:
            raise ConfigurationError("seed() takes a transaction of its own: call it outside of the db_session.")
        Start(self, self._make_seeder(declarations(self))).seed(force=force)

    def check_tables(self) -> None:
        """Check that the tables exist, as in Pony. If there is no database at all, the error says so.

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
        """Insert a row, as in Pony.

        Raises:
            ConfigurationError: The database is not bound.
        """
        if self.provider is None:
            raise unbound_error()
        return super().insert(table_name, returning, **kwargs)

    def _exec_raw_sql(
        self, sql: str, variables: Any, local_variables: Any, frame_depth: int, start_transaction: bool = False
    ) -> Any:
        if self.provider is None:
            raise unbound_error()
        # The statement may name variables of the caller, who is one frame further away than Pony expects.
        return super()._exec_raw_sql(sql, variables, local_variables, frame_depth + 1, start_transaction)

    def _get_cache(self) -> Any:
        if self.provider is None:
            raise unbound_error()
        return super()._get_cache()
