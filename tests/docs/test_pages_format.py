"""The reader that the page about the bytes shows, against temaki."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from pony.orm import Database as PonyDatabase
from pony.orm import Required, db_session, delete

from temaki import bind_s3, unbind
from temaki.cli.target import Target
from tests.stored import documented_reader


@pytest.fixture
def read() -> Any:
    """The function ``read`` of the page."""
    return documented_reader()


def test_the_page_reads_what_temaki_writes(read: Any, tmp_path: Path) -> None:
    """The documented bytes are those that are written: tail, segments, merges, pages that were cut off, a new base."""
    folder = tmp_path / "bucket"
    folder.mkdir()
    db = PonyDatabase()

    class Note(db.Entity):  # type: ignore[name-defined]
        text = Required(str)

    url = f"file://{folder}/app.sqlite"
    bind_s3(db, url, format="pages", compact="manual")
    db.generate_mapping(create_tables=True)
    compared: set[tuple[bool, bool]] = set()

    def compare() -> None:
        expected = Target(url).fetch(tmp_path, name="pulled.sqlite").path
        assert read(folder / "app.sqlite") == expected.read_bytes()
        expected.unlink()
        raw = (folder / "app.sqlite").read_bytes()
        compared.add((b'"segments":[]' in raw, b'"tail":[]' in raw))

    compare()
    rng = random.Random(7)
    with db_session:
        for _ in range(600):
            Note(text=rng.randbytes(400).hex())
    for number in range(100):
        with db_session:
            Note[rng.randrange(1, 600)].text = rng.randbytes(400).hex()  # type: ignore[misc]
            Note(text=rng.randbytes(400).hex())
        if number % 10 == 0:
            compare()
    with db_session:
        delete(note for note in Note if note.id % 3)  # type: ignore[attr-defined]
    compare()
    with db_session(ddl=True):
        db.execute("DROP TABLE Note")
    compare()
    unbind(db)
    assert (False, False) in compared, "no head had segments and a tail"
