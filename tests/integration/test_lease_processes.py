"""Processes under a lease wait for each other; when one dies, stops or ends, the others go on, and nothing is lost."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from temaki.testing import Server
from tests.integration._children import Child, Place
from tests.integration._worker import UNSEEN

PROGRAM = "_lease.py"
LONG = {"ttl": 30.0, "acquire_timeout": 60.0, "hold": 30.0}
"""Nobody outwaits this in a test: who gets the lease got it because it was given back."""

REFUSED = {"seen": 1, "again": 2, "runs": 2, "is prompt": True}
"""After a refusal: only the other one's step is there, and the next run succeeds without a wait for anybody."""


@dataclass
class Spot:
    """A created database in one of the stores, with a counter at 0, and the processes that use it."""

    place: Place
    url: str
    env: Mapping[str, str]

    def start(self, action: str, *arguments: Any) -> Child:
        """Start a process on the database."""
        return self.place.start(PROGRAM, action, self.url, *arguments, env=self.env)

    def run(self, action: str, *arguments: Any) -> Any:
        """Run a process on the database to its end."""
        return self.place.run(PROGRAM, action, self.url, *arguments, env=self.env)


@pytest.fixture(
    params=[
        "folder",
        pytest.param("moto", marks=pytest.mark.server),
        pytest.param("seaweedfs", marks=pytest.mark.server),
    ]
)
def spot(request: pytest.FixtureRequest, place: Place) -> Spot:
    """The same in a folder and on two servers."""
    if request.param == "folder":
        spot = Spot(place, place.url, {})
    else:
        server: Server = request.getfixturevalue(request.param)
        spot = Spot(place, f"s3://{server.bucket()}/app.sqlite", server.environment)
    spot.run("create")
    return spot


@pytest.fixture
def folder(place: Place) -> Spot:
    """In a folder only, where the test can read the lease's record."""
    place.run(PROGRAM, "create", place.url)
    return Spot(place, place.url, {})


def _record(spot: Spot) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(Path(f"{spot.place.object}.lease").read_bytes())
    return record


# -- dead and frozen holders --------------------------------------------------------------------------------------


def test_another_process_takes_over_soon_after_kill_9(spot: Spot) -> None:
    """A holder that dies inside a transaction with ttl = 3 s holds others up for 1.5 x ttl + 2 s at most."""
    options = {"ttl": 3.0, "acquire_timeout": 20.0}
    other = spot.start("take_over", options)
    holder = spot.start("hold", options, "another machine")
    other.hear("ready")
    holder.hear("inside")
    holder.signal(signal.SIGKILL)
    assert holder.wait() == -signal.SIGKILL
    other.tell()
    found = other.result()
    assert found["value"] == 1, "nothing of the dead one's transaction is stored"
    assert found["seconds"] <= 1.5 * 3 + 2


@pytest.mark.parametrize("fork", ["seen", "unseen"])
def test_the_dead_on_the_same_machine_are_not_waited_for(folder: Spot, fork: str) -> None:
    """One of the processes of a server is killed in a transaction: the others see that it is gone, whatever its ttl."""
    folder.env = {UNSEEN: "yes"} if fork == "unseen" else {}
    found = folder.run("kill_a_worker", LONG)
    assert (found["value"], found["killed"]) == (1, -signal.SIGKILL)
    assert found["seconds"] < 10, "the ttl is 30 s"


def test_the_frozen_on_the_same_machine_are_waited_for(folder: Spot) -> None:
    """A process that stands still is not gone: it has the lease until it expires."""
    options = {"ttl": 60.0, "acquire_timeout": 61.0}
    other = folder.start("take_over", {**options, "acquire_timeout": 62.0})
    holder = folder.start("hold", options)
    other.hear("ready")
    holder.hear("inside")
    before = _record(folder)
    holder.signal(signal.SIGSTOP)
    other.tell()
    with pytest.raises(AssertionError, match="no message within 2"):
        other.hear(patience=2.5)
    assert _record(folder) == before
    holder.signal(signal.SIGKILL)
    assert other.result()["value"] == 1


def test_the_evicted_is_told_that_it_was(folder: Spot) -> None:
    """`temaki lease break` in the middle of a transaction: its error says so, and blames nobody for being silent."""
    holder = folder.start("be_evicted", LONG)
    holder.hear("inside")
    command = [str(Path(sys.executable).with_name("temaki")), "lease", "break", folder.url, "--yes"]
    done = subprocess.run(command, check=False, capture_output=True)
    assert done.returncode == 0, done.stderr
    holder.tell()
    found = holder.result()
    assert "was evicted (`temaki lease break`, by process" in found["message"]
    assert "silent" not in found["message"]
    assert found["evicted by"].startswith("process ")
    assert found["again"] == 1


def _overtaken(spot: Spot, point: str) -> Any:
    """Freeze a holder there until another process has taken over; what became of it."""
    options = {"ttl": 1.0, "acquire_timeout": 20.0}
    other = spot.start("take_over", options)
    frozen = spot.start("freeze", point, options)
    other.hear("ready")
    frozen.hear(point)
    frozen.signal(signal.SIGSTOP)
    other.tell()
    assert other.result()["value"] == 1
    frozen.signal(signal.SIGCONT)
    frozen.tell()
    return frozen.result()


def test_frozen_holder_is_refused_when_it_wakes_up(spot: Spot) -> None:
    """SIGSTOP inside a transaction, takeover, SIGCONT: it finds that its lease is gone, and uploads nothing.

    What it had written was visible to nobody, itself included, and its function, run again, succeeds.
    """
    assert _overtaken(spot, "inside") == {**REFUSED, "refused": "LeaseLostError", "uploads": 0}


def test_frozen_between_its_last_look_at_the_lease_and_its_upload(folder: Spot) -> None:
    """What no lease can prevent, the compare-and-swap does: the upload itself is refused, as a conflict."""
    assert _overtaken(folder, "before put") == {**REFUSED, "refused": "ConflictError", "uploads": 1}
    assert folder.place.stored() == 2


# -- many writers -------------------------------------------------------------------------------------------------


def test_immediate_sessions_never_conflict(spot: Spot) -> None:
    """Four processes that take the lease first need no retry: every run of the function is stored, by one upload."""
    times = 20
    children = [spot.start("add_many", times, {}) for _ in range(4)]
    for child in children:
        child.hear("ready")
    for child in children:
        child.tell()
    for child in children:
        assert child.result() == {"runs": times, "stored": times, "refused": 0}
    assert spot.run("add_in_threads", 1, 1)["value"] == 4 * times + 1


def test_threads_share_the_lease_of_their_process(folder: Spot) -> None:
    """Forty transactions in eight threads: they join each other's lease instead of taking it each time."""
    found = folder.run("add_in_threads", 8, 5)
    assert (found["value"], found["runs"]) == (40, 40)
    assert _record(folder)["generation"] <= 8
    assert found["lease uploads"] <= 2 * _record(folder)["generation"]


@pytest.mark.parametrize("fork", ["seen", "unseen"])
def test_forked_child_does_not_inherit_it(folder: Spot, fork: str) -> None:
    """A child's end does not give the parent's lease back, and a child that writes waits for its parent to."""
    folder.env = {UNSEEN: "yes"} if fork == "unseen" else {}
    parent = folder.start("fork")
    parent.hear("the first child has ended")
    before = _record(folder)
    assert (before["held"], before["owner"]["pid"]) == (True, parent.pid)
    parent.tell()
    parent.hear("the child begins")
    parent.tell()
    found = parent.result()
    assert (found["parent"], found["child"]["value"], found["next"]) == ([1], 2, 3)
    assert found["child"]["began"] < found["released"] < found["child"]["wrote"]
    after = _record(folder)
    assert (after["held"], after["generation"]) == (False, before["generation"] + 2)


# -- giving it back -----------------------------------------------------------------------------------------------


def _assert_free_at_once(spot: Spot, value: int) -> None:
    other = spot.start("take_over", LONG)
    other.hear("ready")
    other.tell()
    found = other.result()
    assert found["value"] == value
    assert found["seconds"] < 10, "the ttl and the hold are 30 s"


def test_exit_gives_it_back(folder: Spot) -> None:
    """A process that ends in the middle of its ``hold`` leaves a free record; the next one does not wait."""
    holder = folder.start("commit_and_stay", "", "", LONG)
    holder.hear("inside")
    assert _record(folder)["held"]
    holder.tell()
    holder.result()
    assert not _record(folder)["held"]
    _assert_free_at_once(folder, 2)


def test_a_worker_of_multiprocessing_gives_it_back(folder: Spot) -> None:
    """Such a process ends without ``atexit``, in the middle of its hold."""
    assert folder.run("commit_in_workers", LONG) == {"fork": False, "spawn": False}


@pytest.mark.parametrize("inside", ["", "inside"])
def test_sigterm_gives_it_back(spot: Spot, inside: str) -> None:
    """SIGTERM, idle or inside a transaction: it ends as by SIGTERM, and the next process does not wait."""
    holder = spot.start("commit_and_stay", inside, "", LONG)
    holder.hear("inside")
    holder.signal(signal.SIGTERM)
    assert holder.wait() == -signal.SIGTERM
    if not spot.env:
        assert not _record(spot)["held"]
    _assert_free_at_once(spot, 2)


@pytest.mark.parametrize("handler", ["before", "after"])
def test_sigterm_handler_of_the_application_is_left_alone(folder: Spot, handler: str) -> None:
    """Set before or after the strategy is made, it runs and decides on the status; its exit gives the lease back."""
    holder = folder.start("commit_and_stay", "", handler, LONG)
    holder.hear("inside")
    holder.signal(signal.SIGTERM)
    holder.hear("the application's own handler")
    assert holder.wait() == 7
    assert not _record(folder)["held"]
    _assert_free_at_once(folder, 2)


def test_second_commit_within_hold_needs_no_lease_request(spot: Spot) -> None:
    """A warm worker pays for its lease once: its next commit is one conditional GET and one PUT."""
    found = spot.run("commit_twice", LONG)
    assert found["first"] >= 2
    assert found["second"] == 0
    assert found["calls"] == [["get", "not_modified"], ["put", "ok"]]
