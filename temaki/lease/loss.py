"""Why a process lost the lease, in words for the error and for the log."""

from __future__ import annotations

from dataclasses import dataclass

from temaki.errors import LeaseLostError
from temaki.lease.record import LeaseRecord


@dataclass(frozen=True, slots=True)
class Loss:
    """How a process lost one generation of the lease.

    Attributes:
        generation: The lost generation; 0 if nothing was lost yet.
        how: The reason, as the end of the sentence "The lease was lost: …".
        evicted_by: The operator's process, if an operator evicted the holder; else None.
    """

    generation: int = 0
    how: str = ""
    evicted_by: str | None = None

    def error(self, url: str) -> LeaseLostError:
        """The error for the transaction that needed the lease.

        Args:
            url: The database's URL.
        """
        return LeaseLostError(
            f"The lease on {url} (generation {self.generation}) was lost: {self.how}. Nothing of this transaction was "
            "stored. Run the function again; @db_session(retry=N) does so by itself.",
            url=url,
            generation=self.generation,
            evicted_by=self.evicted_by,
        )


def replaced(generation: int, current: LeaseRecord | None, *, age: float, ttl: float) -> Loss:
    """Explain a loss by the record that replaced this process's own.

    Args:
        generation: The generation that this process held.
        current: The record that is stored now; None if there is none.
        age: Seconds since this process wrote its record last.
        ttl: Seconds for which that record was good.
    """
    if current is None:
        return Loss(generation, "its record was deleted or moved away")
    evicted_by = current.evicted.get(str(generation))
    if evicted_by is not None:
        return Loss(generation, f"this process was evicted (`temaki lease break`, by {evicted_by})", evicted_by)
    if current.generation <= generation:
        older = f"generation {current.generation}, by {current.owner}"
        return Loss(generation, f"an older record was put in the place of its own ({older})")
    if age >= ttl:
        return Loss(
            generation,
            f"this process was silent for longer than its ttl of {ttl:g} s (for {age:.1f} s), and "
            f"{current.owner} has taken it since. Where such pauses are normal, give the lease a longer ttl",
        )
    return Loss(
        generation,
        f"{current.owner} has replaced its record, {age:.1f} s after this process had renewed it. Either an older "
        "temaki evicted this process, or this machine runs a second time, as a clone",
    )


def given_up(generation: int, current: int | None) -> Loss:
    """Explain a loss within this process.

    Args:
        generation: The generation that the caller believed in.
        current: The generation that this process holds now; None if it holds none.
    """
    if current is None:
        return Loss(generation, "this process has given it back, as it was about to end")
    return Loss(generation, f"another thread of this process goes on under generation {current}")
