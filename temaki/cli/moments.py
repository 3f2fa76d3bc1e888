"""Moments that the command line names, such as ``yesterday`` and ``2h``."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from temaki.errors import ConfigurationError

_AGE: Final = re.compile(r"([0-9]{1,6}) ?(s|m|h|d|w)")
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?![0-9])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def moment_named(name: str, now: float) -> datetime | None:
    """The moment that a name means; None if it names no moment.

    Args:
        name: ``yesterday`` (24 hours ago); an age, such as ``90s``, ``15m``, ``2h``, ``3d`` or ``1w``; a date, which
            means its beginning; or a time in ISO 8601. A time without an offset is in UTC, as all times that the
            command prints.
        now: This machine's time, in seconds since 1970.

    Raises:
        ConfigurationError: It looks like a date or an age, and is none.
    """
    text = name.strip()
    present = datetime.fromtimestamp(now, UTC)
    if text.casefold() == "yesterday":
        return present - timedelta(days=1)
    try:
        age = _AGE.fullmatch(text)
        if age is not None:
            return present - timedelta(**{_UNITS[age[2]]: int(age[1])})
        if not _DATE.match(text):
            return None
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError) as error:
        raise ConfigurationError(
            f"{name!r} is no time: {error}. Write it as 2026-11-24, 2026-11-24T09:00 (UTC) or 2026-11-24T09:00+02:00."
        ) from error
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def shown(moment: datetime) -> str:
    """The moment as the command prints it."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
