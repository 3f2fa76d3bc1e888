"""Random SQL on databases in pages: everybody has the same bytes, at every lag, whatever maintenance does meanwhile.

``FUZZ_SQL_EXAMPLES=2000`` runs it for long, with other examples each time, and prints what was done.
"""

from __future__ import annotations

import os
import subprocess
import sys
import unittest
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from temaki.formats.pages.maintain import GRACE
from temaki.replica import header
from tests.stateful._pages_sql import COUNTS, Pin, Process, World, transaction
from tests.unit.test_pages_cycle import limits

EXAMPLES = int(os.environ.get("FUZZ_SQL_EXAMPLES", "0"))
SEEDS = st.integers(0, 1 << 40)
WHO = st.integers(0, 2)


class SqlMachine(RuleBasedStateMachine):
    """Three processes that write and read, and operators that maintain."""

    rows = 60
    """Of 200 bytes, to begin with."""

    @initialize(
        page_size=st.sampled_from([512, 1024, 2048, 4096, 8192, 16384, 32768, 65536]),
        auto_vacuum=st.sampled_from([0, 1, 2]),
        caches=st.tuples(*[st.sampled_from([1, 5, 12, 2000])] * 3),
        tail=st.sampled_from([2000, 8 << 10, 32 << 10]),
        fan=st.sampled_from([2, 3, 8]),
        budget=st.sampled_from([0, 40 << 10, 2 << 20]),
    )
    def create(
        self, *, page_size: int, auto_vacuum: int, caches: tuple[int, ...], tail: int, fan: int, budget: int
    ) -> None:
        """A new database. Small limits make for many segments, merges and folds."""
        self.limits = limits(TAIL_LIMIT=tail, TAIL_KEEP=tail // 4, UNIT=tail, FAN=fan, COMMIT_BUDGET=budget)
        self.limits.__enter__()
        self.world = World(page_size, auto_vacuum, self.rows, caches)
        self.of(0).compare()

    def of(self, who: int) -> Process:
        """A process."""
        return self.world.processes[who]

    @rule(who=WHO, seed=SEEDS, length=st.integers(1, 6), give_up=st.sampled_from([False, False, False, True]))
    def transact(self, who: int, seed: int, length: int, *, give_up: bool) -> None:
        """A commit, or a transaction that is given up."""
        self.world.transact(self.of(who), transaction(seed, length), give_up=give_up)

    @rule(who=WHO, seed=SEEDS, count=st.integers(2, 12))
    def small_commits(self, who: int, seed: int, count: int) -> None:
        """Several in a row, which fill tails and segments."""
        for number in range(count):
            row = (seed + number * 37) % 60 + 1
            sql = "UPDATE t0 SET b = ? WHERE id = ?"
            self.world.transact(self.of(who), [(sql, (seed.to_bytes(8, "big") * (1 + seed % 40), row))])

    @rule(who=WHO, seed=SEEDS, distance=st.integers(1, 2), theirs=SEEDS)
    def conflict(self, who: int, seed: int, distance: int, theirs: int) -> None:
        """Another process stores something first."""
        other = self.of((who + distance) % 3)
        self.world.transact(
            self.of(who),
            transaction(seed, 2),
            meanwhile=lambda: self.world.transact(other, transaction(theirs, 2)),
            stale=True,
        )

    @rule(
        who=WHO,
        seed=SEEDS,
        how=st.sampled_from(["fold", "collect", "collect for good", "compact"]),
        orphan=st.booleans(),
        uploaded=st.booleans(),
    )
    def maintained_meanwhile(self, who: int, seed: int, how: str, *, orphan: bool, uploaded: bool) -> None:
        """Maintenance is no conflict, before the commit or when its segments are uploaded and named nowhere yet."""
        if orphan:
            self.world.orphan("seg")
        process = self.of(who)
        self.world.transact(
            process, transaction(seed, 3), meanwhile=lambda: self.world.maintain(how, process), uploaded=uploaded
        )

    @rule(who=WHO)
    def look(self, who: int) -> None:
        """A session, after as many versions as have come since the last one."""
        self.of(who).compare()

    @rule(who=WHO, writes=st.booleans())
    def pin(self, who: int, *, writes: bool) -> None:
        """A session that stays open until its process writes, ends, or is told to."""
        process = self.of(who)
        if len(process.pins) < 2 and not any(pin.writes for pin in process.pins):
            process.pins.append(Pin(process, writes=writes))

    @rule(who=WHO)
    def release(self, who: int) -> None:
        """The open sessions end."""
        self.of(who).release()

    @rule(who=WHO, how=st.sampled_from(["vacuum", "pages", "pages and vacuum", "file"]), chance=st.integers(0, 2))
    def everything(self, who: int, how: str, chance: int) -> None:
        """A VACUUM, another tool's file, or a conversion. Rarely, because all segments are gone then."""
        if chance:
            return
        if how == "vacuum":
            self.world.vacuum(self.of(who))
        elif how == "file":
            self.world.store_whole("file", vacuum=False)
            self.of(who).compare()
            self.world.transact(self.of(who), [("UPDATE t0 SET b = 'as a file' WHERE id = 1", ())])
            self.world.store_whole("pages", vacuum=False)
        else:
            self.world.store_whole("pages", vacuum="vacuum" in how)

    @rule(who=WHO, how=st.sampled_from(["fold", "collect", "compact", "upkeep", "upkeep"]))
    def maintain(self, who: int, how: str) -> None:
        """Between commits."""
        self.world.maintain(how, self.of(who))

    @rule(kind=st.sampled_from(["seg", "base"]))
    def orphan(self, kind: Literal["seg", "base"]) -> None:
        """A refused commit leaves an object behind."""
        self.world.orphan(kind)

    @rule(seconds=st.sampled_from([1, GRACE // 2, GRACE, 3 * GRACE]))
    def wait(self, seconds: int) -> None:
        """What is condemned becomes due."""
        self.world.wait(seconds)

    @rule(who=WHO)
    def restart(self, who: int) -> None:
        """The working copy is used again."""
        self.of(who).close()
        self.of(who).open()

    @rule()
    def newcomer(self) -> None:
        """A process that has nothing pulls it all."""
        process = Process(self.world, 2000)
        process.compare()
        process.close()

    def teardown(self) -> None:
        """Everybody sees the end."""
        if hasattr(self, "world"):
            try:
                self.world.close()
            finally:
                self.limits.__exit__(None, None, None)


class BeyondTheLockPage(SqlMachine):
    """The same, in a database that has pages before and behind SQLite's lock page."""

    rows = 900


def _settings(examples: int) -> settings:
    return settings(
        max_examples=EXAMPLES or examples,
        stateful_step_count=30,
        deadline=None,
        derandomize=not EXAMPLES,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )


SqlMachine.TestCase.settings = _settings(18)


@pytest.mark.slow
@pytest.mark.timeout(0 if EXAMPLES else 600)
class TestSql(SqlMachine.TestCase):  # type: ignore[misc, valid-type]
    """Random SQL, with the lock page where it always is: beyond what a test writes."""

    @classmethod
    def tearDownClass(cls) -> None:
        """Say what was done."""
        if EXAMPLES:
            print(dict(COUNTS))
        for what in ("commits", "catch-ups", "full pulls", "conflicts", "folds", "merges", "collections", "pinned"):
            assert COUNTS[what], f"nothing of this was tried: {what}"


assert issubclass(TestSql, unittest.TestCase)

MOVED = """
import ctypes, sqlite3, sys
library = ctypes.CDLL("libsqlite3.so.0")
library.sqlite3_sourceid.restype = ctypes.c_char_p
with sqlite3.connect(":memory:") as connection:
    if connection.execute("SELECT sqlite_source_id()").fetchone()[0] != library.sqlite3_sourceid().decode():
        print("another library"); sys.exit(0)
library.sqlite3_test_control(11, ctypes.c_uint(1 << 17))  # SQLITE_TESTCTRL_PENDING_BYTE
from tests.stateful.test_pages_sql import run_with_lock_byte_at
run_with_lock_byte_at(1 << 17)
"""


def run_with_lock_byte_at(offset: int) -> None:
    """The machine, in a process of its own, whose SQLite has its lock page there."""
    header.LOCK_BYTE_AT = offset  # type: ignore[misc]
    run_state_machine_as_test(BeyondTheLockPage, settings=_settings(4))
    assert COUNTS["beyond the lock page"] > COUNTS["commits"] // 4, COUNTS
    print("done", dict(COUNTS) if EXAMPLES else "")


@pytest.mark.slow
@pytest.mark.timeout(0 if EXAMPLES else 600)
def test_around_the_lock_page() -> None:
    """A database that grows beyond SQLite's lock page, which is moved to 128 KiB: nobody stores or sums it."""
    run = subprocess.run(
        [sys.executable, "-c", MOVED], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2]
    )
    if "another library" in run.stdout:
        pytest.skip("Python's SQLite is not the system's")
    assert run.stdout.startswith("done"), run.stderr[-6000:] + run.stdout[-2000:]
    print(run.stdout)
