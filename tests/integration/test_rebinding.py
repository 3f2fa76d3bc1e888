"""A cell of a notebook that is run again, a module that is reloaded, and ``unbind``."""

from __future__ import annotations

import gc
import logging
import os
import tempfile
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import pony.orm
import pytest
from pony.orm import PrimaryKey, Required, db_session

import temaki
from temaki import ConfigurationError, Database, Seeded
from temaki.stores.memory import MemoryStore
from temaki.testing.servers import Server
from tests.threads import Background, in_thread, until


@pytest.fixture
def url() -> str:
    """A place of its own for each test."""
    return f"memory://rebinding-{uuid4().hex}/app.sqlite"


@pytest.fixture(autouse=True)
def private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where private working copies go."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    gc.collect()


def define(db: Any) -> Any:
    """One entity, with a row."""

    class Note(db.Entity, Seeded):
        id = PrimaryKey(int)
        text = Required(str)
        rows: ClassVar[list[dict[str, Any]]] = [{"id": 1, "text": "seed"}]

    return Note


class Notebook:
    """Names that a cell binds, and binds again when it is run again."""

    db: Any = None
    note: Any = None

    def run(self, url: str, **options: Any) -> int:
        """The cell; how many rows there are."""
        self.db = Database()
        self.note = define(self.db)
        self.db.bind_s3(url, **options)
        self.db.generate_mapping(create_tables=True)
        return self.add()

    def add(self) -> int:
        """One row more, read in a session of its own."""
        with db_session(immediate=True):
            self.note(id=1 + max(note.id for note in self.note.select()), text="more")
        with db_session:
            return int(self.note.select().count())


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({}, {"timeout": 3}),
        ({}, {"cache_dir": "one"}),
        ({"cache_dir": "one"}, {}),
        ({"cache_dir": "one"}, {"cache_dir": "two"}),
        ({"cache_dir": "one"}, {"cache_dir": "one", "timeout": 3}),
        ({"strategy": "lease-locked", "ttl": 20}, {"strategy": "lease-locked", "ttl": 5, "acquire_timeout": 9}),
        ({"strategy": "lease-locked", "hold": 60}, {"strategy": "lease-locked", "hold": 0}),
        ({"strategy": "lease-locked", "hold": 60}, {"strategy": "lease-locked", "timeout": 3}),
        ({"strategy": "lease-locked"}, {"strategy": "always-download"}),
    ],
)
def test_a_cell_that_is_run_again_with_other_options(
    url: str, tmp_path: Path, first: dict[str, Any], second: dict[str, Any]
) -> None:
    """The first Database is not used any more, so the second one has what it asks for, and waits for nothing."""
    notebook = Notebook()
    for number, options in enumerate((first, second, first)):
        arguments = dict(options)
        if "cache_dir" in arguments:
            arguments["cache_dir"] = tmp_path / arguments["cache_dir"]
        assert notebook.run(url, **arguments) == number + 2
        shared = notebook.db.provider.engine.shared
        assert shared.choices.timeout == arguments.get("timeout", 60)
        assert shared.replica.cache_dir == arguments.get("cache_dir")
        if "ttl" in arguments:
            assert shared.lease._made[0][0] == arguments["ttl"]
        assert notebook.db.sync.snapshot().seconds.get("wait", 0.0) < 5


def test_clients(moto: Server) -> None:
    """The same client twice is no conflict, alive or not; one that the cell makes anew is none if the first is gone."""
    url = f"s3://{moto.bucket()}/app.sqlite"

    def client() -> Any:
        return moto.client()

    one = client()
    notebook, other = Notebook(), Notebook()
    assert notebook.run(url, client=one) == 2
    assert other.run(url, client=one) == 3
    assert notebook.db.provider.engine.shared is other.db.provider.engine.shared
    with pytest.raises(ConfigurationError, match=r"another store or client.*unbind\(\)"):
        Notebook().run(url, client=client())
    other.db = other.note = None
    for number in range(4, 7):
        assert notebook.run(url, client=client()) == number


def test_another_store_is_another_one_while_the_first_is_used(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """An error, which names the way out; after that, it works. Another ``timeout`` is only a warning."""
    first, second = Notebook(), Notebook()
    first.run(url, store=MemoryStore(), timeout=5)
    with pytest.raises(ConfigurationError, match=r"already bound.*unbind\(\)"):
        second.run(url, store=MemoryStore())
    first.db.unbind()
    assert second.run(url, store=MemoryStore(), timeout=5) == 2
    third = Notebook()
    with caplog.at_level(logging.WARNING):
        third.run(url, store=second.db.provider.engine.shared.store, timeout=7)
    assert "timeout=5, which stays" in caplog.text


@pytest.mark.parametrize("strategy", ["etag-cached", "always-download", "lease-locked"])
def test_unbind_lets_go(url: str, private: Path, strategy: str) -> None:
    """Of files, descriptors, folder, lease and thread; the Database and its entities may live on."""
    bucket = MemoryStore()
    options: dict[str, Any] = {"hold": 60.0} if strategy == "lease-locked" else {}
    before = len(os.listdir("/proc/self/fd"))
    threads = threading.active_count()
    notebook = Notebook()
    notebook.run(url, store=bucket, strategy=strategy, **options)

    def keep_idle() -> None:
        notebook.add()
        until(lambda: notebook.db.provider is None)

    keeper = Background(keep_idle)  # with a connection of its own in its pool
    until(lambda: notebook.add() >= 4)
    shared = weakref.ref(notebook.db.provider.engine.shared)
    assert list(private.iterdir()) != []
    while notebook.db.provider is not None:
        try:
            notebook.db.unbind()
        except ConfigurationError:  # the other thread's session is open
            continue
    keeper.result()
    assert list(private.iterdir()) == []
    assert len(os.listdir("/proc/self/fd")) == before
    assert threading.active_count() == threads
    if strategy == "lease-locked":
        download = bucket.get("app.sqlite.lease")
        assert download is not None
        assert b'"held": false' in download.read(2000)
    gc.collect()
    assert shared() is None
    notebook.db.unbind()  # again is no error


def test_bound_again(url: str, tmp_path: Path) -> None:
    """To the same place, and to others; mapping and entities stay, tables and rows are made where they are missing."""
    notebook = Notebook()
    assert notebook.run(url, cache_dir=tmp_path) == 2
    notebook.db.unbind()
    with pytest.raises(ConfigurationError, match="not bound"), db_session:
        notebook.note.select()[:]
    notebook.db.bind_s3(url, cache_dir=tmp_path)
    assert notebook.add() == 3
    assert notebook.db.sync.snapshot().pulls == 0  # the cache folder was left in order
    notebook.db.unbind()
    notebook.db.bind_s3(url.replace("app", "other"), strategy="lease-locked")
    notebook.db.generate_mapping(create_tables=True)
    assert notebook.add() == 2
    notebook.db.unbind()
    notebook.db.bind("sqlite", ":memory:")
    notebook.db.generate_mapping(create_tables=True)
    assert notebook.add() == 2
    notebook.db.unbind()
    notebook.db.bind_s3(url)
    notebook.db.generate_mapping()
    assert notebook.add() == 4
    assert in_thread(notebook.add) == 5


def test_what_is_shared_stays(url: str) -> None:
    """Another Database on the same URL goes on, with its working copy."""
    one, two = Notebook(), Notebook()
    one.run(url)
    two.run(url)
    generation = two.db.provider.engine.shared.replica.current
    one.db.unbind()
    assert two.db.provider.engine.shared.replica.current is generation
    assert two.add() == 4
    two.db.unbind()
    one.db.bind_s3(url)
    assert one.add() == 5


def test_cells_that_were_run_before_are_in_nobodys_way(url: str, private: Path) -> None:
    """Unbinding the last of several that were bound in turn lets go of all: nobody refers to the others."""
    notebook = Notebook()
    for _ in range(3):
        notebook.run(url)
    notebook.db.unbind()
    assert list(private.iterdir()) == []


def test_not_while_a_session_is_open(url: str) -> None:
    """In this thread or another one: the session's end would find nothing. Afterwards it works."""
    notebook = Notebook()
    notebook.run(url)
    with db_session, pytest.raises(ConfigurationError, match="inside of a db_session"):
        notebook.db.unbind()
    read, go_on = threading.Event(), threading.Event()

    @db_session
    def slow() -> int:
        found = len(notebook.note.select()[:])
        read.set()
        go_on.wait(30)
        notebook.note(id=100, text="late")
        return found

    other = Background(slow)
    read.wait(30)
    with pytest.raises(ConfigurationError, match="1 of its sessions are open"):
        notebook.db.unbind()
    go_on.set()
    assert other.result() == 2
    assert notebook.add() == 4
    notebook.db.unbind()


def test_a_plain_database(url: str) -> None:
    """``temaki.unbind`` for ``pony.orm.Database``."""
    db = pony.orm.Database()

    class Note(db.Entity):  # type: ignore[name-defined]
        text = Required(str)

    for name in ("one", "two"):
        temaki.bind_s3(db, url.replace("app", name))
        if db.schema is None:
            db.generate_mapping(create_tables=True)
        else:
            db.create_tables()
        with db_session:
            Note(text=name)
        with db_session:
            assert [note.text for note in Note.select()] == [name]
        temaki.unbind(db)


def test_sync_of_what_is_unbound(url: str) -> None:
    """An object that was kept tells its numbers, and asks for nothing any more."""
    notebook = Notebook()
    notebook.run(url)
    sync = notebook.db.sync
    bookmark = sync.bookmark()
    notebook.db.unbind()
    assert sync.snapshot().commits == 2
    with pytest.raises(ConfigurationError, match="not bound"):
        sync.wait_for(bookmark, 1)
