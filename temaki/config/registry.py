"""Strategies by name: the entry points ``temaki.strategies`` of whatever is installed.

Importing importlib.metadata costs about a third of what importing Pony does, for one look into one folder. So the
``entry_points.txt`` of the installed distributions are read directly first, as the specifications "Entry points" and
"Recording installed projects" of packaging.python.org describe them. importlib.metadata is asked where that finds
nothing (zip files, eggs, finders of other kinds), and for the list of all, which is in no hurry.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module

from temaki.errors import ConfigurationError
from temaki.strategy import Strategy

GROUP = "temaki.strategies"


@dataclass(frozen=True, slots=True)
class _EntryPoint:
    name: str
    target: str  # module:object
    distribution: str

    def __str__(self) -> str:
        return f"{self.target} of distribution {self.distribution}"


def load(name: str, *, origin: str = "strategy") -> type[Strategy]:
    """The class of the strategy that is registered under a name.

    Args:
        name: The entry point's name, such as ``"etag-cached"``. Case matters.
        origin: Where the name came from, for the message of an error.

    Raises:
        ConfigurationError: There is no such strategy, two distributions claim the name, or what is registered cannot
            be imported or is no :class:`~temaki.strategy.Strategy`.
    """
    found = [point for point in _read_directly() if point.name == name]
    found = found or [point for point in _ask_importlib() if point.name == name]
    if not found:
        raise ConfigurationError(_unknown(name, origin))
    if len(found) > 1:
        claims = " and ".join(str(point) for point in found)
        raise ConfigurationError(
            f"{origin}: strategy {name!r} is registered twice, as {claims}. Uninstall one of them."
        )
    return _import(found[0])


def available() -> list[str]:
    """The names of all registered strategies, sorted."""
    return sorted({point.name for point in _ask_importlib()})


def _import(point: _EntryPoint) -> type[Strategy]:
    module, _, path = point.target.partition(":")
    try:
        found: object = import_module(module)
        for attribute in filter(None, path.split(".")):
            found = getattr(found, attribute)
    except Exception as error:  # whatever a third party's module raises
        raise ConfigurationError(
            f"Strategy {point.name!r} ({point}) cannot be imported: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(found, type) or not issubclass(found, Strategy):
        raise ConfigurationError(f"Strategy {point.name!r} ({point}) is no subclass of temaki.strategy.Strategy.")
    return found


def _unknown(name: str, origin: str) -> str:
    from difflib import get_close_matches

    names = available()
    if not names:
        return (
            f"{origin}: no strategy can be found by name. The metadata of the installed distributions (*.dist-info) is "
            "missing, as in a deployment package that was stripped of it: keep temaki's, or pass an instance, such as "
            "strategy=temaki_strategies.EtagCached()."
        )
    near = get_close_matches(name, names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"{origin}: there is no strategy {name!r}.{hint} Available: {', '.join(names)}."


# -- finding ------------------------------------------------------------------------------------------------------


def _ask_importlib() -> Iterator[_EntryPoint]:
    from importlib.metadata import entry_points

    for point in entry_points(group=GROUP):
        target = f"{point.module}:{point.attr}"
        yield _EntryPoint(point.name, target, "unknown" if point.dist is None else point.dist.name)


def _read_directly() -> Iterator[_EntryPoint]:
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
    if GROUP.encode() not in data:
        return
    group = ""
    for line in data.decode(errors="replace").splitlines():
        text = line.strip()
        if text.startswith("[") and text.endswith("]"):
            group = text[1:-1].strip()
        elif group == GROUP and "=" in text and not text.startswith(("#", ";")):
            name, _, target = text.partition("=")
            # What follows in brackets are extras, which consumers are told to ignore.
            yield _EntryPoint(name.strip(), "".join(target.partition("[")[0].split()), distribution)
