"""A stored version that goes back: it is followed, and told of."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from temaki.engine.pull import Puller
from temaki.events import Event, WentBack
from temaki.observe.reporter import Reporter
from temaki.replica.replica import Replica
from temaki.stores.memory import MemoryStore
from temaki.testing.clock import ManualClock
from temaki.version import Version
from tests.versions import KEY, URL, connect, database, make_remote, publish, read


class Process:
    """A working copy, with an ear at its events."""

    def __init__(self, bucket: MemoryStore) -> None:
        clock = ManualClock()
        self.heard: list[Event] = []
        reporter = Reporter(URL)
        reporter.listen(self.heard.append)
        self.replica = Replica(URL, None)
        self.puller = Puller(make_remote(bucket, clock), self.replica, clock, reporter)

    def value(self, *, whole: bool = False) -> int:
        """Pull, and read."""
        if whole:
            self.puller.download()
        else:
            self.puller.revalidate()
        assert self.replica.current is not None
        return read(connect(self.replica.current, busy=False))

    def told(self) -> list[WentBack]:
        """The events that this is about."""
        return [event for event in self.heard if isinstance(event, WentBack)]


@pytest.fixture
def bucket() -> MemoryStore:
    """An empty one."""
    return MemoryStore()


@pytest.fixture
def process(bucket: MemoryStore) -> Process:
    """One that has pulled nothing."""
    return Process(bucket)


def take(bucket: MemoryStore) -> tuple[bytes, dict[str, str]]:
    """A copy of the object, with its metadata."""
    download = bucket.get(KEY)
    assert download is not None
    with download:
        return download.read(download.info.size), dict(download.info.metadata)


def put_back(bucket: MemoryStore, copy: tuple[bytes, dict[str, str]]) -> None:
    """What another tool does: no condition."""
    bucket.put(KEY, copy[0], metadata=copy[1])


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("abandoned", [False, True])
def test_an_old_copy_is_followed_with_a_warning(
    bucket: MemoryStore, process: Process, caplog: pytest.LogCaptureFixture, whole: bool, abandoned: bool
) -> None:
    """Once, by every way of pulling, and also where a refused commit has left no working copy to compare with."""
    first = publish(bucket, 10)
    old = take(bucket)
    second = publish(bucket, 20, first)
    assert process.value() == 20
    assert process.told() == []
    put_back(bucket, old)
    if abandoned:
        assert process.replica.current is not None
        process.replica.abandon(process.replica.current)
    assert process.value(whole=whole) == 10
    assert process.told() == [WentBack(URL, 1, first.commit, 2, second.commit)]
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert URL in record.getMessage()
    assert "restore the newer version" in record.getMessage()
    assert process.value(whole=whole) == 10
    assert len(process.told()) == 1


def test_commits_on_the_old_copy_do_not_hide_it(bucket: MemoryStore, process: Process) -> None:
    """The number is as high or higher by then, but the known version is not in the history."""
    first = publish(bucket, 10)
    old = take(bucket)
    second = publish(bucket, 20, first)
    assert process.value() == 20
    put_back(bucket, old)
    third = publish(bucket, 31, publish(bucket, 30, first))
    assert process.value() == 31
    assert process.told() == [WentBack(URL, 3, third.commit, 2, second.commit)]


def test_an_old_file_without_metadata(bucket: MemoryStore, process: Process) -> None:
    """A backup that was uploaded by another tool has only its number."""
    first = publish(bucket, 10)
    old = take(bucket)
    assert process.value() == 10
    publish(bucket, 20, first)
    assert process.value() == 20
    put_back(bucket, (old[0], {}))
    assert process.value() == 10
    assert [(event.sequence, event.known_sequence) for event in process.told()] == [(1, 2)]


def test_what_is_no_going_back(bucket: MemoryStore, process: Process, caplog: pytest.LogCaptureFixture) -> None:
    """Newer versions, however many at once, and a file that another tool has changed and counted on."""
    version = publish(bucket, 10)
    assert process.value() == 10
    for value in range(11, 200):
        version = publish(bucket, value, version)
    assert process.value() == 199
    put_back(bucket, (database(300, version.sequence + 1), {}))
    assert process.value() == 300
    assert process.told() == []
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_answers_in_any_order_are_no_going_back(bucket: MemoryStore, process: Process) -> None:
    """What another thread stores while a pull is under way is newer than its answer."""
    first = publish(bucket, 10)
    assert process.value() == 10
    reporter: Any = process.puller._reporter
    second = publish(bucket, 20, first)
    install = process.replica.install

    def slowly(*args: Any, **options: Any) -> bool:
        installed = install(*args, **options)
        reporter.last = Version("later", "commit-later", 9, ("commit-later",), True, 1)
        return installed

    process.replica.install = slowly  # type: ignore[method-assign]
    assert process.value() == 20
    assert second.sequence == 2
    assert process.told() == []
