"""What installed distributions have registered: one group of entry points for each kind of plug-in.

Importing importlib.metadata costs about a third of what importing Pony does, for one look into one folder. So the
``entry_points.txt`` of the installed distributions are read directly first, as the specifications "Entry points" and
"Recording installed projects" of packaging.python.org describe them. importlib.metadata is asked where that finds
nothing (zip files, eggs, finders of other kinds), and for the list of all, which is in no hurry.

The files are read once for all groups, and again when ``sys.path`` or one of its folders has changed.
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
"""How the names of temaki's groups begin. Entry points of other groups are not kept."""


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
    """One kind of plug-in: sub-classes of one class, registered by name.

    Attributes:
        name: The group of entry points, such as ``temaki.strategies``.
        kind: What one of them is called in messages, such as ``strategy``.
        base: The class that each of them has to be a sub-class of.
        without_metadata: Names and targets of those that work even where no metadata of any distribution is installed.
    """

    name: str
    kind: str
    base: type[T]
    without_metadata: Mapping[str, str] = field(default_factory=dict)

    def find(self, name: str, *, origin: str) -> type[T] | None:
        """The class that is registered under a name; None if there is none.

        Args:
            name: The entry point's name. Case matters.
            origin: Where the name came from, for the message of an error.

        Raises:
            ConfigurationError: Two distributions claim the name, or what is registered cannot be imported or is no
                sub-class of ``base``.
        """
        found = [point for point in _read_directly() if (point.group, point.name) == (self.name, name)]
        if not found and name in self.without_metadata:
            return self._import(_EntryPoint(self.name, name, self.without_metadata[name], "temaki"))
        found = found or [point for point in _ask_importlib(self.name) if point.name == name]
        if len(found) > 1:
            claims = " and ".join(str(point) for point in found)
            raise ConfigurationError(
                f"{origin}: {self.kind} {name!r} is registered twice, as {claims}. Uninstall one of them."
            )
        return self._import(found[0]) if found else None

    def available(self) -> list[str]:
        """The names of all that are registered, sorted."""
        return sorted({point.name for point in _ask_importlib(self.name)} | self.without_metadata.keys())

    def suggestion(self, name: str) -> str:
        """For the message of an error: what somebody may have meant who wrote ``name``, and what there is."""
        from difflib import get_close_matches

        names = self.available()
        near = get_close_matches(name, names, n=1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        return f"{hint}Available: {', '.join(names)}."

    def _import(self, point: _EntryPoint) -> type[T]:
        described = f"{self.kind.capitalize()} {point.name!r} ({point})"
        module, _, path = point.target.partition(":")
        try:
            found: object = import_module(module)
            for attribute in filter(None, path.split(".")):
                found = getattr(found, attribute)
        except Exception as error:  # whatever a third party's module raises
            raise ConfigurationError(f"{described} cannot be imported: {type(error).__name__}: {error}") from error
        if not isinstance(found, type) or not issubclass(found, self.base):
            raise ConfigurationError(f"{described} is no subclass of {self.base.__module__}.{self.base.__qualname__}.")
        return found


# -- finding ------------------------------------------------------------------------------------------------------


def _ask_importlib(group: str) -> Iterator[_EntryPoint]:
    from importlib.metadata import entry_points

    for point in entry_points(group=group):
        target = f"{point.module}:{point.attr}"
        yield _EntryPoint(group, point.name, target, "unknown" if point.dist is None else point.dist.name)


_last: tuple[object, tuple[_EntryPoint, ...]] = (None, ())
"""What was read last, after the state of the path at that time."""


def _read_directly() -> tuple[_EntryPoint, ...]:
    global _last  # noqa: PLW0603 - replaced as a whole, so that threads need no lock
    state = tuple(map(_state, sys.path))
    if _last[0] != state:
        _last = (state, tuple(_points()))
    return _last[1]


def _state(folder: str) -> object:
    """What changes when a distribution is installed into a folder, or removed."""
    try:
        facts = os.stat(folder or ".")
    except (OSError, ValueError):
        return folder
    return folder, facts.st_dev, facts.st_ino, facts.st_mtime_ns


def _points() -> Iterator[_EntryPoint]:
    seen: set[str] = set()
    for folder in sys.path:
        for distribution, path in _distributions(folder or "."):
            # As for modules, the first on the path is the one that counts.
            if distribution not in seen:
                seen.add(distribution)
                yield from _parse(path, distribution)


def _distributions(folder: str) -> Iterator[tuple[str, str]]:
    """Name and ``entry_points.txt`` of what is installed in a folder."""
    try:
        with os.scandir(folder) as entries:
            infos = sorted((entry.name, entry.path) for entry in entries if entry.name.endswith(".dist-info"))
    except OSError:  # not there, no folder, or not readable: sys.path may hold anything
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
            # What follows in brackets are extras, which consumers are told to ignore.
            yield _EntryPoint(group, name.strip(), "".join(target.partition("[")[0].split()), distribution)
