"""The lease in thousands of seeded schedules. ``LEASE_SCHEDULES=100000`` runs so many; a failure prints its seed."""

from __future__ import annotations

import logging
import os

import pytest

from tests.stateful._lease_simulation import Simulation

SCHEDULES = int(os.environ.get("LEASE_SCHEDULES", "2000"))
CHUNKS = 8


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Thousands of takeovers are no news."""
    caplog.set_level(logging.CRITICAL, "temaki")


@pytest.mark.timeout(60 + SCHEDULES)
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_at_most_one_holder_and_progress(chunk: int) -> None:
    """Pauses, clocks that are wrong, lost replies, crashes: never two holders, never a generation twice or backwards,
    never a commit under an older one than before; and whoever waits gets the lease in bounded time.
    """
    acquired = 0
    for seed in range(chunk, SCHEDULES, CHUNKS):
        simulation = Simulation(seed)
        simulation.run()
        acquired += simulation.acquired
    assert acquired >= SCHEDULES // CHUNKS, "schedules in which nobody gets the lease show nothing"


@pytest.mark.parametrize("seed", range(20))
def test_a_seed_is_a_schedule(seed: int) -> None:
    """Equal seeds give equal traces, so a failure can be looked at again."""
    trace = Simulation(seed).run()
    assert trace
    assert Simulation(seed).run() == trace


def test_schedules_are_eventful() -> None:
    """What is to be survived does occur: each kind of trouble, in a small part of the budget."""
    seen = "\n".join(line for seed in range(60) for line in Simulation(seed).run())
    for event in (
        "crashes",
        "is frozen",
        "wall clock set",
        "late requests land: 1",
        "has lost",
        "put app.sqlite.lease: StoreUnavailableError",
        "put app.sqlite.lease: PreconditionFailedError",
        "acquire: LeaseTimeoutError",
        "acquire: StoreUnavailableError",
        "commits under",
        "put app.sqlite: PreconditionFailedError",
    ):
        assert event in seen, event
