"""The table ``temaki_seed``: which rows have been applied to this database.

One record for each origin (see :class:`temaki.orm.seed.source.Source`) that an entity's rows ever came from, numbered
in the order in which they were applied. Whether rows are due is decided by it alone:

- What was applied last is not applied again.
- Rows of an origin that is not on record are.
- Rows of the origin that was applied last, but others than then, are: they were computed, and have changed.
- Rows of an origin that others have replaced are not: an old version of the program is starting beside a new one.
- Where there are no rows to be had, and the user allows it, those of any origin on record will do.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from temaki.orm.seed.source import Source
from temaki.orm.seed.sql import Sql

TABLE = "temaki_seed"
_COLUMNS = ("entity", "origin", "fingerprint", "number")
_log = logging.getLogger("temaki.seed")


def add_table(db: Any) -> Any:
    """Make the ledger a table of the database's schema, so that it is created, and dropped, with the others."""
    schema, provider = db.schema, db.provider
    found = schema.tables.get(TABLE)
    if found is not None:
        return found
    table = schema.add_table(TABLE)
    columns = [
        table.add_column(
            name, "INTEGER" if kind is int else "VARCHAR(255)", provider.get_converter_by_py_type(kind), True
        )
        for name, kind in zip(_COLUMNS, (str, str, str, int), strict=True)
    ]
    table.add_index(None, tuple(columns[:2]), is_pk=True)
    return table


@dataclass(frozen=True)
class _Record:
    fingerprint: str
    number: int


class Ledger:
    """What is on record, read once.

    Args:
        db: The database, in a session.
    """

    def __init__(self, db: Any) -> None:
        # Not through Sql: this must not begin a transaction that writes.
        columns = ", ".join(map(db.provider.quote_name, _COLUMNS))
        found = db._exec_sql(f"SELECT {columns} FROM {db.provider.quote_name(TABLE)}").fetchall()  # noqa: SLF001
        self._records: dict[str, dict[str, _Record]] = {}
        self._next = 1
        for entity, origin, fingerprint, number in found:
            self._records.setdefault(entity, {})[origin] = _Record(fingerprint, number)
            self._next = max(self._next, number + 1)

    def is_due(self, source: Source) -> bool:
        """Whether rows are to be applied."""
        return self._why_not(source) is None

    def report(self, source: Source) -> None:
        """Say that rows are skipped, where somebody might wonder."""
        why_not = self._why_not(source)
        if why_not:
            _log.warning("%s: its rows are not applied: %s", source.entity.__name__, why_not)

    def _why_not(self, source: Source) -> str | None:
        """Why rows are not due; empty where they are what was applied last."""
        records = self._records.get(source.entity.__name__)
        if not records:
            return None
        last_origin, last = max(records.items(), key=lambda each: each[1].number)
        if last.fingerprint == source.fingerprint:
            return ""
        if source.unavailable is not None:
            return (
                f"there are none to be had, and those that are stored will do (allow_stale_seeds). {source.unavailable}"
            )
        if source.origin not in records or source.origin == last_origin:
            return None
        return "they were applied before, and others since. seed(force=True) applies them again."

    def record(self, sql: Sql, source: Source) -> None:
        """Write down that rows were applied; writes nothing where that is the last thing on record."""
        name = source.entity.__name__
        records = self._records.setdefault(name, {})
        last = max(records.items(), key=lambda each: each[1].number, default=None)
        if last is not None and last[1].fingerprint == source.fingerprint:
            return
        made = _Record(source.fingerprint, self._next)
        if source.origin in records:
            sql.update(TABLE, _COLUMNS[2:], _COLUMNS[:2], [((made.fingerprint, made.number), (name, source.origin))])
        else:
            sql.insert(TABLE, _COLUMNS, [(name, source.origin, made.fingerprint, made.number)])
        records[source.origin] = made
        self._next += 1
