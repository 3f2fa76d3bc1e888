"""Trouble under a running process: a disk that is full, an object that is deleted or replaced."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration._children import Child, Place, in_both_formats
from tests.stored import database

PROGRAM = "_copy.py"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if (
        mount is None
        or subprocess.run([mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=False).returncode
    ):
        pytest.skip("mounting is not permitted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def _fill(place: Place, cache: Path, *, injected: bool) -> tuple[Child, list[list[str]]]:
    """A process that could not pull what is stored now, and what it was told each time."""
    place.run(PROGRAM, "create", place.url)
    child = place.start(PROGRAM, "on_a_full_disk", place.url, str(cache), injected)
    child.hear(0)
    place.run(PROGRAM, "increment", place.url, None, 2 << 20)
    return child, child.ask("there is a larger version")


def _assert_recovers(child: Child, refused: list[list[str]], cache: Path) -> None:
    assert [name for name, _ in refused] == ["WorkingCopyError"] * 3
    assert all(str(cache) in message and "No space left" in message for _, message in refused)
    assert sum(entry.stat().st_size for entry in cache.rglob("*.sqlite")) < 100_000, "nothing is left of the attempts"
    found = child.ask("there is room")
    assert found == {"before": 0, "still": 0, "after": 1, "next": 2, "check": "ok"}
    assert child.wait() == 0
    assert len(list(cache.rglob("*.sqlite"))) == 1


def test_full_disk(place: Place, small_disk: Path) -> None:
    """A pull that the disk has no room for is an error; the old version stays readable; with room it works again."""
    cache = small_disk / "cache"
    child, refused = _fill(place, cache, injected=False)
    subprocess.run(["mount", "-o", "remount,size=16m", small_disk], check=True)
    _assert_recovers(child, refused, cache)
    assert place.stored() == 2


@in_both_formats
def test_full_disk_by_injection(place: Place) -> None:
    """The same where no file system can be mounted."""
    _assert_recovers(*_fill(place, place.cache, injected=True), place.cache)
    assert place.stored() == 2


@pytest.fixture
def child(place: Place) -> Child:
    """A process that has seen the counter at 2; at 1 the object was saved under another key."""
    place.run(PROGRAM, "create", place.url)
    child = place.start(PROGRAM, "obey", place.url, str(place.cache))
    child.hear("ready")
    assert child.ask("increment") == 1
    place.run(PROGRAM, "save", place.url, "backup.sqlite")
    (place.root / "plain").write_bytes(database(place.object))
    assert child.ask("increment") == 2
    return child


def _restore(place: Place, *, by_another_tool: bool) -> None:
    if by_another_tool:
        (place.root / "plain").replace(place.object)
        place.format = "file"  # which temaki adopts
    else:
        place.run(PROGRAM, "save", place.url.replace("app.sqlite", "backup.sqlite"), "app.sqlite")


@in_both_formats
@pytest.mark.parametrize("by_another_tool", [False, True])
def test_older_version_is_restored(place: Place, child: Child, by_another_tool: bool) -> None:
    """A running process follows a restore back, and goes on from there; so does a new one."""
    _restore(place, by_another_tool=by_another_tool)
    assert [child.ask("value"), child.ask("increment"), child.ask("check")] == [1, 2, "ok"]
    assert place.run(PROGRAM, "look", place.url, None)["value"] == place.stored() == 2


@in_both_formats
@pytest.mark.parametrize("by_another_tool", [False, True])
def test_restored_in_the_middle_of_a_transaction(place: Place, child: Child, by_another_tool: bool) -> None:
    """A commit that was built on what has been replaced is refused, and its retry starts from the restored version."""
    assert child.ask("increment slowly") == "read"
    _restore(place, by_another_tool=by_another_tool)
    assert child.ask("go on") == 2
    assert place.stored() == 2


def test_another_database_is_put_there(place: Place, child: Child) -> None:
    """Its rows are what the next session reads, and what the next commit is built on."""
    other = place.url.replace("app", "other")
    place.run(PROGRAM, "create", other)
    for _ in range(5):
        place.run(PROGRAM, "increment", other, None, 10)
    place.run(PROGRAM, "save", other, "app.sqlite")
    assert [child.ask("value"), child.ask("increment"), child.ask("check")] == [5, 6, "ok"]
    assert place.stored() == 6


@in_both_formats
def test_deleted(place: Place, child: Child) -> None:
    """A deleted object is never taken for an empty database, in mid-transaction neither; a restore mends it."""
    assert child.ask("increment slowly") == "read"
    place.object.unlink()
    name, _ = child.ask("go on")
    assert name == "NotFoundError"
    for request in ("value", "increment", "value"):
        name, message = child.ask(request)
        assert (name, place.url in message, "is gone" in message) == ("NotFoundError", True, True)
    assert not place.object.exists()
    _restore(place, by_another_tool=False)
    assert [child.ask("value"), child.ask("increment")] == [1, 2]


@in_both_formats
def test_garbage_is_put_there(place: Place, child: Child) -> None:
    """What is no database raises and is not overwritten, also by a transaction that is under way."""
    assert child.ask("increment slowly") == "read"
    place.object.write_bytes(b"garbage" * 999)
    assert child.ask("go on")[0] in {"ConflictError", "CorruptDatabaseError"}
    for request in ("value", "increment"):
        assert child.ask(request)[0] == "CorruptDatabaseError"
    assert place.object.read_bytes() == b"garbage" * 999
    _restore(place, by_another_tool=False)
    assert [child.ask("value"), child.ask("increment")] == [1, 2]
