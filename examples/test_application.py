"""The application's own tests: each begins with an empty database, in no time, without a server."""

from __future__ import annotations

from typing import Any

import pytest

from application import db, hire, names


@pytest.fixture(autouse=True)
def _database(temaki_bind: Any) -> None:
    temaki_bind(db)


def test_hiring() -> None:
    """Who was hired is on the list."""
    hire("Ada")
    hire("Bob")
    assert names() == ["Ada", "Bob"]


def test_that_nobody_is_left_from_the_test_before() -> None:
    """Each test has a store of its own."""
    assert names() == []
