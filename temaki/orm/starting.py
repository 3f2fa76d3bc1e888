"""Starting a mapped database: create missing tables, store due rows, and try again if another start came first."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pony.orm import core

from temaki.errors import ConflictError, TemakiError
from temaki.orm.cause import cause_of
from temaki.orm.provider import StoreProvider
from temaki.orm.seeding import Declaration

if TYPE_CHECKING:
    from temaki.orm.seed.seeder import Seeder

_log = logging.getLogger(__name__)

_FIRST_STARTS = 20
"""How often a first start looks again after another start came first.

Each race has a winner. So many lost races in a row mean that something else is wrong.
"""


def make_seeder(db: core.Database, declared: list[Declaration], *, allow_stale: bool | None) -> Seeder | None:
    """Return the seeder for a database's declarations; None if there are none.

    Args:
        db: The database, bound and mapped.
        declared: The declarations of its seeded entities.
        allow_stale: Whether rows of an earlier start may replace rows that cannot be had. None: use the setting of
            the binding.

    Raises:
        SeedError: The rows of an entity cannot be read.
    """
    if not declared:
        return None
    from temaki.orm.seed.seeder import Seeder  # only databases with seeded entities pay for the import

    if allow_stale is None:
        allow_stale = isinstance(db.provider, StoreProvider) and db.provider.allow_stale_seeds
    return Seeder(db, declared, allow_stale=allow_stale)


@dataclass(frozen=True)
class Start:
    """One start of a database: its tables and its rows.

    Attributes:
        db: The database, bound and mapped.
        seeder: The seeder of its entities; None if none is seeded.
    """

    db: Any
    seeder: Seeder | None

    def complete(self, *, create_tables: bool, check_tables: bool) -> None:
        """Create the missing tables and store the due rows, in one transaction.

        Args:
            create_tables: Whether to create tables. Without it, only rows are stored.
            check_tables: Whether to check the tables after creating them.

        Raises:
            SeedError: A row cannot be stored. Nothing was stored.
            TemakiError: The database could not be read or written.
        """

        def write() -> None:
            if create_tables:
                self._create_and_seed(check_tables=check_tables)
            elif self.seeder is not None:
                self._seed_alone()

        if self.seeder is not None and create_tables:
            self.seeder.add_ledger()
        written = _write(lambda: self._is_behind(create_tables=create_tables), write)
        if check_tables and create_tables and not written:
            self.db.check_tables()

    def seed(self, *, force: bool) -> None:
        """Store the due rows in a transaction of their own.

        Args:
            force: Whether to store all rows, due or not.

        Raises:
            SeedError: A row cannot be stored. Nothing was stored.
            TemakiError: The database could not be read or written.
        """
        if self.seeder is not None:
            is_due = (lambda: True) if force else (lambda: self._is_behind(create_tables=False))
            _write(is_due, lambda: self._seed_alone(force=force))

    @core.db_session(ddl=True)
    def _create_and_seed(self, *, check_tables: bool) -> None:
        if self.seeder is not None:
            self.seeder.lock()
        schema, provider = self.db.schema, self.db.provider
        connection = self._connection()
        schema.create_tables(provider, connection)
        if check_tables:
            schema.check_tables(provider, connection)
        if self.seeder is not None:
            self.seeder.apply()

    @core.db_session(immediate=True)
    def _seed_alone(self, *, force: bool = False) -> None:
        assert self.seeder is not None, "rows are due"
        self.seeder.lock()
        self.seeder.apply(force=force)

    @core.db_session
    def _is_behind(self, *, create_tables: bool) -> bool:
        """Whether a table or an index is missing, or rows are due."""
        if create_tables:
            if self._lacks_tables():
                return True
        elif self.seeder is None or not self.seeder.has_tables():
            return False
        if self.seeder is None or not self.seeder.is_due():
            return False
        provider = self.db.provider
        if isinstance(provider, StoreProvider) and not provider.engine.writes:
            _log.warning("%s: rows are due, and the strategy never writes", provider.engine.url)
            return False
        return True

    def _lacks_tables(self) -> bool:
        """Whether a table or an index is missing, found in Pony's own way."""
        connection = self._connection()
        created: set[Any] = set()
        provider = self.db.provider
        return any(
            part.exists(provider, connection, case_sensitive=False) != provider.base_name(part.name)
            for table in self.db.schema.order_tables_to_create()
            for part in table.get_objects_to_create(created)
        )

    def _connection(self) -> Any:
        return self.db._get_cache().prepare_connection_for_query_execution()  # noqa: SLF001 - Pony's way in


def _write(is_behind: Callable[[], bool], write: Callable[[], None]) -> bool:
    """Write while something is missing. If another start came first, look again.

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
