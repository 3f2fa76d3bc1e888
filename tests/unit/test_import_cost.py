"""Cold start: what importing temaki and binding a database must not import."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Each with what it costs, or why it is not needed.
STAY_OUT = {
    "boto3": "not needed: only its core is",
    "botocore": "100 ms: imported with the first request to S3",
    "tenacity": "35 ms, of which asyncio is the most: imported with the first retry",
    "asyncio": "nothing here is asynchronous",
    "msgspec": "7-27 ms: imported when text has to be converted",
    "tomllib": "imported when a TOML file mentions temaki",
    "socket": "as http.client",
    "temaki.events": "5 ms: imported when somebody listens",
    "temaki.lease.lease": "imported by the strategy lease-locked",
    "temaki.lease.waiting": "as temaki.lease.lease",
    "difflib": "imported to suggest a name in an error",
    "importlib.metadata": "22 ms: imported where a look into the folders finds nothing",
    "email": "10 ms with all that it imports: for the dates of answers, and by importlib.metadata",
    "http.client": "imported by whatever talks to a network",
    "ssl": "as http.client",
    "temaki.orm.seed": "imported where a database has seeded entities",
    "opentelemetry": "imported by temaki.otel, for those who ask for it",
    "typer": "the command line's",
    "rich": "as typer",
    "moto": "a test tool",
    "pytest": "a test tool",
    "hypothesis": "a test tool",
}

BIND = """
import sys
{before}
seen = set(sys.modules)
import temaki
from pony.orm import Required
db = temaki.Database()
class Role(db.Entity):
    label = Required(str)
db.bind_s3({url!r}, strategy="etag-cached")
print("\\n".join(sorted(set(sys.modules) - seen)))
"""


def modules_of_a_bind(folder: Path, url: str, *, before: str = "") -> set[str]:
    """The modules that a fresh process has imported by ``import temaki`` and ``bind_s3``."""
    run = subprocess.run(
        [sys.executable, "-c", BIND.format(url=url, before=before)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return set(run.stdout.split())


@pytest.mark.parametrize("scheme", ["s3", "file", "memory"])
def test_importing_and_binding_leave_the_expensive_modules_out(tmp_path: Path, scheme: str) -> None:
    """``import temaki`` and ``bind_s3`` import neither boto3 nor anything else that only later work needs."""
    bucket = f"{tmp_path}/bucket" if scheme == "file" else "bucket"
    (tmp_path / "bucket").mkdir()
    imported = modules_of_a_bind(tmp_path, f"{scheme}://{bucket}/app.sqlite")
    assert "temaki.config.settings" in imported
    assert sorted(imported & STAY_OUT.keys()) == []


@pytest.mark.parametrize("module", ["msgspec", "tenacity", "importlib.metadata", "tomllib", "difflib", "boto3"])
def test_the_measurement_sees_what_is_imported(tmp_path: Path, module: str) -> None:
    """The test above can fail: the modules exist under these names, and an import of one is noticed."""
    code = f"import sys; import temaki; import {module}; print({module!r} in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.stdout == "True\n", run.stderr


def test_nothing_foreign_is_imported_beyond_pony(tmp_path: Path) -> None:
    """What temaki adds to ``import pony.orm`` is itself, Pony's SQLite provider, and parts of the standard library."""
    added = modules_of_a_bind(tmp_path, "memory://bucket/app.sqlite", before="import pony.orm")
    packages = {name.partition(".")[0] for name in added}
    assert packages - set(sys.stdlib_module_names) == {"temaki", "temaki_strategies", "pony"}


def test_a_request_to_s3_imports_botocore_and_not_the_rest_of_boto3(tmp_path: Path) -> None:
    """A cold start pays for boto3's core alone; what boto3 adds to it, transfers and resources, stays out."""
    code = """
import sys
from temaki.errors import StoreUnavailableError
from temaki.stores.s3.store import S3Store
try:
    S3Store("bucket").head("key")
except StoreUnavailableError:
    print(*sorted({"boto3", "botocore", "s3transfer"} & sys.modules.keys()))
"""
    environment = {
        **os.environ,
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_REGION": "us-east-1",
    }
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert run.stdout == "botocore\n", run.stderr
