"""Rows that cannot be had: an error that names them, or a start with what is stored, where that is allowed."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pony.orm import Optional, PrimaryKey, Required, db_session

from temaki import ConfigurationError, Database, Seeded, SeedError

ROWS = [{"code": "CH"}, {"code": "DE"}]


def down() -> Any:
    """The API does not answer."""
    raise ConnectionError("api.example: connection refused")


def half_down() -> Any:
    """It stops answering after a row."""
    yield ROWS[0]
    down()


OUTAGES: dict[str, Callable[[], Any]] = {
    "down": down,
    "half down": half_down,
    "None": lambda: None,
    "page": lambda: "<html>",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A store."""
    (tmp_path / "bucket").mkdir()
    return tmp_path / "bucket"


def start(
    folder: Path, answer: Callable[[], Any], policy: str = "upsert", *, mapping: Any = None, **options: Any
) -> Any:
    """A program whose rows come from elsewhere."""
    db = Database()

    class Country(db.Entity, Seeded):  # type: ignore[name-defined] # Pony has no types
        code = PrimaryKey(str)
        note = Optional(str)
        seed_policy = policy

        @classmethod
        def get_rows(cls) -> Any:
            return answer()

    db.bind_s3(f"file://{folder}/app.sqlite", **options)
    creates = options.get("strategy") != "read-only"
    db.generate_mapping(create_tables=creates, **(mapping or {}))
    return db


def stored(folder: Path) -> list[str]:
    """What the store has."""
    with sqlite3.connect(f"file:{folder}/app.sqlite?mode=ro", uri=True) as connection:
        return sorted(code for (code,) in connection.execute("SELECT code FROM Country"))


@pytest.mark.parametrize("policy", ["upsert", "mirror"])
@pytest.mark.parametrize("outage", OUTAGES)
@pytest.mark.parametrize("strategy", ["etag-cached", "read-only"])
def test_an_outage_is_an_error_that_names_the_entity(folder: Path, policy: str, outage: str, strategy: str) -> None:
    """And get_rows; the rows that are stored stay."""
    start(folder, lambda: ROWS, policy)
    with pytest.raises(SeedError, match=r"Rows of Country: get_rows (raised|gave)"):
        start(folder, OUTAGES[outage], policy, strategy=strategy)
    assert stored(folder) == ["CH", "DE"]


@pytest.mark.parametrize("policy", ["upsert", "mirror"])
@pytest.mark.parametrize("outage", OUTAGES)
@pytest.mark.parametrize("how", ["bind_s3", "generate_mapping", "environment"])
def test_stored_rows_do_where_that_is_allowed(
    folder: Path,
    policy: str,
    outage: str,
    how: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The start writes nothing, and the log says what happened. The next rows are applied as ever."""
    start(folder, lambda: ROWS, policy)
    before = (folder / "app.sqlite").stat().st_mtime_ns
    if how == "environment":
        monkeypatch.setenv("TEMAKI_ALLOW_STALE_SEEDS", "true")
    allowed: Any = {
        "bind_s3": {"allow_stale_seeds": True},
        "generate_mapping": {"mapping": {"allow_stale_seeds": True}},
        "environment": {},
    }[how]
    with caplog.at_level(logging.WARNING, "temaki.seed"):
        db = start(folder, OUTAGES[outage], policy, **allowed)
    assert "Country: its rows are not applied" in caplog.text
    assert "Rows of Country: get_rows" in caplog.text
    with db_session:
        assert db.Country["CH"]
    assert (folder / "app.sqlite").stat().st_mtime_ns == before
    start(folder, lambda: [*ROWS, {"code": "FR"}], policy, **allowed)
    assert stored(folder) == ["CH", "DE", "FR"]


def test_a_new_database_needs_its_rows(folder: Path) -> None:
    """Nothing is stored that could do instead; not even the tables are created."""
    with pytest.raises(SeedError, match="get_rows raised ConnectionError"):
        start(folder, down, allow_stale_seeds=True)
    assert not list(folder.iterdir())


def test_who_asks_for_the_rows_gets_the_error(folder: Path) -> None:
    """``seed(force=True)`` is about the rows of the source."""
    start(folder, lambda: ROWS)
    db = start(folder, down, allow_stale_seeds=True)
    db.seed()
    with pytest.raises(SeedError, match="get_rows raised ConnectionError"):
        db.seed(force=True)


def test_an_argument_beats_the_settings(folder: Path) -> None:
    """One program may insist on its rows, whatever its environment says."""
    start(folder, lambda: ROWS)
    with pytest.raises(SeedError, match="get_rows raised"):
        start(folder, down, allow_stale_seeds=True, mapping={"allow_stale_seeds": False})


def test_an_empty_answer_does_not_empty_the_table(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With ``"mirror"`` it would: an outage, too, unless somebody says ``force``."""
    start(folder, lambda: ROWS, "mirror")
    with pytest.raises(SeedError, match=r"get_rows gave none, and the policy 'mirror' would delete all.*\(2\)"):
        start(folder, list, "mirror")
    with caplog.at_level(logging.WARNING, "temaki.seed"):
        db = start(folder, list, "mirror", allow_stale_seeds=True)
    assert "get_rows gave none" in caplog.text
    assert stored(folder) == ["CH", "DE"]
    db.seed(force=True)
    assert stored(folder) == []
    start(folder, list, "mirror")


def test_an_empty_answer_is_no_outage_where_it_deletes_nothing(folder: Path) -> None:
    """A new table may be empty; and the other policies delete nothing."""
    start(folder, list, "mirror")
    start(folder, lambda: ROWS, "upsert")
    start(folder, list, "upsert")
    assert stored(folder) == ["CH", "DE"]


@pytest.mark.parametrize("value", ["maybe", 1, "true"])
def test_the_setting_is_true_or_false(folder: Path, value: Any) -> None:
    """The error says where it came from."""
    with pytest.raises(ConfigurationError, match="allow_stale_seeds= of bind_s3: expected True or False"):
        start(folder, lambda: ROWS, allow_stale_seeds=value)


def test_a_value_that_the_store_would_not_give_back_is_not_uploaded(folder: Path) -> None:
    """The rows are read back before the commit: a first start leaves nothing, a later one leaves what was there."""

    def mapped(at: datetime) -> Any:
        db = Database()

        class Event(db.Entity, Seeded):  # type: ignore[name-defined] # Pony has no types
            id = PrimaryKey(int)
            at_ = Required(datetime, column="at")
            rows = [{"id": 1, "at_": at}]  # noqa: RUF012

        db.bind_s3(f"file://{folder}/app.sqlite")
        db.generate_mapping(create_tables=True)
        return db

    aware = datetime(2026, 5, 6, 7, 8, tzinfo=UTC)
    with pytest.raises(SeedError, match=r"Rows of Event, row 1, at_=.*no time zone"):
        mapped(aware)
    assert not list(folder.iterdir())
    mapped(aware.replace(tzinfo=None))
    before = (folder / "app.sqlite").read_bytes()
    with pytest.raises(SeedError, match="no time zone"):
        mapped(aware.replace(hour=9))
    assert (folder / "app.sqlite").read_bytes() == before
