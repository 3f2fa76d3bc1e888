"""Sizes and times at which the format ``pages`` rearranges what is stored, small enough for short schedules.

The code is the same. With the real numbers, a schedule of ten commits would never see a segment.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final
from unittest import mock

from temaki.engine import compaction
from temaki.formats.pages import claim, compose, gone, maintain, policy, upkeep

GRACE: Final = 2
"""Seconds between condemnation and deletion: about as long as a slow request takes here."""

_SMALL: Final[tuple[tuple[Any, str, Any], ...]] = (
    (policy, "TAIL_LIMIT", 700),
    (policy, "TAIL_KEEP", 250),
    (policy, "UNIT", 400),
    (policy, "FAN", 3),
    (policy, "LARGEST_PART", 4200),
    (policy, "REACH", 6000),
    (policy, "KEPT", 2),
    (policy, "MOST_SEGMENTS", 5),
    (policy.superfluous, "__defaults__", (5,)),
    (maintain, "KEPT", 2),
    (maintain, "GRACE", GRACE),
    (upkeep, "GRACE", GRACE),
    (claim, "CLAIM_LIFETIME", 4),
    (gone, "MOST_CONDEMNED", 6),
    (compose, "LARGE", 2500),
    (compose, "LARGE_UPLOAD", 1000),
    (compaction, "LEAST_LIFE", 0.5),
    (compaction, "_FIRST_PAUSE", 0.5),
)
BUDGETS: Final = (1600, 1 << 20)
"""Bytes that a commit may merge. With the first, folds and larger merges are left to compaction; with the second, a
commit does all of them."""


@contextmanager
def small(budget: int) -> Iterator[None]:
    """Use the small numbers."""
    with ExitStack() as stack:
        for owner, name, value in _SMALL:
            stack.enter_context(mock.patch.object(owner, name, value))
        stack.enter_context(mock.patch.object(policy, "COMMIT_BUDGET", budget))
        defaults = maintain.collect.__kwdefaults__
        assert defaults is not None, "grace is a keyword"
        stack.enter_context(mock.patch.dict(defaults, grace=GRACE))
        yield
