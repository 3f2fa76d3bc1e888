"""The reference says what the code says."""

from __future__ import annotations

import inspect
import re
from typing import Any

from temaki import errors
from tests.docs.pages import ROOT
from tests.docs.reference import PAGE, generated


def test_settings_are_those_of_the_code() -> None:
    """The tables of settings are what the code would make of them; ``python -m tests.docs.reference`` writes them."""
    page = PAGE.read_text(encoding="utf-8")
    assert generated(page) == page


def test_every_error_is_explained() -> None:
    """Each class of ``temaki.errors`` has its place in the reference, with what ``retry`` does after it."""
    page = (ROOT / "docs" / "reference" / "errors.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^### `(\w+)`\n(.*?)(?=^##|\Z)", page, re.DOTALL | re.MULTILINE))
    found = inspect.getmembers(errors, inspect.isclass)
    classes: dict[str, Any] = {name: cls for name, cls in found if cls.__module__ == errors.__name__}
    abstract = {"TemakiError", "StoreError", "SyncError"}
    assert set(sections) - abstract == set(classes) - abstract
    for name, text in sections.items():
        wanted = "yes" if classes[name].should_retry else "after a commit" if classes[name].may_repeat else "never"
        assert re.search(rf"^\*\*`retry`:\*\* {wanted}\b", text, re.MULTILINE), f"{name}: {wanted}"
