"""Each mechanism that keeps the promises, switched off: the damage is found. So the checks can fail."""

from __future__ import annotations

import logging
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

from temaki.testing.simulation import run, substitutes, world
from tests.stateful._sabotage import DEEP, NAMED, PAGES, SIMULATED, sabotaged

BUDGET = 3000
"""Schedules: fewer than the normal run's of the same format."""


class _Simulated:
    """The simulation notices."""

    mechanism: str
    pages: float

    @pytest.mark.slow
    @pytest.mark.timeout(300)
    def test_is_missed(self, caplog: pytest.LogCaptureFixture) -> None:
        """Within its budget some schedule breaks a promise; with the mechanism, the same schedule keeps them all."""
        caplog.set_level(logging.CRITICAL, "temaki")
        with mock.patch.object(world, "PAGES", self.pages):
            with sabotaged(self.mechanism), substitutes.installed():
                seeds = dict.fromkeys((*DEEP.get(self.mechanism, ()), *range(BUDGET)))
                broken = next((seed for seed in seeds if run(seed)[1] is not None), None)
            assert broken is not None, f"{BUDGET} schedules without {self.mechanism}, and nothing is wrong with any"
            assert run(broken)[1] is None


for _mechanism in (*SIMULATED, *PAGES):  # a class for each, so that they spread over workers
    _name = "TestWithout" + "".join(word.capitalize() for word in re.findall(r"\w+", _mechanism))
    globals()[_name] = type(_name, (_Simulated,), {"mechanism": _mechanism, "pages": float(_mechanism in PAGES)})


class TestNamed:
    """A test of its own notices, in a run of its own."""

    @pytest.mark.slow
    @pytest.mark.parametrize("mechanism", NAMED)
    def test_is_missed(self, mechanism: str) -> None:
        """The test fails, and it is its assertion that fails."""
        root = Path(__file__).parents[2]
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider"]
        command += ["-p", "tests.stateful._sabotage", *shlex.split(NAMED[mechanism][1])]
        environment = {**os.environ, "TEMAKI_SABOTAGE": mechanism, "PYTHONPATH": str(root), "LEASE_SCHEDULES": "400"}
        done = subprocess.run(
            command, cwd=root, env=environment, capture_output=True, text=True, check=False, timeout=100
        )
        assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
