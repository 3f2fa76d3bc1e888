"""Nothing piles up in a process that lives long."""

from __future__ import annotations

import os
import sys

import pytest

from tests.integration._children import Place

SESSIONS = os.environ.get("LONG_RUN_SESSIONS")
WARM = 200
"""Sessions after which everything is there that will be there."""
PATIENCE = 60 + int(SESSIONS or 0) / 50
"""Seconds."""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells what is open")
@pytest.mark.timeout(PATIENCE + 60)
@pytest.mark.parametrize(
    ("stored_format", "strategy", "sessions"),
    [("file", "etag-cached", 5_000), ("pages", "etag-cached", 5_000), ("file", "lease-locked", 2_000)],
    indirect=["stored_format"],
)
def test_nothing_piles_up(place: Place, strategy: str, sessions: int) -> None:
    """After thousands of sessions, in hundreds of generations, as much is open, kept and in memory as after the first.

    How many: ``LONG_RUN_SESSIONS``, if it is set. Under the lease 10,000 take most of a minute; in 1,000, what comes
    and goes (some 200 objects) can look like growth.
    """
    sessions = int(SESSIONS or sessions)
    place.run("_long_run.py", "create", place.url)
    child = place.start("_long_run.py", "run", place.url, str(place.cache), strategy, WARM, sessions - WARM)
    found = child.result(patience=PATIENCE)
    early, late = found["counts"]
    print(f"{strategy}: after {WARM} sessions {early}, after {sessions} {late}")
    assert late["threads"] == early["threads"]
    assert late["files"] == early["files"] <= 6
    assert late["descriptors"] <= early["descriptors"] + 2, "SQLite keeps a descriptor or two for later"
    assert late["objects"] - early["objects"] < (sessions - WARM) / 10, "less than one object in ten sessions"
    assert late["resident"] - early["resident"] < 8 << 20
    assert found["check"] == "ok"
    assert found["value"] == place.stored() > sessions / 10
