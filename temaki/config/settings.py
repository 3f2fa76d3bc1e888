"""Reads the settings of a database: from arguments, then from the environment, then from a TOML file.

The names in :data:`temaki.config.options.GENERAL` are temaki's own. Every other name is an option of the strategy. Each
value keeps its origin, so that an error can name it.

The modules msgspec, tomllib and difflib cost start-up time, so they are imported only where they are needed. A database
that is bound by arguments alone needs none of them.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from temaki.config.options import (
    ARGUMENTS,
    ENVIRONMENT,
    GENERAL,
    PREFIX,
    Option,
    check_names,
    make_strategy,
    nearest,
    origin,
    strategy_options,
)
from temaki.errors import ConfigurationError

__all__ = [
    "DEFAULT_STRATEGY",
    "DEFAULT_TIMEOUT",
    "Option",
    "Settings",
    "check_names",
    "make_strategy",
    "resolve",
    "strategy_options",
    "working_folder",
]

DEFAULT_STRATEGY: Final = "etag-cached"
DEFAULT_TIMEOUT: Final = 60.0
FORMATS: Final = ("file", "pages")
"""The formats of a new database. The first one is the default."""
COMPACTING: Final = ("auto", "manual")
"""Who compacts a database in pages: long-lived processes, or the command alone. The first one is the default."""

_FLAGS: Final = {
    "true": True,
    "1": True,
    "yes": True,
    "on": True,
    "false": False,
    "0": False,
    "no": False,
    "off": False,
}

# S3's rules for the names of new buckets, and those for the oldest ones (capitals, underscores, up to 255 characters).
_BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]")


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings that a database is bound with.

    Attributes:
        url: URL of the database, not yet parsed.
        strategy: Name of the strategy, or the instance that was passed (its class is not checked here).
        format: Name of the format that a new database gets. A stored database keeps its own.
        cache_dir: Folder for working copies, as an absolute path; None for a private temporary folder.
        compact: ``"auto"`` if this process compacts a database in pages, ``"manual"`` if it leaves that to the command.
        timeout: Seconds after which no new attempt of a request is started.
        allow_stale_seeds: True to use the stored rows of ``Seeded`` entities if their source fails.
        options: Options of the strategy, not yet converted: see :func:`strategy_options`. Empty for an instance.
        origins: Origin of each other setting, by name, for messages. A default has none.
    """

    url: str
    strategy: object = DEFAULT_STRATEGY
    format: str = FORMATS[0]
    cache_dir: Path | None = None
    compact: str = COMPACTING[0]
    timeout: float = DEFAULT_TIMEOUT
    allow_stale_seeds: bool = False
    options: Mapping[str, Option] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)


def working_folder() -> Path:
    """Get the working folder; ``.`` if it was removed while the process runs.

    A removed folder holds no settings. A call that gives everything in arguments needs none.
    """
    try:
        return Path.cwd()
    except OSError:
        return Path(os.curdir)


def resolve(arguments: Mapping[str, object], *, environ: Mapping[str, str], folder: str | os.PathLike[str]) -> Settings:
    """Combine the settings of all sources. If two sources give one setting, the stronger source wins.

    Args:
        arguments: Arguments of ``bind_s3`` by name: the strongest source. None means that a general setting was not
            given.
        environ: The environment: ``TEMAKI_<SETTING>`` (such as ``TEMAKI_URL``), ``TEMAKI_<OPTION>``, and ``AWS_BUCKET``
            with ``TEMAKI_KEY`` instead of a URL. Empty variables count as unset.
        folder: The working folder. It may have ``temaki.toml``, or ``[tool.temaki]`` in ``pyproject.toml``. A relative
            ``cache_dir`` starts there. See :func:`working_folder`.

    Raises:
        ConfigurationError: A value cannot be used, a file cannot be read, or nothing names a database.
    """
    start = Path(folder)
    options: dict[str, Option] = {}
    strategy_chosen = False
    for source, values in _sources(arguments, environ, start):
        for name, value in values.items():
            options.setdefault(name, Option(name, value, source, ignorable=strategy_chosen))
        strategy_chosen = strategy_chosen or "strategy" in values

    general = {name: options.pop(name) for name in GENERAL if name in options}
    if "url" not in general:
        raise ConfigurationError(_no_url(environ, options, start))
    strategy = _strategy(general["strategy"]) if "strategy" in general else DEFAULT_STRATEGY
    return Settings(
        url=_text(general["url"], "a URL (s3://bucket/key, file:///folder/key or memory://name/key)"),
        strategy=strategy,
        format=_one_of(general["format"], FORMATS) if "format" in general else FORMATS[0],
        cache_dir=_folder(general["cache_dir"], start) if "cache_dir" in general else None,
        compact=_one_of(general["compact"], COMPACTING) if "compact" in general else COMPACTING[0],
        timeout=_seconds(general["timeout"]) if "timeout" in general else DEFAULT_TIMEOUT,
        allow_stale_seeds=_flag(general["allow_stale_seeds"]) if "allow_stale_seeds" in general else False,
        options=options if isinstance(strategy, str) else _none_beside(strategy, options),
        origins={name: option.origin for name, option in general.items()},
    )


# -- the sources, strongest first ---------------------------------------------------------------------------------


def _sources(
    arguments: Mapping[str, object], environ: Mapping[str, str], folder: Path
) -> Iterator[tuple[str, Mapping[str, object]]]:
    given = {name: value for name, value in arguments.items() if value is not None or name not in GENERAL}
    yield ARGUMENTS, given
    yield ENVIRONMENT, _environment(environ, url_is_given="url" in given)
    yield from _toml(folder)


def _environment(environ: Mapping[str, str], *, url_is_given: bool) -> dict[str, object]:
    values: dict[str, object] = {
        name.removeprefix(PREFIX).lower(): text.strip()
        for name, text in environ.items()
        if name.startswith(PREFIX) and text.strip()
    }
    key = values.pop("key", None)
    # Without a key, AWS_BUCKET alone may be meant for another program.
    if key is None or url_is_given:
        return values
    if "url" in values:
        raise ConfigurationError(
            "The database is given twice, by TEMAKI_URL and by TEMAKI_KEY (with AWS_BUCKET). Unset one of them."
        )
    values["url"] = _object_url(environ.get("AWS_BUCKET", "").strip(), str(key))
    return values


def _object_url(bucket: str, key: str) -> str:
    if not bucket:
        raise ConfigurationError(
            "TEMAKI_KEY is set and AWS_BUCKET is not. Set AWS_BUCKET too, or set TEMAKI_URL instead of both."
        )
    if not _BUCKET.fullmatch(bucket):
        raise ConfigurationError(
            "environment variable AWS_BUCKET: expected a bucket's name alone (letters, digits, '.', '-' and '_'); "
            f"got {bucket!r}. For a whole URL use TEMAKI_URL."
        )
    if key.startswith("/") or "://" in key:
        raise ConfigurationError(
            "environment variable TEMAKI_KEY: expected the object's key inside the bucket, such as app.sqlite, without "
            f"a leading '/'; got {key!r}. For a whole URL use TEMAKI_URL."
        )
    return f"s3://{bucket}/{key}"


def _toml(folder: Path) -> list[tuple[str, Mapping[str, object]]]:
    """Read the TOML file with settings: a list of one source, or an empty list."""
    sources: list[tuple[str, Mapping[str, object]]] = []
    if _is_closed(folder):
        return sources
    own = _read(folder / "temaki.toml")
    if own is not None:
        values = _parse(own, folder / "temaki.toml")
        for name, heading in (("tool", "[tool.temaki]"), ("temaki", "[temaki]")):
            if isinstance(values.get(name), dict):
                raise ConfigurationError(
                    f"{folder / 'temaki.toml'} has a table {heading}. In this file, write the settings at top level, "
                    f"without {heading}."
                )
        sources.append(("temaki.toml", values))
    project = _read(folder / "pyproject.toml")
    # Many working folders have this file, and few of them have settings for temaki. Only those need the parser.
    if project is not None and b"temaki" in project:
        tool = _parse(project, folder / "pyproject.toml").get("tool")
        table = tool.get("temaki") if isinstance(tool, dict) else None
        if table is not None and not isinstance(table, dict):
            raise ConfigurationError(f"{folder / 'pyproject.toml'}: expected a table [tool.temaki]; got {table!r}.")
        if table is not None:
            sources.append(("[tool.temaki] of pyproject.toml", table))
    if len(sources) > 1:
        raise ConfigurationError(
            f"{folder} has both temaki.toml and [tool.temaki] in pyproject.toml. Keep the settings in one of them."
        )
    return sources


def _is_closed(folder: Path) -> bool:
    """Whether this user has no permission to look into the folder.

    A service that was started in somebody else's home folder (``sudo -u app`` in ``/root``) has no settings there.
    """
    return folder.is_dir() and not os.access(folder, os.X_OK)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be read: {error.strerror}. The file may have settings for temaki. Let this user read it, "
            "or start the process in another folder."
        ) from error


def _parse(data: bytes, path: Path) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(data.decode("utf-8-sig"))  # some editors begin a file with a byte order mark
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is no valid TOML: it is not UTF-8 ({error}). Save it as UTF-8.") from error
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{path} is no valid TOML: {error}. Correct it.") from error


def _no_url(environ: Mapping[str, str], options: Mapping[str, Option], folder: Path) -> str:
    for option in options.values():
        near = nearest(option.name, ("url", "key"), certain=True)
        if near:
            return (
                f"{option.origin}: there is no setting {option.name!r}. Did you mean {origin(option.source, near)}? "
                "(No other setting names a database.)"
            )
    closed = (
        f" (Files in {folder} were not read: this user may not look into the folder.)" if _is_closed(folder) else ""
    )
    alone = (
        " AWS_BUCKET alone is not enough: set TEMAKI_KEY to the object's key too." if environ.get("AWS_BUCKET") else ""
    )
    return (
        f"No database is named.{alone} Give bind_s3 a URL, such as s3://bucket/app.sqlite or "
        'file:///folder/app.sqlite; or set TEMAKI_URL; or AWS_BUCKET and TEMAKI_KEY; or write url = "…" into '
        f"[tool.temaki] of pyproject.toml, or into temaki.toml, in the working folder.{closed}"
    )


# -- single values ------------------------------------------------------------------------------------------------


def _text(option: Option, allowed: str) -> str:
    if not isinstance(option.value, str) or not option.value:
        raise ConfigurationError(f"{option.origin}: expected {allowed}; got {option.value!r}.")
    return option.value


def _one_of(option: Option, allowed: tuple[str, ...]) -> str:
    if option.value not in allowed:
        expected = " or ".join(repr(name) for name in allowed)
        raise ConfigurationError(f"{option.origin}: expected {expected}; got {option.value!r}.")
    return str(option.value)


def _strategy(option: Option) -> object:
    value = option.value
    if isinstance(value, type):
        raise ConfigurationError(
            f"{option.origin}: expected a name or an instance; got a class. Pass {value.__name__}()."
        )
    if option.source == ARGUMENTS and not isinstance(value, str):
        return value
    return _text(option, "the name of a strategy, such as 'etag-cached'")


def _none_beside(strategy: object, options: Mapping[str, Option]) -> dict[str, Option]:
    """Refuse options beside a strategy's instance. Weaker sources meant theirs for another strategy: ignore them."""
    for option in options.values():
        if not option.ignorable:
            raise ConfigurationError(
                f"{option.origin}: the strategy is an instance, which has its options already. Pass the option to "
                f"{type(strategy).__name__}(…) instead. bind_s3's own settings: {', '.join(GENERAL)}."
            )
        near = nearest(option.name, GENERAL, certain=True)
        if near:
            raise ConfigurationError(
                f"{option.origin}: there is no setting {option.name!r}. Did you mean {origin(option.source, near)}?"
            )
    return {}


def _folder(option: Option, start: Path) -> Path:
    value = option.value
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(text, str) or not text or "\0" in text:
        raise ConfigurationError(f"{option.origin}: expected a folder; got {value!r}.")
    try:
        return (start / Path(text).expanduser()).absolute()
    except RuntimeError as error:  # no such user, or a user without home
        raise ConfigurationError(
            f"{option.origin}: the home folder in {text!r} cannot be found. Give an absolute path."
        ) from error
    except OSError as error:
        raise ConfigurationError(
            f"{option.origin}: {text!r} is relative to the working folder, which was removed. Give an absolute path."
        ) from error


def _seconds(option: Option) -> float:
    value = option.value
    seconds = math.nan
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = float(value)
    elif isinstance(value, str) and option.source == ENVIRONMENT:
        with suppress(ValueError):
            seconds = float(value)
    if not 0 < seconds < math.inf:
        raise ConfigurationError(f"{option.origin}: expected seconds, a number greater than 0; got {value!r}.")
    return seconds


def _flag(option: Option) -> bool:
    value = option.value
    if isinstance(value, str) and option.source == ENVIRONMENT:
        value = _FLAGS.get(value.lower())
    if not isinstance(value, bool):
        expected = "true or false" if option.source != ARGUMENTS else "True or False"
        raise ConfigurationError(f"{option.origin}: expected {expected}; got {option.value!r}.")
    return value
