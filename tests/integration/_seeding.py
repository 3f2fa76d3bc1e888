"""Processes that start with seeded entities, at once. See ``test_seed_races.py``."""

from __future__ import annotations

from typing import Any

from pony.orm import PrimaryKey, Required, db_session

from temaki import Database, Seeded
from temaki.stores import open_store
from temaki.testing import CountingStore
from tests.integration._worker import hear, main, say


def _start(url: str, version: str, counting: Any) -> Any:
    db = Database()

    class Role(db.Entity, Seeded):  # type: ignore[name-defined]
        id = PrimaryKey(int)
        label = Required(str)
        rows = [{"id": number, "label": f"{version} {number}"} for number in range(50)]  # noqa: RUF012

    db.bind_s3(url, store=counting)
    db.generate_mapping(create_tables=True)
    with db_session:
        return sorted({role.label.split()[0] for role in Role.select()}), Role.select().count()


def start(url: str, version: str) -> dict[str, Any]:
    """Wait for the others, and start."""
    store, key = open_store(url)
    counting = CountingStore(store)
    say("ready")
    hear()
    versions, rows = _start(url, version, counting)
    return {"uploads": counting.count("put", "ok", key=key), "versions": versions, "rows": rows}


if __name__ == "__main__":
    main(start)
