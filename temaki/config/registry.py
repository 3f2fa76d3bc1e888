"""Strategies by name: the entry points ``temaki.strategies`` of whatever is installed."""

from __future__ import annotations

from typing import Final

from temaki.config.plugins import Group
from temaki.errors import ConfigurationError
from temaki.strategy import Strategy

GROUP: Final = "temaki.strategies"

_STRATEGIES: Final = Group(GROUP, "strategy", Strategy)  # type: ignore[type-abstract]  # no instance is made of it


def load(name: str, *, origin: str = "strategy") -> type[Strategy]:
    """The class of the strategy that is registered under a name.

    Args:
        name: The entry point's name, such as ``"etag-cached"``. Case matters.
        origin: Where the name came from, for the message of an error.

    Raises:
        ConfigurationError: There is no such strategy, two distributions claim the name, or what is registered cannot
            be imported or is no :class:`~temaki.strategy.Strategy`.
    """
    found = _STRATEGIES.find(name, origin=origin)
    if found is None:
        raise ConfigurationError(_unknown(name, origin))
    return found


def available() -> list[str]:
    """The names of all registered strategies, sorted."""
    return _STRATEGIES.available()


def _unknown(name: str, origin: str) -> str:
    if not available():
        return (
            f"{origin}: no strategy can be found by name. The metadata of the installed distributions (*.dist-info) is "
            "missing, as in a deployment package that was stripped of it: keep temaki's, or pass an instance, such as "
            "strategy=temaki_strategies.EtagCached()."
        )
    return f"{origin}: there is no strategy {name!r}. {_STRATEGIES.suggestion(name)}"
