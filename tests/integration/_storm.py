"""Processes that make entries in a ledger, and are killed and stopped at it. See ``test_storms.py``."""

from __future__ import annotations

import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pony.orm import db_session

from temaki import CommitUnknownError, TemakiError, cause_of
from temaki.engine.engine import Engine
from temaki.formats.file import StoredFile
from temaki.formats.pages import upkeep
from temaki.formats.pages.format import StoredPages
from temaki.orm.database import Database
from temaki.replica.generation import Generation
from temaki.replica.replica import Replica
from temaki.strategy import Session
from tests.integration._compacting import compact_until
from tests.integration._worker import PATIENCE, Application, Forked, main, poll

PHASES: dict[str, tuple[Any, str]] = {
    "commit": (Engine, "commit"),
    "upload": (Session, "publish"),
    "checkpoint": (Generation, "acknowledge"),
    "pull": (StoredFile, "save"),
    "first start": (Database, "generate_mapping"),
    "pull of pages": (StoredPages, "save"),
    "catch-up": (Replica, "catch_up"),
    "fold": (upkeep, "fold_from"),
    "merge": (upkeep, "merge_from"),
    "collection": (upkeep, "collect"),
}
"""What takes a while, and which call takes it."""

FULL_PULLS = {"pull of pages"}
"""Phases that a process with a working copy does not come to: it catches up."""

Options = Mapping[str, Any]


def bound(url: str, options: Options) -> Application:
    """An application, with these options for ``bind_s3``; ``read_timeout`` is for a client of its own."""
    chosen = dict(options)
    read_timeout = chosen.pop("read_timeout", None)
    return Application(url, client=None if read_timeout is None else impatient_client(read_timeout), **chosen)


def impatient_client(read_timeout: float) -> Any:
    """A client for the server of the environment, that gives up sooner than temaki's own."""
    import boto3
    from botocore.config import Config

    config = Config(
        retries={"total_max_attempts": 1},
        connect_timeout=3,
        read_timeout=read_timeout,
        s3={"addressing_style": "path"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    return boto3.session.Session().client("s3", config=config)


def _load(app: Application, size: int) -> None:
    """Within an entry's session: have so many bytes of ballast, all of one letter, which is the counter's."""
    if size:
        app.db.flush()
        text = "ballast " + _letter(app.Counter[1].value) * size
        app.db.execute("update Row set text = $text where text like 'ballast %'", {"text": text})


def _letter(value: int) -> str:
    return chr(ord("a") + value % 26)


class Journal:
    """What a process knows of its entries, in a file that survives it. Each line is one write.

    Args:
        path: The file.
    """

    def __init__(self, path: str) -> None:
        self._name = os.path.basename(path)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._entries = 0

    def enter(self, app: Application, ballast: int = 0) -> None:
        """Make an entry: a row whose text is a name that no other entry has; with it, write the ballast anew."""
        self._entries += 1
        token = f"{self._name}.{os.getpid()}.{self._entries}"
        self._note("begun", token)
        try:
            value = app.increment(text=token, then=partial(_load, app, ballast))
        except Exception as error:
            cause = cause_of(error)
            if not isinstance(cause, TemakiError):
                raise
            unknown = isinstance(cause, CommitUnknownError)
            self._note("unknown" if unknown else "refused", token, type(cause).__name__, " ".join(str(cause).split()))
        else:
            self._note("acknowledged", token, str(value))

    def _note(self, *words: str) -> None:
        os.write(self._file, (" ".join(words) + "\n").encode())


def create(url: str, size: int = 0) -> None:
    """Create the ledger, with so many bytes of ballast."""
    app = Application(url, create=True)
    if size:
        app.increment(text="ballast " + _letter(1) * size)


def read(url: str) -> dict[str, Any]:
    """Make a last entry, which shuts out all uploads that may still be on their way, and read all of them."""
    app = Application(url)
    app.increment(text="last")
    value = app.value()
    with db_session:
        rows = app.db.select("id, substr(text, 1, 100) from Row")
    return {"value": value, "rows": [[number, text] for number, text in rows], "integrity": app.check()}


def _warm_up(url: str) -> None:
    """Import once what all processes that are forked from this one will need."""
    if url.startswith("s3:"):
        import boto3  # noqa: F401


# -- several at once ----------------------------------------------------------------------------------------------


def _work(url: str, journal: str, times: int, stop: str, options: Options) -> None:
    app, book = bound(url, options), Journal(journal)
    for _ in range(times):
        if os.path.exists(stop):
            return
        book.enter(app)
        _look(app)


def _look(app: Application) -> None:
    try:
        app.value()
    except TemakiError:
        return  # the network was too bad for it


def work(url: str, folder: str, processes: int, times: int, options: Options) -> None:
    """So many processes make so many entries each, or fewer if a file named ``stop`` appears."""
    _warm_up(url)
    workers = [
        Forked(_work, url, f"{folder}/journal-{number}", times, f"{folder}/stop", options)
        for number in range(processes)
    ]
    for worker in workers:
        worker.result()


# -- stopped at random moments ------------------------------------------------------------------------------------


def stop_and_go(url: str, folder: str, seed: int, times: int, options: Options) -> int:
    """Three processes make entries, and one of them is stopped, again and again, until others have overtaken it.

    Returns:
        How often they have. In a folder, a process that is stopped while it has the folder's lock stops everybody.
    """
    _warm_up(url)
    rng = random.Random(seed)
    stop, journals = f"{folder}/stop", [f"{folder}/journal-{number}" for number in range(3)]
    workers = [Forked(_work, url, journal, 1 << 30, stop, options) for journal in journals]
    poll(lambda: all(_acknowledged(journal) > 1 for journal in journals))
    overtaken = 0
    for _ in range(times):
        stopped = rng.randrange(len(workers))
        others = [journal for number, journal in enumerate(journals) if number != stopped]
        time.sleep(rng.uniform(0, 0.03))
        os.kill(workers[stopped].pid, signal.SIGSTOP)
        try:
            before = sum(map(_acknowledged, others))
            overtaken += _happens(lambda: sum(map(_acknowledged, others)) >= before + 2, 1.0)  # noqa: B023 - used at once
        finally:
            os.kill(workers[stopped].pid, signal.SIGCONT)
    Path(stop).touch()
    for worker in workers:
        worker.result()
    return overtaken


def _acknowledged(journal: str) -> int:
    return Path(journal).read_bytes().count(b"acknowledged") if os.path.exists(journal) else 0


def _happens(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.002)
    return False


# -- killed within a phase ----------------------------------------------------------------------------------------


def _watch(phase: str, before: Callable[[], object], after: Callable[[], object] = lambda: None) -> None:
    """Have something done before and after each call that is the phase."""
    owner, name = PHASES[phase]
    original = getattr(owner, name)

    def replacement(*args: Any, **kwargs: Any) -> Any:
        before()
        result = original(*args, **kwargs)
        after()
        return result

    setattr(owner, name, replacement)


def _duration(phase: str, run: Callable[[], object]) -> float:
    """Seconds that the longest call takes, in a process to which nothing happens. It runs until there was a call."""
    now = threading.local()
    durations: list[float] = []

    def begin() -> None:
        now.begun = time.monotonic()

    # A call that raises, as maintenance that meets other maintenance, has no end.
    _watch(phase, begin, lambda: durations.append(time.monotonic() - now.begun))
    deadline = time.monotonic() + PATIENCE / 2
    while not durations and time.monotonic() < deadline:
        run()
    return max(durations)


def _die_within(phase: str, seconds: float) -> None:
    """Have the kernel end this process at a moment after the beginning of the phase's first call.

    The timer's signal has its default action, so that no handler of this process runs: as with SIGKILL.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    armed: list[int] = []

    def arm() -> None:
        if not armed:
            armed.append(1)
            signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-6))

    _watch(phase, arm)


def _enter_until_killed(url: str, journal: str, phase: str, seconds: float, ballast: int, options: Options) -> None:
    _die_within(phase, seconds)
    app, book = bound(url, options), Journal(journal)
    while True:
        book.enter(app, ballast)


def _enter_once(url: str, journal: str, ballast: int, options: Options) -> None:
    Journal(journal).enter(bound(url, options), ballast)


class _Enters:
    """Makes an entry whenever it is called, in one process."""

    def __init__(self, url: str, journal: str, ballast: int, options: Options) -> None:
        self._url, self._options, self._journal, self._ballast = url, options, journal, ballast
        self._bound: tuple[Application, Journal] | None = None

    def __call__(self) -> None:
        if self._bound is None:
            self._bound = bound(self._url, self._options), Journal(self._journal)
        app, book = self._bound
        book.enter(app, self._ballast)


def _check(url: str, ballast: int, options: Options) -> list[Any]:
    app = bound(url, options)
    value = app.value()
    if ballast:  # a file in which some pages are older than others is not always corrupt in SQLite's eyes
        with db_session:
            (text,) = app.db.select("text from Row where text like 'ballast %'")
        assert text == "ballast " + _letter(value) * ballast, "the pages are not all of one version"
    return [value, app.check()]


def kill_in(
    url: str, folder: str, phase: str, seed: int, times: int, ballast: int, options: Options
) -> list[dict[str, Any]]:
    """Kill one process after the other within a phase. Each begins with the pull of another one's entry.

    Those that are killed use one working copy, one after the other, and so does one that looks at what they left.
    """
    _warm_up(url)
    rng = random.Random(seed)
    theirs = {**options, "cache_dir": f"{folder}/cache"}
    elsewhere = partial(_enter_once, url, f"{folder}/journal-elsewhere", ballast, options)
    Forked(_check, url, ballast, theirs).result()
    Forked(elsewhere).result()
    if phase in FULL_PULLS:
        shutil.rmtree(theirs["cache_dir"])
    usual = Forked(_duration, phase, _Enters(url, f"{folder}/journal-first", ballast, theirs)).result()
    found = []
    for number in range(times):
        Forked(elsewhere).result()
        if phase in FULL_PULLS:
            shutil.rmtree(theirs["cache_dir"])
        journal = f"{folder}/journal-{number}"
        moment = rng.uniform(0, 1.2 * usual)
        code, _ = Forked(_enter_until_killed, url, journal, phase, moment, ballast, theirs).end()
        value, integrity = Forked(_check, url, ballast, theirs).result()
        found.append({"code": code, "value": value, "integrity": integrity})
    return found


def kill_holders(url: str, folder: str, seed: int, times: int, options: Options) -> list[int]:
    """Kill one holder of the lease after the other in its commit, while two processes go on making entries."""
    _warm_up(url)
    rng = random.Random(seed)
    stop = f"{folder}/stop"
    usual = Forked(_duration, "commit", partial(_enter_once, url, f"{folder}/journal-first", 0, options)).result()
    others = [Forked(_work, url, f"{folder}/journal-other-{number}", 1 << 30, stop, options) for number in range(2)]
    codes = []
    for number in range(times):
        moment = rng.uniform(0, usual)
        doomed = Forked(_enter_until_killed, url, f"{folder}/journal-{number}", "commit", moment, 0, options)
        codes.append(doomed.end()[0])
    Path(stop).touch()
    for other in others:
        other.result()
    return codes


# -- killed in first starts ---------------------------------------------------------------------------------------


def _start_first(url: str, moment: float | None = None) -> int:
    """Bind, create what is missing, and count, as an application's first start does."""
    if moment is not None:
        _die_within("first start", moment)
    app = Application(url, create_tables=True)
    with db_session:
        return int(app.Counter.select().count() + app.Row.select().count())


def kill_first_starts(url: str, seed: int, times: int, processes: int) -> list[dict[str, Any]]:
    """On one empty key after the other several processes start at once, and all but one of them are killed."""
    _warm_up(url)
    rng = random.Random(seed)
    usual = Forked(_duration, "first start", partial(_start_first, url)).result()
    found = []
    for number in range(times):
        there = url.replace("app.sqlite", f"app-{number}.sqlite")
        moments = [None, *(rng.uniform(0, 1.5 * usual) for _ in range(processes - 1))]
        starting = [Forked(_start_first, there, moment) for moment in moments]
        ends = [one.end() for one in starting]
        found.append(
            {
                "survivor": ends[0],
                "codes": [code for code, _ in ends[1:]],
                "next": Forked(_start_first, there).result(),
            }
        )
    return found


if __name__ == "__main__":
    main(create, read, work, compact_until, stop_and_go, kill_in, kill_holders, kill_first_starts)
