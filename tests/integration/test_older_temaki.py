"""An older temaki refuses a database in pages, says that it is a newer one's, and changes nothing.

The older one is 0.1.0 itself, from this repository's history, in a process of its own.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import pytest
from pony.orm import Required, db_session

from temaki import Database
from temaki.cli.target import Target
from temaki.formats.choice import NAMES, by_number
from temaki.formats.pages.maintain import collect, fold
from temaki.store import ReadableBody
from temaki.stores.memory import MemoryStore
from temaki.stores.wrapper import StoreWrapper
from temaki.testing.strategies import KEY, Client
from temaki_strategies import EtagCached
from tests.unit.test_pages_cycle import source_of

ROOT = Path(__file__).parents[2]
RELEASE = "0.1.0"

OLD = """
import sys
from pony.orm import Required, db_session
import temaki
from temaki import Database, cause_of

assert temaki.__version__ == {release!r} and temaki.__file__.startswith({folder!r}), temaki.__file__
db = Database()

class User(db.Entity):
    name = Required(str)

def run(what):
    try:
        what()
    except Exception as error:
        found = cause_of(error)
        print(type(found).__name__, str(found).replace(chr(10), " "), flush=True)
    else:
        print("ok", flush=True)

@db_session
def write():
    User(name="an older temaki was here")

db.bind_s3({url!r})
run(lambda: db.generate_mapping(create_tables=True))
for line in sys.stdin:
    run(write)
"""


def _git(*arguments: str) -> bytes:
    run = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, check=False)
    return run.stdout if run.returncode == 0 else b""


@pytest.fixture(scope="session")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources of 0.1.0 with its metadata, as an installed wheel has them: the last commit of the release's day."""
    released = re.search(rf"^## \[{RELEASE}\] - ([0-9-]+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    if shutil.which("git") is None or released is None:
        pytest.skip("git, or the release's entry in CHANGELOG.md, is missing")
    commit = _git("rev-list", "-1", f"--before={released[1]}T23:59:59Z", "HEAD").decode().strip()
    archive = _git("archive", commit, "temaki", "strategies", "pyproject.toml") if commit else b""
    if not archive:
        pytest.skip(f"the history of {RELEASE} is not here: a shallow clone, or a source distribution")
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
    assert f'"{RELEASE}"' in (folder / "temaki" / "_version.py").read_text()
    shutil.move(folder / "strategies" / "temaki_strategies", folder / "temaki_strategies")
    described = folder / f"temaki-{RELEASE}.dist-info"
    described.mkdir()
    (described / "METADATA").write_text(f"Metadata-Version: 2.1\nName: temaki\nVersion: {RELEASE}\n")
    groups = tomllib.loads((folder / "pyproject.toml").read_text())["project"]["entry-points"]
    lines = [
        f"[{group}]\n" + "".join(f"{name} = {where}\n" for name, where in one.items()) for group, one in groups.items()
    ]
    (described / "entry_points.txt").write_text("\n".join(lines))
    return folder


class Older:
    """A process of 0.1.0 that has bound the URL."""

    def __init__(self, folder: Path, url: str) -> None:
        script = OLD.format(release=RELEASE, folder=str(folder), url=url)
        environ = {name: value for name, value in os.environ.items() if not name.startswith("TEMAKI_")}
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", script],
            cwd=folder,
            env={**environ, "PYTHONPATH": str(folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.mapped = self._answer()

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def write(self) -> str:
        """What became of a session that writes."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self._answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.process.communicate(timeout=30)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a bucket, but the working files of the store."""
    files = [path for path in folder.rglob("*") if path.is_file() and ".temaki" not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def make(url: str, form: str) -> None:
    """A database with one user."""
    db = Database()

    class User(db.Entity):  # type: ignore[name-defined]
        name = Required(str)

    db.bind_s3(url, format=form)
    db.generate_mapping(create_tables=True)
    with db_session:
        User(name="Ada")
    db.unbind()


def require_refused(answer: str, url: str) -> None:
    """The error of 0.1.0 for what a newer temaki wrote."""
    assert answer.startswith("CorruptDatabaseError "), answer
    for part in (url, "it was written by a newer temaki, in format 2", "Upgrade temaki here. Nothing was changed."):
        assert part in answer


def test_a_new_process(old: Path, tmp_path: Path) -> None:
    """With ``create_tables=True``: it neither reads a head as a database, nor makes a new one in its place."""
    bucket = tmp_path / "bucket"
    bucket.mkdir()
    url = f"file://{bucket}/app.sqlite"
    make(url, "pages")
    before = contents(bucket)
    with Older(old, url) as older:
        require_refused(older.mapped, url)
    assert contents(bucket) == before


def test_a_running_process(old: Path, tmp_path: Path) -> None:
    """It wrote to the file; then somebody converts it. Each session from then on is refused, and the head stays."""
    bucket = tmp_path / "bucket"
    bucket.mkdir()
    url = f"file://{bucket}/app.sqlite"
    make(url, "file")
    with Older(old, url) as older:
        assert (older.mapped, older.write()) == ("ok", "ok")
        target = Target(url)
        copy = target.fetch(tmp_path)
        target.publish(copy.path, copy.version, form=by_number(NAMES["pages"]))
        before = contents(bucket)
        require_refused(older.write(), url)
        require_refused(older.write(), url)
        assert contents(bucket) == before


class _Heads(StoreWrapper):
    """Remembers what is written to the database's key."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store)
        self.written: list[tuple[bytes, Mapping[str, str]]] = []

    def put(self, key: str, body: bytes | ReadableBody, **options: Any) -> str:
        """See :meth:`temaki.store.Store.put`."""
        etag: str = self.wrapped.put(key, body, **options)
        if key == KEY:
            download = self.wrapped.get(key)
            assert download is not None
            self.written.append((download.read(100), options["metadata"]))
        return etag


def test_what_an_older_temaki_goes_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever writes a head writes all of temaki's metadata with it, and format 2, which 0.1.0 refuses as a newer one.

    Commits, folds and collections write heads. This needs no history, so it is tested everywhere.
    """
    monkeypatch.setenv("TEMAKI_FORMAT", "pages")
    bucket = MemoryStore()
    recorded = _Heads(bucket)
    client = Client(recorded, EtagCached()).map(create_tables=True)
    with db_session:
        client.Counter(id=1, value=0)
    client.increment()
    bucket.put(f"{KEY}.pages/base-{'0' * 30}", b"an orphan, to be condemned")
    source = source_of(recorded)
    source.key = KEY
    fold(source, tmp_path / "x", force=True)
    collect(source)
    assert len(recorded.written) >= 6
    for start, metadata in recorded.written:
        assert start.startswith(b"temaki pages 1\n")
        assert metadata["temaki-format"] == "2"
        assert {"temaki-commit", "temaki-seq", "temaki-lineage", "temaki-size"} <= metadata.keys()
