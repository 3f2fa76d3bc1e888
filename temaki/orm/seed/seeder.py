"""One start of a database with seeded entities: what is due, and applying it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from pony.orm import core

from temaki.orm.seed import ledger
from temaki.orm.seed.convert import prepare
from temaki.orm.seed.failure import failure
from temaki.orm.seed.ledger import Ledger
from temaki.orm.seed.links import check_references, set_links, write_sets
from temaki.orm.seed.mirror import delete_unlisted
from temaki.orm.seed.order import in_order
from temaki.orm.seed.source import Source, source_of
from temaki.orm.seed.sql import Sql
from temaki.orm.seed.write import write_rows
from temaki.orm.seeding import MIRROR, Declaration

_log = logging.getLogger("temaki.seed")
_POSTGRES_LOCK = 0x74656D616B69
"""Of those that start at once, one creates tables and seeds. "temaki", as a number."""


class Seeder:
    """Applies the rows of a database's entities.

    Rows are read, and ``get_rows()`` called, when this is made; its methods may be called again after a conflict.

    Args:
        db: The database, mapped.
        found: What its entities say.

    Raises:
        SeedError: Rows cannot be read.
    """

    def __init__(self, db: Any, found: Sequence[Declaration]) -> None:
        self._db = db
        self._sources = [source_of(declaration) for declaration in found]

    def add_ledger(self) -> None:
        """Let the table of what was applied be created with the others."""
        ledger.add_table(self._db)

    def has_tables(self) -> bool:
        """Whether all tables exist that rows may go to; in a session."""
        return all(self._exists(table) for name, table in self._db.schema.tables.items() if name != ledger.TABLE)

    def _exists(self, table: Any) -> bool:
        connection = self._db._get_cache().prepare_connection_for_query_execution()  # noqa: SLF001 - Pony's way in
        return table.exists(self._db.provider, connection, case_sensitive=False) is not None

    def is_due(self) -> bool:
        """Whether there is anything to apply; in a session that reads. Says what is skipped."""
        if not self._exists(ledger.add_table(self._db)):
            return True
        found = Ledger(self._db)
        for source in self._sources:
            found.report(source)
        return any(map(found.is_due, self._sources))

    def lock(self) -> None:
        """Wait for others that create tables or seed; first in a transaction. SQLite has one writer anyway."""
        sql = Sql(self._db)
        if sql.dialect == "PostgreSQL":
            sql.run("SELECT pg_advisory_xact_lock(%s)", (_POSTGRES_LOCK,))

    def apply(self, *, force: bool = False) -> None:
        """Apply what is due, or everything, within the current transaction.

        Raises:
            SeedError: Rows cannot be stored. The transaction is to be rolled back.
        """
        sql = Sql(self._db)
        table = ledger.add_table(self._db)
        if not self._exists(table):
            sql.run(table.get_create_command())
        book = Ledger(self._db)
        due = {source.entity: source for source in self._sources if force or book.is_due(source)}
        entities, later = in_order(list(due))
        self._write(sql, [due[entity] for entity in entities], later)
        for entity in entities:
            book.record(sql, due[entity])
        self._call_hooks(sql, [due[entity] for entity in entities])

    def _write(self, sql: Sql, sources: list[Source], later: set[Any]) -> None:
        written = []
        for source in sources:
            listed = source.read()
            rows = prepare(source.declaration, listed, later)
            check_references(sql, rows, [attr for attr in rows.references if attr not in later])
            written.append((rows, write_rows(sql, rows)))
            _log.info("%s: %d rows applied (%s)", source.entity.__name__, len(listed), source.declaration.policy)
        for rows, known in written:
            set_links(sql, rows, known)
        write_sets(sql, written)
        for rows, _ in reversed(written):
            if rows.declaration.policy == MIRROR:
                delete_unlisted(sql, rows)

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
            raise failure(names, f"after_seed left a row in {table} that refers to none in {parent}.")

    @staticmethod
    def _broken_links(sql: Sql) -> set[Any]:
        """In the transaction that creates tables, SQLite does not check foreign keys: Pony has that switched off."""
        if sql.dialect != "SQLite":
            return set()
        found = sql.run("PRAGMA foreign_key_check").fetchall()
        return {(table, rowid, number, parent) for table, rowid, parent, number in found}
