"""Nothing piles up in a process that lives long."""

from __future__ import annotations

import sys

import pytest

from tests.integration._children import Place


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells what is open")
def test_nothing_piles_up(place: Place) -> None:
    """After 2,000 sessions, in dozens of generations, as many descriptors, threads and files are there as after 200."""
    place.run("_long_run.py", "create", place.url)
    found = place.run("_long_run.py", "run", place.url, str(place.cache), 200, 1800)
    early, late = found["counts"]
    assert late["threads"] == early["threads"]
    assert late["files"] == early["files"] <= 6
    assert late["descriptors"] <= early["descriptors"] + 2, "SQLite keeps a descriptor or two for later"
    assert found["check"] == "ok"
    assert found["value"] == place.stored() > 200
