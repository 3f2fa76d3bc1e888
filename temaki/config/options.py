"""A strategy's options: what may be given, and how what was given becomes arguments of its ``__init__``."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar, get_args, get_origin, get_type_hints

from temaki.errors import ConfigurationError

S = TypeVar("S")

# The settings that are temaki's own, whatever the strategy.
GENERAL: Final = ("url", "strategy", "cache_dir", "timeout", "allow_stale_seeds")

ARGUMENTS: Final = "bind_s3"
ENVIRONMENT: Final = "environment"
PREFIX: Final = "TEMAKI_"

_SHORT_NAME: Final = 4  # characters


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
    _check_names(cls, raw, parameters)
    given = {name: option for name, option in raw.items() if name in parameters}
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in given:
            raise ConfigurationError(
                f"Strategy {cls.__name__} needs {name}: give {origin(ARGUMENTS, name)}, or set "
                f"{origin(ENVIRONMENT, name)}."
            )
    hints = _hints(cls) if given else {}
    return {name: _convert(option, hints.get(name, Any)) for name, option in given.items()}


def check_names(cls: type, raw: Mapping[str, Option]) -> None:
    """Make sure that a strategy has every option that was meant for it; what they are set to is not looked at.

    An option that a weaker source gives, and that this strategy does not have, was meant for another strategy, and is
    left alone, unless it is plainly one of this one's with a slip in it.

    Raises:
        ConfigurationError: It has not. The message has the nearest name.
    """
    _check_names(cls, raw, _parameters(cls))


def _check_names(cls: type, raw: Mapping[str, Option], parameters: Collection[str]) -> None:
    for name, option in raw.items():
        if name in parameters:
            continue
        if not option.ignorable or nearest(name, [*parameters, *GENERAL], certain=True):
            raise ConfigurationError(_unknown(option, cls, parameters))


def nearest(name: str, known: Collection[str], *, certain: bool = False) -> str | None:
    """The known name that somebody meant who wrote ``name``, which is not known; None if it is like none of them.

    Capitals and hyphens are slips too.

    Args:
        name: As it was written.
        known: What could be meant.
        certain: Only if there is hardly a doubt: for a name that may well be right elsewhere.
    """
    from difflib import get_close_matches  # not at the top: only errors need it

    written = name.casefold().replace("-", "_")
    # In a short name one wrong letter of three, or two that changed places, is a third of all.
    doubt = (0.65 if len(written) <= _SHORT_NAME else 0.8) if certain else 0.6
    near = get_close_matches(written, known, n=1, cutoff=doubt)
    return near[0] if near else None


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
    if get_origin(hint) is Literal:
        return " or ".join(f'"{value}"' for value in get_args(hint))
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")


def _unknown(option: Option, cls: type, allowed: Collection[str]) -> str:
    near = nearest(option.name, [*allowed, *GENERAL])
    hint = f" Did you mean {origin(option.source, near)}?" if near else ""
    return (
        f"{option.origin}: strategy {cls.__name__} has no option {option.name!r}.{hint} "
        f"Its options: {', '.join(sorted(allowed)) or 'none'}. Settings of every strategy: {', '.join(GENERAL)}."
    )
