"""Several processes write to one database: no update is lost, nobody fails, nobody disturbs another's working copy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from temaki.testing import Server
from tests.integration._children import Place, in_both_formats

PROGRAM = "_increments.py"


def _acknowledged(
    place: Place, url: str, processes: int, threads: int, times: int, env: Mapping[str, str], *, lossy: bool = False
) -> list[int]:
    """Run so many incrementing processes at once; the values whose increments have returned."""
    place.run(PROGRAM, "create", url, env=env)
    journals = [place.root / f"journal-{number}" for number in range(processes)]
    children = [
        place.start(PROGRAM, "increment", url, threads, times, str(journal), number if lossy else None, env=env)
        for number, journal in enumerate(journals)
    ]
    for child in children:
        child.hear("ready")
    for child in children:
        child.tell()
    last = [child.result() for child in children]
    acknowledged = [int(line) for journal in journals for line in journal.read_text().splitlines()]
    assert max(last) == len(acknowledged), "the process that ended last has seen them all"
    return acknowledged


def _assert_none_lost(acknowledged: list[int], expected: int, found: int) -> None:
    assert sorted(acknowledged) == list(range(1, expected + 1)), "each increment that returned made a value of its own"
    assert found == expected


@in_both_formats
@pytest.mark.parametrize(("processes", "threads", "times"), [(4, 1, 15), (3, 3, 4)])
def test_no_increment_is_lost_in_a_folder(place: Place, processes: int, threads: int, times: int) -> None:
    """No lost update: processes, and threads in them, end at exactly the number of increments that returned."""
    acknowledged = _acknowledged(place, place.url, processes, threads, times, {})
    _assert_none_lost(acknowledged, processes * threads * times, place.stored())
    assert place.run(PROGRAM, "value", place.url) == len(acknowledged)
    assert place.private_folders() == []


@in_both_formats
def test_no_increment_is_lost_or_doubled_when_replies_are(place: Place) -> None:
    """A commit that landed without a reply is neither taken for a conflict nor made twice."""
    acknowledged = _acknowledged(place, place.url, 4, 1, 10, {}, lossy=True)
    _assert_none_lost(acknowledged, 40, place.stored())


@pytest.mark.server
@pytest.mark.parametrize(("threads", "times"), [(1, 4), (2, 2)])
def test_no_increment_is_lost_on_moto(place: Place, moto: Server, threads: int, times: int) -> None:
    """The same through boto3."""
    url = f"s3://{moto.bucket()}/app.sqlite"
    acknowledged = _acknowledged(place, url, 4, threads, times, moto.environment)
    _assert_none_lost(acknowledged, 4 * threads * times, place.run(PROGRAM, "value", url, env=moto.environment))


@pytest.mark.server
def test_no_increment_is_lost_on_seaweedfs(place: Place, seaweedfs: Server) -> None:
    """The same on a real server, whose contended uploads take up to two seconds each."""
    url = f"s3://{seaweedfs.bucket()}/app.sqlite"
    acknowledged = _acknowledged(place, url, 4, 1, 3, seaweedfs.environment)
    _assert_none_lost(acknowledged, 12, place.run(PROGRAM, "value", url, env=seaweedfs.environment))


@in_both_formats
def test_first_starts_at_once(place: Place) -> None:
    """Of twelve processes that start on an empty bucket one creates the database, and none fails."""
    children = [place.start(PROGRAM, "start_first", place.url) for _ in range(12)]
    for child in children:
        child.hear("ready")
    assert not place.object.exists(), "binding makes no request"
    for child in children:
        child.tell()
    results = [child.result() for child in children]
    assert sorted(result["uploads"] for result in results) == [0] * 11 + [1]
    assert {(result["rows"], result["sequence"]) for result in results} == {(0, "1")}


def test_two_processes_on_one_cache_folder(place: Place) -> None:
    """One owns the folder, the other gets a private one; both are right, and the private one is gone at exit."""
    place.run(PROGRAM, "create", place.url)
    owner, guest = (place.start(PROGRAM, "share_cache", place.url, str(place.cache)) for _ in range(2))
    assert [owner.hear(), guest.hear()] == [0, 0]
    assert len(list(place.cache.iterdir())) == 2
    assert len(place.private_folders()) == 1
    for expected in range(1, 7):
        assert (owner if expected % 2 else guest).ask("increment") == expected
    guest.tell("end")
    assert len(guest.result()) == 2
    owner.tell("end")
    owner.result()
    assert place.private_folders() == []
    assert [entry.name for entry in place.cache.iterdir()] == [place.home().name]
    assert (place.home() / "clean.json").exists(), "the owner leaves a copy to go on from"
    assert place.stored() == 6


def test_owner_is_killed_and_the_guest_goes_on(place: Place) -> None:
    """``kill -9`` of the folder's owner does not touch the guest, and the folder goes to the next process."""
    place.run(PROGRAM, "create", place.url)
    owner = place.start(PROGRAM, "share_cache", place.url, str(place.cache))
    owner.hear(0)
    guest = place.start(PROGRAM, "share_cache", place.url, str(place.cache))
    guest.hear(0)
    assert owner.ask("increment") == 1
    owner.end()
    next_owner = place.start(PROGRAM, "share_cache", place.url, str(place.cache))
    assert (next_owner.hear(), guest.ask("increment"), next_owner.ask("increment")) == (1, 2, 3)
    assert len(place.private_folders()) == 1
    for child in (guest, next_owner):
        child.tell("end")
        child.result()
    assert [Path(name).name for name in place.private_folders()] == []
    assert place.stored() == 3
