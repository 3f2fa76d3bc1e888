"""The working copy on disk: what the next process trusts, what it does not, and who else can read it."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration._children import Place, in_both_formats

PROGRAM = "_copy.py"
REUSED = [["get", "not_modified"]]
PULLED = [["get", "ok"]]


@pytest.fixture
def used(place: Place) -> Place:
    """A database whose counter is at 1, and a cache folder with that version in it."""
    place.run(PROGRAM, "create", place.url)
    assert place.run(PROGRAM, "increment", place.url, str(place.cache), 10) == 1
    return place


def _look(place: Place, umask: int = 0o077) -> list[list[str]]:
    """Read in a new process with the cache folder; what it asked the store."""
    found = place.run(PROGRAM, "look", place.url, str(place.cache), umask)
    assert found["value"] == place.stored()
    calls: list[list[str]] = found["calls"]
    if place.format == "pages" and calls == [["get", "ok"]] * 2:
        return PULLED  # the head, and what is newer or the base
    return calls


@in_both_formats
def test_second_process_asks_once_and_downloads_nothing(used: Place) -> None:
    """A copy that was left clean costs the next process one conditional request, answered with "not modified"."""
    assert [_look(used) for _ in range(3)] == [REUSED] * 3
    used.run(PROGRAM, "increment", used.url, None, 10)
    assert [_look(used) for _ in range(2)] == [PULLED, REUSED]


def _change(**facts: Any) -> Callable[[Path], None]:
    def change(record: Path) -> None:
        record.write_text(json.dumps({**json.loads(record.read_text()), **facts}))

    return change


def _without_commit_id(record: Path) -> None:
    content = json.loads(record.read_text())
    del content["version"]["commit"]
    record.write_text(json.dumps(content))


TAMPERINGS: dict[str, Callable[[Path], object]] = {
    "no record": lambda record: record.unlink(),
    "truncated": lambda record: record.write_bytes(record.read_bytes()[:-20]),
    "empty": lambda record: record.write_bytes(b""),
    "garbage": lambda record: record.write_bytes(bytes(range(256))),
    "another kind of JSON": lambda record: record.write_text("[1, 2]"),
    "no commit id": _without_commit_id,
    "another boot": _change(boot="00000000-0000-0000-0000-000000000000"),
    "another format": _change(format=1),
    "another size": _change(size=4096),
    "a file that is not there": _change(file="777.sqlite"),
    "a file elsewhere": _change(file="../../bucket/app.sqlite"),
    "no file name": _change(file=None),
    "no version": _change(version=None),
}


@in_both_formats
def test_record_that_cannot_be_trusted(used: Place) -> None:
    """Without a clean record of this boot for exactly this file, the copy is thrown away and pulled again."""
    for name, tamper in TAMPERINGS.items():
        tamper(used.home() / "clean.json")
        assert (name, _look(used)) == (name, PULLED)
        assert len(list(used.home().glob("*.sqlite"))) == 1, name
    assert _look(used) == REUSED


@in_both_formats
def test_damaged_file(used: Place) -> None:
    """A file that was truncated behind its record's back is thrown away."""
    (file,) = used.home().glob("*.sqlite")
    os.truncate(file, 4096)
    assert [_look(used) for _ in range(2)] == [PULLED, REUSED]


@in_both_formats
def test_copy_of_another_database(used: Place) -> None:
    """A folder with the clean copy of another database, put there by mistake, is found out by its ETag."""
    mine, other = used.home(), used.url.replace("app", "other")
    used.run(PROGRAM, "create", other)
    used.run(PROGRAM, "look", other, str(used.cache))
    (theirs,) = (entry for entry in used.cache.iterdir() if entry != mine)
    shutil.rmtree(mine)
    shutil.copytree(theirs, mine)
    assert (mine / "clean.json").read_bytes() == (theirs / "clean.json").read_bytes()
    assert [_look(used) for _ in range(2)] == [PULLED, REUSED]


def test_nobody_else_can_read_it(place: Place) -> None:
    """Folders have mode 0700 and files 0600, whatever the umask, while it is in use and afterwards."""
    place.run(PROGRAM, "create", place.url)
    users = [place.start(PROGRAM, "obey", place.url, folder, 0) for folder in (str(place.cache), None)]
    for user in users:
        user.hear("ready")
        assert isinstance(user.ask("increment"), int)
    seen = _modes(place)
    assert len(seen) >= 8
    for user in users:
        user.tell("end")
        user.result()
    seen |= _modes(place)
    assert {name: mode for name, mode in seen.items() if mode not in {"drwx------", "-rw-------"}} == {}


def _modes(place: Place) -> dict[str, str]:
    found = [place.cache, *place.cache.rglob("*"), *place.tmp.rglob("*")]
    return {str(path.relative_to(place.root)): stat.filemode(path.lstat().st_mode) for path in found}


def test_symbolic_link_in_its_place(used: Place) -> None:
    """A link where the folder should be is neither followed nor replaced: the error names it."""
    home = used.home()
    elsewhere = used.root / "elsewhere"
    home.rename(elsewhere)
    home.symlink_to(elsewhere, target_is_directory=True)
    before = {entry.name: entry.stat().st_mtime_ns for entry in elsewhere.iterdir()}
    child = used.start(PROGRAM, "obey", used.url, str(used.cache))
    child.hear("ready")
    for _ in range(2):
        name, message = child.ask("value")
        assert name == "WorkingCopyError"
        assert str(used.cache) in message
        assert "not a folder that belongs to this user" in message
    assert {entry.name: entry.stat().st_mtime_ns for entry in elsewhere.iterdir()} == before
    assert home.is_symlink()


def test_private_folder_goes_at_exit(used: Place) -> None:
    """Without ``cache_dir`` nothing stays behind."""
    child = used.start(PROGRAM, "obey", used.url, None)
    child.hear("ready")
    assert child.ask("value") == 1
    assert len(used.private_folders()) == 1
    child.tell("end")
    child.result()
    assert used.private_folders() == []


def test_private_folder_of_a_killed_process(used: Place) -> None:
    """The next process removes it, and leaves alone what belongs to one that lives."""
    killed, living = (used.start(PROGRAM, "obey", used.url, None) for _ in range(2))
    for child in (killed, living):
        child.hear("ready")
        assert child.ask("value") == 1
    killed.end()
    assert len(used.private_folders()) == 2
    used.run(PROGRAM, "look", used.url, None)
    assert len(used.private_folders()) == 1
    assert living.ask("increment") == 2
    living.tell("end")
    living.result()
    assert used.private_folders() == []


def test_private_folder_of_a_process_that_was_killed_while_it_was_made(used: Place) -> None:
    """The same for one that died before it had locked its folder."""
    child = used.start(PROGRAM, "killed_while_its_folder_is_made", used.url)
    assert child.wait() < 0
    assert len(used.private_folders()) == 1
    used.run(PROGRAM, "look", used.url, None)
    assert used.private_folders() == []
