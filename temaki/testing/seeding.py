"""Switches seeded entities to their rows for tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from temaki.orm.seeding import set_testing


@contextmanager
def use_testing_rows() -> Iterator[None]:
    """Use ``testing_rows()`` of seeded entities in ``generate_mapping`` and ``seed``, for entities that have it.

    It holds for the whole process, including all threads.
    """
    before = set_testing(True)
    try:
        yield
    finally:
        set_testing(before)
