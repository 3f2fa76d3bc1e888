"""A strategy's options: what may be given, and how what was given becomes arguments of its ``__init__``."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar, get_type_hints

from temaki.errors import ConfigurationError

S = TypeVar("S")

# The settings that are temaki's own, whatever the strategy.
GENERAL: Final = ("url", "strategy", "cache_dir", "timeout")

ARGUMENTS: Final = "bind_s3"
ENVIRONMENT: Final = "environment"
PREFIX: Final = "TEMAKI_"


def origin(source: str, name: str) -> str:
    """How a user wrote a setting: ``max_age= of bind_s3``, ``environment variable TEMAKI_MAX_AGE``, ..."""
    if source == ARGUMENTS:
        return f"{name}= of bind_s3"
    if source == ENVIRONMENT:
        return f"environment variable {PREFIX}{name.upper()}"
    return f"{name} in {source}"


@dataclass(frozen=True, slots=True)
class Option:
    """One setting as it was found.

    Attributes:
        name: The name of the setting, as a Python identifier.
        value: What was given, not yet converted.
        source: ``"bind_s3"``, ``"environment"``, or the name of a file.
        ignorable: True where something stronger chose the strategy: then an option that this one does not know was
            meant for another.
    """

    name: str
    value: object
    source: str
    ignorable: bool = False

    @property
    def origin(self) -> str:
        """Where the value came from, as part of a sentence."""
        return origin(self.source, self.name)


def strategy_options(cls: type, raw: Mapping[str, Option]) -> dict[str, Any]:
    """Check and convert the options of a strategy.

    A strategy's options are the keyword-only parameters of its ``__init__``, with their annotations. An argument must
    have the annotated type (a whole number serves where a float is asked for); text from the environment, and what
    TOML gives, is converted.

    Args:
        cls: The strategy's class.
        raw: ``Settings.options``.

    Returns:
        Keyword arguments for ``cls``. What was not given is left to its default.

    Raises:
        ConfigurationError: An option is unknown, missing, or of another type.
    """
    parameters = _parameters(cls)
    given = {name: option for name, option in raw.items() if name in parameters}
    for name, option in raw.items():
        if name not in given and not option.ignorable:
            raise ConfigurationError(_unknown(option, cls, parameters))
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in given:
            raise ConfigurationError(
                f"Strategy {cls.__name__} needs {name}: give {origin(ARGUMENTS, name)}, or set "
                f"{origin(ENVIRONMENT, name)}."
            )
    hints = _hints(cls) if given else {}
    return {name: _convert(option, hints.get(name, Any)) for name, option in given.items()}


def make_strategy(cls: type[S], raw: Mapping[str, Option]) -> S:
    """Make a strategy from its options. What its ``__init__`` refuses is reported with the option's origin.

    Raises:
        ConfigurationError: See :func:`strategy_options`; or ``cls`` itself refused a value.
    """
    options = strategy_options(cls, raw)
    try:
        return cls(**options)
    except (ConfigurationError, TypeError, ValueError) as error:
        given = ", ".join(f"{raw[name].origin} is {value!r}" for name, value in options.items())
        raise ConfigurationError(
            f"Strategy {cls.__name__} cannot be made: {error} ({given or 'no option was given'})"
        ) from error


def _parameters(cls: type) -> dict[str, inspect.Parameter]:
    parameters = {
        name: parameter
        for name, parameter in inspect.signature(cls).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    for name in parameters:
        if name in GENERAL or name == "key":  # TEMAKI_KEY is a part of the URL
            raise ConfigurationError(
                f"Strategy {cls.__name__}: its option {name!r} has the name of a setting of temaki's own, and "
                "could never be set. Give it another name."
            )
    return parameters


def _hints(cls: type[Any]) -> dict[str, Any]:
    try:
        return get_type_hints(cls.__init__, include_extras=True)
    except (NameError, AttributeError, TypeError) as error:
        raise ConfigurationError(
            f"Strategy {cls.__name__}: the annotations of its options cannot be resolved: {error}. What they name must "
            "be imported at run time, not only for type checkers."
        ) from error


def _convert(option: Option, hint: Any) -> object:
    value = option.value
    if hint is Any or type(value) is hint:
        return value
    if hint is float and type(value) is int:
        return float(value)
    import msgspec  # not at the top: it would be a good part of a cold start, and most binds need no conversion

    try:
        return msgspec.convert(value, hint, strict=option.source == ARGUMENTS)
    except (msgspec.ValidationError, TypeError) as error:  # TypeError: a type that msgspec cannot convert to
        raise ConfigurationError(f"{option.origin}: expected {_allowed(error, hint)}; got {value!r}.") from error


def _allowed(error: Exception, hint: Any) -> str:
    """What msgspec would have accepted, bounds included, where it says so; else the annotation."""
    said, _, _ = str(error).partition(", got ")
    if said.startswith("Expected "):
        return said.removeprefix("Expected ").replace("`", "")
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")


def _unknown(option: Option, cls: type, allowed: Collection[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(option.name, [*allowed, *GENERAL], n=1)
    hint = f" Did you mean {origin(option.source, near[0])}?" if near else ""
    return (
        f"{option.origin}: strategy {cls.__name__} has no option {option.name!r}.{hint} "
        f"Its options: {', '.join(sorted(allowed)) or 'none'}. Settings of every strategy: {', '.join(GENERAL)}."
    )
