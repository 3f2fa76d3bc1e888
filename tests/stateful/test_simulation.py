"""The five promises in thousands of seeded schedules. A failure prints its seed and the shortest history found.

``SCHEDULES=100000`` runs so many; ``make soak`` does. Each chunk is a class of its own, so that they spread over
workers.
"""

from __future__ import annotations

import logging
import os

import pytest

from temaki.testing.simulation import check_seeds, run, shortest
from temaki.testing.simulation.shrinking import shrink
from temaki.testing.simulation.stored import manifest_of
from temaki.testing.simulation.world import STRATEGIES
from tests.stateful._sabotage import sabotaged

SCHEDULES = int(os.environ.get("SCHEDULES", "6000"))
CHUNKS = 16


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Thousands of takeovers are no news."""
    caplog.set_level(logging.CRITICAL, "temaki")


class _Schedules:
    """One part of all seeds."""

    chunk: int

    @pytest.mark.slow
    @pytest.mark.timeout(120 + SCHEDULES)
    def test_promises(self) -> None:
        """Strictly serializable, each acknowledged commit once, each refused one never, no error as an empty database,
        nothing but documented errors; and once all trouble is over, everybody gets through.
        """
        seeds = range(self.chunk, SCHEDULES, CHUNKS)
        assert check_seeds(seeds) >= 3 * len(seeds), "schedules in which nothing is done show nothing"


for _chunk in range(CHUNKS):
    globals()[f"TestSchedules{_chunk}"] = type(f"TestSchedules{_chunk}", (_Schedules,), {"chunk": _chunk})


class TestSimulation:
    """The simulation itself."""

    @pytest.mark.parametrize("seed", range(15))
    def test_a_seed_is_a_schedule(self, seed: int) -> None:
        """Equal seeds give equal events, and so do the choices that a seed has made."""
        first, _ = run(seed)
        again, _ = run(seed)
        assert again.lines() == first.lines()
        replayed, _ = run(replay=first.choices.record)
        assert replayed.lines() == first.lines()

    def test_schedules_are_eventful(self) -> None:
        """What is to be survived does occur, in a small part of the budget; and every strategy takes part."""
        worlds = [run(seed)[0] for seed in range(250)]
        seen = "\n".join(line for world in worlds for line in world.lines())
        for event in (
            "is killed",
            "exits",
            "is survived by its request",
            "is frozen",
            "wall clock set",
            "late requests land: 1",
            "put app.sqlite lost reply",
            "put app.sqlite late landing",
            "put app.sqlite conflict 409",
            "put app.sqlite fail before",
            "put app.sqlite refused",
            "put app.sqlite 412",
            "get app.sqlite truncated",
            "get app.sqlite 404",
            "gets a body that is not all of it",
            "is told that there is nothing",
            "connects anew, to go on in the current version",
            "head app.sqlite ok",
            "put app.sqlite.lease ok",
            "ConflictError",
            "CommitUnknownError",
            "CorruptDatabaseError",
            "LeaseTimeoutError",
            "ReadOnlyError",
            "IntegrityError",
            "UNKNOWN",
        ):
            assert event in seen, event
        for event in (
            "list app.sqlite.pages/ ok",
            "delete app.sqlite.pages/",
            "app.sqlite.pages/gone-",
            "put app.sqlite.pages/base-",
            "put app.sqlite.pages/seg-",
            "has compacted: folded",
            "has stored it as version",
            "put a plain file over",
            "sees an older head put back",
        ):
            assert event in seen, event
        heads = [
            manifest
            for world in worlds
            if world.ledger is not None
            for landing in world.ledger.landings
            if (manifest := manifest_of(landing.data)) is not None
        ]
        for field in ("segments", "tail", "gc", "condemned", "gone", "fold", "edition"):
            assert any(head[field] for head in heads), field
        used = [program.strategy for world in worlds for programs in world.programs.values() for program in programs]
        assert all(strategy in used for strategy in STRATEGIES)

    def test_shortest_history(self) -> None:
        """A failure is handed over as the few events that make it."""
        with sabotaged("If-Match on upload"):
            world, violation = next(found for found in map(run, range(200)) if found[1] is not None)
            assert violation is not None
            small, still, choices = shortest(world)
            assert still is not None
            assert len(choices) < len(world.choices.record)
            assert len(small.events) <= len(world.events)
            assert run(replay=choices)[0].lines() == small.lines()

    def test_shrinking(self) -> None:
        """Nothing is left that is not needed."""
        assert shrink([5, 1, 0, 3, 7, 2], lambda choices: 7 in choices) == [7]
        assert shrink([1, 2, 3], lambda choices: len(choices) > 1 and choices[1] == 2) == [0, 2]
