"""`temaki.testing.histories`: good histories are accepted, and each kind of anomaly is caught."""

from __future__ import annotations

import pytest

from temaki.testing.histories import Kind, Operation, Outcome, Value, anomalies

OK, REFUSED, UNKNOWN = Outcome.OK, Outcome.REFUSED, Outcome.UNKNOWN


def value(names: str) -> Value:
    """``"a b"`` as a value."""
    return tuple(names.split())


def write(name: str, began: int, ended: int | None, read: str, outcome: Outcome = OK, **more: object) -> Operation:
    """A transaction that read a value and appended its name."""
    return Operation(name, "C", began, ended, outcome, (value(read),), writes=True, **more)  # type: ignore[arg-type]


def read(name: str, began: int, ended: int, *reads: str, outcome: Outcome = OK, **more: object) -> Operation:
    """A transaction that only read, as often as it says."""
    return Operation(name, "C", began, ended, outcome, tuple(value(one) for one in reads), **more)  # type: ignore[arg-type]


CREATED = write("a", 1, 2, "")

GOOD: dict[str, tuple[list[Operation], str]] = {
    "nothing at all": ([], ""),
    "one after the other": ([CREATED, write("b", 3, 4, "a"), read("r", 5, 6, "a b", "a b")], "a b"),
    "a read before there is anything": ([read("r", 1, 2, ""), write("a", 3, 4, "")], "a"),
    "a read beside a commit shows it": ([CREATED, write("b", 3, 8, "a"), read("r", 4, 5, "a b")], "a b"),
    "a read beside a commit does not": ([CREATED, write("b", 3, 8, "a"), read("r", 4, 9, "a")], "a b"),
    "a refused commit": ([CREATED, write("b", 3, 6, "a"), write("c", 4, 8, "a", REFUSED)], "a b"),
    "a rolled back read of what was current": ([CREATED, write("c", 3, 4, "a", REFUSED)], "a"),
    "unknown, never came": ([CREATED, write("b", 3, 4, "a", UNKNOWN), read("r", 5, 6, "a")], "a"),
    "unknown, came late": (
        [CREATED, write("b", 3, 4, "a", UNKNOWN), read("r", 5, 6, "a"), read("s", 7, 8, "a b")],
        "a b",
    ),
    "died, came": ([CREATED, write("b", 3, None, "a", UNKNOWN), read("s", 7, 8, "a b")], "a b"),
    "an error shows nothing": ([CREATED, read("r", 3, 4, outcome=REFUSED)], "a"),
    "as old as it may be": ([CREATED, write("b", 3, 4, "a"), read("r", 5, 6, "a", fresh_from=3)], "a b"),
    "two transactions in a session": (
        [CREATED, write("b", 3, 4, "a"), write("c", 5, 6, "a b", fresh_from=3, follows="b")],
        "a b c",
    ),
}

BAD: dict[str, tuple[Kind, list[Operation], str]] = {
    "lost update": (Kind.LOST_UPDATE, [CREATED, write("b", 3, 6, "a"), write("c", 4, 8, "a")], "a b c"),
    "lost update that overwrites": (Kind.LOST, [CREATED, write("b", 3, 6, "a"), write("c", 4, 8, "a")], "a c"),
    "acknowledged and lost": (Kind.LOST, [CREATED, write("b", 3, 4, "a")], "a"),
    "acknowledged, seen and lost": (Kind.LOST, [CREATED, write("b", 3, 4, "a"), read("r", 5, 6, "a b")], "a"),
    "refused, yet visible": (Kind.REFUSED_YET_VISIBLE, [CREATED, write("b", 3, 4, "a", REFUSED)], "a b"),
    "acknowledged, twice there": (Kind.APPLIED_TWICE, [CREATED, write("b", 3, 4, "a")], "a b b"),
    "unknown, twice there": (Kind.APPLIED_TWICE, [CREATED, write("b", 3, 4, "a", UNKNOWN)], "a b b"),
    "twice in a read": (Kind.APPLIED_TWICE, [CREATED, read("r", 3, 4, "a a")], "a"),
    "dirty read of a refused commit": (
        Kind.DIRTY_READ,
        [CREATED, write("b", 3, 6, "a", REFUSED), read("r", 4, 5, "a b")],
        "a",
    ),
    "dirty read by who is refused": (
        Kind.DIRTY_READ,
        [CREATED, write("b", 3, 6, "a", REFUSED), write("c", 4, 8, "a b", REFUSED)],
        "a",
    ),
    "read of a commit that never came": (
        Kind.DIRTY_READ,
        [CREATED, write("b", 3, 6, "a", UNKNOWN), read("r", 4, 5, "a b")],
        "a",
    ),
    "read of a pending commit": (
        Kind.WENT_BACK,
        [CREATED, write("b", 3, 9, "a"), read("r", 4, 5, "a b"), read("s", 6, 7, "a")],
        "a b",
    ),
    "stale read": (Kind.STALE, [CREATED, write("b", 3, 4, "a"), read("r", 5, 6, "a")], "a b"),
    "stale read by who is refused": (
        Kind.STALE,
        [CREATED, write("b", 3, 4, "a"), write("c", 5, 6, "a", REFUSED)],
        "a b",
    ),
    "older than it may be": (
        Kind.STALE,
        [CREATED, write("b", 3, 4, "a"), write("c", 7, 8, "a b"), read("r", 9, 10, "a", fresh_from=6)],
        "a b c",
    ),
    "going back": (
        Kind.WENT_BACK,
        [CREATED, write("b", 3, None, "a", UNKNOWN), read("r", 4, 5, "a b"), read("s", 6, 7, "a")],
        "a b",
    ),
    "an empty database after an error": (Kind.EMPTY, [CREATED, read("r", 3, 4, "")], "a"),
    "an empty database that is written to": (Kind.LOST, [CREATED, write("b", 3, 4, "")], "b"),
    "two values in one snapshot": (
        Kind.UNREPEATABLE,
        [CREATED, write("b", 3, 6, "a"), read("r", 4, 8, "a", "a b")],
        "a b",
    ),
    "another order": (
        Kind.FORKED,
        [CREATED, write("b", 3, 9, "a"), write("c", 4, 10, "a b"), read("r", 5, 8, "a c")],
        "a b c",
    ),
    "a write before it began": (Kind.FUTURE, [CREATED, read("r", 3, 4, "a b"), write("b", 5, 6, "a")], "a b"),
    "a commit before one that had ended": (
        Kind.FUTURE,
        [CREATED, write("c", 3, 4, "a b"), write("b", 5, 6, "a")],
        "a b c",
    ),
    "what nobody wrote": (Kind.FOREIGN, [CREATED, read("r", 3, 4, "a x")], "a"),
    "what nobody wrote, in the end": (Kind.FOREIGN, [CREATED], "a x"),
    "what a reader cannot have written": (Kind.FOREIGN, [CREATED, read("r", 3, 4, "a")], "a r"),
    "without its own session's commit": (
        Kind.OWN_WRITE_MISSING,
        [CREATED, write("b", 3, 4, "a"), write("c", 5, 6, "a", REFUSED, fresh_from=3, follows="b")],
        "a b",
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_good_history(name: str) -> None:
    """Whatever is allowed is accepted, in whatever order the operations are told."""
    history, final = GOOD[name]
    assert anomalies(history, value(final)) == []
    assert anomalies(history[::-1], value(final)) == []


@pytest.mark.parametrize("name", BAD)
def test_bad_history(name: str) -> None:
    """Each anomaly is caught under its own name, and says which operation it was."""
    kind, history, final = BAD[name]
    found = anomalies(history, value(final))
    assert kind in {anomaly.kind for anomaly in found}, found
    assert all(kind.value in str(anomaly) for anomaly in found if anomaly.kind is kind)
    assert kind in {anomaly.kind for anomaly in anomalies(history[::-1], value(final))}


def test_every_kind_is_shown() -> None:
    """No anomaly that the checker knows goes without a history that has it."""
    assert {kind for kind, _, _ in BAD.values()} == set(Kind)


def test_long_history() -> None:
    """300 commits and as many reads, one after the other."""
    names = [f"n{number}" for number in range(300)]
    history = []
    for number, name in enumerate(names):
        history.append(write(name, 4 * number, 4 * number + 1, " ".join(names[:number])))
        history.append(read(f"r{number}", 4 * number + 2, 4 * number + 3, " ".join(names[: number + 1])))
    assert anomalies(history, tuple(names)) == []
