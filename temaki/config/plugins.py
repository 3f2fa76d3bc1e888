"""Finds the plug-ins of installed distributions: one group of entry points for each kind of plug-in.

The import of importlib.metadata takes about a third of the time of Pony's import, for one look into one folder. So this
module first reads the files ``entry_points.txt`` of the installed distributions itself, as the specifications "Entry
points" and "Recording installed projects" of packaging.python.org describe them. It uses importlib.metadata if that
finds nothing (zip files, eggs, finders of other kinds), and to list all plug-ins, which is not urgent.

It reads the files once for all groups, and again when ``sys.path`` or one of its folders has changed.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Final, Generic, TypeVar

from temaki.errors import ConfigurationError

T = TypeVar("T")

_PREFIX: Final = "temaki."
"""Prefix of the names of temaki's groups. Entry points of other groups are not kept."""


@dataclass(frozen=True, slots=True)
class _EntryPoint:
    group: str
    name: str
    target: str  # module:object
    distribution: str

    def __str__(self) -> str:
        return f"{self.target} of distribution {self.distribution}"


@dataclass(frozen=True, slots=True)
class Group(Generic[T]):
    """One kind of plug-in: subclasses of one class, registered by name.

    Attributes:
        name: Name of the group of entry points, such as ``temaki.strategies``.
        kind: Word for one plug-in in messages, such as ``strategy``.
        base: Base class of the plug-ins.
        without_metadata: Names and targets of plug-ins that work even without the metadata of any distribution.
    """

    name: str
    kind: str
    base: type[T]
    without_metadata: Mapping[str, str] = field(default_factory=dict)

    def find(self, name: str, *, origin: str) -> type[T] | None:
        """Find the class that is registered under a name; None if there is none.

        Args:
            name: Name of the entry point. Case matters.
            origin: Source of the name, for the message of an error.

        Raises:
            ConfigurationError: Two distributions claim the name, or the registered object cannot be imported or is no
                subclass of ``base``.
        """
        points = [point for point in _read_directly() if (point.group, point.name) == (self.name, name)]
        if not points and name in self.without_metadata:
            return self._import(_EntryPoint(self.name, name, self.without_metadata[name], "temaki"))
        points = points or [point for point in _ask_importlib(self.name) if point.name == name]
        if len(points) > 1:
            claims = " and ".join(str(point) for point in points)
            raise ConfigurationError(
                f"{origin}: {self.kind} {name!r} is registered twice, as {claims}. Uninstall one of them."
            )
        return self._import(points[0]) if points else None

    def available(self) -> list[str]:
        """List the names of all registered plug-ins, sorted."""
        return sorted({point.name for point in _ask_importlib(self.name)} | self.without_metadata.keys())

    def suggestion(self, name: str) -> str:
        """Suggest the nearest name and list the available ones, for an error about the unknown ``name``."""
        from difflib import get_close_matches

        names = self.available()
        near = get_close_matches(name, names, n=1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        return f"{hint}Available: {', '.join(names)}."

    def _import(self, point: _EntryPoint) -> type[T]:
        described = f"{self.kind.capitalize()} {point.name!r} ({point})"
        module, _, path = point.target.partition(":")
        try:
            plugin: object = import_module(module)
            for attribute in filter(None, path.split(".")):
                plugin = getattr(plugin, attribute)
        except Exception as error:  # a third party's module may raise any error
            raise ConfigurationError(f"{described} cannot be imported: {type(error).__name__}: {error}") from error
        if not isinstance(plugin, type) or not issubclass(plugin, self.base):
            raise ConfigurationError(f"{described} is no subclass of {self.base.__module__}.{self.base.__qualname__}.")
        return plugin


# -- finding ------------------------------------------------------------------------------------------------------


def _ask_importlib(group: str) -> Iterator[_EntryPoint]:
    from importlib.metadata import entry_points

    for point in entry_points(group=group):
        target = f"{point.module}:{point.attr}"
        yield _EntryPoint(group, point.name, target, "unknown" if point.dist is None else point.dist.name)


_last: tuple[object, tuple[_EntryPoint, ...]] = (None, ())
"""State of ``sys.path`` at the last read, and the entry points that were read then."""


def _read_directly() -> tuple[_EntryPoint, ...]:
    global _last  # noqa: PLW0603 - replaced as a whole, so that threads need no lock
    state = tuple(map(_state, sys.path))
    if _last[0] != state:
        _last = (state, tuple(_points()))
    return _last[1]


def _state(folder: str) -> object:
    """Get a value that changes when a distribution is installed into a folder, or removed."""
    try:
        facts = os.stat(folder or ".")
    except (OSError, ValueError):
        return folder
    return folder, facts.st_dev, facts.st_ino, facts.st_mtime_ns


def _points() -> Iterator[_EntryPoint]:
    seen: set[str] = set()
    for folder in sys.path:
        for distribution, path in _distributions(folder or "."):
            # As for modules, the first one on the path counts.
            if distribution not in seen:
                seen.add(distribution)
                yield from _parse(path, distribution)


def _distributions(folder: str) -> Iterator[tuple[str, str]]:
    """Get the name and the ``entry_points.txt`` of each distribution that is installed in a folder."""
    try:
        with os.scandir(folder) as entries:
            infos = sorted((entry.name, entry.path) for entry in entries if entry.name.endswith(".dist-info"))
    except OSError:  # a missing, unreadable or other path: sys.path may contain anything
        return
    for name, path in infos:
        distribution = name.removesuffix(".dist-info").partition("-")[0]  # a "-" in the name itself is escaped as "_"
        yield re.sub(r"[-_.]+", "-", distribution).lower(), os.path.join(path, "entry_points.txt")


def _parse(path: str, distribution: str) -> Iterator[_EntryPoint]:
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError:  # most distributions have none
        return
    if _PREFIX.encode() not in data:
        return
    group = ""
    for line in data.decode(errors="replace").splitlines():
        text = line.strip()
        if text.startswith("[") and text.endswith("]"):
            group = text[1:-1].strip()
        elif group.startswith(_PREFIX) and "=" in text and not text.startswith(("#", ";")):
            name, _, target = text.partition("=")
            # The extras in brackets are ignored, as the specification asks.
            yield _EntryPoint(group, name.strip(), "".join(target.partition("[")[0].split()), distribution)
