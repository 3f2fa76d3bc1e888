"""Files of the working copy that others remove, replace or truncate: a commit is stored or raises, and the next works.

systemd-tmpfiles takes files one by one and by age, an administrator empties a folder, a container's disk is swapped.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from pony.orm import PrimaryKey, db_session, flush, select

from temaki import Database, TemakiError, cause_of
from temaki.stores.memory import MemoryStore
from tests.hooked import HookedStore
from tests.stored import fetched, opened

_number = count()


def remove(*patterns: str) -> Callable[[Path], None]:
    """Remove the files that match."""

    def act(folder: Path) -> None:
        for pattern in patterns:
            for path in folder.glob(pattern):
                path.unlink()

    return act


def truncate(pattern: str, part: float) -> Callable[[Path], None]:
    """Cut the files that match, in place."""

    def act(folder: Path) -> None:
        for path in folder.glob(pattern):
            with path.open("r+b") as file:
                file.truncate(int(path.stat().st_size * part))

    return act


def replace(pattern: str, *, in_place: bool) -> Callable[[Path], None]:
    """Put something else where the files are that match."""

    def act(folder: Path) -> None:
        for path in folder.glob(pattern):
            other = path.with_name("other")
            with closing(sqlite3.connect(other)) as connection:
                connection.execute("CREATE TABLE Row (name TEXT PRIMARY KEY)")
                connection.execute("INSERT INTO Row VALUES ('of another database')")
                connection.commit()
            if in_place:
                path.write_bytes(other.read_bytes())
                other.unlink()
            else:
                other.replace(path)

    return act


def swap_folder(folder: Path) -> None:
    """The same names, on another disk."""
    other = folder.with_name(f"{folder.name}-other")
    shutil.copytree(folder, other)
    shutil.rmtree(folder)
    other.rename(folder)


def replace_folder_by_file(folder: Path) -> None:
    """A file where the folder was."""
    shutil.rmtree(folder)
    folder.write_bytes(b"")


FAULTS: dict[str, Callable[[Path], None]] = {
    "main file removed": remove("*.sqlite"),
    "WAL removed": remove("*-wal"),
    "both removed": remove("*.sqlite", "*-wal"),
    "lock removed": remove("owner.lock"),
    "record removed": remove("clean.json"),
    "all removed": remove("*"),
    "folder removed": shutil.rmtree,
    "folder swapped": swap_folder,
    "folder replaced by a file": replace_folder_by_file,
    "main file truncated": truncate("*.sqlite", 0),
    "main file cut": truncate("*.sqlite", 0.5),
    "WAL truncated": truncate("*-wal", 0),
    "WAL cut": truncate("*-wal", 0.5),
    "main file replaced": replace("*.sqlite", in_place=False),
    "main file overwritten": replace("*.sqlite", in_place=True),
    "WAL replaced": replace("*-wal", in_place=False),
    "WAL overwritten": replace("*-wal", in_place=True),
}


class Application:
    """One database of rows, and the folder of its working copy."""

    def __init__(self, cache_dir: Path | None, strategy: str, form: str) -> None:
        self.bucket = MemoryStore()
        self.store = HookedStore(self.bucket)
        self.db = Database()

        class Row(self.db.Entity):  # type: ignore[name-defined]
            name = PrimaryKey(str)

        self.Row: Any = Row
        self.db.bind_s3(
            f"memory://vanishing-{next(_number)}/app.sqlite",
            store=self.store,
            cache_dir=cache_dir,
            strategy=strategy,
            format=form,
        )
        self.db.generate_mapping(create_tables=True)
        self.add("first")

    @property
    def folder(self) -> Path:
        """Where the working copy is."""
        folder = self.db.provider.engine.shared.replica._folder
        assert folder is not None
        return Path(folder.path)

    def add(self, name: str, between: Callable[[], object] = lambda: None, *, flushed: bool = True) -> None:
        """One row, with something else happening before it is stored."""
        with db_session:
            if flushed:
                self.Row(name=name)
                flush()
                between()
            else:
                select(r.name for r in self.Row)[:]
                between()
                self.Row(name=name)

    def names(self) -> list[str]:
        """What the process reads."""
        with db_session:
            return sorted(select(r.name for r in self.Row))

    def stored(self) -> list[str]:
        """What the store has, which must be whole."""
        with opened(fetched(self.bucket, "app.sqlite")) as connection:
            return sorted(name for (name,) in connection.execute("SELECT name FROM Row"))


@pytest.fixture(params=[("temporary", "file"), ("cache_dir", "file"), ("cache_dir", "pages")], ids="-".join)
def application(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], Application]]:
    """Makes an application whose working copy is below ``tmp_path``."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    made: list[Application] = []

    def make(strategy: str) -> Application:
        place, form = request.param
        made.append(Application(tmp_path / "cache" if place == "cache_dir" else None, strategy, form))
        return made[-1]

    yield make
    for one in made:
        one.db.disconnect()


def attempt(call: Callable[..., Any], *arguments: Any, **keywords: Any) -> bool:
    """Whether it worked; if not, it was temaki that said so."""
    try:
        call(*arguments, **keywords)
    except Exception as error:
        if not isinstance(cause_of(error), TemakiError):
            raise
        return False
    return True


def in_thread(call: Callable[[], object]) -> None:
    """A thread has connections of its own, which open the files by their names."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("strategy", ["etag-cached", "always-download", "lease-locked"])
@pytest.mark.parametrize("thread", [False, True], ids=["same thread", "new thread"])
def test_between_sessions(
    application: Callable[[str], Application], fault: str, strategy: str, *, thread: bool
) -> None:
    """The next session starts from a fresh copy by itself: it neither fails nor takes an absence for an answer."""
    app = application(strategy)

    def go_on() -> None:
        assert app.names() == ["first"]
        app.add("second")

    FAULTS[fault](app.folder)
    in_thread(go_on) if thread else go_on()
    assert app.names() == app.stored() == ["first", "second"]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("flushed", [False, True], ids=["before its first write", "after a write"])
def test_inside_a_session(application: Callable[[str], Application], fault: str, *, flushed: bool) -> None:
    """A commit is stored, or raises temaki's error; what comes next works either way."""
    app = application("etag-cached")
    worked = attempt(app.add, "second", lambda: FAULTS[fault](app.folder), flushed=flushed)
    assert app.stored() == (["first", "second"] if worked else ["first"])
    app.add("third")
    assert app.names() == app.stored() == (["first", "second", "third"] if worked else ["first", "third"])


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("moment", ["before", "after"])
def test_while_it_is_uploaded(application: Callable[[str], Application], fault: str, moment: str) -> None:
    """The same, at the moment in which the upload begins, or has just ended."""
    app = application("etag-cached")
    getattr(app.store, moment)["put"] = [lambda: FAULTS[fault](app.folder)]
    worked = attempt(app.add, "second")
    assert app.stored() == (["first", "second"] if worked else ["first"])
    app.add("third")
    assert app.names() == app.stored() == (["first", "second", "third"] if worked else ["first", "third"])


@pytest.mark.parametrize("fault", FAULTS)
def test_while_it_is_pulled(application: Callable[[str], Application], fault: str) -> None:
    """A pull that meets it fails with temaki's error, or works; the next session works."""
    app = application("always-download")
    app.store.after["get"] = [lambda: FAULTS[fault](app.folder)]
    attempt(app.names)
    assert app.names() == ["first"]
    app.add("second")
    assert app.names() == app.stored() == ["first", "second"]


def test_pinned_reader_and_a_truncated_wal(application: Callable[[str], Application]) -> None:
    """Frames that are not checkpointed yet are part of the next upload: cut away, they are not uploaded as zeros."""
    app = application("etag-cached")
    go, gone = threading.Event(), threading.Event()

    def read() -> None:
        with db_session:
            select(r.name for r in app.Row)[:]
            go.set()
            gone.wait(30)

    reader = threading.Thread(target=read)
    reader.start()
    go.wait(30)
    app.add("second")  # stays in the WAL
    worked = attempt(app.add, "third", lambda: FAULTS["WAL truncated"](app.folder))
    gone.set()
    reader.join()
    assert app.stored() == (["first", "second", "third"] if worked else ["first", "second"])
    assert app.names() == app.stored()


def test_cleaner_leaves_a_folder_alone_that_is_locked(application: Callable[[str], Application]) -> None:
    """systemd-tmpfiles skips a folder on which somebody holds a BSD lock: temaki does, on the folder itself."""
    import fcntl
    import os

    app = application("etag-cached")
    descriptor = os.open(app.folder, os.O_RDONLY)
    try:
        with pytest.raises(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(descriptor)
