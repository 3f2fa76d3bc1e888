"""The seeder: decides which rows of a database's entities are due, and applies them."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from pony.orm import core

from temaki.orm.seed import ledger
from temaki.orm.seed.failure import failure
from temaki.orm.seed.ledger import Ledger
from temaki.orm.seed.links import check_references, set_links, write_sets
from temaki.orm.seed.mirror import delete_unlisted
from temaki.orm.seed.order import in_order
from temaki.orm.seed.prepare import prepare
from temaki.orm.seed.readback import check_stored
from temaki.orm.seed.source import Source, source_of
from temaki.orm.seed.sql import Sql
from temaki.orm.seed.write import write_rows
from temaki.orm.seeding import MIRROR, Declaration

_log = logging.getLogger("temaki.seed")
_POSTGRES_LOCK = 0x74656D616B69
"""The key of the advisory lock that lets one start at a time create tables and seed: "temaki" as a number."""


class Seeder:
    """Applies the rows of a database's seeded entities.

    The constructor reads the rows and calls ``get_rows()``. The methods may be called again after a conflict.

    Args:
        db: The database, mapped.
        declared: The declarations of its seeded entities.
        allow_stale: Whether stored rows may be kept if the rows of an entity cannot be had.

    Raises:
        SeedError: The rows of an entity cannot be read.
    """

    def __init__(self, db: Any, declared: Sequence[Declaration], *, allow_stale: bool = False) -> None:
        self._db = db
        self._sources = [source_of(declaration, allow_stale=allow_stale) for declaration in declared]
        _check_width(db, [declaration.entity for declaration in declared])

    def add_ledger(self) -> None:
        """Add the ledger to the schema, so that it is created with the other tables."""
        ledger.add_table(self._db)

    def has_tables(self) -> bool:
        """Whether all tables exist, the ledger aside. Call this in a session."""
        return all(self._exists(table) for name, table in self._db.schema.tables.items() if name != ledger.TABLE)

    def _exists(self, table: Any) -> bool:
        connection = self._db._get_cache().prepare_connection_for_query_execution()  # noqa: SLF001 - Pony's way in
        return table.exists(self._db.provider, connection, case_sensitive=False) is not None

    def is_due(self) -> bool:
        """Whether any rows must be applied. Logs which rows are skipped. Call this in a session."""
        if not self._exists(ledger.add_table(self._db)):
            return True
        applied = Ledger(self._db)
        for source in self._sources:
            applied.report(source)
        return any(map(applied.is_due, self._sources))

    def lock(self) -> None:
        """Wait for other starts that create tables or seed. Call this first in a transaction.

        SQLite needs no lock, since it has one writer at a time.
        """
        sql = Sql(self._db)
        if sql.dialect == "PostgreSQL":
            sql.run("SELECT pg_advisory_xact_lock(%s)", (_POSTGRES_LOCK,))

    def apply(self, *, force: bool = False) -> None:
        """Apply the due rows in the current transaction.

        Args:
            force: Whether to apply all rows, due or not.

        Raises:
            SeedError: A row cannot be stored. The caller must roll the transaction back.
        """
        sql = Sql(self._db)
        table = ledger.add_table(self._db)
        if not self._exists(table):
            sql.run(table.get_create_command())
        applied = Ledger(self._db)
        due = {source.entity: source for source in self._sources if force or applied.is_due(source)}
        entities, later = in_order(list(due))
        self._write(sql, [due[entity] for entity in entities], later, force=force)
        for entity in entities:
            applied.record(sql, due[entity])
        self._call_hooks(sql, [due[entity] for entity in entities])

    def _write(self, sql: Sql, sources: list[Source], later: set[Any], *, force: bool) -> None:
        written = []
        for source in sources:
            listed = source.read()
            rows = prepare(source.declaration, listed, later)
            check_references(sql, rows, [attr for attr in rows.references if attr not in later])
            existing = write_rows(sql, rows)
            check_stored(sql, rows, listed, existing)
            written.append((rows, existing))
            _log.info("%s: %d rows applied (%s)", source.entity.__name__, len(listed), source.declaration.policy)
        for rows, existing in written:
            set_links(sql, rows, existing)
        write_sets(sql, written)
        for rows, _ in reversed(written):
            if rows.declaration.policy == MIRROR:
                delete_unlisted(sql, rows, force=force)

    def _call_hooks(self, sql: Sql, sources: list[Source]) -> None:
        hooked = [source.entity for source in sources if source.declaration.after_seed]
        if not hooked:
            return
        before = self._broken_links(sql)
        for entity in hooked:
            entity.after_seed()
        core.flush()
        broken = self._broken_links(sql) - before
        if broken:
            table, *_, parent = min(broken, key=repr)
            names = ", ".join(entity.__name__ for entity in hooked)
            raise failure(
                names,
                f"after_seed left a row in {table} that refers to none in {parent}. Correct after_seed().",
            )

    @staticmethod
    def _broken_links(sql: Sql) -> set[Any]:
        """Return the broken foreign keys of SQLite, which Pony does not check while it creates tables."""
        if sql.dialect != "SQLite":
            return set()
        violations = sql.run("PRAGMA foreign_key_check").fetchall()
        return {(table, rowid, number, parent) for table, rowid, parent, number in violations}


def _check_width(db: Any, entities: Sequence[Any]) -> None:
    """Check that SQLite allows so many columns. Its own error names neither the entity nor the limit.

    Raises:
        SeedError: A table has more columns than SQLite allows.
    """
    if db.provider.dialect != "SQLite":
        return
    with closing(sqlite3.connect(":memory:")) as connection:
        limit = connection.getlimit(sqlite3.SQLITE_LIMIT_COLUMN)
    for entity in entities:
        width = len(db.schema.tables[entity._table_].column_list)
        if width > limit:
            why = f"its table has {width} columns, and SQLite allows {limit} (SQLITE_MAX_COLUMN)."
            raise failure(entity, f"{why} Spread the attributes over several entities.")
