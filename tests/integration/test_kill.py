"""``kill -9`` at any moment loses nothing acknowledged, keeps nothing that was not stored, and needs no repair."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from tests.integration._children import Place, in_both_formats
from tests.integration._worker import COMPACTS

PROGRAM = "_kill.py"


def _assert_nothing_happened(place: Place, name: str, found: dict[str, Any]) -> None:
    """The books balance, whatever the killed process was doing."""
    assert found["code"] in {-signal.SIGKILL, -signal.SIGXFSZ}, (name, found)
    # What was acknowledged is stored; beyond it at most the commit that was under way, which nobody was told of.
    assert found["stored"] in {found["acknowledged"], found["acknowledged"] + 1}, (name, found)
    assert found["read"] == found["stored"], (name, found)
    assert found["next"] == found["stored"] + 1, (name, found)
    assert found["integrity"] == "ok", (name, found)
    assert (found["folders"], found["databases"]) == (1, 1), (name, found)


@in_both_formats
def test_killed_at_random_moments(place: Place) -> None:
    """A process that commits in a loop is killed from outside, again and again, on one cache folder."""
    env = {COMPACTS: "yes"} if place.format == "pages" else {}
    report = place.run(PROGRAM, "at_random_moments", place.url, str(place.cache), 7, 30, env=env)
    for number, found in enumerate(report):
        _assert_nothing_happened(place, f"kill {number}", found)
    assert place.private_folders() == []


UNACCEPTED = {
    "between local commit and upload",
    "before the upload's image is made",
    "before the upload",
}
"""Where the file holds what the store has never heard of."""
LANDED = {
    "after the upload has landed",
    "between upload and acknowledgement",
    "before the checkpoint",
    "half-way through the checkpoint",
    "after the checkpoint",
    "before the clean record",
}
"""Where the store has the commit, and nobody was told."""
ALSO_IN_CATCH_UPS = {
    "before the checkpoint",
    "half-way through the checkpoint",
    "after the checkpoint",
    "before the clean record",
}
"""Steps of a commit that are steps of a catch-up too, which comes first in pages."""


@pytest.mark.timeout(200)
@in_both_formats
def test_killed_at_each_step_of_a_commit(place: Place) -> None:
    """The same at each step of pull, commit, upload, checkpoint, clean record and maintenance; the store decides."""
    env = {COMPACTS: "yes"} if place.format == "pages" else {}
    child = place.start(PROGRAM, "at_planted_points", place.url, str(place.cache), env=env)
    report = child.result(patience=150)
    assert set(report) > UNACCEPTED | LANDED
    for name, found in report.items():
        _assert_nothing_happened(place, name, found)
        assert found["code"] == (-signal.SIGXFSZ if "half-way" in name else -signal.SIGKILL), name
        if name in UNACCEPTED | (LANDED - ALSO_IN_CATCH_UPS if place.format == "pages" else LANDED):
            assert found["stored"] == found["acknowledged"] + (name in LANDED), name
            assert not found["clean"], f"{name}: the file was marked as clean"
    assert place.private_folders() == []


def test_killed_at_any_line(place: Place) -> None:
    """The same just before single lines of temaki's own code, from the first request to the end of the session."""
    found = place.run(PROGRAM, "at_lines", place.url, str(place.cache), 1, 25)
    assert len(found) > 15
    for line, left in found.items():
        _assert_nothing_happened(place, line, left)
    assert place.private_folders() == []
