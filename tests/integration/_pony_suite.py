"""Runs Pony's own test suite and prints what became of each test, as one JSON object.

Run it as ``_pony_suite.py sqlite``, or with the name of a format: then each database that the suite binds to SQLite is
bound to a place of its own in a memory store instead, and is stored in that format.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import sys
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pony
from pony.orm import core


class Results(unittest.TestResult):
    """The outcome of each test, by its id; subtests count as tests of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.outcomes: dict[str, str] = {}

    def startTest(self, test: unittest.TestCase) -> None:  # noqa: N802 - unittest's name
        """A test that is never heard of again has hung or ended the process."""
        self.outcomes[test.id()] = "started"
        super().startTest(test)

    def stopTest(self, test: unittest.TestCase) -> None:  # noqa: N802 - unittest's name
        """Without any other word it has passed."""
        super().stopTest(test)
        if self.outcomes[test.id()] == "started":
            self.outcomes[test.id()] = "passed"

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:  # noqa: N802 - unittest's name
        """An assertion failed."""
        self.outcomes[test.id()] = f"failed: {err[0].__name__}: {err[1]}"

    def addError(self, test: unittest.TestCase, err: Any) -> None:  # noqa: N802 - unittest's name
        """Something else was raised, perhaps by a fixture of a class or a module."""
        self.outcomes[test.id()] = f"error: {err[0].__name__}: {err[1]}"

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:  # noqa: N802 - unittest's name
        """It does not apply."""
        self.outcomes[test.id()] = f"skipped: {reason}"


def bind_to_temaki(form: str) -> Iterator[int]:
    """From now on ``Database(…)`` and ``bind(…)`` of SQLite bind to memory stores; counts them."""
    import temaki

    numbers = itertools.count()
    bound = itertools.count()
    original = core.Database._bind

    def bind(self: Any, *args: Any, **kwargs: Any) -> None:
        if (args[0] if args else kwargs.get("provider")) == "sqlite":
            next(bound)
            temaki.bind_s3(self, f"memory://pony-suite-{next(numbers)}/app.sqlite", format=form)
        else:
            original(self, *args, **kwargs)

    core.Database._bind = bind
    return bound


def main() -> None:
    """Run it."""
    bound = itertools.count() if sys.argv[1] == "sqlite" else bind_to_temaki(sys.argv[1])
    package = Path(pony.__file__).parent
    report = os.fdopen(os.dup(1), "w")
    sys.stdout = sys.stderr = io.StringIO()  # the suite prints
    suite = unittest.defaultTestLoader.discover(str(package / "orm" / "tests"), top_level_dir=str(package.parent))
    results = Results()
    suite.run(results)
    with report:
        json.dump({"outcomes": results.outcomes, "databases": next(bound)}, report)


if __name__ == "__main__":
    main()
