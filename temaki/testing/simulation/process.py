"""A simulated process: its working copy, its databases, its clocks, its network, and its end."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from temaki.config.registry import load
from temaki.engine import shared
from temaki.engine.engine import Engine
from temaki.engine.shared import Shared
from temaki.orm.provider import StoreProvider
from temaki.replica.generation import Generation
from temaki.strategy import Strategy
from temaki.testing.simulation.network import KEY, Wire
from temaki.testing.simulation.scheduler import Task, running

if TYPE_CHECKING:
    from temaki.testing.simulation.roles import Stage


class View:
    """The clocks of one machine, which show the true time with errors.

    The wall clock is wrong, and may be set. The monotonic clock starts at a number of its own, and may stand still
    while the machine is suspended. Both run at the true rate.
    """

    def __init__(self, world: Stage, number: int) -> None:
        self._world = world
        self._offset = 1e4 * number
        self.skew = world.choices.pick((0.0, -5.0, 1e6))
        self.sleeps = world.choices.chance(0.3)
        self.slept = 0.0

    def monotonic(self) -> float:
        """Seconds since a moment of the machine's own."""
        return self._world.scheduler.now + self._offset - self.slept

    def time(self) -> float:
        """Seconds since the epoch, by the machine's wrong clock."""
        return 1_750_000_000.0 + self._world.scheduler.now + self.skew

    def sleep(self, seconds: float) -> None:
        """Wait for ``seconds`` of the schedule's time."""
        task = running()
        assert task is not None
        task.pause(seconds)


class _Named:
    """A substitute for Pony's ``Database``, as far as the provider uses it."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def call_on_connect(self, connection: object) -> None:
        """Let time pass, as the user's handlers do: between the entry into a generation and the snapshot."""
        self._process.pause(self._process.world.choices.pick((0.0, 0.0, 0.1, 1.0)))


class Process:
    """One incarnation of a client.

    Args:
        world: The schedule that it is in.
        number: Number of the client.
        incarnation: Number of times that the client was restarted.
        folder: Folder for ``cache_dir``.

    Attributes:
        dead: True if it was killed. Threads that still run in it change nothing.
        frozen_until: Time until which it does nothing, in seconds of the schedule.
        sent: True while a PUT is on its way.
        met_bad_answer: True if it got an answer that no store should give.
        has_seen: True if one of its sessions has read a database. Then it must never believe that there is none.
    """

    def __init__(self, world: Stage, number: int, incarnation: int, folder: Path) -> None:
        self.world, self.number, self.folder = world, number, folder
        self.name = f"P{number}" + "'" * incarnation
        self.dead = self.sent = self.met_bad_answer = self.has_seen = False
        self.frozen_until = 0.0
        self.view = View(world, number)
        self.wire = Wire(self)
        self.generations: list[Generation] = []
        self.url = f"memory://simulation-{number}/{KEY}"
        shared._shared.pop(self.url, None)  # noqa: SLF001 - another process has a registry of its own
        self.shared: Shared = shared.share(
            self.url,
            KEY,
            self.wire,
            given=self.wire,
            cache_dir=folder,
            timeout=world.timeout,
            clock=self.view,
            format=world.format,
        )

    def provider(self, name: str, options: dict[str, Any]) -> StoreProvider:
        """Make the provider of a ``Database`` that is bound in this process."""
        factory = _strategy(name)
        return StoreProvider(_Named(self), Engine(self.shared, factory(**options)))

    def spawn(self, name: str, run: Callable[[], None]) -> Task:
        """Start a thread of this process."""
        return self.world.scheduler.spawn(self, f"{self.name}.{name}", run)

    def pause(self, seconds: float) -> None:
        """Let time pass for the calling thread."""
        task = running()
        assert task is not None
        task.pause(seconds)

    # -- its end --------------------------------------------------------------------------------------------------

    def kill(self, *, politely: bool) -> Path:
        """End the process at once.

        Args:
            politely: True to exit as an interpreter does: it closes its connections, and SQLite checkpoints when the
                last one closes. False to end as with ``kill -9``: the files stay as they are.

        Returns:
            A copy of the folder as the process left it. (The threads that unwind still use the folder itself.)
        """
        self.dead = True
        if politely:
            for generation in self.generations:
                _close_all(generation)
        copy = self.world.next_folder()
        if self.folder.exists():
            shutil.copytree(self.folder, copy)
        return copy

    def bury(self) -> None:
        """Close everything that the process had open, after its threads have ended."""
        for generation in self.generations:
            _close_all(generation)
            generation.dispose() if generation._is_open else None  # noqa: SLF001
        folder = self.shared.replica._folder  # noqa: SLF001
        if folder is not None:
            folder.die()
        made = self.shared.lease._made  # noqa: SLF001
        if made is not None:
            made[1].reset_after_fork()  # it holds nothing any more, so Python's exit releases nothing


@cache
def _strategy(name: str) -> Callable[..., Strategy]:
    return load(name)  # cached, because it reads all installed distributions, which takes longer than a schedule


def _close_all(generation: Generation) -> None:
    for connection in [*generation._connections, generation._guard]:  # noqa: SLF001
        with suppress(sqlite3.Error):
            connection.close()
