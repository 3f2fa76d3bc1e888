"""The installed ``temaki`` command does what it says, on a folder and on S3, for people and for programs."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from temaki.cli.results import RESULTS
from temaki.stores import open_store
from temaki.testing import Server
from tests.integration._command import USERS, Commands, rows


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Commands, str]]:
    """Commands, and the URL of a database that is not there yet."""
    if request.param == "folder":
        (tmp_path / "bucket").mkdir()
        yield Commands(tmp_path, {}), f"file://{tmp_path}/bucket/app.sqlite"
    else:
        server: Server = request.getfixturevalue("moto")
        yield Commands(tmp_path, server.environment), f"s3://{server.bucket()}/app.sqlite"


@pytest.fixture
def versioned(moto: Server, tmp_path: Path) -> tuple[Commands, str]:
    """Commands, and the URL of a database with two versions in a bucket that keeps them."""
    bucket = moto.bucket()
    moto.client().put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    temaki, url = Commands(tmp_path, moto.environment), f"s3://{bucket}/app.sqlite"
    temaki.file("app.sqlite", *USERS)
    assert temaki("push", url, "app.sqlite").code == 0
    change = (
        "UPDATE user SET name = 'Bobby' WHERE id = 2; DELETE FROM user WHERE id = 1; INSERT INTO user VALUES (3, 'Cy')"
    )
    assert temaki("shell", url, "--write", "--yes", "-c", change).code == 0
    return temaki, url


def test_a_file_goes_in_and_comes_out(place: tuple[Commands, str]) -> None:
    """Push creates and replaces, pull gives a plain file back, status and verify say what is there."""
    temaki, url = place
    path = temaki.file("app.sqlite", *USERS)
    first = temaki("push", url, "app.sqlite", "--json").json("push")
    assert first["version"]["sequence"] == 1
    assert first["replaced"] is None

    status = temaki("status", url, "--json").json("status")
    assert status["tables"] == [{"name": "user", "rows": 2}]
    assert status["version"]["commit"] == first["version"]["commit"]
    assert status["pages"] * status["page_size"] == path.stat().st_size == status["version"]["size"]
    assert status["lease"]["generation"] == 0
    quick = temaki("status", url, "--quick", "--json").json("status")
    assert quick["tables"] is None
    assert {**quick, "age": 0} == {**status, "tables": None, "age": 0}

    assert temaki("pull", url, "copy.sqlite", "--json").json("pull")["path"] == "copy.sqlite"
    assert rows(temaki.home / "copy.sqlite") == [(1, "Ada"), (2, "Bob")]
    assert (temaki.home / "copy.sqlite").read_bytes()[18:20] == b"\x01\x01"
    assert temaki("verify", url, "--json").json("verify")["sound"] is True

    second = temaki("push", url, "app.sqlite", "--expect", first["version"]["commit"][:8], "--json").json("push")
    assert (second["version"]["sequence"], second["replaced"]["commit"]) == (2, first["version"]["commit"])
    refused = temaki("push", url, "app.sqlite", "--expect", first["version"]["commit"], "--json")
    assert (refused.code, refused.json("push")["error"]) == (3, "ConflictError")


def test_push_refuses_what_is_no_database(place: tuple[Commands, str]) -> None:
    """Neither text nor a damaged database is stored, and what is there stays."""
    temaki, url = place
    (temaki.home / "notes.txt").write_text("not a database\n" * 100)
    refused = temaki("push", url, "notes.txt")
    assert refused.code == 1
    assert "no SQLite database" in refused.err
    damaged = temaki.file("damaged.sqlite", *USERS, "CREATE INDEX by_name ON user (name)")
    data = bytearray(damaged.read_bytes())
    data[-200:] = b"\xff" * 200
    damaged.write_bytes(data)
    assert temaki("push", url, "damaged.sqlite").code == 1
    assert temaki("push", url, "missing.sqlite").code == 1
    assert temaki("status", url).code == 4


def test_push_takes_what_a_wal_has_committed(place: tuple[Commands, str]) -> None:
    """A file that a program is writing to is stored as of its last commit, WAL included."""
    temaki, url = place
    path = temaki.file("app.sqlite", *USERS)
    with closing(sqlite3.connect(path)) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("INSERT INTO user VALUES (3, 'Cy')")
        writer.commit()
        writer.execute("INSERT INTO user VALUES (4, 'not committed')")
        assert temaki("push", url, "app.sqlite").code == 0
        writer.rollback()
    assert temaki("pull", url, "copy.sqlite").code == 0
    assert rows(temaki.home / "copy.sqlite") == [(1, "Ada"), (2, "Bob"), (3, "Cy")]


def test_nothing_is_replaced_without_being_asked(place: tuple[Commands, str]) -> None:
    """Where nobody can answer, push and pull want --yes."""
    temaki, url = place
    temaki.file("app.sqlite", *USERS)
    assert temaki("push", url, "app.sqlite").code == 0
    again = temaki("push", url, "app.sqlite", stdin="y\n")
    assert (again.code, "--yes" in again.err) == (2, True)
    (temaki.home / "mine.sqlite").write_text("precious")
    assert temaki("pull", url, "mine.sqlite").code == 2
    assert (temaki.home / "mine.sqlite").read_text() == "precious"
    assert temaki("pull", url, "mine.sqlite", "--yes").code == 0
    assert temaki("push", url, "app.sqlite", "--yes").code == 0


def test_shell(place: tuple[Commands, str]) -> None:
    """SQL on a copy that cannot be written to; with --write, what was changed is the next version."""
    temaki, url = place
    temaki.file("app.sqlite", *USERS)
    temaki("push", url, "app.sqlite")
    found = temaki("shell", url, "--json", "-c", "SELECT id, name FROM user; SELECT x'00ff' AS bytes").json("shell")
    assert [(one["columns"], one["rows"]) for one in found["statements"]] == [
        (["id", "name"], [[1, "Ada"], [2, "Bob"]]),
        (["bytes"], [["AP8="]]),
    ]
    refused = temaki("shell", url, "-c", "DELETE FROM user")
    assert (refused.code, "--write" in refused.err) == (1, True)
    unchanged = temaki("shell", url, "--write", "--json", "-c", "SELECT 1").json("shell")
    assert unchanged["published"] is None
    script = "BEGIN;\nDELETE FROM user\nWHERE id = 1;\nCOMMIT;\nCREATE TABLE t (a);\n"
    changed = temaki("shell", url, "--write", "--yes", "--json", stdin=script).json("shell")
    assert changed["published"]["sequence"] == 2
    failed = temaki("shell", url, "--write", "-c", "DELETE FROM user; SELECT nonsense")
    assert failed.code == 1
    assert "stored" not in failed.out
    for way in ({"stdin": "DELETE FROM user;\n"}, {}):
        asked = temaki("shell", url, "--write", *(() if way else ("-c", "DELETE FROM user")), **way)
        assert (asked.code, "--yes" in asked.err, asked.out) == (2, True, "")
    status = temaki("status", url, "--json").json("status")
    assert status["tables"] == [{"name": "t", "rows": 0}, {"name": "user", "rows": 1}]


def test_verify_finds_what_is_wrong(place: tuple[Commands, str]) -> None:
    """A row that refers to nothing is a finding, and an exit code of 1."""
    temaki, url = place
    temaki.file("app.sqlite", *USERS, "CREATE TABLE pet (owner REFERENCES user (id))", "INSERT INTO pet VALUES (9)")
    # push would refuse it; another tool does not.
    store, key = open_store(url)
    if url.startswith("file:"):
        store.put(key, (temaki.home / "app.sqlite").read_bytes())
        found = temaki("verify", url, "--json")
        assert found.code == 1
        assert found.json("verify")["problems"] == [
            "row 1 of pet refers to a row of user that is not there (foreign key 0)"
        ]
    refused = temaki("push", url, "app.sqlite", "--yes")
    assert (refused.code, "refers to a row of user" in refused.err) == (1, True)


def test_lease(place: tuple[Commands, str]) -> None:
    """Lease show says who has it; break evicts them, and the next generation is a fence."""
    temaki, url = place
    assert temaki("lease", "show", url, "--json").json("lease show")["lease"]["generation"] == 0
    temaki.file("app.sqlite", *USERS)
    temaki("push", url, "app.sqlite")
    hold = (
        "import sys; from temaki.clock import SystemClock; from temaki.lease.shared import SharedLease\n"
        "from temaki.stores import open_store\n"
        "store, key = open_store(sys.argv[1])\n"
        "shared = SharedLease(store, key, url=sys.argv[1], clock=SystemClock())\n"
        "lease = shared.get(ttl=3.0, acquire_timeout=6.0, hold=0.0)\n"
        "print(lease.acquire(shared), flush=True); sys.stdin.read()\n"
        "try: lease.renew(1)\n"
        "except Exception as error: print(type(error).__name__, flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold, url], env=temaki.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == "1\n"
        held = temaki("lease", "show", url, "--json").json("lease show")["lease"]
        assert (held["held"], held["generation"]) == (True, 1)
        assert f"process {holder.pid} on" in held["holder"]
        asked = temaki("lease", "break", url)
        assert asked.code == 2
        assert f"Evict process {holder.pid} on" in asked.err
        broken = temaki("lease", "break", url, "--yes", "--json").json("lease break")
        assert (broken["evicted"], broken["lease"]["held"], broken["lease"]["generation"]) == (held["holder"], False, 2)
        holder.stdin.close()
        assert holder.stdout.readline() == "LeaseLostError\n"
    assert temaki("lease", "break", url, "--yes").code == 0
    assert "free (generation 2" in temaki("status", url).out


def test_doctor_and_bench_leave_nothing_behind(place: tuple[Commands, str]) -> None:
    """They write beside the database, and delete what they wrote."""
    temaki, url = place
    temaki.file("app.sqlite", *USERS)
    temaki("push", url, "app.sqlite")
    temaki.env["TEMAKI_STRATEGY"] = "lease-locked"
    found = temaki("doctor", url, "--races", "--requests", "3", "--json")
    diagnosis = found.json("doctor")
    assert (found.code, diagnosis["works"]) == (0, True)
    states = {one["check"]: one["state"] for one in diagnosis["findings"]}
    assert states["conditional writes"] == states["races"] == states["lease"] == states["delete"] == "ok"
    assert [one["request"] for one in diagnosis["latencies"]] == ["GET", "PUT"]

    costs = temaki("bench", url, "--sessions", "3", "--json").json("bench")["sessions"]
    assert [one["requests"] for one in costs[:2]] == [{"get": 1.0}, {"get": 1.0}]
    assert costs[0]["dollars_per_1000"] == pytest.approx(0.0004)
    assert costs[2]["bytes_up"] > costs[1]["bytes_down"] == 8192  # the lease's record on top
    assert costs[2]["requests"]["put"] >= 1
    if url.startswith("file:"):
        assert sorted(os.listdir(url.removeprefix("file://").removesuffix("/app.sqlite"))) in (
            [".temaki", "app.sqlite"],
            ["app.sqlite"],
        )


def test_history_diff_and_restore(versioned: tuple[Commands, str]) -> None:
    """Versions are listed, compared, and brought back as new ones; nothing that was there is rewritten."""
    temaki, url = versioned
    before = temaki("history", url, "--json").json("history")
    assert [(one["sequence"], one["current"]) for one in before["versions"]] == [(2, True), (1, False)]
    assert all(one["version_id"] and one["modified"] for one in before["versions"])
    oldest = before["versions"][1]

    for name in ("1", oldest["commit"][:6], oldest["version_id"]):
        found = temaki("diff", url, name, "--json").json("diff")
        assert found["tables"] == [
            {"name": "user", "state": "changed", "added": 1, "changed": 1, "removed": 1, "columns": []}
        ]
    assert "No table differs" in temaki("diff", url, "current", "2").out

    asked = temaki("restore", url, "1")
    assert (asked.code, "as version 3" in asked.err) == (2, True)
    restored = temaki("restore", url, "1", "--yes", "--json").json("restore")
    assert (restored["version"]["sequence"], restored["replaced"]["sequence"]) == (3, 2)
    after = temaki("history", url, "--json").json("history")
    assert [one["version_id"] for one in after["versions"][1:]] == [one["version_id"] for one in before["versions"]]
    assert temaki("pull", url, "copy.sqlite").code == 0
    assert rows(temaki.home / "copy.sqlite") == [(1, "Ada"), (2, "Bob")]
    limited = temaki("history", url, "--limit", "1", "--json").json("history")
    assert (len(limited["versions"]), limited["truncated"]) == (1, True)
    missing = temaki("restore", url, "77", "--yes")
    assert (missing.code, "temaki history" in missing.err) == (4, True)


def test_restore_after_damage_and_deletion(versioned: tuple[Commands, str], moto: Server) -> None:
    """What was overwritten by something else, or deleted, can be brought back; numbers go on."""
    temaki, url = versioned
    bucket = url.removeprefix("s3://").partition("/")[0]
    moto.client().put_object(Bucket=bucket, Key="app.sqlite", Body=b"overwritten by accident")
    assert temaki("status", url).code == 1
    history = temaki("history", url, "--json").json("history")
    assert len(history["unreadable"]) == 1
    assert temaki("restore", url, "2", "--yes", "--json").json("restore")["version"]["sequence"] == 3

    moto.client().delete_object(Bucket=bucket, Key="app.sqlite")
    assert temaki("status", url).code == 4
    assert temaki("history", url, "--json").json("history")["deleted"] is True
    restored = temaki("restore", url, "3", "--yes", "--json").json("restore")
    assert (restored["version"]["sequence"], restored["replaced"]) == (4, None)
    assert temaki("status", url, "--json").json("status")["tables"] == [{"name": "user", "rows": 2}]


def test_history_needs_a_bucket_that_keeps_versions(tmp_path: Path) -> None:
    """A folder keeps none, and the message says what does."""
    temaki = Commands(tmp_path, {})
    said = temaki("history", f"file://{tmp_path}/app.sqlite", "--json")
    assert (said.code, said.json("history")["error"]) == (2, "ConfigurationError")
    assert "S3 bucket with versioning" in said.err


def test_the_configuration_serves_without_a_url(tmp_path: Path) -> None:
    """As bind_s3 does, a command takes the URL from the environment or from a file, and says so if nothing has one."""
    temaki = Commands(tmp_path, {})
    (tmp_path / "bucket").mkdir()
    temaki.file("app.sqlite", *USERS)
    assert temaki("status").code == 2
    (temaki.home / "temaki.toml").write_text(f'url = "file://{tmp_path}/bucket/app.sqlite"\n')
    assert temaki("push", "app.sqlite").code == 0
    temaki.env["TEMAKI_URL"] = f"file://{tmp_path}/bucket/other.sqlite"
    assert temaki("status").code == 4
    assert "other.sqlite" in temaki("doctor", "--requests", "1").out


def test_every_command_has_help_with_an_example(tmp_path: Path) -> None:
    """--help of each command, and schemas for all of them."""
    temaki = Commands(tmp_path, {"COLUMNS": "200"})
    for command in RESULTS:
        said = temaki(*command.split(), "--help")
        assert (said.code, "Example: temaki" in said.out, "--json" in said.out) == (0, True, True), command
    assert "anyOf" in json.loads(temaki("schema", "lease", "show").out)
    assert temaki("schema", "nonsense").code == 2
    assert temaki("--version").out.startswith("temaki ")
    assert temaki("nonsense").code == 2


def test_the_command_without_its_script(tmp_path: Path) -> None:
    """``python -m temaki`` is the command, for places that install packages but no scripts: how-to/compaction.md."""
    (tmp_path / "bucket").mkdir()
    url = f"file://{tmp_path}/bucket/app.sqlite"
    for arguments, code in ((["compact", url, "--json"], 4), (["--version"], 0)):
        ran = subprocess.run([sys.executable, "-m", "temaki", *arguments], capture_output=True, text=True, check=False)
        assert ran.returncode == code, ran.stderr
    assert ran.stdout.startswith("temaki ")
