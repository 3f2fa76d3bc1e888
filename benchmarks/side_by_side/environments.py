"""An environment for each system, with what PyPI has today."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

from benchmarks.side_by_side.catalogue import OWN, Entry

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".venv" / "bench"
_VERSIONS = """
import importlib.metadata, json, platform, sqlite3
names = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
names["Python"], names["SQLite"] = platform.python_version(), sqlite3.sqlite_version
print(json.dumps(names))
"""
_TELLING = {
    "temaki", "pony", "boto3", "botocore", "aiobotocore", "django", "django-s3-sqlite", "buckethead", "sqlite-s3vfs",
    "s3sqlite", "s3fs", "apsw", "python", "sqlite",
}  # fmt: skip


class MissingError(Exception):
    """A system cannot be installed here; the text says why."""


def python_for(entry: Entry) -> Path:
    """The Python of the system's environment, which is made if it is not there.

    Raises:
        MissingError: It cannot be.
    """
    return _made(entry.packages, entry.python) if entry.packages else Path(sys.executable)


@cache
def _made(packages: tuple[str, ...], oldest: tuple[int, int]) -> Path:
    folder = FOLDER / "-".join(packages)
    python = folder / "bin" / "python"
    is_complete = (folder / "complete").exists()
    if not is_complete:
        base = _base_python(oldest)
        shutil.rmtree(folder, ignore_errors=True)
        _uv("venv", "--quiet", "--python", base, str(folder))
    install = ("pip", "install", "--quiet", "--compile-bytecode", "--python", str(python))
    if packages == OWN:  # anew each time: the sources may be others by now
        _uv(*install, "--reinstall-package", *OWN, str(ROOT))
    elif not is_complete:
        _uv(*install, *packages)
    (folder / "complete").touch()
    return python


def versions(entry: Entry, python: Path) -> dict[str, str]:
    """Of what matters there."""
    telling = _TELLING if entry.packages else {"python", "sqlite"}
    run = subprocess.run([python, "-c", _VERSIONS], check=True, capture_output=True, text=True)
    return {name: version for name, version in sorted(json.loads(run.stdout).items()) if name.lower() in telling}


def _base_python(oldest: tuple[int, int]) -> str:
    if sys.version_info[:2] >= oldest:
        return sys.executable
    names = [f"python3.{minor}" for minor in range(oldest[1], oldest[1] + 4)]
    found = [path for name in names if (path := shutil.which(name))]
    if shutil.which("pyenv"):  # what it puts on the PATH refuses to run a version that is installed and not chosen
        root = subprocess.run(["pyenv", "root"], check=True, capture_output=True, text=True).stdout.strip()
        found += [str(path) for name in names for path in sorted(Path(root).glob(f"versions/*/bin/{name}"))]
    for python in found:
        if not subprocess.run([python, "-c", ""], check=False, capture_output=True).returncode:
            return python
    raise MissingError(f"needs Python {'.'.join(map(str, oldest))} or newer, which is not on this machine")


def _uv(*arguments: str) -> str:
    found = sorted((ROOT / ".venv").glob("uv-*/bin/uv"))
    uv = str(found[-1]) if found else shutil.which("uv")
    if uv is None:
        raise MissingError("no uv to install it with")
    environment = {**os.environ, "UV_PYTHON_DOWNLOADS": "never", "UV_LINK_MODE": "copy"}
    run = subprocess.run([uv, *arguments], check=False, capture_output=True, text=True, env=environment, timeout=300)
    if run.returncode:
        raise MissingError("does not install: " + " ".join(run.stderr.split())[-300:])
    return run.stdout
