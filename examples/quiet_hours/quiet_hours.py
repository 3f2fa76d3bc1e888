"""A strategy of one's own: as etag-cached, but no session writes during certain hours.

A nightly job rewrites the database with another tool, say, and nobody should lose work against it. The compare-and-swap
would keep the data whole anyway; this one says no before the work is done.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from temaki.errors import ReadOnlyError
from temaki.strategy import Session, Strategy


def _now() -> datetime:
    return datetime.now(UTC)


class QuietHours(Strategy):
    """Reads at any time; writes only outside of the quiet hours.

    The keyword-only parameters are its options: ``bind_s3(strategy="quiet-hours", begin=1, end=3)``, or
    ``TEMAKI_BEGIN=1``.

    Args:
        begin: The first quiet hour, in UTC: 0 to 23.
        end: The hour at which writing is allowed again. Equal to ``begin`` for no quiet hours at all.

    Raises:
        ValueError: An hour is out of its range.
    """

    def __init__(self, *, begin: int = 1, end: int = 3) -> None:
        for hour in (begin, end):
            if hour not in range(24):
                raise ValueError(f"an hour is 0 to 23, not {hour!r}")
        self.begin_hour, self.end_hour = begin, end
        self.now: Callable[[], datetime] = _now

    def pull(self, session: Session) -> None:
        """One conditional request, shared with threads that ask at once."""
        session.revalidate()

    def begin(self, session: Session) -> None:
        """Refuse in time, before the function has done its work and before anybody waits for a lock."""
        if self._is_quiet(self.now().hour):
            raise ReadOnlyError(
                f"{session.url} is not written to from {self.begin_hour} to {self.end_hour} o'clock UTC. Nothing was "
                "changed. Try again later.",
                url=session.url,
            )

    def _is_quiet(self, hour: int) -> bool:
        return (hour - self.begin_hour) % 24 < (self.end_hour - self.begin_hour) % 24
