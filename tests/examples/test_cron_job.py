"""``examples/cron_job.py``: done once, however often and wherever it is started."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from types import ModuleType

import pytest
from pony.orm import db_session

ROOT = Path(__file__).parents[2]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Three lines of one day, and one of another."""
    log = tmp_path / "access.log"
    log.write_text("2026-11-22 GET /\n2026-11-22 GET /a\n2026-11-22 GET /b\n2026-11-23 GET /\n")
    return log


def start(log: Path, *, cache: Path) -> subprocess.Popen[str]:
    """As cron would."""
    return subprocess.Popen(
        [sys.executable, "examples/cron_job.py", "2026-11-22", str(log)],
        cwd=ROOT,
        env={**os.environ, "TEMAKI_CACHE_DIR": str(cache)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_started_on_two_machines_at_once(load: Callable[[str], ModuleType], tmp_path: Path, log: Path) -> None:
    """One does the work, the other waits and finds it done."""
    jobs = [start(log, cache=tmp_path / f"cache-{number}") for number in range(2)]
    said = sorted(job.communicate(timeout=120)[0] for job in jobs)
    assert [job.returncode for job in jobs] == [0, 0]
    assert said == ["2026-11-22: stored\n", "2026-11-22: was done before\n"]
    module = load("cron_job")
    assert module.main("2026-11-22", str(log)) == os.EX_OK
    with db_session:
        assert module.Day[date(2026, 11, 22)].lines == 3


def test_exit_codes(load: Callable[[str], ModuleType], tmp_path: Path, log: Path) -> None:
    """A bucket that is not there is for somebody to look at; a store without an answer is tried again."""
    shutil.rmtree(tmp_path / "bucket")
    assert load("cron_job").main("2026-11-22", str(log)) == os.EX_SOFTWARE
    environment = {
        "TEMAKI_URL": "s3://bucket/traffic.sqlite",
        "TEMAKI_TIMEOUT": "0.1",
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        assert load("cron_job").main("2026-11-22", str(log)) == os.EX_TEMPFAIL
