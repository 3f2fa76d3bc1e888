"""SQL statements that Pony cannot build, in the dialect of each database."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from temaki.orm.seed.failure import failure

Values = tuple[Any, ...]

_DIFFERS = {"MySQL": "NOT ({0} <=> {1})", "SQLite": "{0} IS NOT {1}"}
_HAS_ON_CONFLICT = ("SQLite", "PostgreSQL", "CockroachDB")
_ROWS_PER_STATEMENT = 1000
_KEYS_PER_STATEMENT = 100
_CONDITIONS_PER_LEVEL = 100


class Sql:
    """Builds and runs statements in the current session of a database.

    Args:
        db: The database.

    Attributes:
        dialect: The name that Pony gives the kind of database.
        mark: The placeholder of a parameter.
        on_conflict: Whether the database has ``INSERT … ON CONFLICT``.
    """

    def __init__(self, db: Any) -> None:
        self._db = db
        provider = db.provider
        self._provider = provider
        self.dialect: str = provider.dialect
        if provider.paramstyle not in {"qmark", "format", "pyformat"}:
            raise failure(
                "any entity", f"{self.dialect} is not supported: rows can be seeded into SQLite, PostgreSQL and MySQL."
            )
        self.mark = "?" if provider.paramstyle == "qmark" else "%s"
        self.on_conflict = self.dialect in _HAS_ON_CONFLICT

    # -- words --------------------------------------------------------------------------------------------------------

    def name(self, name: Any) -> str:
        """Return the quoted name of a table or column."""
        quoted: str = self._provider.quote_name(name)
        return quoted if self.mark == "?" else quoted.replace("%", "%%")

    def names(self, names: Iterable[Any]) -> str:
        """Return quoted names, separated by commas."""
        return ", ".join(map(self.name, names))

    def marks(self, number: int) -> str:
        """Return placeholders of parameters, separated by commas."""
        return ", ".join([self.mark] * number)

    def equal(self, columns: Iterable[str]) -> str:
        """Return the condition that columns equal parameters."""
        return balanced("AND", [f"{self.name(column)} = {self.mark}" for column in columns])

    def differs(self, left: str, right: str) -> str:
        """Return the condition that two expressions differ. Either may be NULL."""
        return _DIFFERS.get(self.dialect, "{0} IS DISTINCT FROM {1}").format(left, right)

    def any_of(self, columns: Sequence[str], number: int) -> str:
        """Return the condition that columns equal one of ``number`` tuples of parameters."""
        if len(columns) == 1:
            return f"{self.name(columns[0])} IN ({self.marks(number)})"
        return f"({balanced('OR', [f'({self.equal(columns)})'] * number)})"

    # -- statements ---------------------------------------------------------------------------------------------------

    def run(self, sql: str, values: Sequence[Any] = ()) -> Any:
        """Run one statement in a transaction that writes.

        Returns:
            A cursor.
        """
        if self.mark != "?" and not values:
            sql = sql.replace("%%", "%")  # without parameters, the driver does not unescape
        return self._db._exec_sql(sql, tuple(values) or None, start_transaction=True)  # noqa: SLF001 - Pony's way in

    def run_each(self, sql: str, rows: Iterable[Values]) -> None:
        """Run one statement once for each row of parameters."""
        listed = list(rows)
        if listed:
            self._db._exec_sql(sql, listed, start_transaction=True)  # noqa: SLF001 - Pony's way in

    def insert(self, table: Any, columns: Sequence[str], rows: Sequence[Values], ending: str = "") -> None:
        """Insert rows: one by one into SQLite, which costs nothing extra, and many per statement into a server."""
        begin = f"INSERT INTO {self.name(table)} ({self.names(columns)}) VALUES "
        if not columns:
            begin = f"INSERT INTO {self.name(table)} DEFAULT VALUES"
            for _ in rows:
                self.run(begin)
            return
        row_marks = f"({self.marks(len(columns))})"
        if self.dialect == "SQLite":
            self.run_each(begin + row_marks + ending, rows)
            return
        for chunk in chunks(rows, max(1, min(_ROWS_PER_STATEMENT, self.limit // len(columns)))):
            self.run(begin + ", ".join([row_marks] * len(chunk)) + ending, [value for row in chunk for value in row])

    @property
    def limit(self) -> int:
        """The largest number of parameters in a statement."""
        limit: int = self._provider.max_params_count
        return limit

    def _keys_per_statement(self, columns: Sequence[str], others: int = 0) -> int:
        fitting = max(1, (self.limit - others) // len(columns))
        return fitting if len(columns) == 1 else min(_KEYS_PER_STATEMENT, fitting)

    def select(self, what: Sequence[str], table: Any, where: str = "", values: Sequence[Any] = ()) -> list[Values]:
        """Return the rows of a query."""
        sql = f"SELECT {self.names(what)} FROM {self.name(table)}" + (f" WHERE {where}" if where else "")
        return list(map(tuple, self.run(sql, values).fetchall()))

    def select_any_of(
        self,
        what: Sequence[str],
        table: Any,
        columns: Sequence[str],
        keys: Iterable[Values],
        also: tuple[str, Values] = ("", ()),
    ) -> Iterator[Values]:
        """Yield the rows whose columns equal one of the keys, in as many statements as needed.

        Args:
            what: The columns to return.
            table: The table.
            columns: The columns to compare.
            keys: The parameters of each key, one for each of ``columns``.
            also: Another condition, with its parameters.
        """
        condition, extra = also
        size = self._keys_per_statement(columns, len(extra))
        for chunk in chunks(keys, size):
            where = self.any_of(columns, len(chunk)) + condition
            yield from self.select(what, table, where, [value for key in chunk for value in key] + list(extra))

    def update(
        self, table: Any, columns: Sequence[str], key: Sequence[str], rows: Iterable[tuple[Values, Values]]
    ) -> None:
        """Set columns of the rows with these keys. Rows that would not change are not written.

        Args:
            table: The table.
            columns: The columns to set.
            key: The columns by which a row is found.
            rows: Pairs of the values of ``columns`` and the values of ``key``.
        """
        settings = ", ".join(f"{self.name(column)} = {self.mark}" for column in columns)
        changed = balanced("OR", [self.differs(self.name(column), self.mark) for column in columns])
        sql = f"UPDATE {self.name(table)} SET {settings} WHERE {self.equal(key)} AND ({changed})"
        self.run_each(sql, (values + key_values + values for values, key_values in rows))

    def delete(self, table: Any, columns: Sequence[str], keys: Sequence[Values]) -> None:
        """Delete the rows with these keys."""
        size = self._keys_per_statement(columns)
        for chunk in chunks(keys, size):
            sql = f"DELETE FROM {self.name(table)} WHERE {self.any_of(columns, len(chunk))}"
            self.run(sql, [value for key in chunk for value in key])

    def in_bulk(
        self,
        write: Callable[[Sequence[Any]], None],
        items: Sequence[Any],
        explain: Callable[[Any, Exception], Exception],
    ) -> None:
        """Write all items at once. If the database refuses, find the item that it refuses.

        Args:
            write: Writes some items.
            items: All items.
            explain: Returns the error to raise, from an item and the database's error.
        """
        if not items:
            return
        self.run("SAVEPOINT temaki_seed")
        try:
            write(items)
        except Exception:  # noqa: BLE001 - the database refused one of the items: the loop finds it
            self.run("ROLLBACK TO SAVEPOINT temaki_seed")
            for item in items:
                try:
                    write([item])
                except Exception as error:
                    raise explain(item, error) from error
        self.run("RELEASE SAVEPOINT temaki_seed")


def balanced(word: str, conditions: Sequence[str]) -> str:
    """Return conditions joined by AND or OR.

    A chain of a thousand is deeper than SQLite allows (SQLITE_MAX_EXPR_DEPTH), so long chains are nested in groups.
    """
    joined = f" {word} "
    while len(conditions) > _CONDITIONS_PER_LEVEL:
        conditions = [f"({joined.join(group)})" for group in chunks(conditions, _CONDITIONS_PER_LEVEL)]
    return joined.join(conditions)


def chunks(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Yield lists of at most ``size`` items."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
