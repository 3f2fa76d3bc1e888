"""What the parts of a simulation know of each other: the schedule as processes see it, a process as its parts do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from temaki.engine.shared import Shared
    from temaki.orm.provider import StoreProvider
    from temaki.stores.memory import MemoryStore
    from temaki.testing.histories import Operation
    from temaki.testing.simulation.choices import Choices
    from temaki.testing.simulation.scheduler import Scheduler


class Stage(Protocol):
    """The schedule that is running: :class:`temaki.testing.simulation.world.World`.

    Attributes:
        choices: Decide everything.
        scheduler: Runs the tasks.
        bucket: What all processes share.
        history: The operations of all clients.
        timeout: Seconds after which no new attempt of a request is made.
        fault_rate: How often a request goes wrong, between 0 and 1.
        hostile_rate: How often an answer is one that no store should give.
        crash_rate: How often a process dies while a PUT is on its way.
    """

    choices: Choices
    scheduler: Scheduler
    bucket: MemoryStore
    history: list[Operation]
    timeout: float
    fault_rate: float
    hostile_rate: float
    crash_rate: float

    def log(self, who: str, *what: Any) -> None:
        """Something happened."""

    def next_folder(self) -> Path:
        """A new folder's name."""

    def tick_before(self, seconds: float) -> int:
        """The tick that was current so many seconds ago."""

    def crash(self, process: Any) -> None:
        """Kill a process."""

    def wake_director(self) -> None:
        """A program is done."""


class Actor(Protocol):
    """A process, as its programs and its way to the bucket see it: :class:`temaki.testing.simulation.process.Process`.

    Attributes:
        name: For people.
        number: Which client it is.
        dead: It was killed.
        sent: A PUT is on its way.
        met_bad_answer: It was sent what no store should send.
        has_seen: A session of it has read something.
        shared: What its databases share.
    """

    name: str
    number: int
    dead: bool
    sent: bool
    met_bad_answer: bool
    has_seen: bool
    shared: Shared

    @property
    def world(self) -> Stage:
        """The schedule that it is in."""

    def pause(self, seconds: float) -> None:
        """Time passes for the thread that asks."""

    def provider(self, name: str, options: dict[str, Any]) -> StoreProvider:
        """A database bound in this process, under a strategy with these options."""
