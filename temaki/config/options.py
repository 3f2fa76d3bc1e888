"""The options of a strategy: checks them, and converts them into arguments of its ``__init__``."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar, get_args, get_origin, get_type_hints

from temaki.errors import ConfigurationError

S = TypeVar("S")

# The settings of temaki itself, with every strategy.
GENERAL: Final = ("url", "strategy", "format", "cache_dir", "compact", "timeout", "allow_stale_seeds")

ARGUMENTS: Final = "bind_s3"
ENVIRONMENT: Final = "environment"
PREFIX: Final = "TEMAKI_"

_SHORT_NAME: Final = 4  # characters


def origin(source: str, name: str) -> str:
    """Name a setting as its user wrote it: ``max_age= of bind_s3``, ``environment variable TEMAKI_MAX_AGE``, ..."""
    if source == ARGUMENTS:
        return f"{name}= of bind_s3"
    if source == ENVIRONMENT:
        return f"environment variable {PREFIX}{name.upper()}"
    return f"{name} in {source}"


@dataclass(frozen=True, slots=True)
class Option:
    """One setting as its source gives it.

    Attributes:
        name: Name of the setting, as a Python identifier.
        value: The value, not yet converted.
        source: Source of the value: ``"bind_s3"``, ``"environment"``, or the name of a file.
        ignorable: True if a stronger source chose the strategy. Then an option that this strategy does not have was
            meant for another one.
    """

    name: str
    value: object
    source: str
    ignorable: bool = False

    @property
    def origin(self) -> str:
        """The source of the value, as part of a sentence."""
        return origin(self.source, self.name)


def strategy_options(cls: type, raw: Mapping[str, Option]) -> dict[str, Any]:
    """Check and convert the options of a strategy.

    A strategy's options are the keyword-only parameters of its ``__init__``, with their annotations. An argument must
    have the annotated type; a whole number also serves as a float. Text from the environment and values from TOML are
    converted.

    Args:
        cls: The strategy's class.
        raw: The options as their sources give them: ``Settings.options``.

    Returns:
        Keyword arguments for ``cls``. Options that were not given keep their defaults.

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
    """Make sure that a strategy has every option that was meant for it. The values are not checked.

    An option that the strategy does not have is an error if it comes from the same source as the choice of the
    strategy. If a stronger source chose the strategy, the option was meant for another one and is ignored, unless it
    is clearly a misspelt option of this one.

    Raises:
        ConfigurationError: The strategy lacks an option. The message has the nearest name.
    """
    _check_names(cls, raw, _parameters(cls))


def _check_names(cls: type, raw: Mapping[str, Option], parameters: Collection[str]) -> None:
    for name, option in raw.items():
        if name in parameters:
            continue
        if not option.ignorable or nearest(name, [*parameters, *GENERAL], certain=True):
            raise ConfigurationError(_unknown(option, cls, parameters))


def nearest(name: str, known: Collection[str], *, certain: bool = False) -> str | None:
    """Find the known name that is most like the unknown ``name``; None if there is none.

    Capitals and hyphens count as misspellings.

    Args:
        name: The unknown name, as the user wrote it.
        known: The known names.
        certain: True to accept only a near match, for a name that may be right elsewhere.
    """
    from difflib import get_close_matches  # imported here because only errors need it

    written = name.casefold().replace("-", "_")
    # In a name of three letters, one wrong letter is already a third of the name.
    doubt = (0.65 if len(written) <= _SHORT_NAME else 0.8) if certain else 0.6
    near = get_close_matches(written, known, n=1, cutoff=doubt)
    return near[0] if near else None


def make_strategy(cls: type[S], raw: Mapping[str, Option]) -> S:
    """Make a strategy from its options. An error of its ``__init__`` is reported with the options' origins.

    Raises:
        ConfigurationError: See :func:`strategy_options`; or ``cls`` itself refused a value.
    """
    options = strategy_options(cls, raw)
    try:
        return cls(**options)
    except (ConfigurationError, TypeError, ValueError) as error:
        given = ", ".join(f"{raw[name].origin} is {value!r}" for name, value in options.items())
        raise ConfigurationError(
            f"Strategy {cls.__name__} cannot be made: {error} ({given or 'no option was given'}). Correct its options."
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
                f"Strategy {cls.__name__}: its option {name!r} has the same name as one of temaki's own settings, so "
                "it could never be set. Give the option another name."
            )
    return parameters


def _hints(cls: type[Any]) -> dict[str, Any]:
    try:
        return get_type_hints(cls.__init__, include_extras=True)
    except (NameError, AttributeError, TypeError) as error:
        raise ConfigurationError(
            f"Strategy {cls.__name__}: the annotations of its options cannot be resolved: {error}. Import the names in "
            "them at run time, not only for type checkers."
        ) from error


def _convert(option: Option, hint: Any) -> object:
    value = option.value
    if hint is Any or type(value) is hint:
        return value
    if hint is float and type(value) is int:
        return float(value)
    import msgspec  # imported here because it costs much of a cold start, and most binds need no conversion

    try:
        return msgspec.convert(value, hint, strict=option.source == ARGUMENTS)
    except (msgspec.ValidationError, TypeError) as error:  # TypeError: a type that msgspec cannot convert to
        raise ConfigurationError(f"{option.origin}: expected {_allowed(error, hint)}; got {value!r}.") from error


def _allowed(error: Exception, hint: Any) -> str:
    """The values that msgspec accepts, including bounds, if its error says so; else the annotation."""
    expectation, _, _ = str(error).partition(", got ")
    if expectation.startswith("Expected "):
        return expectation.removeprefix("Expected ").replace("`", "")
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
