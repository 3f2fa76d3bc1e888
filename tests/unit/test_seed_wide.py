"""Entities with as many columns as SQLite takes; and one more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pony.orm import PrimaryKey, Required, db_session

from temaki import Seeded, SeedError
from temaki.orm.seed.sql import balanced
from tests.seeds import mapped, memory

LIMIT = 2000
DEPTH = 1000


def wide(columns: int, value: int, rows: int = 3, **settings: Any) -> Any:
    """A program with an entity that has so many columns, its key among them."""
    listed = [{"id": row, **{f"c{number}": value for number in range(columns - 1)}} for row in range(rows)]
    return lambda db: Seeded.entity(db, "Wide", listed, **settings)


@pytest.mark.parametrize("columns", [DEPTH, DEPTH + 1, LIMIT])
@pytest.mark.parametrize("policy", ["upsert", "insert", "mirror"])
def test_every_policy_takes_as_many_as_sqlite(tmp_path: Path, columns: int, policy: str) -> None:
    """Rows are inserted, updated and deleted; and Pony reads them."""

    def file(db: Any) -> None:
        db.bind("sqlite", str(tmp_path / "wide.sqlite"), create_db=True)

    mapped(wide(columns, 1, seed_policy=policy), file)
    db = mapped(wide(columns, 2, rows=2, seed_policy=policy), file)
    found = {"upsert": [2, 2, 1], "insert": [1, 1, 1], "mirror": [2, 2]}[policy]
    with db_session:
        assert db.select(f"SELECT c{columns - 2} FROM Wide ORDER BY id") == found
        assert db.Wide[1].c7 == found[1]


@pytest.mark.parametrize("looking", [{"id": PrimaryKey(int), "seed_key": "code"}, {"seed_key": ("*",)}])
def test_so_do_rows_without_a_key(tmp_path: Path, looking: dict[str, Any]) -> None:
    """Those that are found by a look at the table, and updated one by one; or recognised by all that they name."""

    def file(db: Any) -> None:
        db.bind("sqlite", str(tmp_path / "wide.sqlite"), create_db=True)

    def define(value: int) -> Any:
        rows = [{f"c{number}": value for number in range(LIMIT - 2)} | {"code": 7}]
        key = {"id": PrimaryKey(int, auto=True), "code": Required(int, unique=True), "seed_key": looking["seed_key"]}
        return lambda db: Seeded.entity(db, "Wide", rows, **(key if looking["seed_key"] == "code" else {}))

    for value in (1, 2):
        db = mapped(define(value), file)
    with db_session:
        assert db.select("SELECT c1500 FROM Wide ORDER BY id") == ([2] if looking["seed_key"] == "code" else [1, 2])


def test_one_column_more_names_the_limit() -> None:
    """And the entity; no table is created."""
    with pytest.raises(SeedError, match=rf"Rows of Wide: its table has {LIMIT + 1} columns, and SQLite allows {LIMIT}"):
        mapped(wide(LIMIT + 1, 1), memory)


def test_conditions_are_not_deeper_than_sqlite_allows() -> None:
    """However many there are, all of them are there, and in groups."""
    assert balanced("AND", ["a"]) == "a"
    assert balanced("OR", ["a", "b"]) == "a OR b"
    made = balanced("OR", [f"x{number}" for number in range(20_000)])
    assert made.replace("(", "").replace(")", "") == " OR ".join(f"x{number}" for number in range(20_000))
    assert max(map(len, (group.split(" OR ") for group in made.split(")")))) <= 101
