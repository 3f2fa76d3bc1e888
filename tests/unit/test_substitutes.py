"""`temaki.testing.simulation.substitutes`: the scheduler knows every lock of the library that its threads wait for."""

from __future__ import annotations

import ast
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import temaki
import temaki_strategies
from temaki.testing.simulation.substitutes import LOCKING

WAITING = {"Lock", "RLock", "Condition", "Event", "Semaphore", "BoundedSemaphore", "Barrier", "Thread", "Timer"}
"""What one thread makes and another one waits for."""
EXEMPT = {
    "temaki.orm.provider": "an attribute of Pony's provider that nobody takes: acquire_lock is overridden",
    "temaki.process.fork": "locks for a few instructions, in which no thread of a schedule hands over",
    "temaki.process.exit": "a thread for SIGTERM only, which no schedule sends",
    "temaki.engine.hint": "locks for a few instructions, in which no thread of a schedule hands over",
    "temaki.engine.shared": "locks for a few instructions, in which no thread of a schedule hands over",
    "temaki.engine.engine": "guards a few assignments, in which no thread of a schedule hands over",
    "temaki.observe.metering": "guards counters, in which no thread of a schedule hands over",
    "temaki.observe.listeners": "guards a list of listeners, in which no thread of a schedule hands over",
    "temaki.observe.reporter": "guards counters, in which no thread of a schedule hands over",
    "temaki.formats.pages.summing": "a thread for databases that are larger than those of a schedule",
    "temaki.stores.memory": "guards a dict; what a request takes passes outside, in the simulated network",
    "temaki.stores.s3.client": "no schedule has S3 in it",
    "temaki.stores.s3.bucket": "no schedule has S3 in it",
}
"""Modules that lock and keep the real ``threading``, each with the reason."""
APART = ("temaki.testing", "temaki.cli")
"""Packages that no schedule runs: the simulation and its like, and the command."""


def uses(source: str) -> set[str]:
    """What of ``WAITING`` a module makes, and ``ProcessLock``, which is a lock of its own."""
    tree = ast.parse(source)
    nodes = list(ast.walk(tree))
    modules, names = {"threading"}, {"ProcessLock": "ProcessLock"}
    for node in nodes:
        if isinstance(node, ast.Import):
            modules |= {alias.asname for alias in node.names if alias.name == "threading" and alias.asname}
        elif isinstance(node, ast.ImportFrom) and node.module == "threading":
            names |= {alias.asname or alias.name: alias.name for alias in node.names if alias.name in WAITING}
    made: set[str] = set()
    for node in nodes:
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        if isinstance(called, ast.Name) and called.id in names:
            made.add(names[called.id])
        elif isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name):
            if called.value.id in modules and called.attr in WAITING:
                made.add(called.attr)
            if called.attr == "ProcessLock":
                made.add(called.attr)
    return made


def _files(package: ModuleType) -> Iterator[tuple[str, Path]]:
    (root,) = (Path(folder) for folder in package.__path__)
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root.parent).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def _lockers() -> set[str]:
    modules = [*_files(temaki), *_files(temaki_strategies)]
    assert len(modules) > 80, "the whole library is looked at"
    return {name for name, path in modules if not name.startswith(APART) and uses(path.read_text(encoding="utf-8"))}


def test_every_module_that_locks_is_on_the_list() -> None:
    """A lock that the scheduler does not know would stop a schedule, or hide an order in which threads may run.

    A module that locks is in ``LOCKING``, or in ``EXEMPT`` with a reason. Neither list has a module that does not lock.
    """
    listed = {module.__name__ for module in LOCKING}
    assert listed & EXEMPT.keys() == set()
    assert sorted(_lockers()) == sorted(listed | EXEMPT.keys())


def test_modules_on_the_list_can_be_given_other_locks() -> None:
    """What is replaced is the module's global ``threading``, so ``from threading import Lock`` would escape it."""
    for module in LOCKING:
        assert module.threading is threading, module.__name__
        source = Path(str(module.__file__)).read_text(encoding="utf-8")
        assert "from threading import" not in source, module.__name__
        assert "ProcessLock(" not in source, module.__name__


@pytest.mark.parametrize(
    ("source", "made"),
    [
        ("import threading\nlock = threading.Lock()", {"Lock"}),
        ("import threading as t\nclass A:\n  def f(self): self.c = t.Condition(t.RLock())", {"Condition", "RLock"}),
        ("from threading import Event as E\nE()", {"Event"}),
        ("from temaki.process.fork import ProcessLock\nlock = ProcessLock()", {"ProcessLock"}),
        ("from temaki.process import fork\nlock = fork.ProcessLock()", {"ProcessLock"}),
        ("import threading\nclass A(threading.local): pass\nthreading.current_thread()", set()),
        ("import threading\ndef f(lock: threading.Lock) -> None: ...", set()),
    ],
)
def test_locks_are_seen_however_they_are_written(source: str, made: set[str]) -> None:
    """The tests above can fail: each way to make a lock is noticed, and a mention in an annotation is none."""
    assert uses(source) == made


def test_the_list_is_what_is_replaced() -> None:
    """While schedules run, every module on the list has the scheduler's ``threading``; afterwards the real one."""
    code = """
import threading
from temaki.testing.simulation.substitutes import LOCKING, installed
with installed():
    assert not [module for module in LOCKING if module.threading is threading]
assert not [module for module in LOCKING if module.threading is not threading]
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
