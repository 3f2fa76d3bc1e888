"""The examples are imported as anybody would import them, each in a fresh module for each test."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], ModuleType]:
    """Imports an example anew, with its database in a folder of this test's own."""
    (tmp_path / "bucket").mkdir()
    monkeypatch.setenv("TEMAKI_URL", f"file://{tmp_path}/bucket/app.sqlite")
    monkeypatch.setenv("TEMAKI_CACHE_DIR", str(tmp_path / "cache"))

    def load(name: str) -> ModuleType:
        monkeypatch.delitem(sys.modules, f"examples.{name}", raising=False)
        return importlib.import_module(f"examples.{name}")

    return load
