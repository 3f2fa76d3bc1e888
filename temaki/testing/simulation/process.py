"""A process: a working copy, its databases, its clocks, its way to the bucket; and how it ends."""

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
    """The true time as a machine's clocks show it.

    The wall clock is off, and may be set; the monotonic one started elsewhere, and may stand still while the machine
    is suspended. Both run at the true rate.
    """

    def __init__(self, world: Stage, number: int) -> None:
        self._world = world
        self._offset = 1e4 * number
        self.skew = world.choices.pick((0.0, -5.0, 1e6))
        self.sleeps = world.choices.chance(0.3)
        self.slept = 0.0

    def monotonic(self) -> float:
        """Seconds since some moment."""
        return self._world.scheduler.now + self._offset - self.slept

    def time(self) -> float:
        """Seconds since what it takes for the epoch."""
        return 1_750_000_000.0 + self._world.scheduler.now + self.skew

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        task = running()
        assert task is not None
        task.pause(seconds)


class _Named:
    """What the provider asks of Pony's ``Database``."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def call_on_connect(self, connection: object) -> None:
        """The user's handlers take their time, between the session's entering a generation and its snapshot."""
        self._process.pause(self._process.world.choices.pick((0.0, 0.0, 0.1, 1.0)))


class Process:
    """One incarnation of a client.

    Args:
        world: Where it lives.
        number: Which client.
        folder: Its ``cache_dir``.

    Attributes:
        dead: It was killed; what still runs in it changes nothing.
        frozen_until: Until then it does nothing.
        sent: A PUT is on its way.
        met_bad_answer: It was sent what no store should send.
        has_seen: A session of it has read something, so that it must never again believe that there is nothing.
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
        )

    def provider(self, name: str, options: dict[str, Any]) -> StoreProvider:
        """A ``Database`` bound in this process, as far as a session needs it."""
        factory = _strategy(name)
        return StoreProvider(_Named(self), Engine(self.shared, factory(**options)))

    def spawn(self, name: str, run: Callable[[], None]) -> Task:
        """A thread of it."""
        return self.world.scheduler.spawn(self, f"{self.name}.{name}", run)

    def pause(self, seconds: float) -> None:
        """Time passes for the thread that asks."""
        task = running()
        assert task is not None
        task.pause(seconds)

    # -- its end --------------------------------------------------------------------------------------------------

    def kill(self, *, politely: bool) -> Path:
        """End it here and now.

        Args:
            politely: As an interpreter that exits, which closes its connections, and SQLite checkpoints when the last
                one closes. Else as ``kill -9``: files stay as they are.

        Returns:
            A copy of its folder as it left it. (The folder itself still belongs to what unwinds.)
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
        """Close what it had open, after its threads have ended."""
        for generation in self.generations:
            _close_all(generation)
            generation.dispose() if generation._is_open else None  # noqa: SLF001
        folder = self.shared.replica._folder  # noqa: SLF001
        if folder is not None:
            folder.die()
        made = self.shared.lease._made  # noqa: SLF001
        if made is not None:
            made[1].reset_after_fork()  # holds nothing any more, so that nothing is given back when Python exits


@cache
def _strategy(name: str) -> Callable[..., Strategy]:
    return load(name)  # reads all installed distributions: dearer than a schedule


def _close_all(generation: Generation) -> None:
    for connection in [*generation._connections, generation._guard]:  # noqa: SLF001
        with suppress(sqlite3.Error):
            connection.close()
