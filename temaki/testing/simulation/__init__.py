"""Seeded schedules of processes on one database, with everything that can go wrong between them and the store.

Several clients, each with a working copy and threads of its own, run real sessions through the real provider on real
SQLite files, against one bucket. One scheduler interleaves them at every request, at every lock, whenever time is
asked for, and between the parts of a commit and a pull. What goes wrong is drawn from the seed: lost replies, requests
that land late, 409s, refused connections, truncated bodies, bodies and 404s that no store should send, freezes beyond a
lease's ttl, clocks that are off or are set, processes that are killed or exit anywhere and come back with their cache
folder or without.

One seed is one schedule, always the same. What clients saw is judged by :mod:`temaki.testing.histories`.

    >>> from temaki.testing.simulation import check_seeds
    >>> check_seeds(range(10))

What is not simulated: parallel ranges of one download (they run in a pool of real threads), forks, two processes on
one cache folder, power cuts, a full disk. These have tests with real processes.
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
        How many operations they had in all.

    Raises:
        Violation: A promise was broken; with the seed, and the shortest history that was found.
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
    """The shortest schedule found that fails as this one does: what came of it, and the choices to replay."""
    choices = shrink(world.choices.record, lambda candidate: run(replay=candidate)[1] is not None)
    return *run(replay=choices), choices


def _report(seed: int, world: World, violation: Violation) -> str:
    small, now, choices = shortest(world)
    return (
        f"seed {seed}: {violation}\n\nThe shortest history found, of {len(small.events)} events instead of "
        f"{len(world.events)}:\n{now}\n" + "\n".join(small.lines()) + f"\n\nIt is run(replay={list(choices)}) of "
        f"temaki.testing.simulation; all of it is run({seed})."
    )
