"""A place for a database and the processes that share it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration._children import Place


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """An empty bucket in a folder. However the test ends, its processes do."""
    place = Place(tmp_path)
    try:
        yield place
    finally:
        place.end()
