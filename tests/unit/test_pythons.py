"""The Pythons that temaki promises, and what stands in the way of the next one."""

from __future__ import annotations

import ast
import sys
import tomllib
from importlib.metadata import metadata
from pathlib import Path

import pytest
from pony.orm.decompiling import decompile

CLASSIFIER = "Programming Language :: Python :: 3."
PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]

QUERIES = [
    "(p for p in people)",
    "(p.name for p in people if p.age > 17)",
    "((p.name, p.age) for p in people if p.age == 17 and p.name != 'x')",
    "(p for p in people if p.age < 3 or p.age > 70 and p.name)",
    "(p for p in people if not p.name and p.age is not None)",
    "(p for p in people if p.age is None or p.age in (1, 2))",
    "(p for p in people if p.name.startswith('x') and len(p.name) > 1)",
    "(p.name[0] for p in people if p.name[1:3] == 'xy')",
    "(p for p in people for c in p.cars if c.owner == p)",
    "(p.age + 1 if p.name else -p.age for p in people)",
    "(round(p.age, ndigits=2) for p in people)",
]
"""Each has something that has instructions of its own in some version of Python."""


def _minors(classifiers: list[str]) -> set[int]:
    return {int(one.removeprefix(CLASSIFIER)) for one in classifiers if one.startswith(CLASSIFIER)}


PROMISED = _minors(PROJECT["classifiers"])


@pytest.mark.parametrize("query", QUERIES)
def test_pony_reads_queries(query: str) -> None:
    """Pony makes SQL from a generator's instructions, which differ from Python to Python: here it reads them right.

    On a Python that is not promised yet, this is what stands in its way; the next test says when it no longer does.
    """
    if sys.version_info[1] not in PROMISED:
        pytest.skip("this Python is not promised")
    assert _is_read(query)


def test_a_python_that_is_not_promised_is_one_on_which_pony_fails() -> None:
    """What keeps temaki from the next Python is Pony's decompiler. Where that works, the promise can be made."""
    if sys.version_info[1] in PROMISED:
        pytest.skip("this Python is promised")
    failing = [query for query in QUERIES if not _is_read(query)]
    assert failing, (
        f"Pony reads queries on Python 3.{sys.version_info[1]}: run all tests on it, then name it in the classifiers "
        "in pyproject.toml and in docs/explanation/limits.md"
    )


def test_pony_promises_what_temaki_promises() -> None:
    """The Pony in the lock names every Python that temaki names."""
    assert _minors(metadata("pony").get_all("Classifier", [])) >= PROMISED


def test_promises_agree() -> None:
    """The oldest Python that an installer accepts is the oldest that is promised, and the docs name the same ones."""
    assert PROJECT["requires-python"] == f">=3.{min(PROMISED)}"
    page = (Path(__file__).parents[2] / "docs/explanation/limits.md").read_text(encoding="utf-8")
    *first, last = (f"3.{minor}" for minor in sorted(PROMISED))
    assert f"Python {', '.join(first)} and {last}" in page


def _is_read(query: str) -> bool:
    """Whether Pony's reading of a generator means the same as its source."""
    try:
        tree, _, _ = decompile(eval(query, {"people": [], "round": round, "len": len}))
    except Exception:
        return False
    tree = ast.fix_missing_locations(ast.Expression(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id == ".0":
            node.id = "people"
    return _normalised(ast.unparse(tree)) == _normalised(query)


def _normalised(source: str) -> str:
    return ast.unparse(ast.parse(source.strip()))
