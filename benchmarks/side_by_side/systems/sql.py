"""The sessions in SQL, for what works with a plain connection: ``sqlite3`` and ``apsw`` alike."""

from __future__ import annotations

from typing import Any


def read(connection: Any) -> tuple[str, int]:
    """Row 1."""
    name, count = next(iter(connection.execute("SELECT name, count FROM item WHERE id = 1")))
    return name, count


def commit(connection: Any, rows: int, name: str) -> None:
    """One transaction."""
    with connection:
        for number in range(2, rows + 2):
            connection.execute("UPDATE item SET name = ? WHERE id = ?", (name, number))


def increment(connection: Any) -> int:
    """One transaction."""
    with connection:
        connection.execute("UPDATE item SET count = count + 1 WHERE id = 1")
        return read(connection)[1]
