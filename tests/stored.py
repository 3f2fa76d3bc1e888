"""What a store holds, read without temaki: the file itself, or by the program that documents the bytes of ``pages``."""

from __future__ import annotations

import functools
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from temaki.store import Store
from tests.docs.pages import ROOT, snippets

PAGES = b"temaki pages 1\n"


@functools.cache
def documented_reader() -> Callable[[Path], bytes]:
    """The function ``read`` of the page about the bytes: a database in pages, whose head is a file."""
    page = ROOT / "docs" / "reference" / "pages-format.md"
    ((text, _),) = snippets(page)
    names: dict[str, Any] = {"__name__": "block"}
    exec(compile(text, str(page), "exec"), names)
    read: Callable[[Path], bytes] = names["read"]
    return read


def is_in_pages(path: Path) -> bool:
    """Whether a stored object is a head."""
    with path.open("rb") as file:
        return file.read(len(PAGES)) == PAGES


def database(path: Path) -> bytes:
    """The database that a file in a folder is, or is the head of: an SQLite file in rollback mode."""
    return documented_reader()(path) if is_in_pages(path) else path.read_bytes()


def fetched(store: Store, key: str) -> bytes:
    """The same for an object in a store, which nobody changes meanwhile."""
    with tempfile.TemporaryDirectory() as name:
        for info in [store.head(key), *store.list(f"{key}.pages/")]:
            path = Path(name, info.key)
            path.parent.mkdir(parents=True, exist_ok=True)
            download = store.get(info.key)
            assert download is not None
            with download, path.open("wb") as file:
                while piece := download.read(1 << 20):
                    file.write(piece)
        return database(Path(name, key))


@contextmanager
def opened(content: bytes) -> Iterator[sqlite3.Connection]:
    """A connection to a database that is whole."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.deserialize(content)
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        yield connection
