"""``kill -9`` and SIGSTOP, again and again, wherever a process spends its time: the books balance, nobody hangs."""

from __future__ import annotations

import signal
from contextlib import nullcontext
from typing import Any

import pytest

from temaki.testing import Server
from tests.integration._children import Place, in_both_formats, in_pages
from tests.integration._ledger import MORE, Ledger

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120 * MORE)]

STORES = [
    "folder",
    pytest.param("moto", marks=pytest.mark.server),
    pytest.param("seaweedfs", marks=pytest.mark.server),
]


SMALL = 200_000
"""Bytes of ballast with which a commit changes a small part of the database, so that its pages become segments."""


@pytest.fixture
def ledger(request: pytest.FixtureRequest, place: Place) -> Ledger:
    """In the store that the test names: in a folder or on a server. In pages, there is maintenance all the time."""
    server: Server | None = None if request.param == "folder" else request.getfixturevalue(request.param)
    ledger = Ledger.on(place, server)
    return ledger.compacting() if place.format == "pages" else ledger


def _kill_in(
    ledger: Ledger, phase: str, seed: int, times: int, *, ballast: int = SMALL, anew: bool = False, beside: bool = True
) -> None:
    times *= MORE
    ledger.create(ballast)
    with ledger.compacted_beside() if beside else nullcontext():
        found = ledger.run_with_journals("kill_in", phase, seed, times, ballast if anew else 0, {})
    assert [one["code"] for one in found] == [-signal.SIGALRM] * times, "none ended otherwise"
    assert [one["integrity"] for one in found] == ["ok"] * times, "the working copy that the next one took over"
    values = [one["value"] for one in found]
    assert values == sorted(values)
    fates = ledger.assert_balanced()
    assert fates["refused"] == fates["unknown"] == 0, "nobody else writes, and nothing is wrong with the store"
    assert fates["acknowledged"] > times
    assert ledger.place.private_folders() == [], "whoever came later has swept up"


@in_both_formats
@pytest.mark.parametrize("ledger", STORES, indirect=True)
def test_killed_in_commits(ledger: Ledger) -> None:
    """A process is killed at random moments between its COMMIT and the end of its acknowledgement."""
    _kill_in(ledger, "commit", 21, 4 if ledger.server else 20)


@pytest.mark.parametrize("ledger", ["folder"], indirect=True)
def test_killed_in_checkpoints(ledger: Ledger) -> None:
    """The same while it checkpoints what has been stored: a hundred pages each time, over older ones of the file."""
    _kill_in(ledger, "checkpoint", 22, 15, ballast=400_000, anew=True)


@pytest.mark.parametrize("ledger", STORES[:2], indirect=True)
def test_killed_in_pulls_of_large_bodies(ledger: Ledger) -> None:
    """The same while it pulls 17 MB, in several streams at once."""
    _kill_in(ledger, "pull", 23, 2 if ledger.server else 4, ballast=17 << 20)


@in_pages
@pytest.mark.parametrize("ledger", STORES[:2], indirect=True)
@pytest.mark.parametrize(
    ("phase", "seed"), [("pull of pages", 31), ("catch-up", 32), ("fold", 33), ("merge", 34), ("collection", 35)]
)
def test_killed_in_what_pages_need(ledger: Ledger, phase: str, seed: int) -> None:
    """The same in a full pull, in a catch-up, and in maintenance, which other processes go on with."""
    beside = phase in {"pull of pages", "catch-up"}  # else it would be the other process that finds the work
    _kill_in(ledger, phase, seed, 2 if ledger.server else 5, beside=beside)


@in_both_formats
@pytest.mark.parametrize("ledger", STORES[:2], indirect=True)
def test_killed_in_first_starts(ledger: Ledger) -> None:
    """Of three processes that start at once on an empty bucket two are killed. The third one starts all the same.

    There is never half a database: all tables are there for the survivor and for the next process.
    """
    rounds: list[dict[str, Any]] = ledger.place.run(
        "_storm.py", "kill_first_starts", ledger.url, 24, 4, 3, env=ledger.env
    )
    assert [(one["survivor"], one["next"]) for one in rounds] == [([0, 0], 0)] * 4 * MORE
    killed = [code for one in rounds for code in one["codes"] if code]
    assert set(killed) == {-signal.SIGALRM}
    assert killed


@in_both_formats
@pytest.mark.parametrize("ledger", STORES, indirect=True)
def test_holders_of_the_lease_are_killed(ledger: Ledger) -> None:
    """Each new holder is killed in its commit; the others outwait its lease and go on."""
    ledger.create(SMALL)
    times = 3 * MORE
    options = {"strategy": "lease-locked", "ttl": 1, "acquire_timeout": 40}
    with ledger.compacted_beside():
        assert ledger.run_with_journals("kill_holders", 25, times, options) == [-signal.SIGALRM] * times
    fates = ledger.assert_balanced()
    assert fates["begun"] <= times
    assert fates["acknowledged"] > times


@in_both_formats
@pytest.mark.parametrize("ledger", STORES[:2], indirect=True)
def test_stopped_and_overtaken(ledger: Ledger) -> None:
    """A process is stopped at a random moment of a commit or a pull, others overtake it, and it goes on.

    What it had in hand is refused and made again: no error reaches it, and nothing of the others' is lost.
    """
    ledger.create(SMALL)
    times = 12 * MORE
    with ledger.compacted_beside():
        overtaken = ledger.run_with_journals("stop_and_go", 26, times, {"strategy": "etag-cached"})
    fates = ledger.assert_balanced()
    print(f"overtaken {overtaken} times of {times}", dict(fates))
    assert overtaken > 0
    assert set(fates) == {"acknowledged"}
