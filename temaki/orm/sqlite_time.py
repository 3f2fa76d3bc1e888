"""``time`` on SQLite: Pony stores it, and gives it back as text.

Pony's converter looks for ``datetime`` in the wrong place, takes the exception for a value that is no time, and returns
what the driver gave. An object with such a value cannot even be updated, since text has no ``isoformat``.
"""

from __future__ import annotations

from datetime import time
from typing import Any

from pony.orm.dbproviders.sqlite import SQLiteTimeConverter


class TimeConverter(SQLiteTimeConverter):
    """Pony's, with a ``sql2py`` that works."""

    def sql2py(self, val: Any) -> Any:
        """The time; what is none is given as it is, as Pony's converters do."""
        try:
            return time.fromisoformat(val)
        except (TypeError, ValueError):
            return val


def with_time(converter_classes: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """The converters of a SQLite provider, with this one in place of Pony's; those of the user's own stay."""
    return [
        (kind, TimeConverter if converter is SQLiteTimeConverter else converter)
        for kind, converter in converter_classes
    ]
