"""The store keeps what temaki needs of one; and a database can live in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
from pony.orm import Database, Required

from sqlite_store import SQLiteOpener, SQLiteStore
from temaki import db_session
from temaki.store import Store
from temaki.testing import StoreTests


class TestSQLiteStore(StoreTests):
    """Everything that temaki expects of a store, races included."""

    listed: ClassVar[int] = 50  # its listings have no pages
    rounds = 2  # every write waits for the disk

    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        """An empty one."""
        return SQLiteStore(tmp_path / "bucket.sqlite")


@pytest.fixture
def temaki_store(tmp_path: Path) -> Store:
    """For ``temaki_bind``: this store instead of one in memory."""
    return SQLiteStore(tmp_path / "bucket.sqlite")


def test_a_database_lives_in_it(temaki_bind: Any, temaki_store: SQLiteStore) -> None:
    """What was committed is there for who starts anew."""
    db = Database()

    class Note(db.Entity):  # type: ignore[name-defined]
        text = Required(str)

    temaki_bind(db)
    with db_session:
        Note(text="kept")
    temaki_bind(db)
    with db_session:
        assert [note.text for note in Note.select()] == ["kept"]
    assert [info.key for info in temaki_store.list()] == ["app.sqlite"]


def test_its_urls() -> None:
    """However a URL is written, its canonical form is the same; what names no object is refused."""
    opener = SQLiteOpener()
    assert opener.split("/srv/bucket.sqlite/app.sqlite") == ("/srv/bucket.sqlite", "app.sqlite")
    assert opener.join(*opener.split("/srv/x/..//bucket.sqlite/app.sqlite")) == "/srv/bucket.sqlite/app.sqlite"
    for rest in ("bucket.sqlite/app.sqlite", "/srv/bucket.sqlite/", "/app.sqlite", ""):
        with pytest.raises(ValueError, match=r"^it has no "):
            opener.split(rest)
