"""Maintenance all the time, in the processes of a test: segments of hundreds of bytes, folds after a few commits.

A program of this folder does so if ``COMPACTS`` of ``_worker.py`` is in its environment. What takes hours otherwise
takes a second: an object is deleted a second after it was condemned, and a claim on a head expires after a second. So a
process that was killed or stopped in a fold holds nobody up, and is overtaken by the next fold.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from temaki.engine import compaction
from temaki.formats.pages import claim, compact, maintain, policy, upkeep

SECOND = 1
LIMITS: dict[Any, dict[str, Any]] = {
    policy: {"TAIL_LIMIT": 200, "TAIL_KEEP": 60, "UNIT": 400, "FAN": 3, "COMMIT_BUDGET": 900, "KEPT": 2},
    maintain: {"KEPT": 2},
    claim: {"CLAIM_LIFETIME": SECOND},
    upkeep: {"GRACE": SECOND},
    compaction: {"LEAST_LIFE": 0.0, "UPLOAD_RATE": 1 << 40, "_FIRST_PAUSE": 0.0, "_LONGEST_PAUSE": 0.0},
}


def _many_segments(_base: object, segments: list[Any], _size: int) -> bool:
    """When a fold is due: the bases of these tests are small, and their segments smaller."""
    return len(list(segments)) > 3


def hurry() -> None:
    """Have this process, and those that it forks, maintain the databases all the time."""
    for module, values in LIMITS.items():
        for name, value in values.items():
            assert hasattr(module, name)
            setattr(module, name, value)
    for name in ("fold_is_due", "fold_is_worthwhile"):
        setattr(policy, name, _many_segments)
    defaults = maintain.collect.__kwdefaults__
    assert defaults is not None
    defaults["grace"] = SECOND


def compact_until(url: str, stop: str) -> dict[str, int]:
    """Compact, as ``temaki compact`` does, until a file appears. What was done: folds, merges and deletions."""
    from temaki.cli.local import scratch
    from temaki.cli.target import Target

    target = Target(url)
    done = {"folds": 0, "merges": 0, "deleted": 0}
    while not os.path.exists(stop):
        with scratch() as folder:
            found = compact.compact(target.remote.source, Path(folder) / "compacted.sqlite")
        if found is not None:
            done["folds"] += found.folded
            done["merges"] += found.merged > 0
            done["deleted"] += len(found.collected.deleted)
    return done
