"""Whose turn it is among processes that contend for one lease.

A free lease goes to whoever writes first. Mostly that would be the process that has just given it back, for it need not
wait to see that; and with a handful of contenders a lottery leaves somebody out for long. So each record says who has
had the lease lately, and whoever finds a contended one free leaves it, for a moment, to those who had it longer ago:
the least recently served goes first. Nobody announces that it waits, so this costs no request. Those who do not want
it, or are gone, cost the others that moment, and are forgotten when the rest has been served twice.

A courtesy, not a queue: nothing depends on it but who waits for how long.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

SLOT: Final = 0.1
"""Seconds for which a free lease is left to each process that comes first: time to look, and to take it."""
_MOST_SLOTS: Final = 5
_MOST_LISTED: Final = 16
_NAME: Final = 8  # characters of a token that tell a few processes apart

LONGEST_COURTESY: Final = SLOT * _MOST_SLOTS  # seconds
LONGEST_LOOK: Final = 1.0  # seconds between two looks of a waiter, at most


def ahead(served: Mapping[str, int], token: str) -> int:
    """How many processes come before this one: those that had the lease longer ago. None, if it never had it.

    Args:
        served: By part of a process's token, the generation that it had last.
        token: The process's.
    """
    mine = served.get(token[:_NAME])
    return 0 if mine is None else sum(generation < mine for generation in served.values())


def courtesy(served: Mapping[str, int], token: str) -> float:
    """Seconds for which the process leaves a contended lease that is free to others."""
    return SLOT * min(ahead(served, token), _MOST_SLOTS)


def look(served: Mapping[str, int], token: str) -> float:
    """Seconds after which the process looks again, at most: seldom, if others come first."""
    return min(SLOT * (1 + 3 * ahead(served, token)), LONGEST_LOOK)


def serve(served: Mapping[str, int], token: str, generation: int) -> dict[str, int]:
    """Who has had the lease lately, when this process takes that generation."""
    listed = {**served, token[:_NAME]: generation}
    oldest = generation - 2 * len(listed)
    newest = sorted(listed.items(), key=lambda entry: entry[1], reverse=True)[:_MOST_LISTED]
    return {name: last for name, last in newest if last > oldest}
