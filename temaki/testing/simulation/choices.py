"""The random choices of a schedule: from a seed, or from the record of another schedule."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Choices:
    """A sequence of small numbers, drawn one after the other. 0 always stands for the simplest event.

    So a failing schedule can be shortened without knowing what its numbers mean: some numbers are left out, and others
    are set to 0 (see :mod:`temaki.testing.simulation.shrinking`).

    Args:
        seed: Seed from which the numbers are drawn.
        replay: Numbers to use instead of the seed's. After their end, all numbers are 0.

    Attributes:
        record: The numbers drawn so far.
    """

    def __init__(self, seed: int = 0, replay: Sequence[int] | None = None) -> None:
        self._rng = random.Random(seed)  # noqa: S311 - repeatable, on purpose
        self._replay = replay
        self.record: list[int] = []

    def below(self, count: int) -> int:
        """Draw a number from 0 to ``count - 1``; all are equally likely."""
        number = int(self._rng.random() * count) if self._replay is None else min(self._replayed(), count - 1)
        self.record.append(number)
        return number

    def one_of(self, odds: Sequence[float]) -> int:
        """Draw 0, or with probability ``odds[n]`` the number ``n + 1``."""
        number = 0
        if self._replay is None:
            drawn = self._rng.random()
            for index, chance in enumerate(odds, 1):
                drawn -= chance
                if drawn < 0:
                    number = index
                    break
        else:
            number = min(self._replayed(), len(odds))
        self.record.append(number)
        return number

    def chance(self, probability: float) -> bool:
        """Draw True with this probability."""
        return bool(self.one_of((probability,)))

    def pick(self, options: Sequence[T]) -> T:
        """Draw one of the options. The simplest one comes first."""
        return options[self.below(len(options))]

    def _replayed(self) -> int:
        assert self._replay is not None
        at = len(self.record)
        return self._replay[at] if at < len(self._replay) else 0
