"""`temaki.lease.owner`: which process has the lease, and whether it is gone. With real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from temaki.lease import owner as lease_owner
from temaki.lease.owner import Owner

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="nothing tells elsewhere: see the last test")

CHILD = """
import json, sys
from dataclasses import asdict
from temaki.lease.owner import Owner
print(json.dumps(asdict(Owner.here("t0ken"))), flush=True)
sys.stdin.read()
"""


class Other:
    """Another process, and who it says that it is."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
        )
        assert self.process.stdout is not None
        self.owner = Owner(**json.loads(self.process.stdout.readline()))

    def end(self) -> None:
        """Make sure that it is gone."""
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def other() -> Iterator[Other]:
    """A living one."""
    other = Other()
    try:
        yield other
    finally:
        other.end()


def test_this_process_is_there() -> None:
    """It names itself in full, and does not take itself for gone."""
    me = Owner.here("t0ken")
    assert (me.pid, me.token) == (os.getpid(), "t0ken")
    assert None not in {me.boot, me.namespaces, me.started}
    assert Owner.here("t0ken") == me
    assert not me.is_gone()


def test_the_living_the_stopped_and_the_dead(other: Other) -> None:
    """A stopped process is there; a killed one is not, even before its parent has taken notice."""
    assert not other.owner.is_gone()
    other.process.send_signal(signal.SIGSTOP)
    assert not other.owner.is_gone()
    other.process.kill()
    os.waitid(os.P_PID, other.process.pid, os.WEXITED | os.WNOWAIT)
    assert other.owner.is_gone(), "a zombie"
    other.process.wait()
    assert other.owner.is_gone()


def test_another_process_of_the_same_number(other: Other) -> None:
    """Its start time tells it apart: the one that had the number before is gone."""
    assert other.owner.started is not None
    assert replace(other.owner, started=other.owner.started - 1).is_gone()


@pytest.mark.parametrize(
    "changes",
    [
        {"host": "another machine"},
        {"boot": "7d0a"},
        {"namespaces": "pid:[1] time:[2]"},
        {"boot": None},
        {"namespaces": None},
        {"started": None},
        {"pid": 0},
        {"pid": -1},
    ],
    ids=str,
)
def test_nobody_elsewhere_is_gone(other: Other, changes: dict[str, Any]) -> None:
    """Another machine, boot or container, a record of an older temaki, a number that is no process's."""
    other.end()
    assert other.owner.is_gone()
    assert not replace(other.owner, **changes).is_gone()


def test_a_number_beyond_all_is_nobodys(other: Other) -> None:
    """What is in the store may be anything."""
    assert not replace(other.owner, pid=1 << 80).is_gone()


def test_a_process_whose_first_thread_has_ended_is_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It looks like a zombie, but for its other threads."""
    me = Owner.here("t0ken")
    text = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    for threads, gone in [("3", False), ("1", True)]:
        fields = ["Z", *text[1:17], threads, *text[18:]]
        _copy_of_proc(tmp_path / threads, f"{me.pid} (a (bad) name) " + " ".join(fields))
        monkeypatch.setattr(lease_owner, "_PROC", tmp_path / threads)
        assert me.is_gone() is gone


def test_where_the_system_says_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, other: Other) -> None:
    """No /proc, one of another pid namespace, one that hides others' processes: nobody is taken for gone."""
    _copy_of_proc(tmp_path / "other", Path("/proc/1/stat").read_text())
    _copy_of_proc(tmp_path / "hidden", Path("/proc/self/stat").read_text())
    (tmp_path / "hidden" / str(os.getpid())).rename(tmp_path / "hidden" / "away")
    gone = replace(other.owner, started=1)
    assert gone.is_gone()
    for name in ("none", "other", "hidden"):
        monkeypatch.setattr(lease_owner, "_PROC", tmp_path / name)
        assert not gone.is_gone()
        assert (Owner.here("t0ken").started is None) is (name != "hidden")


def _copy_of_proc(folder: Path, status: str) -> None:
    """What is read of /proc, with another status of this process."""
    boot = folder / "sys" / "kernel" / "random"
    boot.mkdir(parents=True)
    (boot / "boot_id").write_bytes(Path("/proc/sys/kernel/random/boot_id").read_bytes())
    for name in ("self", str(os.getpid())):
        (folder / name / "ns").mkdir(parents=True)
        (folder / name / "stat").write_text(status)
        for kind in ("pid", "time"):
            (folder / name / "ns" / kind).symlink_to(os.readlink(f"/proc/self/ns/{kind}"))
