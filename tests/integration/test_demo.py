"""``make demo``: the first thing that anybody sees of temaki has to work, and must not touch what is not its own."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from secrets import token_hex

import pytest

DEMO = Path(__file__).parents[2] / "demo" / "demo.py"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Everything temporary in one folder, and no credentials."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "TEMAKI_"))}
    nowhere = {name: str(tmp_path / "none") for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE")}
    return {**inherited, **nowhere, "AWS_EC2_METADATA_DISABLED": "true", "TMPDIR": str(temporary)}


@pytest.fixture
def leftovers(environment: dict[str, str]) -> Path:
    """The folder in which the demo leaves what it leaves."""
    return Path(environment["TMPDIR"])


def run_demo(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the demo to its end."""
    command = [sys.executable, str(DEMO), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)


def number(pattern: str, output: str) -> int:
    """The one number that the summary has there."""
    found = re.search(pattern, output)
    assert found is not None, output
    return int(found.group(1).replace(",", ""))


def test_books_balance_although_a_process_was_killed(environment: dict[str, str], leftovers: Path) -> None:
    """Rows are exactly the acknowledged commits, plus at most the one of the killed process whose answer was lost."""
    done = run_demo(environment, "--hires", "20")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    acknowledged = number(r"commits acknowledged +(\d+)", done.stdout)
    rows = number(r"rows found +(\d+)", done.stdout)
    unacknowledged = done.stdout.count("is stored and was not acknowledged")
    assert unacknowledged in {0, 1}
    assert rows == acknowledged + unacknowledged == number(r"headcount +(\d+)", done.stdout)
    killed = number(r"(?m)^ +2 +(\d+) .* killed;", done.stdout)
    assert killed >= 10
    assert acknowledged == 3 * 20 + killed
    assert re.search(r"integrity_check +ok", done.stdout)

    (database,) = leftovers.glob("temaki-demo-*/company.sqlite")
    assert f"rm -r {database.parent}" in done.stdout, "what stays is named"
    with closing(sqlite3.connect(database)) as plain:
        assert plain.execute("SELECT count(*), count(DISTINCT name) FROM Person").fetchone() == (rows, rows)
    assert [path.name for path in leftovers.iterdir()] == [database.parent.name], "working copies are gone"


def test_existing_object_is_refused_and_untouched(environment: dict[str, str], tmp_path: Path) -> None:
    """A database that is there already is somebody's: not a byte of it changes."""
    existing = tmp_path / "company.sqlite"
    with closing(sqlite3.connect(existing)) as plain, plain:
        plain.execute("CREATE TABLE precious (thing)")
    before = existing.read_bytes()
    done = run_demo(environment, "--url", existing.as_uri())
    assert done.returncode == 2
    assert existing.as_uri() in done.stderr
    assert "exists" in done.stderr
    assert "Traceback" not in done.stderr
    assert existing.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if path.name != "tmp"] == ["company.sqlite"]


def test_folder_gets_a_fresh_key(environment: dict[str, str], leftovers: Path, tmp_path: Path) -> None:
    """A URL that ends in a slash is a place, in which the demo makes an object of its own and says which."""
    bucket = tmp_path / "bucket"
    bucket.mkdir()
    done = run_demo(environment, "--url", bucket.as_uri() + "/", "--hires", "10")
    assert done.returncode == 0, done.stderr
    (made,) = bucket.glob("*.sqlite")
    assert f"The object stays: {made.as_uri()}" in done.stdout
    assert list(leftovers.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("s3://some-bucket/app.sqlite", "boto3 found no credentials"),
        ("memory://name/app.sqlite", "memory of its own"),
        ("http://example.com/app.sqlite", "does not know the scheme 'http'"),
        ("file:///no/such/folder/app.sqlite", "does not exist"),
    ],
)
def test_impossible_place_is_explained(url: str, says: str, environment: dict[str, str], leftovers: Path) -> None:
    """What cannot work ends in one sentence instead of a traceback, before any process is started."""
    done = run_demo(environment, "--url", url)
    assert done.returncode == 2
    assert done.stderr.startswith("demo: ")
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert list(leftovers.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="looks for the processes in /proc")
class TestNoProcessIsLeftBehind:
    """However the demo ends before its time, nothing that it started goes on."""

    @pytest.fixture
    def mark(self, environment: dict[str, str]) -> str:
        """What the demo's processes, and only they, have in their environment."""
        environment["DEMO_MARK"] = mark = f"mark-{token_hex(8)}"
        return mark

    @pytest.fixture
    def running(self, environment: dict[str, str], leftovers: Path, mark: str) -> Iterator[subprocess.Popen[str]]:
        """A demo in the middle of its work."""
        command = [sys.executable, str(DEMO), "--hires", "100000"]
        with subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE) as demo:
            try:
                journals = "temaki-demo-work-*/journal-*"
                wait_until(lambda: any(path.stat().st_size > 1000 for path in leftovers.glob(journals)))
                assert len(processes_with(mark)) == 5
                yield demo
            finally:
                demo.kill()

    @pytest.mark.parametrize("interruption", [signal.SIGINT, signal.SIGTERM])
    def test_after_an_interrupt(
        self, interruption: signal.Signals, running: subprocess.Popen[str], leftovers: Path, mark: str
    ) -> None:
        """Ctrl-C ends all processes and removes what the demo has made."""
        running.send_signal(interruption)
        output, _ = running.communicate(timeout=30)
        assert running.returncode == 128 + interruption
        assert "Interrupted" in output
        assert processes_with(mark) == []
        assert list(leftovers.iterdir()) == []

    def test_after_a_kill(self, running: subprocess.Popen[str], mark: str) -> None:
        """Where the demo itself is killed and can end nothing, its processes end themselves."""
        running.kill()
        running.wait()
        wait_until(lambda: processes_with(mark) == [])


def processes_with(mark: str) -> list[str]:
    """The processes that have inherited the mark in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and mark.encode() in (entry / "environ").read_bytes():
                found.append(entry.name)
        except OSError:  # it has ended meanwhile, or is another user's
            continue
    return found


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for what other processes do."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
