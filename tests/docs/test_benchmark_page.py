"""The page of measurements says what the figures say."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET

import pytest

from benchmarks.side_by_side import page

RESULTS = json.loads((page.FOLDER / "results.json").read_text(encoding="utf-8"))


def test_page_and_plots_are_what_the_results_give() -> None:
    """Nobody has edited the text, the plots or the figures on their own."""
    made = page.generate(RESULTS)
    assert sorted(made) == sorted(file.name for file in page.FOLDER.iterdir() if file.name != "results.json")
    for name, text in made.items():
        assert (page.FOLDER / name).read_text(encoding="utf-8") == text, f"python -m {page.__name__} makes {name} anew"


def test_the_results_are_of_a_full_run() -> None:
    """What is published is no quick trial, and says nothing of where it was made but the machine's kind."""
    assert not RESULTS["quick"]
    text = json.dumps(RESULTS)
    for place in ("/tmp/", "/home/", "/root/", "/work/"):
        assert place not in text


def test_no_strategy_lost_an_update_or_read_a_stale_row() -> None:
    """What the published figures claim of temaki, they show for every strategy that was measured."""
    for found in RESULTS["contests"] + RESULTS["cells"]:
        if found["system"].startswith("temaki"):
            assert "error" not in found
            assert not found.get("lost")
            assert not found.get("stale")


@pytest.mark.parametrize("name", sorted(name for name in page.generate(RESULTS) if name.endswith(".svg")))
def test_plots_are_well_formed(name: str) -> None:
    """A browser shows them, with a title for those who do not see them."""
    root = ET.fromstring(page.generate(RESULTS)[name])
    assert root.find("{http://www.w3.org/2000/svg}title") is not None
