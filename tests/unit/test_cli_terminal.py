"""How the command line speaks: sizes and times, exit codes, and what it says where its libraries are missing."""

from __future__ import annotations

import subprocess
import sys

import pytest

from temaki import errors
from temaki.cli.options import apart
from temaki.cli.tables import duration, size
from temaki.cli.terminal import Terminal, exit_code


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1024, "1.0 KiB"), (5 << 20, "5.0 MiB"), (3 << 50, "3072.0 TiB")],
)
def test_size(count: int, said: str) -> None:
    """Bytes in a unit that people read."""
    assert size(count) == said


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 s"), (61, "1 min 1 s"), (3600, "1 h"), (90_061, "1 d 1 h"), (86_400 * 9, "9 d")]
)
def test_duration(seconds: float, said: str) -> None:
    """Seconds in the two largest units."""
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ConfigurationError(""), 2),
        (errors.ConflictError(""), 3),
        (errors.LeaseLostError(""), 3),
        (errors.NotFoundError(""), 4),
        (errors.BucketNotFoundError(""), 4),
        (errors.AccessDeniedError(""), 5),
        (errors.StoreUnavailableError(""), 5),
        (errors.UnsafeStoreError(""), 5),
        (errors.CommitUnknownError(""), 6),
        (errors.CorruptDatabaseError(""), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_codes(error: BaseException, code: int) -> None:
    """A script can tell a conflict from a refusal."""
    assert exit_code(error) == code


def test_the_url_is_what_looks_like_one() -> None:
    """It may be left out; the other arguments stay in order."""
    assert apart(["s3://b/k", "1", "2"], least=1, most=2, what="") == ("s3://b/k", ["1", "2"])
    assert apart(["1"], least=1, most=2, what="") == (None, ["1"])
    for wrong in ([], ["s3://b/k"], ["1", "2", "3"], ["s3://b/k", "s3://c/k", "1"]):
        with pytest.raises(errors.ConfigurationError, match="OLD"):
            apart(wrong, least=1, most=2, what="[URL] OLD [NEW]")


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_a_missing_library_is_named(missing: str) -> None:
    """Without the extra, the command says how to install it."""
    code = f"import sys; sys.modules[{missing!r}] = None; from temaki.cli import main; main()"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (run.returncode, "pip install 'temaki[cli]'" in run.stderr, missing in run.stderr) == (2, True, True)
    assert "Traceback" not in run.stderr


def test_what_is_said_is_said_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    """Names and rows are somebody's own: nothing in them is a colour, a style or a picture."""
    strange = "root:x: [red]hot[/red] [/]"
    Terminal(as_json=False).note(strange)
    Terminal(as_json=False).print(strange)
    assert capsys.readouterr() == (strange + "\n", strange + "\n")
