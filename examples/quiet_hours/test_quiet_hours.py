"""The strategy keeps temaki's promises, and its own."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from pony.orm import Database, Required

from quiet_hours import QuietHours
from temaki import db_session
from temaki.errors import ReadOnlyError
from temaki.strategy import Strategy
from temaki.testing import StrategyTests


class TestPromises(StrategyTests):
    """Everything that temaki expects of a strategy, while it is not quiet."""

    def make_strategy(self) -> Strategy:
        """Without quiet hours, whatever the time is."""
        return QuietHours(begin=0, end=0)


@pytest.mark.parametrize(
    ("begin", "end", "hour", "quiet"),
    [(1, 3, 0, False), (1, 3, 1, True), (1, 3, 2, True), (1, 3, 3, False), (23, 2, 0, True), (23, 2, 12, False)],
)
def test_nothing_is_written_in_the_quiet_hours(temaki_bind: Any, begin: int, end: int, hour: int, quiet: bool) -> None:
    """Hours are counted around midnight; what was refused was not stored."""
    db = Database()

    class Note(db.Entity):  # type: ignore[name-defined]
        text = Required(str)

    strategy = QuietHours(begin=begin, end=end)
    strategy.now = lambda: datetime(2024, 1, 1, (end + 1) % 24 if begin != end else 0, tzinfo=UTC)
    temaki_bind(db, strategy=strategy)
    strategy.now = lambda: datetime(2024, 1, 1, hour, tzinfo=UTC)

    def write() -> None:
        with db_session:
            Note(text="work")

    if quiet:
        with pytest.raises(ReadOnlyError, match="o'clock"):
            write()
    else:
        write()
    with db_session:
        assert Note.select().count() == int(not quiet)


def test_an_hour_is_an_hour() -> None:
    """A wrong option is refused when the database is bound."""
    with pytest.raises(ValueError, match="0 to 23"):
        QuietHours(begin=24)
