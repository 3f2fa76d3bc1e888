"""Distributions that are installed, as far as entry points are concerned."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Install = Callable[..., Path]


def installer(folder: Path, monkeypatch: pytest.MonkeyPatch, *, module: str, group: str) -> Install:
    """A function that installs a distribution into a folder of its own at the start of ``sys.path``.

    Args:
        folder: Where the folders are made.
        monkeypatch: Takes everything back.
        module: Source of the distribution's module ``<distribution>_module``, if the call does not say otherwise.
        group: The group of its entry points, if the call does not say otherwise.
    """

    def install(distribution: str, entries: str, *, module: str = module, group: str = group) -> Path:
        place = folder / distribution
        info = place / f"{distribution}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n", encoding="utf-8")
        (info / "entry_points.txt").write_text(f"[{group}]\n{entries}\n", encoding="utf-8")
        (place / f"{distribution}_module.py").write_text(module, encoding="utf-8")
        monkeypatch.syspath_prepend(place)
        monkeypatch.delitem(sys.modules, f"{distribution}_module", raising=False)
        importlib.invalidate_caches()
        return place

    return install
