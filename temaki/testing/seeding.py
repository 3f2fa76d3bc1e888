"""Rows for tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from temaki.orm.seeding import set_testing


@contextmanager
def use_testing_rows() -> Iterator[None]:
    """Within it, ``generate_mapping`` and ``seed`` use ``testing_rows()`` of those seeded entities that have it.

    It holds for the whole process, all threads included.
    """
    before = set_testing(True)
    try:
        yield
    finally:
        set_testing(before)
