"""The examples pass the suites that temaki publishes; and the pytest plugin is found, and costs nothing unused."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tomllib
from contextlib import closing
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SETTINGS = "[pytest]\naddopts = --import-mode=prepend -p no:cacheprovider -p no:xdist\nfilterwarnings = error\n"


def _pytest(folder: Path, settings: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Pytest as somebody else's project would run it: with its own settings, and no conftest of temaki's."""
    ini = settings / "pytest.ini"
    ini.write_text(SETTINGS, encoding="utf-8")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("TEMAKI_", "PYTEST_"))}
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-c",
            str(settings / "pytest.ini"),
            "--rootdir",
            str(folder),
            str(folder),
            *arguments,
        ],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


@pytest.mark.parametrize("example", ["quiet_hours", "sqlite_store", "test_application.py"])
def test_example_passes_its_tests(example: str, tmp_path: Path) -> None:
    """A third party's strategy, a third party's store, and an application with the fixtures."""
    run = _pytest(EXAMPLES / example if not example.endswith(".py") else EXAMPLES, tmp_path, *_only(example))
    assert run.returncode == 0, run.stdout + run.stderr
    assert " passed" in run.stdout


def _only(example: str) -> list[str]:
    return ["--ignore", "quiet_hours", "--ignore", "sqlite_store"] if example.endswith(".py") else []


def _installed(example: str, folder: Path) -> dict[str, str]:
    """The environment of a process for which an example is installed: with the metadata that installing would write."""
    project = tomllib.loads((EXAMPLES / example / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    metadata = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Name: {project['name']}\nVersion: {project['version']}\n", encoding="utf-8")
    lines = ""
    for group, points in project["entry-points"].items():
        lines += f"[{group}]\n" + "".join(f"{name} = {target}\n" for name, target in points.items())
    (metadata / "entry_points.txt").write_text(lines, encoding="utf-8")
    path = os.pathsep.join([str(folder), str(EXAMPLES / example), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path.rstrip(os.pathsep)}


def test_example_strategy_is_found_by_its_name(tmp_path: Path) -> None:
    """Installed, its entry point and options are known."""
    environ = _installed("quiet_hours", tmp_path)
    code = (
        "from temaki import Database\n"
        "db = Database(); db.bind_s3('memory://b/k', strategy='quiet-hours', begin=5)\n"
        "print(type(db.provider.engine.strategy).__name__, db.provider.engine.strategy.begin_hour)"
    )
    run = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=False)
    assert run.stdout == "QuietHours 5\n", run.stderr


def test_example_store_is_found_by_its_scheme(tmp_path: Path) -> None:
    """Installed, its URLs work in ``bind_s3`` and in the command; what is wrong with one is said in its own words."""
    environ = _installed("sqlite_store", tmp_path)
    url = f"sqlite://{tmp_path}/bucket.sqlite/app.sqlite"
    code = (
        "import sys\n"
        "from pony.orm import Required\n"
        "from temaki import Database, db_session\n"
        "db = Database()\n"
        "class Note(db.Entity):\n"
        "    text = Required(str)\n"
        "db.bind_s3(sys.argv[1])\n"
        "db.generate_mapping(create_tables=True)\n"
        "with db_session:\n"
        "    Note(text='kept')\n"
    )
    (tmp_path / "program.py").write_text(code, encoding="utf-8")

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, env=environ, capture_output=True, text=True, check=False)

    program = run(sys.executable, str(tmp_path / "program.py"), url)
    assert program.returncode == 0, program.stderr
    command = str(Path(sys.executable).with_name("temaki"))
    pulled = run(command, "pull", url, str(tmp_path / "copy.sqlite"))
    assert pulled.returncode == 0, pulled.stderr
    with closing(sqlite3.connect(tmp_path / "copy.sqlite")) as copy:
        assert copy.execute('SELECT text FROM "Note"').fetchall() == [("kept",)]
    refused = run(command, "status", "sqlite://bucket.sqlite/app.sqlite")
    assert refused.returncode != 0
    said = " ".join(refused.stderr.split())
    assert "no absolute path of a file" in said
    assert "sqlite:///srv/bucket.sqlite/app.sqlite" in said


def test_the_plugin_imports_nothing_until_it_is_used(tmp_path: Path) -> None:
    """It is loaded in every run of pytest: temaki, Pony and boto3 come with the first fixture, and not before."""
    (tmp_path / "test_it.py").write_text(
        "import sys\n"
        "def test_before():\n"
        "    assert 'temaki_pytest' in sys.modules\n"
        "    assert not {'temaki', 'pony', 'boto3', 'hypothesis'} & sys.modules.keys()\n"
        "def test_use(temaki_store):\n"
        "    assert 'temaki' in sys.modules and 'boto3' not in sys.modules\n",
        encoding="utf-8",
    )
    run = _pytest(tmp_path, tmp_path, "-p", "no:hypothesispytest")
    assert run.returncode == 0, run.stdout + run.stderr
    listed = _pytest(tmp_path, tmp_path, "--fixtures")
    assert "temaki_bind" in listed.stdout
    assert "temaki_store" in listed.stdout
