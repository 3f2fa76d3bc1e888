"""``temaki convert`` beside processes that write: they go on in the other format, and no update is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from temaki.testing import Server
from tests.integration._children import Child, Place
from tests.integration._command import Commands

PROGRAM = "_increments.py"
PROCESSES = 3
CONFLICT = 3
"""The exit code of a command that another writer has overtaken."""


class Writers:
    """Processes that increment one counter, once for each word of the test.

    Args:
        children: The processes.

    Attributes:
        acknowledged: The values whose increments have returned, of all of them.
    """

    def __init__(self, children: list[Child]) -> None:
        self._children = children
        self.acknowledged: list[int] = []
        for child in children:
            child.hear("ready")

    def go(self) -> None:
        """One increment of each, at once."""
        for child in self._children:
            child.tell("go")
        self.acknowledged += [int(child.hear()) for child in self._children]

    def stay(self) -> None:
        """Each has made its changes, and has yet to commit."""
        for child in self._children:
            child.tell("stay")
        for child in self._children:
            child.hear("changed")

    def commit(self) -> None:
        """Now they do."""
        for child in self._children:
            child.tell("commit")
        self.acknowledged += [int(child.hear()) for child in self._children]

    def end(self) -> list[dict[str, int]]:
        """How often each was run again."""
        for child in self._children:
            child.tell("end")
        return [child.result() for child in self._children]


@pytest.fixture(params=["folder", pytest.param("moto", marks=pytest.mark.server)])
def target(request: pytest.FixtureRequest, place: Place, tmp_path: Path) -> tuple[Commands, str, Writers]:
    """Commands, the URL of a database, and those who write to it."""
    url, env = place.url, {}
    if request.param == "moto":
        server: Server = request.getfixturevalue("moto")
        url, env = f"s3://{server.bucket()}/app.sqlite", dict(server.environment)
    place.run(PROGRAM, "create", url, env=env)
    children = [place.start(PROGRAM, "take_turns", url, env=env) for _ in range(PROCESSES)]
    return Commands(tmp_path / "operator", env), url, Writers(children)


@pytest.mark.slow
def test_writers_go_on(target: tuple[Commands, str, Writers]) -> None:
    """To and fro, while processes commit: a conflict on either side is retried, and every increment counts once."""
    temaki, url, writers = target
    before = temaki("status", url, "--json").json("status")["version"]["sequence"]
    writers.go()
    conversions = 0
    for form in ("pages", "file", "pages"):
        # They write for as long as the command runs. It is overtaken, or they are.
        command = temaki.start("convert", url, "--to", form, "--yes", "--json")
        while command.poll() is None:
            writers.go()
        command.communicate()
        assert command.returncode in {0, CONFLICT}
        if command.returncode:
            assert temaki("convert", url, "--to", form, "--yes").code == 0
        writers.go()
        # Each has a transaction under way that began in the other format, or before the last conversion.
        writers.stay()
        assert temaki("convert", url, "--to", "file" if form == "pages" else "pages", "--yes").code == 0
        writers.commit()
        assert temaki("convert", url, "--to", form, "--yes").code == 0
        writers.go()
        conversions += 3
        assert temaki("verify", url).code == 0
    runs = writers.end()
    assert sorted(writers.acknowledged) == list(range(1, len(writers.acknowledged) + 1))
    assert all(one["runs"] - one["increments"] >= 3 for one in runs), "a conversion has refused what was under way"
    status = temaki("status", url, "--json").json("status")
    assert status["version"]["sequence"] == before + len(writers.acknowledged) + conversions
    assert temaki("shell", url, "-c", "SELECT value FROM Counter").out.split()[-1] == str(len(writers.acknowledged))
