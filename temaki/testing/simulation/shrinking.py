"""Finds a short schedule that still fails.

A schedule is a sequence of choices. 0 is always the simplest choice: no fault, no crash, no other task, one client
less. So a schedule gets shorter if numbers are cut out or set to 0 ("internal reduction": MacIver and Donaldson,
"Test-case reduction via test-case generation", ECOOP 2020). The result is always a schedule again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence


def shrink(choices: Sequence[int], fails: Callable[[Sequence[int]], bool], *, budget: int = 600) -> list[int]:
    """Find a shorter sequence that still fails. Returns the given one if nothing can be left out.

    Args:
        choices: A sequence that fails.
        fails: Tells whether a sequence fails.
        budget: Largest number of tries.
    """
    best = _trimmed(choices)
    size = max(1, len(best) // 2)
    while size:
        changed = False
        at = 0
        while at < len(best):
            if not budget:
                return best
            for candidate in (best[:at] + best[at + size :], best[:at] + [0] * size + best[at + size :]):
                trimmed = _trimmed(candidate)
                if _order(trimmed) >= _order(best):
                    continue
                budget -= 1
                if fails(trimmed):
                    best, changed = trimmed, True
                    break
            else:
                at += size
        if not changed or size > 1:
            size //= 2
    return best


def _trimmed(choices: Sequence[int]) -> list[int]:
    """Cut the zeros at the end, which are implied."""
    end = len(choices)
    while end and not choices[end - 1]:
        end -= 1
    return list(choices[:end])


def _order(choices: Sequence[int]) -> tuple[int, int]:
    return sum(1 for choice in choices if choice), len(choices)
