"""Every command of ``temaki``, once on a database in one file and once on one in pages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from temaki.cli.results import RESULTS
from temaki.stores import open_store
from temaki.testing import Server
from tests.integration._command import USERS, Commands, rows
from tests.integration.test_command_pages import head_of, make
from tests.threads import in_thread

FORMATS = ["file", "pages"]


@pytest.fixture
def temaki(tmp_path: Path) -> Commands:
    """Commands."""
    return Commands(tmp_path, {})


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.parametrize("form", FORMATS)
def test_every_command(moto: Server, tmp_path: Path, form: str) -> None:
    """In a bucket that keeps versions: they do the same, whatever the format is."""
    bucket = moto.bucket()
    moto.client().put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    temaki = Commands(tmp_path, {**moto.environment, "TEMAKI_FORMAT": form})
    url, other = f"s3://{bucket}/app.sqlite", f"s3://{bucket}/other.sqlite"
    used: set[str] = set()

    def json(command: str, *arguments: str, code: int = 0) -> Any:
        used.add(command)
        ran = temaki(*command.split(), *arguments, "--json")
        assert ran.code == code, ran.err
        return ran.json(command)

    temaki.file("app.sqlite", *USERS)
    assert json("push", url, "app.sqlite")["version"]["sequence"] == 1
    change = "UPDATE user SET name = 'Bobby' WHERE id = 2; INSERT INTO user VALUES (3, 'Cy')"
    assert json("shell", url, "--write", "--yes", "-c", change)["published"]["sequence"] == 2
    status = json("status", url)
    assert (status["tables"], status["adopted"]) == ([{"name": "user", "rows": 3}], False)
    assert re.search(rf"format +{form}\n", temaki("status", url).out)
    assert json("verify", url)["problems"] == []
    assert [one["sequence"] for one in json("history", url)["versions"]] == [2, 1]
    (table,) = json("diff", url, "1", "current")["tables"]
    assert (table["name"], table["added"], table["removed"], table["changed"]) == ("user", 1, 0, 1)
    assert json("convert", url, "--to", form)["replaced"] is None
    compacted = json("compact", url)
    assert (compacted["format"], compacted["folded"], compacted["busy"]) == (form, False, False)
    assert json("copy", url, other)["format"] == form
    assert json("restore", url, "1", "--yes")["version"]["sequence"] == 3
    assert json("lease show", url)["lease"]["held"] is False
    assert json("lease break", url, "--yes")["lease"]["held"] is False
    for one, expected in ((url, [(1, "Ada"), (2, "Bob")]), (other, [(1, "Ada"), (2, "Bobby"), (3, "Cy")])):
        json("pull", one, "pulled.sqlite", "--yes")
        assert rows(temaki.home / "pulled.sqlite") == expected
    assert json("doctor", url, "--requests", "3")["works"] is True
    assert len(json("bench", url, "--sessions", "3")["sessions"]) >= 3
    assert temaki("schema", "status").code == 0
    assert used == set(RESULTS), "a command that this test does not know"


class TestCompact:
    """What people and programs read of ``temaki compact``."""

    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        """Of a database in pages with segments, in a folder."""
        (tmp_path / "bucket").mkdir()
        url = f"file://{tmp_path}/bucket/app.sqlite"
        in_thread(lambda: make(url))
        return url

    def test_it_says_first_what_it_does(self, temaki: Commands, url: str) -> None:
        """A dry run changes nothing, and foretells the fold; afterwards nothing is left to do."""
        before = head_of(url)
        planned = temaki("compact", url, "--dry-run", "--json").json("compact")
        assert head_of(url) == before
        assert (planned["dry_run"], planned["folded"], planned["uploaded"]) == (True, True, before.size)
        done = temaki("compact", url, "--json").json("compact")
        assert {name: done[name] for name in ("folded", "merged", "uploaded", "pull_before", "condemned")} == {
            name: planned[name] for name in ("folded", "merged", "uploaded", "pull_before", "condemned")
        }
        head = head_of(url)
        assert (head.base.sequence, head.live, head.commit) == (before.sequence, (), before.commit)
        assert done["pull_after"] < done["pull_before"]
        again = temaki("compact", url).out
        for pattern in (r"folded +no new base", r"merged +0 segments", r"uploaded +0 bytes", r"full pull .* before"):
            assert re.search(pattern, again), (pattern, again)
        assert temaki("verify", url).code == 0

    def test_a_database_in_one_file(self, temaki: Commands, tmp_path: Path) -> None:
        """It has nothing to compact, and that is no failure."""
        (tmp_path / "bucket").mkdir()
        url = f"file://{tmp_path}/bucket/app.sqlite"
        temaki.file("app.sqlite", *USERS)
        assert temaki("push", url, "app.sqlite").code == 0
        store, key = open_store(url)
        etag = store.head(key).etag
        for options in ((), ("--dry-run",)):
            ran = temaki("compact", url, *options)
            assert (ran.code, "nothing to compact" in " ".join(ran.out.split())) == (0, True)
        assert store.head(key).etag == etag

    def test_there_is_no_database(self, temaki: Commands, tmp_path: Path) -> None:
        """Exit code 4, and what to do."""
        (tmp_path / "bucket").mkdir()
        ran = temaki("compact", f"file://{tmp_path}/bucket/app.sqlite")
        assert (ran.code, "temaki push" in ran.err) == (4, True)

    def test_a_damaged_one(self, temaki: Commands, url: str) -> None:
        """Exit code 1: the object is named, and nothing is collected."""
        head = head_of(url)
        store, key = open_store(url)
        gone = head.live[-1].name
        store.delete(f"{key}.pages/{gone}")
        listed = {info.key for info in store.list()}
        ran = temaki("compact", url)
        assert ran.code == 1, ran.err
        for part in (gone, head.commit, "temaki restore"):
            assert part in " ".join(ran.err.split()), ran.err
        assert {info.key for info in store.list()} == listed
        assert head_of(url).base == head.base
