"""Several processes write to one SQLite database in a bucket, one of them is killed, and then the books are checked.

Without arguments the bucket is a temporary folder. ``--url s3://bucket/key`` uses a bucket of yours, ``--seaweedfs``
a real S3 server that is started for the demo. The exit code is 0 if the books balance, 1 if they do not, and 2 if the
demo could not run.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import secrets
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from temaki import NotFoundError, TemakiError
from temaki.store import Store
from temaki.stores import canonical_url, open_store, parse_url

APPLICATION = Path(__file__).with_name("application.py")
PROCESSES = 4
VICTIM = 2
TIMEOUT = 300.0
CHECK = "PRAGMA integrity_check; SELECT count(*) FROM Person"


class DemoError(Exception):
    """The demo cannot run; the message says why and what to do."""


# --- the processes ------------------------------------------------------------------------------------------------


@dataclass
class Worker:
    """One process that hires, and what its journal says.

    Attributes:
        number: Its name among the others.
        journal: The file that it writes to.
        process: The process itself.
        ready: Whether it waits for the others, or is beyond that.
        acknowledged: The names whose commit() has returned.
        unknown: The names of which temaki said that the store never answered.
        last: The journal's last line, with the counts.
        killed: Whether it was killed half-way.
    """

    number: int
    journal: Path
    process: subprocess.Popen[str]
    ready: bool = False
    acknowledged: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    last: dict[str, int] = field(default_factory=dict)
    killed: bool = False

    def read_journal(self) -> None:
        """Take in what the process has written. A line counts once it is complete."""
        text = self.journal.read_text() if self.journal.exists() else ""
        lines = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
        if lines:
            self.ready, self.last = True, lines[-1]
        self.acknowledged = [line["name"] for line in lines if line["event"] == "acknowledged"]
        self.unknown = [line["name"] for line in lines if line["event"] == "unknown"]

    def in_the_open(self) -> set[str]:
        """Names that may be stored without an acknowledgement: what was under way when the process was killed."""
        under_way = f"Employee {self.number}-{len(self.acknowledged) + len(self.unknown) + 1}"
        return {*self.unknown, under_way} if self.killed else set(self.unknown)


@contextmanager
def started(url: str, hires: int, folder: Path) -> Iterator[list[Worker]]:
    """Processes that get ready and wait. However this is left, none of them goes on living."""
    workers: list[Worker] = []
    try:
        for number in range(1, PROCESSES + 1):
            journal = folder / f"journal-{number}"
            # The victim has work without end: however slow this process is, it cannot be done before it is killed.
            work = hires * 1000 if number == VICTIM else hires
            process = start(folder, url, "hire", str(number), str(work), str(journal))
            workers.append(Worker(number, journal, process))
        yield workers
    finally:
        for worker in workers:
            end(worker.process)


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start the application."""
    return subprocess.Popen(
        [sys.executable, str(APPLICATION), *arguments],
        stdin=subprocess.PIPE,
        text=True,
        # Working copies go where they are removed with everything else, those of killed processes too.
        env={**os.environ, "TMPDIR": str(folder)},
        process_group=0,  # Ctrl-C is for the demo, which then ends the processes
    )


def end(process: subprocess.Popen[str]) -> None:
    """Make sure that a process is gone."""
    process.kill()
    process.wait()
    if process.stdin is not None:
        with suppress(BrokenPipeError):
            process.stdin.close()


def create(url: str, folder: Path) -> None:
    """Create tables and roles, in a process like the others."""
    process = start(folder, url, "create")
    try:
        if process.wait(TIMEOUT):
            raise DemoError(f"{url} could not be created, see above.")
    finally:
        end(process)


def race(workers: list[Worker], hires: int) -> float:
    """Let all go at once, kill one half-way, and wait for the others; how many seconds it took."""
    watch(workers, lambda: all(worker.ready for worker in workers))
    begin = time.monotonic()
    for worker in workers:
        assert worker.process.stdin is not None
        worker.process.stdin.write("go\n")
        worker.process.stdin.flush()
    victim = workers[VICTIM - 1]
    watch(workers, lambda: len(victim.acknowledged) >= hires // 2)
    time.sleep(random.uniform(0, 0.02))  # in the middle of its work, and not always in the same place
    victim.process.kill()
    victim.process.wait()
    victim.killed = True
    victim.read_journal()
    so_far = len(victim.acknowledged)
    say(f"{time.monotonic() - begin:6.2f} s  process {VICTIM} is killed (SIGKILL) after {so_far} hires")
    watch(workers, lambda: all(worker.process.poll() is not None for worker in workers))
    took = time.monotonic() - begin
    say(f"{took:6.2f} s  the others are done; nothing had to be repaired")
    return took


def watch(workers: list[Worker], until: Callable[[], bool]) -> None:
    """Read the journals until something is so."""
    deadline = time.monotonic() + TIMEOUT
    while True:
        states = [worker.process.poll() for worker in workers]
        for worker, state in zip(workers, states, strict=True):
            worker.read_journal()
            if state not in {None, 0} and not worker.killed:
                raise DemoError(f"Process {worker.number} has failed, see above.")
        show_progress(workers)
        if until():
            return
        if None not in states:
            raise DemoError("All processes have ended too early.")
        if time.monotonic() > deadline:
            raise DemoError(f"Not done within {TIMEOUT:.0f} s: the store is slow or stuck. Try --hires 5.")
        time.sleep(0.01)


# --- the place ----------------------------------------------------------------------------------------------------


def fresh(url: str) -> tuple[str, Store, str]:
    """The URL of an object that does not exist yet, its store and its key.

    Raises:
        DemoError: It does exist.
        TemakiError: The URL is wrong, or the store cannot be asked.
    """
    if re.fullmatch(r"\w+://[^/]+", url):
        url += "/"
    if url.endswith("/"):
        url += f"temaki-demo-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}.sqlite"
    if parse_url(url).scheme == "memory":
        raise DemoError(f"{url}: each process has a memory of its own. Use s3://… or file:///….")
    store, key = open_store(url)
    url = canonical_url(url)
    try:
        found = store.head(key)
    except NotFoundError:
        return url, store, key
    raise DemoError(
        f"{url} exists ({found.size:,} bytes), and the demo only writes to a database of its own. Nothing was changed. "
        f"Give a key that does not exist, or a folder: {url.rpartition('/')[0]}/"
    )


def is_within(url: str, folder: Path) -> bool:
    """Whether the object is a file in the demo's own folder."""
    location = parse_url(url)
    return location.scheme == "file" and Path(location.bucket).is_relative_to(folder)


def plain_file(url: str, store: Store, key: str, folder: Path) -> Path:
    """The object as an ordinary file: itself, or a download."""
    location = parse_url(url)
    if location.scheme == "file":
        return Path(location.bucket, key)
    path = folder / "company.sqlite"
    download = store.get(key)
    assert download is not None, "only if_none_match has no answer"
    with download, path.open("wb") as file:
        while piece := download.read(1 << 20):
            file.write(piece)
    return path


# --- the books ----------------------------------------------------------------------------------------------------


@dataclass
class Books:
    """What the processes say and what SQLite, without temaki, finds.

    Attributes:
        acknowledged: Names whose commit was acknowledged.
        in_the_open: Names that may be there or not.
        rows: Names in the database, with how often each is there.
        headcount: The counter that every hire has incremented.
        integrity: What ``PRAGMA integrity_check`` says.
    """

    acknowledged: set[str]
    in_the_open: set[str]
    rows: Counter[str]
    headcount: int
    integrity: str

    @property
    def unacknowledged(self) -> set[str]:
        """Stored, but the process was killed before it could say so (or the store never answered)."""
        return self.rows.keys() & self.in_the_open

    def faults(self) -> list[str]:
        """Everything that does not add up."""
        lost = self.acknowledged - self.rows.keys()
        unexplained = self.rows.keys() - self.acknowledged - self.in_the_open
        twice = {name for name, count in self.rows.items() if count > 1}
        checks = {
            f"acknowledged and not in the database: {sorted(lost)}": bool(lost),
            f"in the database and never acknowledged: {sorted(unexplained)}": bool(unexplained),
            f"in the database more than once: {sorted(twice)}": bool(twice),
            f"headcount is {self.headcount}, with {self.rows.total()} rows": self.headcount != self.rows.total(),
            f"integrity_check: {self.integrity}": self.integrity != "ok",
        }
        return [fault for fault, is_so in checks.items() if is_so]


def check(workers: list[Worker], path: Path) -> Books:
    """Read the file with nothing but SQLite."""
    with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as database:
        return Books(
            acknowledged={name for worker in workers for name in worker.acknowledged},
            in_the_open={name for worker in workers for name in worker.in_the_open()},
            rows=Counter(name for (name,) in database.execute("SELECT name FROM Person")),
            headcount=database.execute("SELECT headcount FROM Role WHERE id = 3").fetchone()[0],
            integrity=database.execute("PRAGMA integrity_check").fetchone()[0],
        )


def sqlite_command(path: Path) -> list[str]:
    """A command that opens the file, with what this machine has."""
    tool = shutil.which("sqlite3")
    if tool is not None:
        return ["sqlite3", "-readonly", str(path), CHECK]
    statements = "; ".join(f"print(*db.execute({statement!r}).fetchone())" for statement in CHECK.split("; "))
    return [sys.executable, "-c", f"import sqlite3; db = sqlite3.connect({str(path)!r}); {statements}"]


# --- what is shown ------------------------------------------------------------------------------------------------


def say(text: str = "") -> None:
    """Print a line, over the progress if there is one."""
    print(f"\r\033[K{text}" if sys.stdout.isatty() else text, flush=True)


def show_progress(workers: list[Worker]) -> None:
    """One line that is overwritten; nothing where nobody watches."""
    if sys.stdout.isatty():
        counts = "  ".join(f"process {worker.number}: {len(worker.acknowledged)}" for worker in workers)
        print(f"\r\033[K          {counts}", end="", flush=True)


def report(workers: list[Worker], books: Books, took: float, path: Path) -> None:
    """The summary."""
    size = path.stat().st_size
    counts = ("conflicts", "requests", "up", "down")
    say("\n" + table_row("process", "acknowledged", "conflicts retried", "requests", "bytes up", "bytes down"))
    for worker in workers:
        row = table_row(worker.number, len(worker.acknowledged), *(worker.last[name] for name in counts))
        say(row + ("   killed; counted up to its last acknowledgement" if worker.killed else ""))
    sums = (sum(worker.last[name] for worker in workers) for name in counts)
    say(table_row("all", len(books.acknowledged), *sums))

    stored = books.unacknowledged
    because = f" = acknowledged + {len(stored)}, see below" if stored else " = acknowledged"
    say(f"\n  commits acknowledged  {len(books.acknowledged)}")
    say(f"  rows found            {books.rows.total()}{because if not books.faults() else ''}")
    say(f"  headcount             {books.headcount}   one value that all processes incremented")
    say(f"  integrity_check       {books.integrity}")
    say(f"  wall time             {took:.2f} s: {books.rows.total() / took:.0f} commits per second of {size:,} bytes")
    unknown = {name for worker in workers for name in worker.unknown}
    for name in sorted(stored):
        why = "the store's answer was lost" if name in unknown else "its process was killed before it could say so"
        say(f"\n  {name!r} is stored and was not acknowledged: {why}.")
        say("  Only a commit that was under way can end like this: whoever gets no answer has to look. The other")
        say("  way round, acknowledged and not stored, must never happen.")


def table_row(*values: str | int) -> str:
    """Headings, or the numbers under them."""
    cells = [value if isinstance(value, str) else f"{value:,}" for value in values]
    return "".join(cell.rjust(width) for cell, width in zip(cells, (9, 14, 19, 10, 13, 13), strict=True))


def show_sqlite(path: Path) -> None:
    """Run SQLite's own tool on the file, and show how."""
    command = sqlite_command(path)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    say(f"\nIt is an ordinary SQLite file. This is what was just run:\n  $ {shlex.join(command)}")
    for line in (done.stdout + done.stderr).splitlines():
        say(f"  {line}")


def show_remains(url: str, folder: Path, *, server_is_gone: bool) -> None:
    """What the demo leaves behind, and how to remove it."""
    say()
    if parse_url(url).scheme == "s3" and not server_is_gone:
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        aws = "aws s3" + (f" --endpoint-url {shlex.quote(endpoint)}" if endpoint else "")
        say(f"The object stays: {url}\n  fetch it   $ {aws} cp {shlex.quote(url)} company.sqlite")
        say(f"  remove it  $ {aws} rm {shlex.quote(url)}")
    elif server_is_gone:
        say("The server stops now, and its data are gone; this copy of the object stays.")
    elif not is_within(url, folder):
        say(f"The object stays: {url}")
    if any(folder.iterdir()):
        say(f"Left behind: {folder}\n  remove it  $ rm -r {shlex.quote(str(folder))}")


# --- all of it ----------------------------------------------------------------------------------------------------


def demo(url: str, hires: int, folder: Path, *, server_is_gone: bool) -> int:
    """Run it on an object that does not exist yet; the exit code."""
    url, store, key = fresh(url)
    say(f"{PROCESSES} processes hire {hires} people each into one SQLite database; every hire is a commit.\n  {url}\n")
    try:
        with tempfile.TemporaryDirectory(prefix="temaki-demo-work-") as name:
            work = Path(name)
            create(url, work)
            with started(url, hires, work) as workers:
                took = race(workers, hires)
    except BaseException:
        if not is_within(url, folder) and not server_is_gone:
            say(f"What has been written until now stays: {url}")
        raise
    path = plain_file(url, store, key, folder)
    books = check(workers, path)
    report(workers, books, took, path)
    show_sqlite(path)
    show_remains(url, folder, server_is_gone=server_is_gone)
    for fault in books.faults():
        say(f"\nWRONG: {fault}")
    say("\nThe books do not balance: please report this." if books.faults() else "\nThe books balance.")
    return 1 if books.faults() else 0


def on_a_server(hires: int, folder: Path) -> int:
    """The same, on a SeaweedFS server on loopback."""
    from temaki.testing import seaweedfs_server  # needs what only the development environment has

    say("Starting SeaweedFS ...")
    with ExitStack() as stack:
        try:
            server = stack.enter_context(seaweedfs_server())
        except RuntimeError as error:
            raise DemoError(str(error)) from error
        os.environ.update(server.environment)  # for boto3 here and in the processes
        return demo(f"s3://{server.bucket()}/company.sqlite", hires, folder, server_is_gone=True)


def interrupt(number: int, _frame: object) -> None:
    """Ctrl-C, or the end of the terminal: once. A second one must not stop the cleaning up."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    raise KeyboardInterrupt(number)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    place = parser.add_mutually_exclusive_group()
    place.add_argument(
        "--url", help="s3://bucket/key or file:///folder/key, not existing yet; ending in / for a new key in there"
    )
    place.add_argument("--seaweedfs", action="store_true", help="on a SeaweedFS server that is started for it")
    parser.add_argument("--hires", type=int, metavar="N", help="commits of each process (100; on S3, 25)")
    parsed = parser.parse_args()
    if parsed.hires is None:
        parsed.hires = 25 if parsed.seaweedfs or (parsed.url or "").startswith("s3:") else 100
    if parsed.hires < 2:
        parser.error("--hires: at least 2, so that there is a half-way")
    return parsed


def main() -> int:
    """Run the demo; the exit code."""
    asked = arguments()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    folder = Path(tempfile.mkdtemp(prefix="temaki-demo-"))
    code = 2
    try:
        if asked.seaweedfs:
            code = on_a_server(asked.hires, folder)
        else:
            code = demo(asked.url or f"{folder.as_uri()}/company.sqlite", asked.hires, folder, server_is_gone=False)
    except (DemoError, TemakiError) as error:
        say()
        print(f"demo: {error}", file=sys.stderr)
    except KeyboardInterrupt as error:
        code = 128 + int(error.args[0])
        say("\nInterrupted; all processes have been ended.")
    finally:
        if code not in {0, 1} or not any(folder.iterdir()):
            shutil.rmtree(folder)
    return code


if __name__ == "__main__":
    sys.exit(main())
