"""The interfaces between the parts of the simulation: the schedule for processes, and a process for its parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import sqlite3
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
        choices: The random choices of the schedule.
        scheduler: Runs the tasks.
        bucket: The bucket that all processes share.
        format: Name of the format that a new database gets.
        in_pages: True if the format ``pages`` takes part.
        history: The operations of all clients.
        timeout: Seconds after which no new attempt of a request is made.
        fault_rate: Probability of each fault of a request, between 0 and 1.
        hostile_rate: Probability of an answer that no store should give.
        crash_rate: Probability that a process dies while a PUT is on its way.
    """

    choices: Choices
    scheduler: Scheduler
    bucket: MemoryStore
    format: str
    in_pages: bool
    history: list[Operation]
    timeout: float
    fault_rate: float
    hostile_rate: float
    crash_rate: float

    def log(self, who: str, *what: Any) -> None:
        """Record an event."""

    def check_file(self, connection: sqlite3.Connection) -> None:
        """Make sure that what a connection reads is a version that was stored, all of it."""

    def next_folder(self) -> Path:
        """Choose the name of a new folder."""

    def tick_before(self, seconds: float) -> int:
        """Get the tick that was current ``seconds`` ago."""

    def crash(self, process: Any) -> None:
        """Kill a process."""

    def wake_director(self) -> None:
        """Tell the director that a program is done."""


class Actor(Protocol):
    """A process, as its programs and its way to the bucket see it: :class:`temaki.testing.simulation.process.Process`.

    Attributes:
        name: Name of the process, for people.
        number: Number of the client.
        dead: True if it was killed.
        sent: True while a PUT is on its way.
        met_bad_answer: True if it got an answer that no store should give.
        has_seen: True if one of its sessions has read a database.
        shared: The objects that its databases share.
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
        """Let time pass for the calling thread."""

    def provider(self, name: str, options: dict[str, Any]) -> StoreProvider:
        """Make the provider of a database that is bound in this process, with this strategy."""
