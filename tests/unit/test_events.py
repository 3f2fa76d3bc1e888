"""Events are counted and told; whoever listens can do no harm."""

from __future__ import annotations

import logging
import os
import pickle
from contextlib import nullcontext

import pytest

from temaki.errors import CommitUnknownError, ConflictError, StoreError
from temaki.events import (
    CommitUnknown,
    Conflict,
    Event,
    Failed,
    LeaseAcquired,
    LeaseLost,
    LeaseReleased,
    LeaseTimedOut,
    Published,
    Pulled,
    Unchanged,
    WentBack,
)
from temaki.observe.reporter import Reporter, Watch
from temaki.testing import ManualClock
from temaki.version import Version

URL = "memory://bucket/key"


def test_events_are_told_to_those_who_listen() -> None:
    """In order, to each, until it stops listening."""
    reporter = Reporter(URL)
    first: list[Event] = []
    second: list[Event] = []
    stop = reporter.listen(first.append)
    reporter.listen(second.append)
    event = Unchanged(URL, 0.5)
    reporter.unchanged(0.5)
    stop()
    reporter.unchanged(0.5)
    assert (first, second) == ([event], [event, event])
    assert reporter.counts()[0] == {"Unchanged": 2}


def test_what_is_reported_is_what_is_told() -> None:
    """Each report is told as the event of its kind, with every fact in its place, and counted under its name."""
    reporter = Reporter(URL)
    heard: list[Event] = []
    reporter.listen(heard.append)
    version = Version(etag="e", commit="abc", sequence=3, size=4096, lineage=("abc",), complete=True)
    reporter.pulled(version, 0.1, received=700, is_catch_up=True)
    reporter.went_back(version, version)
    reporter.unchanged(0.2)
    reporter.published(version, 7, 0.3, superseded=True, sent=900, changed=7168, objects=2)
    reporter.lease_acquired(5, 0.4)
    reporter.lease_released(5)
    reporter.lease_lost(6)
    reporter.lease_timed_out(0.5)
    assert heard == [
        Pulled(URL, sequence=3, commit="abc", size=4096, seconds=0.1, received=700, is_catch_up=True),
        WentBack(URL, sequence=3, commit="abc", known_sequence=3, known_commit="abc"),
        Unchanged(URL, seconds=0.2),
        Published(
            URL,
            sequence=3,
            commit="abc",
            size=900,
            pages=7,
            seconds=0.3,
            superseded=True,
            changed=7168,
            objects=2,
            version_size=4096,
        ),
        LeaseAcquired(URL, generation=5, seconds=0.4),
        LeaseReleased(URL, generation=5),
        LeaseLost(URL, generation=6),
        LeaseTimedOut(URL, seconds=0.5),
    ]
    assert reporter.last == version
    bytes_counted = {"catch-up": 1, "received": 700, "sent": 900, "changed": 7168}
    assert reporter.counts()[0] == {type(event).__name__: 1 for event in heard} | bytes_counted


def test_a_callback_that_raises_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, with its traceback, and the next one is still told."""
    reporter = Reporter(URL)
    heard: list[Event] = []

    def fail(_: Event) -> None:
        raise ZeroDivisionError

    reporter.listen(fail)
    reporter.listen(heard.append)
    reporter.unchanged(0.5)
    assert len(heard) == 1
    assert [record.exc_info is not None for record in caplog.records if record.levelno == logging.ERROR] == [True]


@pytest.mark.parametrize(
    ("error", "event"),
    [
        (ConflictError("", url=URL), Conflict(URL, "commit", 2.0)),
        (CommitUnknownError("", url=URL, commit_id="abc"), CommitUnknown(URL, "abc", 2.0)),
        (StoreError("", url=URL), Failed(URL, "commit", "StoreError", 2.0)),
        (KeyboardInterrupt(), None),
        (None, None),
    ],
)
def test_an_operation_is_timed_and_its_failure_told(error: BaseException | None, event: Event | None) -> None:
    """Each kind of failure is an event of its own, and goes on as it was."""
    reporter, clock = Reporter(URL), ManualClock()
    heard: list[Event] = []
    reporter.listen(heard.append)
    with pytest.raises(type(error)) if error else nullcontext(), Watch(reporter, "commit", clock.monotonic):
        clock.advance(2)
        if error is not None:
            raise error
    assert heard == ([] if event is None else [event])
    assert reporter.counts()[1] == {"commit": 2.0}


def test_events_are_values() -> None:
    """They can be compared, put into sets, and sent to another process."""
    event = Pulled(URL, 3, "abc", 4096, 0.1)
    assert pickle.loads(pickle.dumps(event)) == event
    assert len({event, Pulled(URL, 3, "abc", 4096, 0.1)}) == 1


def test_a_forked_child_counts_from_nothing() -> None:
    """What the parent did was not done there."""
    reporter = Reporter(URL)
    reporter.unchanged(0.5)
    child = os.fork()
    if not child:
        os._exit(bool(reporter.counts()[0]))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert reporter.counts()[0] == {"Unchanged": 1}
