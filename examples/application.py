"""An application as one writes it: its database is a module's own, and is bound when the application starts."""

from __future__ import annotations

from pony.orm import Required, select

from temaki import Database, db_session

db = Database()


class Employee(db.Entity):  # type: ignore[name-defined] # Pony has no types
    """Somebody who works here."""

    name = Required(str, unique=True)


def start() -> None:
    """What the program does first: the URL comes from the environment or a file."""
    db.bind_s3()
    db.generate_mapping(create_tables=True)


@db_session(retry=5)
def hire(name: str) -> None:
    """Somebody new."""
    Employee(name=name)


@db_session
def names() -> list[str]:
    """Who works here."""
    return sorted(select("employee.name for employee in Employee"))
