"""Where all chance in a schedule comes from: a seed, or the record of another schedule."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Choices:
    """A sequence of small numbers, drawn one after the other. 0 always stands for the plainest thing that can happen.

    So a schedule that fails is made shorter by leaving numbers out and setting others to 0, without knowing what they
    mean (see :mod:`temaki.testing.simulation.shrinking`).

    Args:
        seed: Draws them.
        replay: Gives them instead of the seed; after its end all are 0.

    Attributes:
        record: What has been drawn so far.
    """

    def __init__(self, seed: int = 0, replay: Sequence[int] | None = None) -> None:
        self._rng = random.Random(seed)  # noqa: S311 - repeatable, on purpose
        self._replay = replay
        self.record: list[int] = []

    def below(self, count: int) -> int:
        """0 to ``count - 1``, each as likely."""
        number = int(self._rng.random() * count) if self._replay is None else min(self._replayed(), count - 1)
        self.record.append(number)
        return number

    def one_of(self, odds: Sequence[float]) -> int:
        """0, mostly; or with probability ``odds[n]`` the number ``n + 1``."""
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
        """True with this probability."""
        return bool(self.one_of((probability,)))

    def pick(self, options: Sequence[T]) -> T:
        """One of the options, the plainest first."""
        return options[self.below(len(options))]

    def _replayed(self) -> int:
        assert self._replay is not None
        at = len(self.record)
        return self._replay[at] if at < len(self._replay) else 0
