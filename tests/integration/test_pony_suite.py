"""Pony's own test suite passes on temaki's provider exactly where it passes on plain SQLite."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).with_name("_pony_suite.py")


def start(provider: str, folder: Path) -> subprocess.Popen[str]:
    """Run the suite in a process and a folder of its own: it leaves files, and patches Pony."""
    (folder / provider).mkdir()
    root = str(PROGRAM.parents[2])
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), provider],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder / provider,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), root]))},
    )


def report(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What it says at its end."""
    output, errors = process.communicate(timeout=110)
    assert process.returncode == 0, errors
    found: dict[str, Any] = json.loads(output)
    return found


@pytest.mark.slow
def test_same_results_as_on_plain_sqlite(tmp_path: Path) -> None:
    """Test by test, messages of failures and reasons of skips included, on databases in each of the formats."""
    processes = [start(provider, tmp_path) for provider in ("sqlite", "file", "pages")]
    try:
        expected, *ours = [report(process) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert len(expected["outcomes"]) > 3900
    assert sum(outcome == "passed" for outcome in expected["outcomes"].values()) > 3800
    for found in ours:
        _assert_equal(expected, found)


def _assert_equal(expected: dict[str, Any], found: dict[str, Any]) -> None:
    assert found["databases"] > 300
    different = {
        test: (expected["outcomes"].get(test), found["outcomes"].get(test))
        for test in sorted({*expected["outcomes"], *found["outcomes"]})
        if expected["outcomes"].get(test) != found["outcomes"].get(test)
    }
    assert different == {}
