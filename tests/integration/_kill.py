"""Processes that are killed while they commit, and those that come after them. See ``test_kill.py``."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from temaki.engine.session import EngineSession
from temaki.formats.file import StoredFile
from temaki.formats.pages import maintain, upkeep
from temaki.formats.pages.claim import Claim
from temaki.formats.pages.format import StoredPages
from temaki.formats.pages.objects import Objects
from temaki.replica.folder import Folder
from temaki.replica.generation import Generation
from temaki.replica.replica import Replica
from temaki.stores.directory import DirectoryStore
from tests.integration._tripwire import Tripwire
from tests.integration._worker import COMPACTS, Application, Forked, create, kill_myself, main
from tests.stored import database, opened

LARGE = 60_000
"""Bytes in a row that makes the database grow by several pages, and its checkpoint take several writes."""


def _replace(owner: Any, name: str, *, before: bool = False, act: Callable[..., object] = kill_myself) -> None:
    """Have ``act`` called before or after a method, with its arguments."""
    original = getattr(owner, name)

    def replacement(*args: Any, **kwargs: Any) -> Any:
        if before:
            act(*args, **kwargs)
        result = original(*args, **kwargs)
        if not before:
            act(*args, **kwargs)
        return result

    setattr(owner, name, replacement)


def _die_beyond(size: int) -> None:
    """Have the system kill this process when it writes a file beyond so many bytes: in the middle of SQLite."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def _half_a_checkpoint(generation: Generation, *_: object) -> None:
    _die_beyond(os.stat(generation.path).st_size + 5 * 4096)


def _half_a_record(folder: Folder, *_: object) -> None:
    for entry in folder.path.iterdir():
        if entry.name.startswith("clean.json"):
            entry.write_bytes(entry.read_bytes()[: entry.stat().st_size // 2])
    kill_myself()


def _never_record() -> None:
    """The clean record is on its way and never gets its name."""
    for owner in (os, Path):  # however it is done
        _replace_rename(owner)


def _replace_rename(owner: Any) -> None:
    real = owner.replace

    def replace(source: Any, target: Any, **kwargs: Any) -> Any:
        if os.path.basename(source).startswith("clean.json"):
            kill_myself()
        return real(source, target, **kwargs)

    owner.replace = replace


def _at_the_head(_store: DirectoryStore, key: str, *_: object, **__: object) -> None:
    """The object that makes a commit: in pages others come before it."""
    if "/" not in key:
        kill_myself()


def _beside_the_head(_store: DirectoryStore, key: str, *_: object, **__: object) -> None:
    if "/" in key:
        kill_myself()


POINTS: dict[str, Callable[[], None]] = {
    "before the upload": lambda: _replace(DirectoryStore, "put", before=True, act=_at_the_head),
    "after the upload has landed": lambda: _replace(DirectoryStore, "put", act=_at_the_head),
    "before the local commit": lambda: _replace(Replica, "commit_locally", before=True),
    "between local commit and upload": lambda: _replace(Replica, "commit_locally"),
    "before the upload's image is made": lambda: _replace(EngineSession, "prepare", before=True),
    "between upload and acknowledgement": lambda: _replace(EngineSession, "publish"),
    "before the checkpoint": lambda: _replace(Generation, "acknowledge", before=True),
    "half-way through the checkpoint": lambda: _replace(Generation, "acknowledge", before=True, act=_half_a_checkpoint),
    "after the checkpoint": lambda: _replace(Generation, "acknowledge"),
    "before the clean record": lambda: _replace(Replica, "settle", before=True),
    "while the clean record gets its name": _never_record,
    "after half a clean record": lambda: _replace(Folder, "record", act=_half_a_record),
    "after the clean record": lambda: _replace(Folder, "record"),
    "before the clean record is withdrawn": lambda: _replace(Folder, "forget", before=True),
    "after the clean record is withdrawn": lambda: _replace(Folder, "forget"),
    "before a pull is saved": lambda: _replace(StoredFile, "save", before=True),
    "half-way through a pull": lambda: _replace(StoredFile, "save", before=True, act=lambda *_: _die_beyond(4096)),
    "after a pull is saved": lambda: _replace(StoredFile, "save"),
    "while a pull becomes a generation": lambda: _replace(Generation, "_open_guard"),
    "after a pull has become a generation": lambda: _replace(Replica, "install"),
    "while the folder is looked through": lambda: _replace(Folder, "reuse", before=True),
}


def _at_a_base(_objects: Objects, name: str, *_: object) -> None:
    if name.startswith("base"):
        kill_myself()


PULLS: dict[str, Callable[[], None]] = {
    "before a pull is saved": lambda: _replace(StoredPages, "save", before=True),
    "half-way through a pull": lambda: _replace(StoredPages, "save", before=True, act=lambda *_: _die_beyond(4096)),
    "after a pull is saved": lambda: _replace(StoredPages, "save"),
    "while a pull becomes a generation": lambda: _replace(Generation, "_open_guard"),
    "after a pull has become a generation": lambda: _replace(Replica, "install"),
}
"""Points of a full pull of pages, to which a process without a working copy comes."""
IN_PAGES: dict[str, Callable[[], None]] = {
    **{name: plant for name, plant in POINTS.items() if name not in PULLS},
    "before a segment is uploaded": lambda: _replace(DirectoryStore, "put", before=True, act=_beside_the_head),
    "after a segment is uploaded": lambda: _replace(DirectoryStore, "put", act=_beside_the_head),
    "before a catch-up": lambda: _replace(Replica, "catch_up", before=True),
    "before a catch-up's pages are written": lambda: _replace(Generation, "catch_up", before=True),
    "after a catch-up's pages are written": lambda: _replace(Generation, "catch_up"),
    "after a catch-up": lambda: _replace(Replica, "catch_up"),
    "before a fold": lambda: _replace(upkeep, "fold_from", before=True),
    "in a fold, when it has claimed the head": lambda: _replace(maintain, "_claimed"),
    "in a fold, before its base is uploaded": lambda: _replace(Objects, "put", before=True, act=_at_a_base),
    "in a fold, after its base is uploaded": lambda: _replace(Objects, "put", act=_at_a_base),
    "in maintenance, before its end is swapped in": lambda: _replace(Claim, "end", before=True),
    "after a fold": lambda: _replace(upkeep, "fold_from"),
    "before a merge": lambda: _replace(upkeep, "merge_from", before=True),
    "after a merge": lambda: _replace(upkeep, "merge_from"),
    "before a collection": lambda: _replace(upkeep, "collect", before=True),
    "in a collection, before it deletes": lambda: _replace(maintain, "remove", before=True),
    "in a collection, after its first deletion": lambda: _replace(DirectoryStore, "delete"),
    "after a collection": lambda: _replace(upkeep, "collect"),
}


class Trials:
    """Kills a process after the other, and looks at what each has left.

    Args:
        url: The database's.
        cache_dir: The working copy that they all use, one after the other.

    Attributes:
        compact: Whether those that are killed maintain the database.
    """

    def __init__(self, url: str, cache_dir: str) -> None:
        self.url, self.cache = url, Path(cache_dir)
        self.object = Path(url.removeprefix("file://"))
        self.journal = self.cache.with_name("journal")
        self.compact = "auto"
        Forked(create, url).result()

    def run(self, doom: Callable[[], object], *, pulls: bool, moment: float | None = None) -> dict[str, Any]:
        """One process that commits until it is killed; what the next one finds.

        Args:
            doom: Called in the process before it commits.
            pulls: Whether another client has stored a version before, so that it begins with a pull.
            moment: Seconds until it is killed from outside.
        """
        if pulls:
            Forked(self._increment_elsewhere).result()
        before = self.stored()
        self.journal.write_bytes(b"")
        doomed = Forked(self._commit_for_ever, doom)
        if moment is not None:
            doomed.kill_after(moment)
        code, _ = doomed.end()
        return {
            "code": code,
            "acknowledged": before + self.journal.read_bytes().count(b"\n"),
            "stored": self.stored(),
            "clean": any(self.cache.glob("*/clean.json")),
            **Forked(self._look).result(),
        }

    def stored(self) -> int:
        """The counter in the stored database, read without temaki."""
        with opened(database(self.object)) as connection:
            ((value,),) = connection.execute("SELECT value FROM Counter")
        return int(value)

    def _increment_elsewhere(self) -> None:
        Application(self.url).increment(size=LARGE)

    def _commit_for_ever(self, doom: Callable[[], object]) -> None:
        journal = os.open(self.journal, os.O_WRONLY | os.O_APPEND)
        app = Application(self.url, cache_dir=self.cache, compact=self.compact)
        doom()
        while True:
            app.increment(size=LARGE)
            os.write(journal, b"acknowledged\n")
            if app.value() % 10 == 0:
                self._shrink(app)

    @staticmethod
    def _shrink(app: Application) -> None:
        """A commit that is none of the counted ones: the database must not grow for ever."""
        with app.session():
            app.db.execute("update Row set text = ''")

    def _look(self) -> dict[str, Any]:
        """What a new process with the same cache reads, twice, and whether it can go on."""
        app = Application(self.url, cache_dir=self.cache)
        read = app.value()
        integrity = app.check()
        names = [entry.name for folder in self.cache.iterdir() for entry in folder.iterdir()]
        return {
            "read": read,
            "integrity": integrity,
            "next": app.increment(),
            "folders": len(list(self.cache.iterdir())),
            "databases": sum(name.endswith(".sqlite") for name in names),
        }


def at_random_moments(url: str, cache_dir: str, seed: int, times: int) -> list[dict[str, Any]]:
    """Kill processes from outside."""
    trials, rng = Trials(url, cache_dir), random.Random(seed)
    return [trials.run(lambda: None, pulls=rng.random() < 0.3, moment=rng.uniform(0, 0.1)) for _ in range(times)]


def at_planted_points(url: str, cache_dir: str) -> dict[str, dict[str, Any]]:
    """Kill a process at each of the points."""
    trials = Trials(url, cache_dir)
    if not os.environ.get(COMPACTS):
        return {name: trials.run(plant, pulls=True) for name, plant in POINTS.items()}
    found = {}
    for name, plant in IN_PAGES.items():
        trials.compact = "manual" if name in POINTS else "auto"  # its uploads are no commits
        found[name] = trials.run(plant, pulls=True)
    for name, plant in PULLS.items():
        shutil.rmtree(trials.cache)
        found[name] = trials.run(plant, pulls=True)
    return found


def at_lines(url: str, cache_dir: str, seed: int, stride: int) -> dict[str, dict[str, Any]]:
    """Kill a process just before a line of temaki that its first two sessions run; of all lines, one in so many."""
    trials = Trials(url, cache_dir)
    Forked(trials._increment_elsewhere).result()
    lines = Forked(_lines, url, str(trials.cache)).result()
    start = random.Random(seed).randrange(stride)
    found = {}
    for line in lines[start::stride]:
        # As when the lines were listed: whoever finds a copy to reuse does not come by all of them.
        shutil.rmtree(trials.cache)
        found[line] = trials.run(Tripwire(kill_myself, line).__enter__, pulls=True)
    return found


def _lines(url: str, cache_dir: str) -> list[str]:
    app = Application(url, cache_dir=cache_dir)
    with Tripwire(kill_myself, None) as wire:
        app.increment()
        app.value()
    return list(wire.passed)


if __name__ == "__main__":
    main(at_random_moments, at_planted_points, at_lines)
