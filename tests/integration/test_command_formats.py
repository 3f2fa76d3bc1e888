"""Commands that convert a database, and that go back in the history of one in pages."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from temaki.cli.convert import converted
from temaki.cli.moments import moment_named
from temaki.cli.target import Target
from temaki.cli.terminal import Terminal
from temaki.errors import ConfigurationError, ConflictError
from temaki.formats.pages.maintain import collect
from temaki.testing import Server
from tests.integration._command import USERS, Commands, rows


@pytest.fixture(params=["folder", pytest.param("moto", marks=pytest.mark.server)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Commands, str]:
    """Commands, and the URL of a database in one file."""
    if request.param == "folder":
        (tmp_path / "bucket").mkdir()
        temaki, url = Commands(tmp_path, {}), f"file://{tmp_path}/bucket/app.sqlite"
    else:
        server: Server = request.getfixturevalue("moto")
        temaki, url = Commands(tmp_path, server.environment), f"s3://{server.bucket()}/app.sqlite"
    temaki.file("app.sqlite", *USERS)
    assert temaki("push", url, "app.sqlite").code == 0
    return temaki, url


def test_convert_there_and_back(place: tuple[Commands, str]) -> None:
    """A convert is one commit: the same rows, the next number, a commit of its own, and the other format."""
    temaki, url = place
    asked = temaki("convert", url, "--to", "pages")
    assert (asked.code, "in the format pages, as the next version?" in " ".join(asked.err.split())) == (2, True)
    done = temaki("convert", url, "--to", "pages", "--yes", "--json").json("convert")
    assert (done["format"], done["version"]["sequence"], done["replaced"]["sequence"]) == ("pages", 2, 1)
    assert done["version"]["commit"] != done["replaced"]["commit"]
    assert done["version"]["size"] == done["replaced"]["size"]
    again = temaki("convert", url, "--to", "pages", "--json").json("convert")
    assert (again["replaced"], again["version"]["commit"]) == (None, done["version"]["commit"])
    assert "already in the format pages" in temaki("convert", url, "--to", "pages").out

    assert temaki("shell", url, "--write", "--yes", "-c", "INSERT INTO user VALUES (3, 'Cy')").code == 0
    back = temaki("convert", url, "--to", "file", "--yes")
    assert (back.code, "version 4" in back.out, ".pages/ stay" in " ".join(back.out.split())) == (0, True, True)
    assert temaki("pull", url, "copy.sqlite").code == 0
    assert rows(temaki.home / "copy.sqlite") == [(1, "Ada"), (2, "Bob"), (3, "Cy")]
    status = temaki("status", url, "--json").json("status")
    assert (status["version"]["sequence"], status["adopted"]) == (4, False)


def test_push_keeps_the_stored_format(place: tuple[Commands, str]) -> None:
    """The setting says only how a new database is made."""
    temaki, url = place
    assert temaki("convert", url, "--to", "pages", "--yes").code == 0
    temaki.file("app.sqlite", *USERS, "INSERT INTO user VALUES (3, 'Cy')")
    temaki.env["TEMAKI_FORMAT"] = "file"
    assert temaki("push", url, "app.sqlite", "--yes").code == 0
    assert "already in the format pages" in temaki("convert", url, "--to", "pages").out
    temaki.env["TEMAKI_FORMAT"] = "pages"
    other = url.replace("app.sqlite", "other.sqlite")
    assert temaki("push", other, "app.sqlite").code == 0
    assert "already in the format pages" in temaki("convert", other, "--to", "pages").out
    for one in (url, other):
        assert temaki("verify", one).code == 0
        assert temaki("pull", one, "copy.sqlite", "--yes").code == 0
        assert rows(temaki.home / "copy.sqlite") == [(1, "Ada"), (2, "Bob"), (3, "Cy")]


def test_a_conflict_stores_nothing(tmp_path: Path) -> None:
    """Whoever commits between the look and the swap wins; the convert ends with 3, and says that nothing was stored."""
    (tmp_path / "bucket").mkdir()
    url = f"file://{tmp_path}/bucket/app.sqlite"
    temaki = Commands(tmp_path, {})
    temaki.file("app.sqlite", *USERS)
    assert temaki("push", url, "app.sqlite").code == 0

    class Overtaken(Target):
        def fetch(self, *args: object, **options: object) -> object:  # type: ignore[override]
            copy = super().fetch(*args, **options)  # type: ignore[arg-type]
            assert temaki("shell", url, "--write", "--yes", "-c", "INSERT INTO user VALUES (3, 'Cy')").code == 0
            return copy

    with pytest.raises(ConflictError):
        converted(Overtaken(url), "pages", Terminal(as_json=False), yes=True)
    found = temaki("convert", url, "--to", "file", "--json").json("convert")
    assert (found["version"]["sequence"], found["replaced"]) == (2, None)


@pytest.mark.server
def test_history_in_pages(moto: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Versions are named by number, commit and time, and read although their objects have been collected since."""
    bucket = moto.bucket()
    moto.client().put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    temaki, url = Commands(tmp_path, {**moto.environment, "TEMAKI_FORMAT": "pages"}), f"s3://{bucket}/app.sqlite"
    temaki.file("app.sqlite", *USERS)
    assert temaki("push", url, "app.sqlite").code == 0
    temaki.file("app.sqlite", *USERS, "DELETE FROM user WHERE id = 1")
    assert temaki("push", url, "app.sqlite", "--yes").code == 0

    client = moto.client()
    for name, value in moto.environment.items():
        monkeypatch.setenv(name, value)
    collected = collect(Target(url).remote.source, grace=-2)  # marked up to a second late
    assert collected.deleted
    assert len(client.list_objects_v2(Bucket=bucket, Prefix="app.sqlite.pages/")["Contents"]) == 1

    listed = temaki("history", url, "--json").json("history")["versions"]
    assert [one["sequence"] for one in listed] == [2, 2, 1]  # the collection has made a version of the same commit
    assert temaki("pull", url, "old.sqlite", "--version", "1").code == 0
    assert rows(temaki.home / "old.sqlite") == [(1, "Ada"), (2, "Bob")]
    assert temaki("diff", url, "1", "--json").json("diff")["tables"][0]["removed"] == 1
    assert temaki("pull", url, "now.sqlite", "--version", "0s").code == 0
    assert rows(temaki.home / "now.sqlite") == [(2, "Bob")]
    early = temaki("pull", url, "none.sqlite", "--version", "yesterday")
    assert (early.code, "The oldest that it keeps was stored at" in " ".join(early.err.split())) == (4, True)
    restored = temaki("restore", url, "1", "--yes", "--json").json("restore")
    assert restored["version"]["sequence"] == 3
    assert temaki("verify", url).code == 0
    assert temaki("pull", url, "back.sqlite").code == 0
    assert rows(temaki.home / "back.sqlite") == [(1, "Ada"), (2, "Bob")]


NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("yesterday", "2026-11-23T12:00+00:00"),
        ("2h", "2026-11-24T10:00+00:00"),
        ("90s", "2026-11-24T11:58:30+00:00"),
        ("1w", "2026-11-17T12:00+00:00"),
        ("2026-11-20", "2026-11-20T00:00+00:00"),
        ("2026-11-24T09:00", "2026-11-24T09:00+00:00"),
        ("2026-11-24T09:00+02:00", "2026-11-24T07:00+00:00"),
        ("2026-11-24 09:00:05Z", "2026-11-24T09:00:05+00:00"),
    ],
)
def test_a_moment(name: str, expected: str) -> None:
    """Ages count from now; times without an offset are in UTC."""
    assert moment_named(name, NOW.timestamp()) == datetime.fromisoformat(expected)


@pytest.mark.parametrize("name", ["41", "4f2a91c0", "current", "20261124", "h", "2hours", ""])
def test_no_moment(name: str) -> None:
    """Numbers and commits are none."""
    assert moment_named(name, NOW.timestamp()) is None


@pytest.mark.parametrize("name", ["2026-13-01", "2026-11-24T25:00", "999999w"])
def test_an_impossible_moment(name: str) -> None:
    """The error says how to write one."""
    with pytest.raises(ConfigurationError, match=r"is no time.*2026-11-24T09:00"):
        moment_named(name, NOW.timestamp())
