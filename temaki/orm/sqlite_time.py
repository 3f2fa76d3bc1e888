"""A converter for ``time`` on SQLite, since Pony's returns text.

Pony's converter looks for ``datetime`` in the wrong place. It takes the resulting exception for an invalid time, and
returns the driver's text. An object with such a value cannot be updated, since text has no ``isoformat``.
"""

from __future__ import annotations

from datetime import time
from typing import Any

from pony.orm.dbproviders.sqlite import SQLiteTimeConverter


class TimeConverter(SQLiteTimeConverter):
    """Pony's converter for ``time``, with a ``sql2py`` that works."""

    def sql2py(self, val: Any) -> Any:
        """Return the time. A value that is no time is returned as it is, as in Pony's converters."""
        try:
            return time.fromisoformat(val)
        except (TypeError, ValueError):
            return val


def with_time(converter_classes: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Return a SQLite provider's converters with :class:`TimeConverter` in place of Pony's. The user's own stay."""
    return [
        (kind, TimeConverter if converter is SQLiteTimeConverter else converter)
        for kind, converter in converter_classes
    ]
