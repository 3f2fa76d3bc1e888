"""A worker of an application without ``retry``. See ``test_isolation_processes.py``."""

from __future__ import annotations

import secrets
from typing import Any

from pony.orm import Database, PrimaryKey, Required, db_session

import temaki
from tests.integration._worker import hear, main, say


def _bind(url: str, options: dict[str, Any], *, create: bool = False) -> Any:
    db = Database()

    class Room(db.Entity):  # type: ignore[name-defined]
        id = PrimaryKey(int)
        code = Required(str)
        saves = Required(int, default=0)

    temaki.bind_s3(db, url, strategy="lease-locked", **options)
    db.generate_mapping(create_tables=create)
    return Room


def create(url: str, rooms: int) -> None:
    """A row for each worker."""
    room = _bind(url, {}, create=True)
    with db_session:
        for number in range(rooms):
            room(id=number, code="none")


def save(url: str, number: int, times: int, options: dict[str, Any]) -> dict[str, Any]:
    """Read the worker's own row, and write it, again and again; which sessions failed, and the code stored last."""
    room = _bind(url, options)
    say("ready")
    hear()
    failed: list[str] = []
    returned = ""
    for _ in range(times):
        code = secrets.token_hex(4)
        try:
            with db_session:
                mine = room[number]
                mine.saves += 1
                mine.code = code
        except Exception as error:
            failed.append(repr(error))
        else:
            returned = code
    return {"failed": failed, "returned": returned}


def stored(url: str) -> list[list[Any]]:
    """All rows: code and saves."""
    room = _bind(url, {})
    with db_session:
        return [[one.code, one.saves] for one in room.select().order_by(room.id)]


if __name__ == "__main__":
    main(create, save, stored)
