"""The stored database is converted, maintained or replaced while somebody reads it, or is about to commit to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from pony.orm import db_session

from temaki import ConflictError, cause_of
from temaki.formats.choice import NAMES, by_number, open_stored
from temaki.formats.pages import maintain
from temaki.formats.pages.compact import compact
from temaki.formats.pages.maintain import GRACE, collect
from temaki.formats.pages.names import folder
from temaki.remote.remote import Remote, new_commit
from temaki.stores.memory import MemoryStore
from temaki.testing.clock import ManualClock
from temaki.testing.faulty import Fault, FaultyStore
from temaki.testing.simulation.caretaker import publish_file
from temaki.testing.strategies import KEY, Client
from temaki_strategies import EtagCached
from tests.hooked import HookedStore
from tests.integration.test_bad_pages import URL, Scene
from tests.threads import PATIENCE
from tests.unit.test_pages_cycle import limits


@pytest.fixture(autouse=True)
def _manual(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is compacted but by the test, and new databases are in pages."""
    monkeypatch.setenv("TEMAKI_FORMAT", "pages")
    monkeypatch.setenv("TEMAKI_COMPACT", "manual")
    with limits(TAIL_LIMIT=12 << 10, TAIL_KEEP=3 << 10):
        yield


def convert(bucket: MemoryStore, path: Path, to: str) -> None:
    """Store the current version in the other format, as ``temaki convert`` does."""
    remote = Remote(bucket, KEY, url=URL, clock=ManualClock())
    stored = remote.fetch(open_stored)
    assert stored is not None
    with stored:
        stored.save(path)
        version = stored.version
    publish_file(remote, path, version, by_number(NAMES[to]), new_commit(), version.sequence + 1)


def once(action: Callable[[], object]) -> Callable[[Any, str], None]:
    """Before the first GET of an object beside the head, the test's own code runs."""
    left = [action]

    def refuse(verb: Any, key: str) -> None:
        if verb == "get" and key.startswith(folder(KEY)) and left:
            left.pop()()

    return refuse


def in_thread(action: Callable[[], object]) -> None:
    """Run it in a thread of its own: a session within a session would be one with it."""
    thread = Thread(target=action)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive()


class TestReader:
    """A pull that began in one format ends in the other."""

    def test_a_file_becomes_pages(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """The download of a file breaks off, and meanwhile the database was converted: the reader gets the version."""
        monkeypatch.setenv("TEMAKI_FORMAT", "file")
        bucket = MemoryStore()
        writer = Client(bucket, EtagCached()).map(create_tables=True)
        with db_session:
            writer.Counter(id=1, value=7)
        broken = FaultyStore(bucket, plan=[("get", Fault.TRUNCATED)])
        store = HookedStore(broken, KEY)
        store.before["get"] = [lambda: None, lambda: convert(bucket, tmp_path / "copy.sqlite", "pages")]
        assert Client(store, EtagCached()).map().value() == 7
        assert broken.faults == [("get", KEY, Fault.TRUNCATED)]
        assert not store.before["get"]

    def test_pages_become_a_file(self, tmp_path: Path) -> None:
        """The head that was read names objects that are gone, because the database was converted long ago."""
        scene = Scene(value=7)

        def gone() -> None:
            convert(scene.bucket, tmp_path / "copy.sqlite", "file")
            for info in list(scene.bucket.list(folder(KEY))):
                scene.bucket.delete(info.key)

        scene.guarded.refusing(once(gone))
        assert scene.late().map().value() == 7


class TestWriter:
    """A commit needs the page numbers of a segment that was collected since the working copy was pulled."""

    @staticmethod
    def collected(scene: Scene) -> None:
        """What the current head does not name is deleted."""
        collect(scene.source)
        scene.clock.advance(2 * GRACE)
        assert collect(scene.source).deleted

    def test_another_commit_came_first(self) -> None:
        """It is an ordinary conflict: nothing is damaged."""
        scene = Scene()
        assert scene.running.value() == 0

        def overtake() -> None:
            with limits(FAN=2, TAIL_LIMIT=1 << 10, TAIL_KEEP=0):
                in_thread(scene.scribble)
            self.collected(scene)

        with limits(FAN=2, TAIL_LIMIT=1 << 10, TAIL_KEEP=0), pytest.raises(Exception) as caught:  # noqa: PT011
            scene.running.increment(retry=0, before_commit=lambda: scene.guarded.refusing(once(overtake)))
        assert isinstance(cause_of(caught.value), ConflictError)

    def test_it_was_only_maintained(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """Maintenance is no conflict: the commit is stored."""
        monkeypatch.setattr(maintain, "KEPT", 0)
        scene = Scene()
        assert scene.running.value() == 0

        def fold() -> None:
            done = compact(scene.source, tmp_path / "copy.sqlite")
            assert done is not None
            assert done.folded
            self.collected(scene)

        with limits(FAN=2, TAIL_LIMIT=1 << 10, TAIL_KEEP=0):
            value = scene.running.increment(retry=0, before_commit=lambda: scene.guarded.refusing(once(fold)))
            assert value == 1
        assert scene.late().map().value() == 1
