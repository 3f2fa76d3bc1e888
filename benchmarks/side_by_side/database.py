"""The database that all systems work on: one table of rows, and a filler that gives it its size."""

from __future__ import annotations

import random
import sqlite3
import struct
from contextlib import closing
from pathlib import Path
from typing import Final

ROWS: Final = 200
PAGE: Final = 4096
_MARK: Final = "row 1 is %012d"
_COUNTERS: Final = (24, 92)  # SQLite file format, section 1.3: the change counter, and what it was valid for


class Original:
    """A database as it was made, and as others would leave it. Rollback mode, 4096-byte pages.

    Args:
        path: Where to write it; the file may be removed afterwards.
        size: Bytes, about.
        seed: Of the filler.

    Attributes:
        data: Its bytes.
    """

    def __init__(self, path: Path, size: int, seed: int) -> None:
        random_bytes = random.Random(seed).randbytes
        with closing(sqlite3.connect(path)) as database:
            with database:
                database.execute(f"PRAGMA page_size = {PAGE}")
                database.execute("CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT NOT NULL, count INT NOT NULL)")
                database.executemany("INSERT INTO item VALUES (?, ?, 0)", [(n, _MARK % 0) for n in range(1, ROWS + 1)])
                database.execute("UPDATE item SET name = ? WHERE id = 1", (_MARK % 1,))
                database.execute("CREATE TABLE filler (data BLOB)")
            piece = 1 << 20
            for left in range(size - 5 * PAGE, 0, -piece):
                with database:
                    database.execute("INSERT INTO filler VALUES (?)", (random_bytes(min(piece, left)),))
        self.data = bytearray(path.read_bytes())
        path.unlink()
        self._at = self.data.index((_MARK % 1).encode())
        self._changes = 1

    def change(self) -> str:
        """Another one's commit: row 1 gets a new name, which is returned."""
        self._changes += 1
        name = _MARK % self._changes
        self.data[self._at : self._at + len(name)] = name.encode()
        (counter,) = struct.unpack_from(">I", self.data, _COUNTERS[0])
        for at in _COUNTERS:
            struct.pack_into(">I", self.data, at, counter + 1)
        return name

    def changed_pages(self) -> list[int]:
        """The numbers, from 0, of the pages that :meth:`change` changes."""
        return sorted({0, self._at // PAGE})


def row(path: Path, number: int) -> tuple[str, int]:
    """A row of a plain SQLite file."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        name, count = database.execute("SELECT name, count FROM item WHERE id = ?", (number,)).fetchone()
        return name, count
