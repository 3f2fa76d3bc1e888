"""Small databases with seeded entities."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pony.orm import Optional, PrimaryKey, Required, Set, db_session

from temaki import Database, Seeded


def memory(db: Any) -> None:
    """Bind to a new database in memory."""
    db.bind("sqlite", ":memory:")


def mapped(define: Callable[[Any], None], bind: Callable[[Any], None] = memory, *, create_tables: bool = True) -> Any:
    """A program's start."""
    db = Database()
    define(db)
    bind(db)
    db.generate_mapping(create_tables=create_tables)
    return db


def roles(rows: Any, **settings: Any) -> Callable[[Any], None]:
    """A program with a seeded Role, and a User that is not."""

    def define(db: Any) -> None:
        namespace = {
            "__module__": __name__,
            "id": PrimaryKey(int),
            "label": Required(str, unique=True),
            "note": Optional(str),
            "users": Set("User"),
            **settings,
        }
        if rows is not None:
            namespace["rows"] = rows
        type(db.Entity)("Role", (db.Entity, Seeded), namespace)

        class User(db.Entity):
            name = Required(str)
            role = Required("Role")

    return define


def everything(db: Any, table: str = "Role") -> list[Any]:
    """All rows of a table."""
    with db_session:
        return sorted(db.execute(f'SELECT * FROM "{table}"').fetchall(), key=repr)
