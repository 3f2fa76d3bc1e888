"""What was aimed at, and how near the results came to it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

MB: Final = 1_000_000
OWN: Final = "temaki etag-cached"
SAME_READS: Final = (OWN, "temaki lease-locked", "temaki read-only")
"""Reading is the same code and the same requests under these: how far they are apart is how far to trust a figure."""
BARE: Final = "boto3, requests alone"
BARE_ROUND_TRIPS: Final = 3  # of its commit: the GET, the word to go on, the PUT


@dataclass(frozen=True)
class Target:
    """One.

    Attributes:
        what: Is measured.
        aim: In words.
        measured: In words.
        met: Whether it was reached.
    """

    what: str
    aim: str
    measured: str
    met: bool


class Results:
    """The cells of ``results.json``, by what they are about."""

    def __init__(self, results: dict[str, Any]) -> None:
        self.all = results
        self._cells = {
            (cell["system"], cell["size"], cell["rtt"], cell["workload"]): cell
            for cell in results["cells"]
            if "error" not in cell
        }

    def cell(self, system: str, megabytes: float, ms: float, workload: str) -> dict[str, Any] | None:
        """One, if it was measured."""
        return self._cells.get((system, int(megabytes * MB), ms / 1000, workload))

    def contests(self, what: str) -> list[dict[str, Any]]:
        """Those of writers, or those of readers."""
        return [found for found in self.all["contests"] if found["what"] == what]


def targets(results: Results) -> list[Target]:
    """All for which there are figures."""
    makers: list[Callable[[], Target]] = [
        *(partial(_read, results, rtt) for rtt in (0, 5, 20, 50)),
        *(partial(_commit, results, rtt) for rtt in (0, 5, 20, 50)),
        partial(_pull, results, 0, 0.8),
        partial(_pull, results, 50, 2),
        partial(_start, results, 0),
        partial(_start, results, 20),
        partial(_cpu, results),
        partial(_lost, results),
    ]
    found = []
    for make in makers:
        with suppress(MissingError):
            found.append(make())
    return found


class MissingError(Exception):
    """A cell was not measured."""


def _ms(results: Results, system: str, megabytes: float, rtt: float, workload: str, value: str = "p50") -> float:  # noqa: PLR0917
    cell = results.cell(system, megabytes, rtt, workload)
    if cell is None:
        raise MissingError
    return 1000 * float(cell[value])


def _reads(results: Results, rtt: float, workload: str, value: str = "p50") -> tuple[float, float, str]:
    """The default strategy's, the bare requests', and for comparison those of all that read in the same way."""
    all_own = [_ms(results, system, 1, rtt, workload, value) for system in SAME_READS]
    others = ", ".join(f"{own:.1f}" for own in all_own[1:])
    return all_own[0], _ms(results, BARE, 1, rtt, workload, value), f"(lease-locked, read-only: {others} ms)"


def _read(results: Results, rtt: float) -> Target:
    own, bare, others = _reads(results, rtt, "read")
    return Target(
        f"unchanged read, 1 MB, {rtt:g} ms: one round trip + 2 ms",
        f"the bare request ({bare:.1f} ms) + 2 ms",
        f"{own:.1f} ms: {own - bare:.1f} ms beyond it {others}",
        own - bare <= 2,
    )


def _commit(results: Results, rtt: float) -> Target:
    own, server = _ms(results, OWN, 1, rtt, "commit"), _ms(results, BARE, 1, 0, "commit")
    bare = _ms(results, BARE, 1, rtt, "commit") - BARE_ROUND_TRIPS * rtt
    rest = own - 2 * rtt
    return Target(
        f"one-row commit, 1 MB, {rtt:g} ms: two round trips + 5 ms",
        f"{2 * rtt:g} ms + 5 ms + the bare requests at 0 ms ({server:.1f} ms)",
        f"{own:.1f} ms: {rest - server:.1f} ms beyond ({rest - bare:.1f} ms beyond the bare requests at {rtt:g} ms "
        "without their round trips)",
        rest - server <= 5,
    )


def _pull(results: Results, rtt: float, least: float) -> Target:
    own, bare = (_ms(results, system, 100, rtt, "read-after") for system in (OWN, BARE))
    return Target(
        f"pull of 100 MB, {rtt:g} ms",
        f"at least {least:g} times one raw stream",
        f"{bare / own:.2f} times ({100_000 / own:.0f} MB/s to {100_000 / bare:.0f} MB/s)",
        bare / own >= least,
    )


def _start(results: Results, rtt: float) -> Target:
    own, bare, others = _reads(results, rtt, "first")
    said = f"{own / bare:.2f} times ({own:.0f} ms to {bare:.0f} ms) {others}"
    return Target(f"first start, 1 MB, {rtt:g} ms", "1.25 times boto3 with the same GET", said, own / bare <= 1.25)


def _cpu(results: Results) -> Target:
    own, bare, others = _reads(results, 0, "read", "cpu")
    said = f"{own / bare:.2f} times ({own:.2f} ms to {bare:.2f} ms) {others}"
    return Target("CPU of an unchanged session", "1.5 times the bare call", said, own / bare <= 1.5)


def _lost(results: Results) -> Target:
    own = [contest for contest in results.contests("writers") if contest["system"].startswith("temaki")]
    if not own or any("error" in contest for contest in own):
        raise MissingError
    lost, commits = sum(contest["lost"] for contest in own), sum(contest["commits"] for contest in own)
    return Target("updates lost, eight writers, all strategies", "0", f"{lost} of {commits}", lost == 0)
