"""What the ``temaki`` command does when things go wrong: ``doctor`` finds it, and Ctrl-C leaves nothing behind."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from temaki.testing import Server
from tests.integration._command import COMMAND, USERS, Commands, rows
from tests.network.messages import http, s3_error
from tests.network.policies import Hold, Refuse
from tests.network.relay import Exchange, Relay


@pytest.fixture
def way(moto: Server) -> Iterator[Relay]:
    """The way to the server, on which things can go wrong."""
    with Relay(moto.endpoint) as way:
        yield way


@pytest.fixture
def bucket(moto: Server) -> str:
    """A bucket that keeps versions."""
    name = moto.bucket()
    moto.client().put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    return name


@pytest.fixture
def temaki(tmp_path: Path, moto: Server, way: Relay) -> Commands:
    """Commands that go that way."""
    return Commands(tmp_path, {**moto.environment, "AWS_ENDPOINT_URL_S3": way.endpoint})


# -- doctor -----------------------------------------------------------------------------------------------------------


def _no_permission_to_write(request: Exchange) -> bytes | None:
    return s3_error(403, "AccessDenied") if request.method == "PUT" else None


def _no_permission_to_list(request: Exchange) -> bytes | None:
    return s3_error(403, "AccessDenied") if "list-type" in request.path else None


def _no_permission(_: Exchange) -> bytes | None:
    return s3_error(403, "AccessDenied")


def _another_region(_: Exchange) -> bytes | None:
    return s3_error(301, "PermanentRedirect", headers={"x-amz-bucket-region": "eu-central-1"})


def _ignoring_conditions(request: Exchange) -> bytes | None:
    request.headers = {name: value for name, value in request.headers.items() if not name.lower().startswith("if-")}
    return None


@pytest.mark.parametrize(
    ("fault", "check", "state", "advice"),
    [
        (_no_permission, "bucket", "failed", "s3:GetObject"),
        (_no_permission_to_write, "write", "failed", "s3:PutObject"),
        (_no_permission_to_list, "list", "warning", "s3:ListBucket"),
        (_another_region, "bucket", "failed", "AWS_REGION=eu-central-1"),
        (_ignoring_conditions, "conditional writes", "failed", "implements If-Match"),
    ],
)
def test_doctor_finds_what_is_wrong_with_the_store(
    temaki: Commands,
    way: Relay,
    bucket: str,
    fault: Callable[[Exchange], bytes | None],
    check: str,
    state: str,
    advice: str,
) -> None:
    """Each fault is found by the check that is about it, says what to do, and is an exit code if nothing can work."""
    way.policy = Refuse(fault)
    found = temaki("doctor", f"s3://{bucket}/app.sqlite", "--requests", "1", "--json")
    by_name = {one["check"]: one for one in found.json("doctor")["findings"]}
    assert (by_name[check]["state"], advice in by_name[check]["advice"]) == (state, True), by_name[check]
    assert found.code == int(state == "failed")
    assert [name for name, one in by_name.items() if one["state"] == "failed"] == [check] * (state == "failed")


DENIALS = {
    "SignatureDoesNotMatch": (403, "AWS_SECRET_ACCESS_KEY"),
    "InvalidAccessKeyId": (403, "AWS_ACCESS_KEY_ID"),
    "RequestTimeTooSkewed": (403, "clock"),
    "ExpiredToken": (400, "Sign in again"),
    "InvalidToken": (400, "Sign in again"),
    "AccessDenied": (403, "s3:ListBucket"),
}


@pytest.mark.parametrize("code", DENIALS)
def test_doctor_and_status_use_the_same_words(temaki: Commands, way: Relay, bucket: str, code: str) -> None:
    """Both say what is wrong with the credentials, and doctor advises a grant only where a grant is missing."""
    status, advice = DENIALS[code]
    # S3's answer to a HEAD has no body, and so no code.
    way.policy = Refuse(lambda request: http(status) if request.method == "HEAD" else s3_error(status, code))
    found = temaki("doctor", f"s3://{bucket}/app.sqlite", "--json").json("doctor")["findings"][-1]
    said = temaki("status", f"s3://{bucket}/app.sqlite", "--json").json("status")["message"]
    assert (found["check"], found["state"]) == ("bucket", "failed")
    assert f"{found['found']} {found['advice']}" == said
    assert advice in found["advice"]
    assert ("Grant" in said or "grant" in said) is (code == "AccessDenied")


def test_doctor_and_status_with_a_wrong_secret(tmp_path: Path, seaweedfs: Server) -> None:
    """The same with a server that checks signatures."""
    temaki = Commands(tmp_path, {**seaweedfs.environment, "AWS_SECRET_ACCESS_KEY": "wrong"})
    url = f"s3://{seaweedfs.bucket()}/app.sqlite"
    found = temaki("doctor", url, "--json").json("doctor")["findings"][-1]
    said = temaki("status", url, "--json").json("status")["message"]
    assert "the secret key is wrong" in found["found"]
    assert f"{found['found']} {found['advice']}" == said


def test_doctor_names_the_service_that_gives_no_credentials(temaki: Commands, tmp_path: Path, bucket: str) -> None:
    """A helper program that fails is no matter of the bucket."""
    (tmp_path / "config").write_text("[default]\ncredential_process = sh -c 'echo sealed >&2; exit 1'\n")
    temaki.env["AWS_CONFIG_FILE"] = str(tmp_path / "config")
    temaki.env["AWS_SHARED_CREDENTIALS_FILE"] = str(tmp_path / "credentials")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        temaki.env.pop(name, None)
    found = temaki("doctor", f"s3://{bucket}/app.sqlite", "--json").json("doctor")["findings"][-1]
    assert (found["check"], "sealed" in found["found"]) == ("bucket", True)
    assert "credential_process" in found["advice"]


def test_doctor_finds_a_missing_bucket_and_an_unreachable_endpoint(temaki: Commands, bucket: str) -> None:
    """A bucket that nobody has made; an endpoint at which nobody listens; versioning that is off."""
    missing = temaki("doctor", "s3://nobody-made-this/app.sqlite", "--json")
    assert (missing.code, missing.json("doctor")["works"]) == (1, False)
    assert "Create the bucket" in missing.json("doctor")["findings"][-1]["advice"]
    temaki.env["AWS_ENDPOINT_URL_S3"] = "http://127.0.0.1:9"
    unreachable = temaki("doctor", f"s3://{bucket}/app.sqlite", "--json")
    assert unreachable.code == 1
    assert "AWS_ENDPOINT_URL_S3" in unreachable.json("doctor")["findings"][-1]["advice"]


def test_doctor_finds_what_is_wrong_with_the_settings(temaki: Commands, moto: Server) -> None:
    """An unknown strategy, and an option that it does not have; and warns of a bucket that keeps no versions."""
    url = f"s3://{moto.bucket()}/app.sqlite"
    plain = temaki("doctor", url, "--requests", "1", "--json")
    by_name = {one["check"]: one for one in plain.json("doctor")["findings"]}
    assert (plain.code, by_name["versioning"]["state"]) == (0, "warning")
    temaki.env["TEMAKI_STRATEGY"] = "etag-cashed"
    wrong = temaki("doctor", url, "--json")
    assert (wrong.code, "etag-cached" in wrong.json("doctor")["findings"][0]["found"]) == (1, True)
    temaki.env["TEMAKI_STRATEGY"] = "read-only"
    nothing = temaki("doctor", url, "--json")
    assert (nothing.code, "temaki push" in nothing.out) == (1, True)


def test_errors_have_exit_codes(temaki: Commands, way: Relay, bucket: str) -> None:
    """Refused is 5, a conflict is 3, not known is 6, each with a sentence and no traceback."""
    url = f"s3://{bucket}/app.sqlite"
    temaki.file("app.sqlite", *USERS)
    temaki.env["TEMAKI_TIMEOUT"] = "0.1"
    way.policy = Refuse(_no_permission)
    assert temaki("status", url).code == 5
    way.policy = Refuse(
        lambda request: s3_error(503, "SlowDown") if request.method == "PUT" and "probe" not in request.path else None
    )
    unknown = temaki("push", url, "app.sqlite", "--yes", "--json")
    assert (unknown.code, unknown.json("push")["error"]) == (6, "CommitUnknownError")


# -- Ctrl-C -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "method", "part", "code"),
    [
        ("status", "GET", "app.sqlite", 130),
        ("verify", "GET", "app.sqlite", 130),
        ("pull out.sqlite", "GET", "app.sqlite", 130),
        ("history", "GET", "versionId", 130),
        ("diff 1", "GET", "versionId", 130),
        ("lease show", "GET", ".lease", 130),
        ("shell -c SELECT", "GET", "app.sqlite", 130),
        ("doctor", "PUT", "temaki-doctor", 130),
        ("doctor", "PUT", "temaki-probe", 130),
        ("bench", "PUT", "temaki-bench.*probe", 130),
        ("bench", "PUT", "temaki-bench-[0-9a-f]+$", 130),  # of a version stored as if by another process
        ("bench --sessions 1", "PUT", "temaki-bench-[0-9a-f]+$ 3", 130),  # of a session
        ("push app.sqlite --yes", "PUT", "app.sqlite$", 6),
        ("restore 1 --yes", "PUT", "app.sqlite$", 6),
    ],
)
def test_ctrl_c_leaves_nothing_behind(
    temaki: Commands, moto: Server, way: Relay, bucket: str, command: str, method: str, part: str, code: int
) -> None:
    """Interrupted in a request: no file, no probe, no traceback. An upload may have landed, and says that."""
    url = f"s3://{bucket}/app.sqlite"
    temaki.file("app.sqlite", *USERS)
    assert temaki("push", url, "app.sqlite").code == 0
    before = _keys(moto, bucket)

    pattern, _, number = part.partition(" ")
    passing = int(number or 1) - 1

    def is_it(request: Exchange) -> bool:
        nonlocal passing
        if request.method != method or not re.search(pattern, request.path):
            return False
        passing -= 1
        return passing < 0

    hold = way.policy = Hold(is_it)
    words = command.split()
    at = 2 if words[0] == "lease" else 1
    process = temaki.start(*words[:at], url, *words[at:])
    assert hold.held.wait(30), process.communicate()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert (process.returncode, "Traceback" in said) == (code, False), said
    sentence = "It is not known whether commit [0-9a-f]+ of .* was stored: it was interrupted before the store had"
    assert re.search(sentence if code == 6 else r"^temaki: Interrupted\. [A-Z].*\.$", said, re.MULTILINE), said
    assert "KeyboardInterrupt" not in said
    assert list(temaki.temporary.iterdir()) == []
    assert os.listdir(temaki.home) == ["app.sqlite"]
    assert _keys(moto, bucket) == before


def _keys(moto: Server, bucket: str) -> list[tuple[str, str]]:
    found = moto.client().list_objects_v2(Bucket=bucket).get("Contents", [])
    return [(one["Key"], one["ETag"]) for one in found]


# -- a terminal -------------------------------------------------------------------------------------------------------


def _on_a_terminal(temaki: Commands, *arguments: str, typed: dict[str, str]) -> tuple[int, str]:
    """Run a command on a pseudo-terminal; type something wherever it prompts for it."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [COMMAND, *arguments],
        cwd=temaki.home,
        env={**temaki.env, "TERM": "xterm"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        said, left = "", dict(typed)
        while True:
            assert select.select([ours], [], [], 30)[0], said
            try:
                data = os.read(ours, 65_536)
            except OSError:  # Linux: the other end is closed
                break
            if not data:
                break
            said += data.decode(errors="replace")
            for prompt in [one for one in left if one in said]:
                os.write(ours, left.pop(prompt).encode())
    os.close(ours)
    return process.returncode, said


@pytest.mark.skipif(sys.platform == "win32", reason="has no pseudo-terminals")
def test_a_question_is_asked_on_a_terminal(temaki: Commands, bucket: str) -> None:
    """Push names what it replaces; no is no, and yes is yes."""
    url = f"s3://{bucket}/app.sqlite"
    temaki.file("app.sqlite", *USERS)
    temaki("push", url, "app.sqlite")
    code, said = _on_a_terminal(temaki, "push", url, "app.sqlite", typed={"[y/N]": "n\n"})
    assert (code, "has version 1" in said, "Nothing was changed" in said) == (1, True, True)
    code, said = _on_a_terminal(temaki, "push", url, "app.sqlite", typed={"[y/N]": "y\n"})
    assert (code, "version 2" in said) == (0, True)


def test_the_shell_talks(temaki: Commands, bucket: str) -> None:
    """A prompt, answers, and a question at the end."""
    url = f"s3://{bucket}/app.sqlite"
    temaki.file("app.sqlite", *USERS)
    temaki("push", url, "app.sqlite")
    typed = {
        "temaki> ": "UPDATE user SET name = 'Eve'\n",
        "...> ": "WHERE id = 1;\nSELECT name FROM user;\n.quit\n",
        "[y/N]": "y\n",
    }
    code, said = _on_a_terminal(temaki, "shell", url, "--write", typed=typed)
    assert (code, "Eve" in said, "version 2" in said) == (0, True, True), said
    temaki("pull", url, "copy.sqlite")
    assert rows(temaki.home / "copy.sqlite")[0] == (1, "Eve")


def test_progress_is_shown_on_a_terminal_only(temaki: Commands, bucket: str) -> None:
    """Of transfers over 8 MiB; in a pipe there is nothing of it."""
    url = f"s3://{bucket}/app.sqlite"
    temaki.file(
        "app.sqlite", *USERS, "CREATE TABLE large (data BLOB)", "INSERT INTO large VALUES (randomblob(9000000))"
    )
    piped = temaki("push", url, "app.sqlite")
    assert (piped.code, piped.err) == (0, "")
    code, said = _on_a_terminal(temaki, "pull", url, "copy.sqlite", typed={})
    assert (code, "━" in said, "down" in said) == (0, True, True), said
    code, said = _on_a_terminal(temaki, "push", url, "app.sqlite", "--yes", typed={})
    assert (code, "━" in said, "up" in said) == (0, True, True), said
    piped = temaki("pull", url, "copy.sqlite", "--yes")
    assert (piped.code, piped.err) == (0, "")
