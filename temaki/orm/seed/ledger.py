"""The ledger: the table ``temaki_seed``, which remembers which rows were applied to this database.

The table has one record for each origin (see :class:`temaki.orm.seed.source.Source`) that an entity's rows came from.
The records are numbered in the order in which they were applied. The ledger alone decides whether rows are due:

- Rows that were applied last are not due.
- Rows of an origin without a record are due.
- Rows of the origin that was applied last are due if they differ from then: they are computed, and have changed.
- Rows of an origin that another one has replaced are not due: an old version of the program starts beside a new one.
- If rows cannot be had, and the user allows it, the stored rows of any recorded origin are kept.
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
    """Add the ledger to the database's schema, so that Pony creates and drops it with the other tables.

    Returns:
        The table.
    """
    schema, provider = db.schema, db.provider
    table = schema.tables.get(TABLE)
    if table is not None:
        return table
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
    """The records of the ledger, read once.

    Args:
        db: The database, in a session.
    """

    def __init__(self, db: Any) -> None:
        # Sql would begin a transaction that writes. This must not.
        columns = ", ".join(map(db.provider.quote_name, _COLUMNS))
        stored = db._exec_sql(f"SELECT {columns} FROM {db.provider.quote_name(TABLE)}").fetchall()  # noqa: SLF001
        self._records: dict[str, dict[str, _Record]] = {}
        self._next = 1
        for entity, origin, fingerprint, number in stored:
            self._records.setdefault(entity, {})[origin] = _Record(fingerprint, number)
            self._next = max(self._next, number + 1)

    def is_due(self, source: Source) -> bool:
        """Whether the rows of a source must be applied."""
        return self._why_not(source) is None

    def report(self, source: Source) -> None:
        """Log a warning if rows are skipped for a reason that a user may not expect."""
        why_not = self._why_not(source)
        if why_not:
            _log.warning("%s: its rows are not applied: %s", source.entity.__name__, why_not)

    def _why_not(self, source: Source) -> str | None:
        """Return why rows are not due: empty if they were applied last, None if they are due."""
        records = self._records.get(source.entity.__name__)
        if not records:
            return None
        last_origin, last = max(records.items(), key=lambda each: each[1].number)
        if last.fingerprint == source.fingerprint:
            return ""
        if source.unavailable is not None:
            return f"they cannot be had, so the stored rows are kept (allow_stale_seeds). {source.unavailable}"
        if source.origin not in records or source.origin == last_origin:
            return None
        return "they were applied before, and other rows since. seed(force=True) applies them again."

    def record(self, sql: Sql, source: Source) -> None:
        """Record that rows were applied. Writes nothing if the last record says so already."""
        name = source.entity.__name__
        records = self._records.setdefault(name, {})
        last = max(records.items(), key=lambda each: each[1].number, default=None)
        if last is not None and last[1].fingerprint == source.fingerprint:
            return
        record = _Record(source.fingerprint, self._next)
        if source.origin in records:
            values = (record.fingerprint, record.number)
            sql.update(TABLE, _COLUMNS[2:], _COLUMNS[:2], [(values, (name, source.origin))])
        else:
            sql.insert(TABLE, _COLUMNS, [(name, source.origin, record.fingerprint, record.number)])
        records[source.origin] = record
        self._next += 1
