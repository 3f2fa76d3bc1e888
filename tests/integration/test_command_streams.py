"""The ``temaki`` command in a pipe, under cron, with closed and full streams, and with arguments in any order."""

from __future__ import annotations

import os
import shlex
import signal
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from temaki.testing import Server
from tests.integration._command import COMMAND, USERS, Commands, Ran, rows

ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c;"


@pytest.fixture
def temaki(tmp_path: Path) -> Commands:
    """Commands, beside a folder that serves as a bucket."""
    (tmp_path / "bucket").mkdir()
    return Commands(tmp_path, {})


@pytest.fixture
def url(temaki: Commands, tmp_path: Path) -> str:
    """A database with two rows, which is also ``app.sqlite`` in the working folder."""
    url = f"file://{tmp_path}/bucket/app.sqlite"
    temaki.file("app.sqlite", *USERS)
    assert temaki("push", url, "app.sqlite").code == 0
    return url


def in_bash(temaki: Commands, line: str) -> Ran:
    """Run a line of bash, in which ``temaki`` is the command."""
    run = subprocess.run(
        ["/bin/bash", "-c", f'temaki() {{ {shlex.quote(COMMAND)} "$@"; }}; {line}'],
        cwd=temaki.home,
        env=temaki.env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=60,
        check=False,
    )
    assert "Traceback" not in run.stderr, run.stderr
    assert "Exception ignored" not in run.stderr, run.stderr
    assert list(temaki.temporary.iterdir()) == []
    return Ran(run.returncode, run.stdout, run.stderr)


# -- streams ----------------------------------------------------------------------------------------------------------


LOOKING = [
    "status URL",
    "status URL --quick --json",
    "verify URL",
    "verify URL --json",
    "lease show URL",
    "shell URL -c 'SELECT 1'",
    "shell URL --json -c 'SELECT 1'",
    "doctor URL --requests 1",
    "bench URL --sessions 1",
    "schema status",
    "--help",
    "--version",
    "status --help",
    "pull URL -",
]


@pytest.mark.parametrize("way", [">&-", ">/dev/full"])
@pytest.mark.parametrize("line", LOOKING)
def test_a_result_that_nobody_gets_is_an_error(temaki: Commands, url: str, line: str, way: str) -> None:
    """Where stdout is closed or full, the exit code is 1, and one sentence says so."""
    ran = in_bash(temaki, f"temaki {line.replace('URL', url)} {way}")
    assert ran.code == 1
    assert ("is closed" in ran.err or "Bad file descriptor" in ran.err) == (way == ">&-")
    assert ("No space left on device" in ran.err) == (way == ">/dev/full")
    assert "stdout" in ran.err


@pytest.mark.parametrize("way", [">&-", ">/dev/full"])
@pytest.mark.parametrize(
    ("line", "done"),
    [
        ("push URL app.sqlite --yes", "Version 2 was stored"),
        ("shell URL --write --yes -c 'DELETE FROM user'", "Version 2 was stored"),
        ("pull URL out.sqlite", "out.sqlite was written"),
    ],
)
def test_what_was_done_is_done_whether_or_not_it_can_be_said(
    temaki: Commands, url: str, line: str, done: str, way: str
) -> None:
    """The exit code of a command that does something is about that; with --json the document was asked for, too."""
    ran = in_bash(temaki, f"temaki {line.replace('URL', url)} {way}")
    assert (ran.code, done in ran.err) == (0, True), ran
    line = line.replace("URL", url).replace("DELETE FROM user", "CREATE TABLE t (a)")
    ran = in_bash(temaki, f"temaki {line} --json --yes {way}")
    assert (ran.code, done.replace("2", "3") in ran.err) == (1, True), ran


@pytest.mark.parametrize(
    "line", ["status URL", "verify URL --json", "push URL app.sqlite --yes", "shell URL -c 'SELECT 1'"]
)
@pytest.mark.parametrize("way", ["2>&-", "2>/dev/full", "<&-", "<&- 2>&-"])
def test_other_streams_may_be_closed_or_full(temaki: Commands, url: str, line: str, way: str) -> None:
    """What is no result is not worth a failure; a file that is opened never gets a standard stream's number."""
    ran = in_bash(temaki, f"temaki {line.replace('URL', url)} {way}")
    assert ran.code == 0
    assert ran.out


def test_an_error_is_its_exit_code_with_all_streams_closed(temaki: Commands, url: str) -> None:
    """Under a supervisor that closes everything, the exit code is all there is."""
    for flags in ("", "--json"):
        assert in_bash(temaki, f"temaki status {flags} {url}x <&- >&- 2>&-").code == 4
        assert in_bash(temaki, f"temaki status {flags} nonsense <&- >&- 2>&-").code == 2
        assert in_bash(temaki, f"temaki push {flags} {url} app.sqlite <&- >&- 2>&-").code == 2


def test_a_reader_that_has_seen_enough_changes_no_exit_code(temaki: Commands, url: str, tmp_path: Path) -> None:
    """``| true``: what a command found is its exit code all the same, and an error with --json is no traceback."""
    assert in_bash(temaki, f"temaki status {url} | true; exit ${{PIPESTATUS[0]}}").code == 0
    assert in_bash(temaki, f"temaki status {url}x --json | true; exit ${{PIPESTATUS[0]}}").code == 4
    temaki.file("pets.sqlite", *USERS, "CREATE TABLE pet (owner REFERENCES user (id))", "INSERT INTO pet VALUES (9)")
    (tmp_path / "bucket" / "pets.sqlite").write_bytes((temaki.home / "pets.sqlite").read_bytes())
    for flags in ("", "--json"):
        line = f"temaki verify {flags} file://{tmp_path}/bucket/pets.sqlite | true; exit ${{PIPESTATUS[0]}}"
        assert in_bash(temaki, line).code == 1


def test_cron_has_no_letters_but_ascii(temaki: Commands, tmp_path: Path) -> None:
    """``LC_ALL=C`` without Python's coercion: URLs, statements and names work; JSON is UTF-8 wherever it goes."""
    temaki.env |= {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    temaki.file("app.sqlite", 'CREATE TABLE "Größe" (name TEXT)', "INSERT INTO \"Größe\" VALUES ('ü')")
    for url in ("s3://bucket/dä ta.sqlite", "memory://tests/dä ta.sqlite"):
        found = in_bash(temaki, f"temaki push app.sqlite '{url}' --json | head -c 4000")
        assert "is no URL" not in found.err
    url = f"file://{tmp_path}/bucket/app.sqlite"
    assert temaki("push", "app.sqlite", url).code == 0
    assert in_bash(temaki, f"temaki status {url}").out.count("Gr\\xf6\\xdfe") == 1
    assert "Größe" in in_bash(temaki, f"temaki status --json {url}").out
    assert "\\xfc" in in_bash(temaki, f"echo 'SELECT name FROM \"Größe\"' | temaki shell {url}").out
    assert "\\xfc" in in_bash(temaki, f"temaki shell {url} -c 'SELECT name FROM \"Größe\"'").out


def test_a_name_that_is_no_text_is_printed_as_far_as_it_can_be(temaki: Commands, url: str) -> None:
    """A path of other bytes than UTF-8 works, as a line and in JSON."""
    for flags in ("", "--json"):
        ran = in_bash(temaki, f"temaki pull {url} $'\\xff{flags}.sqlite' {flags}")
        assert (ran.code, "udcff" in ran.out) == (0, True), ran


def test_no_working_folder_and_no_temporary_one(temaki: Commands, url: str, tmp_path: Path) -> None:
    """A removed working folder is none that a command with a URL needs; without a temporary one, TMPDIR is named."""
    assert in_bash(temaki, f"mkdir gone && cd gone && rmdir ../gone && temaki status {url}").code == 0
    ran = in_bash(temaki, f"mkdir gone && cd gone && rmdir ../gone && temaki pull {url} out.sqlite")
    assert (ran.code, "out.sqlite cannot be written" in ran.err) == (1, True), ran
    broken = "import tempfile; tempfile._candidate_tempdir_list = lambda: ['/proc/nowhere']\n"
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(broken)
    temaki.env["PYTHONPATH"] = str(tmp_path / "site")
    ran = in_bash(temaki, f"temaki status {url}")
    assert (ran.code, "TMPDIR" in ran.err) == (1, True), ran


# -- "-" --------------------------------------------------------------------------------------------------------------


def test_a_dash_is_stdout_and_stdin(temaki: Commands, url: str) -> None:
    """Pull writes the file's bytes there, push reads them; nothing is ever called ``-``."""
    assert in_bash(temaki, f"temaki pull {url} - > copy.sqlite").code == 0
    assert rows(temaki.home / "copy.sqlite") == [(1, "Ada"), (2, "Bob")]
    ran = in_bash(temaki, f"cat copy.sqlite | temaki push - {url}")
    assert (ran.code, "--yes" in ran.err) == (2, True)
    assert in_bash(temaki, f"cat copy.sqlite | temaki push - {url} --yes").code == 0
    ran = in_bash(temaki, f"echo no database | temaki push {url} - --yes")
    assert (ran.code, "stdin is no SQLite database" in ran.err) == (1, True)
    assert temaki("pull", url, "-", "--json").code == 2
    assert in_bash(temaki, f"temaki pull {url} - | head -c 1 >/dev/null; exit ${{PIPESTATUS[0]}}").code in {0, 1}
    assert not (temaki.home / "-").exists()
    assert temaki("pull", url, "./-").code == 0
    assert rows(temaki.home / "-") == [(1, "Ada"), (2, "Bob")]


def test_pull_writes_through_links_and_devices(temaki: Commands, url: str) -> None:
    """A link stays one, and a device is written to: with --yes, replacing /dev/null would take it from the machine."""
    (temaki.home / "old.sqlite").write_text("old")
    (temaki.home / "link.sqlite").symlink_to("old.sqlite")
    assert temaki("pull", url, "link.sqlite", "--yes").code == 0
    assert (temaki.home / "link.sqlite").is_symlink()
    assert rows(temaki.home / "old.sqlite") == [(1, "Ada"), (2, "Bob")]
    os.mkfifo(temaki.home / "fifo")
    ran = in_bash(temaki, f"cat fifo > from-fifo & temaki pull {url} fifo --yes && wait")
    assert (ran.code, (temaki.home / "fifo").is_fifo()) == (0, True), ran
    assert rows(temaki.home / "from-fifo") == [(1, "Ada"), (2, "Bob")]


def test_pull_replaces_no_file_that_is_in_use(temaki: Commands, url: str) -> None:
    """SQLite would replay what is in the WAL beside it into what was put there."""
    path = temaki.file("mine.sqlite", *USERS)
    with closing(sqlite3.connect(path)) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("INSERT INTO user VALUES (3, 'Cy')")
        writer.commit()
        refused = temaki("pull", url, "mine.sqlite", "--yes")
        assert (refused.code, "mine.sqlite-wal" in refused.err) == (1, True)
    assert len(rows(path)) == 3


# -- arguments --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "push app.sqlite URL --yes",
        "push --yes app.sqlite --json URL",
        "URL push app.sqlite --yes",
        "--yes URL push app.sqlite",
        "--json status URL",
        "URL status --quick",
        "pull out.sqlite URL",
        "lease URL show",
        "URL lease show",
        "--json lease show URL",
        "URL shell -c .tables",
        "shell -c .tables URL",
    ],
)
def test_arguments_may_stand_anywhere(temaki: Commands, url: str, line: str) -> None:
    """A URL has a scheme: it cannot be confused with a file, a version or a command."""
    assert temaki(*line.replace("URL", url).split()).code == 0


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("push URL", "[URL] PATH"),
        ("push URL URL", "Two URLs"),
        ("push URL app.sqlite other.sqlite", "[URL] PATH"),
        ("push s3:bucket/key app.sqlite", "is no URL of a database"),
        ("pull s3:/bucket/key", "is no URL of a database"),
        ("restore URL", "[URL] VERSION"),
        ("diff URL", "[URL] OLD [NEW]"),
        ("status app.sqlite", "is no URL of a database"),
        ("status -", "is no URL of a database"),
        ("schema push pull", "no command 'push pull'"),
    ],
)
def test_wrong_arguments_are_named(temaki: Commands, url: str, line: str, said: str) -> None:
    """Usage is 2 and a sentence; nothing is written and nothing stored."""
    ran = temaki(*line.replace("URL", url).split())
    assert (ran.code, said in " ".join(ran.err.split())) == (2, True), ran.err
    assert os.listdir(temaki.home) == ["app.sqlite"]


def test_the_advice_of_status_works(temaki: Commands, url: str) -> None:
    """What an error tells the user to type can be typed."""
    advice = temaki("status", f"{url}2").err.partition("temaki push ")[2]
    assert temaki("push", *advice.strip().replace("PATH", "app.sqlite").split()).code == 0


def test_a_misspelt_key_in_a_file_is_named_by_every_command(temaki: Commands, url: str) -> None:
    """Whatever command comes first finds it; doctor shows it as a finding."""
    (temaki.home / "temaki.toml").write_text(f'url = "{url}"\nmax_agee = 5\n')
    for command in ("status", "verify", "shell", "pull"):
        ran = temaki(command)
        assert (ran.code, "Did you mean max_age in temaki.toml?" in ran.err) == (2, True), ran.err
    assert "max_agee in temaki.toml" in temaki("doctor", "--requests", "1", "--json").out
    (temaki.home / "temaki.toml").write_text(f'ulr = "{url}"\n')
    assert "Did you mean url in temaki.toml?" in temaki("status").err


# -- what is there ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content", [b"", b"not a database\n" * 300, b"SQLite format 3\0" + bytes(84), os.urandom(4096)]
)
def test_what_is_no_database_is_an_error_in_every_command(moto: Server, tmp_path: Path, content: bytes) -> None:
    """Never an empty answer with exit code 0."""
    bucket = moto.bucket()
    client = moto.client()
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    for _ in range(2):
        client.put_object(Bucket=bucket, Key="app.sqlite", Body=content)
    temaki, url = Commands(tmp_path, moto.environment), f"s3://{bucket}/app.sqlite"
    for line in ("status", "status --quick", "verify", "pull o.sqlite", "history", "history --limit 1", "diff current"):
        first, *others = line.split()
        ran = temaki(first, url, *others, "--json")
        assert (ran.code, ran.json(first)["error"]) == (1, "CorruptDatabaseError"), (line, ran)
        assert url in ran.err
    assert temaki("restore", url, "current", "--yes").code == 1
    assert temaki("shell", url, "-c", ".tables").code == 1
    assert "--limit 10" in temaki("history", url, "--limit", "1").err
    assert os.listdir(temaki.home) == []


# -- tables and the shell ---------------------------------------------------------------------------------------------


def test_piped_tables_are_clean(temaki: Commands, url: str) -> None:
    """Neither blank lines at their ends nor trailing spaces, and no line is cut or broken."""
    long = "x" * 500
    for ran in (
        temaki("status", url),
        temaki("lease", "show", url),
        temaki("doctor", url, "--requests", "1"),
        temaki("bench", url, "--sessions", "1"),
        temaki("shell", url, "-c", f"SELECT name, '{long}' AS long FROM user"),
        temaki("shell", url, "-c", ".tables", "-c", ".schema"),
    ):
        lines = ran.out.split("\n")
        assert lines.pop() == ""
        assert lines[0].strip()
        assert lines[-1].strip()
        assert [line for line in lines if line != line.rstrip()] == []
        assert "\n\n\n" not in ran.out
    assert ran.out == f"user\n{USERS[0]};\n"
    assert long in temaki("shell", url, "-c", f"SELECT '{long}'").out


def test_the_sentences_of_doctor_wrap_in_their_column(temaki: Commands, tmp_path: Path) -> None:
    """In a pipe and on a wide terminal, too."""
    ran = temaki("doctor", f"file://{tmp_path}/{'a' * 50}/{'b' * 50}/app.sqlite", "--requests", "1")
    assert ran.code == 1
    _, table = ran.out.split("\n\n", 1)
    assert max(len(line) for line in table.splitlines()) < 120
    assert ran.out.count("Create") == 2


def test_dot_commands_work_in_scripts(temaki: Commands, url: str) -> None:
    """With -c and in a pipe, between statements, to stdout; as statements in JSON; unknown ones fail."""
    assert temaki("shell", url, "-c", ".tables").out == "user\n"
    script = ".tables\nSELECT name\nFROM user\nWHERE id = 1;\n.schema USER;\n.quit\nnonsense;\n"
    piped = temaki("shell", url, stdin=script)
    assert (piped.code, piped.out) == (0, f"user\n name\n ────\n Ada\n{USERS[0]};\n")
    found = temaki("shell", url, "--json", "-c", "SELECT 1 AS one\n", "-c", ".tables").json("shell")["statements"]
    assert [(one["columns"], one["rows"]) for one in found] == [(["one"], [[1]]), (["name"], [["user"]])]
    unknown = temaki("shell", url, "-c", ".nonsense", "-c", "SELECT 1")
    assert (unknown.code, ".nonsense" in unknown.err, unknown.out) == (1, True, "")
    assert temaki("shell", url, "-c", ".help").code == 0


def test_a_script_that_is_not_utf_8_is_refused(temaki: Commands, url: str) -> None:
    """As a whole, before anything of it was run."""
    ran = in_bash(temaki, f"printf 'SELECT 1;\\nSELECT \"\\xff\";' | temaki shell {url}")
    assert (ran.code, "UTF-8" in ran.err, ran.out) == (2, True, "")


def test_help_names_values_and_no_types(temaki: Commands) -> None:
    """A person knows N, BYTES, SQL and COMMIT."""
    for line, value in (
        ("history", "N"),
        ("bench", "BYTES"),
        ("shell", "SQL"),
        ("push", "COMMIT"),
        ("lease show", "[URL]"),
    ):
        said = temaki(*line.split(), "--help").out
        assert value in said
        for kind in ("<str>", "<int", "<bool>", "TEXT", "INTEGER", "BOOLEAN", "[[", "{["):
            assert kind not in said, said


# -- Ctrl-C -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_statement_that_never_ends_can_be_ended(temaki: Commands, url: str, number: signal.Signals) -> None:
    """A signal reaches SQLite in the middle of a statement; nothing is left, and nothing stored."""
    before = temaki("status", url, "--json").json("status")["version"]["commit"]
    statement = f"INSERT INTO user (name) {ENDLESS.replace('count(*)', 'x')}"
    process = temaki.start("shell", url, "--write", "--yes", "-c", ".tables", "-c", statement)
    assert process.stdout is not None
    assert process.stdout.readline() == "user\n"  # the next thing is the statement
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (130, "temaki: Interrupted. Nothing was stored.\n")
    assert list(temaki.temporary.iterdir()) == []
    assert temaki("status", url, "--json").json("status")["version"]["commit"] == before
