"""Runs seeded schedules of processes on one database, with all faults that can happen between them and the store.

Several clients run real sessions through the real provider on real SQLite files, against one bucket. Each client has a
working copy and threads of its own. One scheduler interleaves them at every request, at every lock, at every use of a
clock, and between the parts of a commit and a pull. The seed decides the faults: lost replies, requests that land late,
409s, refused connections, truncated bodies, bodies and 404s that no store should send, freezes beyond a lease's ttl,
clocks that are wrong or are set, processes that are killed or exit anywhere and come back with or without their cache
folder.

In some of the schedules the database is stored in the format ``pages``, with small limits
(:mod:`temaki.testing.simulation.limits`). There, processes compact it, an operator compacts, converts and restores it,
and other tools put files and old heads in its place. :mod:`temaki.testing.simulation.ledger` checks each change of the
bucket at once.

One seed is one schedule, always the same. :mod:`temaki.testing.histories` judges what the clients saw.

    >>> from temaki.testing.simulation import check_seeds
    >>> check_seeds(range(10))

Not simulated: parallel ranges of one download (they run in real threads), forks, two processes on one cache folder,
power cuts, a full disk. Tests with real processes cover these.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from temaki.testing.simulation import substitutes
from temaki.testing.simulation.scheduler import Violation
from temaki.testing.simulation.shrinking import shrink
from temaki.testing.simulation.world import World, run

__all__ = ["Violation", "World", "check_seeds", "run", "shortest"]


def check_seeds(seeds: Iterable[int]) -> int:
    """Run one schedule for each seed.

    Returns:
        Number of operations in all schedules.

    Raises:
        Violation: A promise was broken. The message has the seed and the shortest history that was found.
    """
    count = 0
    with substitutes.installed():
        for seed in seeds:
            world, violation = run(seed)
            count += len(world.history)
            if violation is not None:
                raise Violation(_report(seed, world, violation)) from violation
    return count


def shortest(world: World) -> tuple[World, Violation | None, Sequence[int]]:
    """Find a short schedule that fails as this one does. Returns its world, its violation and its choices."""
    choices = shrink(world.choices.record, lambda candidate: run(replay=candidate)[1] is not None)
    return *run(replay=choices), choices


def _report(seed: int, world: World, violation: Violation) -> str:
    small, now, choices = shortest(world)
    return (
        f"seed {seed}: {violation}\n\nThe shortest history found, of {len(small.events)} events instead of "
        f"{len(world.events)}:\n{now}\n" + "\n".join(small.lines()) + f"\n\nIt is run(replay={list(choices)}) of "
        f"temaki.testing.simulation; all of it is run({seed})."
    )
