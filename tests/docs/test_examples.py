"""What README and docs show runs as it stands there, on a bucket in memory."""

from __future__ import annotations

import re
from pathlib import Path
from uuid import uuid4

import pytest

from temaki import Database
from temaki.registry import available

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCKS = [
    pytest.param(block, id=f"{page.relative_to(ROOT)}:{number}")
    for page in PAGES
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL), 1)
]


@pytest.mark.parametrize("block", BLOCKS)
def test_python_block_runs(block: str, tmp_path: Path) -> None:
    """Every Python block of README and docs runs as printed, but for the place of the bucket."""
    here = block.replace("s3://my-bucket", f"memory://{uuid4().hex}").replace("/tmp/bucket", str(tmp_path))
    exec(compile(here, "<block>", "exec"), {"__name__": "block", "db": Database()})


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
