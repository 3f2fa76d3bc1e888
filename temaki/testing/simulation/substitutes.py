"""Installs substitutes in the library's modules while schedules run: simulated locks, and seeded random numbers."""

from __future__ import annotations

import functools
import os
import random
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, Final
from unittest import mock

from temaki.engine import compaction, flights
from temaki.engine.engine import Engine
from temaki.formats.file import StoredFile
from temaki.formats.pages import objects
from temaki.formats.pages.format import StoredPages
from temaki.lease import heartbeat, lease, turn
from temaki.lease import shared as shared_lease
from temaki.orm.pool import LeftOpen
from temaki.remote import remote, transfer
from temaki.replica import replica, writer
from temaki.replica.connection import Connection
from temaki.replica.folder import Folder
from temaki.replica.generation import Generation
from temaki.replica.replica import Replica
from temaki.testing.simulation.locks import SimulatedThreading
from temaki.testing.simulation.scheduler import running

LOCKING: Final = (compaction, flights, heartbeat, lease, objects, remote, replica, shared_lease, transfer, turn, writer)
"""Modules that get the scheduler's ``threading``: their threads wait for each other while others run."""
_STEPS: Final[tuple[tuple[type, str], ...]] = (
    (StoredFile, "save"),
    (StoredPages, "save"),
    (StoredPages, "arrive"),
    (Replica, "adopt"),
    (Replica, "catch_up"),
    (Replica, "install"),
    (Replica, "enter"),
    (Replica, "exit"),
    (Engine, "pin"),
    (Engine, "check_current"),
    (Connection, "commit_locally"),
    (Generation, "uncommitted_to_store"),
    (Generation, "acknowledge"),
    (Folder, "record"),
    (Folder, "forget"),
    (Folder, "reuse"),
)
"""Methods before and after which other tasks may run, or the process may die."""


class _Random:
    """A substitute for the module ``random``: generators without a seed get one, too."""

    @staticmethod
    def Random(seed: int = 0) -> random.Random:  # noqa: N802 - the module's name for it
        return random.Random(seed)  # noqa: S311 - repeatable, on purpose

    SystemRandom = Random

    def __getattr__(self, name: str) -> Any:
        return getattr(random, name)


class _Weakref:
    """A substitute for the module ``weakref``, without finalizers.

    They would run in some later schedule, or keep all of this one for ever. Here, a process that ends is killed.
    """

    @staticmethod
    def finalize(*_: object) -> SimpleNamespace:
        return SimpleNamespace(atexit=True)

    def __getattr__(self, name: str) -> Any:
        return getattr(weakref, name)


class _Entropy:
    """A substitute for ``os.urandom``, for tasks only."""

    def __init__(self) -> None:
        self._real = os.urandom
        self._rng = random.Random(0)  # noqa: S311 - repeatable, on purpose

    def __call__(self, size: int) -> bytes:
        return self._real(size) if running() is None else self._rng.randbytes(size)

    def reset(self) -> None:
        self._rng.seed(0)


def _stepping(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def with_steps(*args: Any, **kwargs: Any) -> Any:
        task = running()
        if task is None:
            return method(*args, **kwargs)
        task.step()
        result = method(*args, **kwargs)
        task.step()
        return result

    return with_steps


def _belonging(init: Callable[..., None]) -> Callable[..., None]:
    """Register each generation with the process that opens it, which closes it in the end."""

    @functools.wraps(init)
    def with_owner(self: Generation, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        task = running()
        if task is not None:
            task.host.generations.append(self)  # type: ignore[attr-defined]

    return with_owner


def _nothing(_: object) -> None:
    pass


_entropy: _Entropy | None = None


@contextmanager
def installed() -> Iterator[None]:
    """Install the substitutes, so that schedules can run. Nested uses are allowed."""
    global _entropy  # noqa: PLW0603 - one process, one schedule at a time
    if _entropy is not None:
        _entropy.reset()
        yield
        return
    patches: list[Any] = [mock.patch.object(module, "threading", SimulatedThreading()) for module in LOCKING]
    patches += [mock.patch.object(module, "random", _Random()) for module in (remote, shared_lease)]
    patches += [mock.patch.object(owner, name, _stepping(getattr(owner, name))) for owner, name in _STEPS]
    patches += [mock.patch.object(shared_lease, "weakref", _Weakref())]
    _entropy = _Entropy()
    patches += [mock.patch.object(os, "urandom", _entropy)]
    patches += [mock.patch.object(Generation, "__init__", _belonging(Generation.__init__))]
    # A task only ends within a session where its process was killed, and then nothing is tidied up.
    patches += [mock.patch.object(LeftOpen, "__del__", _nothing)]
    started = []
    try:
        for patch in patches:
            patch.start()
            started.append(patch)
        yield
    finally:
        for patch in reversed(started):
            patch.stop()
        _entropy = None
