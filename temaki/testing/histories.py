"""Decides from a history alone whether the promises were kept.

A history contains what clients saw: when each operation was invoked and when it returned, what it read, what it meant
to write, and how it ended. The checker uses nothing from the library, the store or the scheduler.

**Why this is cheap.** To decide whether a history is serializable is NP-complete in general (Papadimitriou, "The
serializability of concurrent database updates", J. ACM 26(4), 1979), and so is linearizability of one plain register
(Gibbons and Korach, "Testing shared memories", SIAM J. Comput. 26(4), 1997): the order of the writes has to be
guessed. Here it need not be. A commit replaces the whole database by compare-and-swap, so the database is one register
in which each write names the value that it replaced: the writes form a chain, as in Gibbons and Korach's case of known
write order. Clients append a unique name to a list and read the list whole, so each value spells out its own chain
("traceability": Kingsbury and Alvaro, "Elle", VLDB 14(3), 2020). What is left of strict serializability (for one object
the same as linearizability: Herlihy and Wing, ACM TOPLAS 12(3), 1990) is that each operation's place in the chain
respects real time, which one sweep in the order of time decides.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from math import inf

Value = tuple[str, ...]
"""The register: the names of all committed writes, in order. Empty where there is no database."""


class Outcome(Enum):
    """The end of an operation, as its client saw it."""

    OK = auto()
    """The operation returned. Its reads are answers, and its write is acknowledged."""
    REFUSED = auto()
    """The operation raised or rolled back. Its write is not stored and never will be. Its reads still count."""
    UNKNOWN = auto()
    """The client died, or got an error that leaves it open. The write may take effect at any later time, once."""


class Kind(Enum):
    """The kinds of anomalies in a history."""

    APPLIED_TWICE = "took effect more than once"
    LOST = "was acknowledged, and is lost"
    REFUSED_YET_VISIBLE = "was refused, and took effect"
    DIRTY_READ = "shows a commit that was never accepted"
    FOREIGN = "shows what nobody wrote"
    FORKED = "shows another order of commits"
    LOST_UPDATE = "replaced a value that it had not read"
    UNREPEATABLE = "reads two values within one snapshot"
    EMPTY = "shows an empty database where there was one"
    STALE = "shows less than was acknowledged before it began"
    WENT_BACK = "shows less than was read before it began"
    FUTURE = "took effect before it began"
    OWN_WRITE_MISSING = "does not show its own session's commit"


@dataclass(frozen=True, slots=True)
class Operation:
    """One transaction of one client.

    Attributes:
        name: Unique name of the operation. A write appends this name.
        client: Name of the client, for messages.
        began: Time of the invocation. All times are numbers of one clock that no client can see. No two are equal.
        ended: Time of the return; None if it never returned.
        outcome: Outcome of the operation.
        reads: Values that it read, in order, all within one snapshot. Empty if it got no answer.
        writes: True if it meant to append its name.
        fresh_from: Time whose acknowledged commits the operation has to see; None for ``began``. It is earlier for an
            operation in the middle of a session, which sees the version of the session's start, and under ``max_age``.
        follows: Name of a commit of the same session that the operation has to see; None if there is none.
    """

    name: str
    client: str
    began: int
    ended: int | None
    outcome: Outcome
    reads: tuple[Value, ...] = ()
    writes: bool = False
    fresh_from: int | None = None
    follows: str | None = None


@dataclass(frozen=True, slots=True)
class Anomaly:
    """One broken promise in a history.

    Attributes:
        kind: Kind of the anomaly.
        operation: Name of the operation.
        detail: The facts, as text.
    """

    kind: Kind
    operation: str
    detail: str

    def __str__(self) -> str:
        return f"{self.operation} {self.kind.value}: {self.detail}"


def anomalies(history: Sequence[Operation], final: Value) -> list[Anomaly]:
    """Find all anomalies of a history. A history that is strictly serializable and honest about commits has none.

    The time is linear in the history's size, apart from sorting it.

    Args:
        history: The operations, in any order.
        final: The register's value after all operations, when no request is under way any more.
    """
    return _Check(history, final).run()


class _Check:
    def __init__(self, history: Sequence[Operation], final: Value) -> None:
        self._history = history
        self._final = final
        self._by_name: Mapping[str, Operation] = {operation.name: operation for operation in history}
        self._place = {name: number for number, name in enumerate(final, 1)}
        self._anomalies: list[Anomaly] = []

    def run(self) -> list[Anomaly]:
        self._check_effects()
        for operation in self._history:
            self._check_reads(operation)
        if not self._anomalies:  # with other anomalies, places in the order mean nothing
            self._check_real_time()
        return self._anomalies

    def _report(self, kind: Kind, operation: str, detail: str) -> None:
        self._anomalies.append(Anomaly(kind, operation, detail))

    # -- what took effect -----------------------------------------------------------------------------------------

    def _check_effects(self) -> None:
        for name in self._final:
            operation = self._by_name.get(name)
            if operation is None or not operation.writes:
                self._report(Kind.FOREIGN, "the final value", f"{name} in {_shown(self._final)}")
            elif operation.outcome is Outcome.REFUSED:
                self._report(Kind.REFUSED_YET_VISIBLE, name, f"the final value is {_shown(self._final)}")
        if len(self._place) < len(self._final):
            twice = {name for name in self._final if self._final.count(name) > 1}
            for name in sorted(twice):
                self._report(Kind.APPLIED_TWICE, name, f"the final value is {_shown(self._final)}")
        for operation in self._history:
            if operation.writes and operation.outcome is Outcome.OK and operation.name not in self._place:
                self._report(Kind.LOST, operation.name, f"the final value is {_shown(self._final)}")

    # -- what was read --------------------------------------------------------------------------------------------

    def _check_reads(self, operation: Operation) -> None:
        for value in operation.reads:
            if value != operation.reads[0]:
                self._report(
                    Kind.UNREPEATABLE, operation.name, f"first {_shown(operation.reads[0])}, then {_shown(value)}"
                )
            if value != self._final[: len(value)]:
                self._report_strange(operation, value)
        place = self._place.get(operation.name)
        if place is not None and operation.writes and operation.reads and len(operation.reads[-1]) != place - 1:
            self._report(
                Kind.LOST_UPDATE,
                operation.name,
                f"it read {_shown(operation.reads[-1])} and replaced {_shown(self._final[: place - 1])}",
            )

    def _report_strange(self, operation: Operation, value: Value) -> None:
        never = [name for name in value if name not in self._place]
        if not never:
            kind = Kind.FORKED if len(set(value)) == len(value) else Kind.APPLIED_TWICE
            self._report(kind, operation.name, f"{_shown(value)}; the final value is {_shown(self._final)}")
        for name in never:
            writer = self._by_name.get(name)
            if writer is None or not writer.writes:
                self._report(Kind.FOREIGN, operation.name, f"{name} in {_shown(value)}")
            elif writer.outcome is not Outcome.OK:  # else it is reported as lost
                self._report(Kind.DIRTY_READ, operation.name, f"{name}, whose outcome is {writer.outcome.name.lower()}")

    # -- when -----------------------------------------------------------------------------------------------------

    def _step(self, operation: Operation) -> int | None:
        """The operation's place in the only possible order: even for a write, odd for a read of the write's value."""
        if operation.writes and operation.name in self._place:
            return 2 * self._place[operation.name]
        return 2 * len(operation.reads[0]) + 1 if operation.reads else None

    def _check_real_time(self) -> None:
        """Make sure that an operation that ended before another one began has the lower place."""
        placed = [(operation, step) for operation in self._history if (step := self._step(operation)) is not None]
        times: list[float] = [-inf]
        floors: list[tuple[int, Operation | None]] = [(0, None)]
        for operation, step in sorted(placed, key=lambda pair: inf if pair[0].ended is None else pair[0].ended):
            is_open = operation.writes and operation.outcome is Outcome.UNKNOWN  # it may take effect later than it ends
            if operation.ended is not None and not is_open and step > floors[-1][0]:
                times.append(operation.ended)
                floors.append((step, operation))
        for operation, step in placed:
            since = operation.began
            if not (operation.writes and operation.name in self._place) and operation.fresh_from is not None:
                since = operation.fresh_from
            floor, earlier = floors[bisect_left(times, since) - 1]
            if earlier is not None and step < floor:
                self._report_late(operation, step, earlier, floor)
            own = self._place.get(operation.follows or "", 0)
            if step < 2 * own:
                self._report(
                    Kind.OWN_WRITE_MISSING, operation.name, f"{operation.follows} in {_shown(self._final[: step // 2])}"
                )

    def _report_late(self, operation: Operation, step: int, earlier: Operation, floor: int) -> None:
        if not step % 2:
            kind = Kind.FUTURE
        elif step == 1:
            kind = Kind.EMPTY
        else:
            kind = Kind.WENT_BACK if floor % 2 else Kind.STALE
        self._report(
            kind,
            operation.name,
            f"{operation.client} at {operation.began} comes to {_shown(self._final[: step // 2])}; {earlier.name} of "
            f"{earlier.client}, which had ended at {earlier.ended}, to {_shown(self._final[: floor // 2])}",
        )


def _shown(value: Value) -> str:
    most = 6
    names = value if len(value) <= most else ("…", *value[-most:])
    return f"[{' '.join(names)}] ({len(value)})"
