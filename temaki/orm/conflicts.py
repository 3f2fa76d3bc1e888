"""Has Pony's own ``@db_session(retry=N)`` wait after a conflict, and tells the engine how often a call has met one.

Pony runs a refused function again at once. Two processes that write in the same rhythm would then meet again and again
until their tries are used up. So the next session of that call waits a little before it begins. The wait is in
``connect``, the only place in the next try that temaki sees. The number of conflicts has the session take a turn after
:data:`temaki.lease.turn.ENOUGH` of them, as under ``temaki.db_session``.

"That call" is the frame of Pony's own wrapper, and the number of its try: see :mod:`temaki.orm.no_repeat`. Only the
frame's identity is kept, because a frame would keep alive what the function was called with.

``temaki.db_session`` waits by itself: see :mod:`temaki.orm.tries`.
"""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING, Final

from pony.orm.core import IsolationError

from temaki.errors import ConflictError
from temaki.lease.turn import ENOUGH, FIRST_TRY, Try
from temaki.orm.cause import cause_of
from temaki.orm.no_repeat import retrying_frame
from temaki.orm.tries import current_tries, delay

if TYPE_CHECKING:
    from temaki.clock import Clock


class Conflicts(threading.local):
    """The conflicts of the call of Pony's own ``retry`` that is under way in this thread.

    Args:
        rng: For jitter.

    Attributes:
        is_enough: Whether the session that began last should write from its start, after so many conflicts in a row:
            then no other thread of this process can come first.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._count = 0
        self._from_elsewhere = False  # whether one of them was with another process
        self._is_due = False  # whether the next session waits
        self.is_enough = False
        self._last = (0, 0)  # the call and the number of its try that met the last one

    def failed(self, error: BaseException) -> None:
        """A session failed. Again for the same try is no error."""
        cause = cause_of(error)
        if not isinstance(cause, (ConflictError, IsolationError)):
            return
        this = _this_try()
        if this is None:
            return
        if this != self._last or not self._count:
            if not self._follows(this):
                self._count, self._from_elsewhere = 0, False
            self._count += 1
            self._last, self._is_due = this, True
        self._from_elsewhere = self._from_elsewhere or isinstance(cause, ConflictError)

    def touch(self, clock: Clock) -> Try:
        """A session begins: wait, if this is the next try after a conflict.

        Returns:
            Which try it is.
        """
        self.is_enough = False
        if not self._count:
            return FIRST_TRY
        this = _this_try()
        if this is None or not self._follows(this):
            if this != self._last:
                self._count = 0  # that call is over
            return FIRST_TRY
        if self._is_due:
            self._is_due = False
            clock.sleep(delay(self._count, self._rng))
        self.is_enough = self._count >= ENOUGH
        return Try(self._count if self._from_elsewhere else 0)

    def _follows(self, this: tuple[int, int]) -> bool:
        call, number = self._last
        return bool(self._count) and this == (call, number + 1)


def _this_try() -> tuple[int, int] | None:
    """The call of Pony's ``retry`` that this thread is in, and the number of its try; None if it is in none."""
    if current_tries() is not None:
        return None
    frame = retrying_frame()
    if frame is None:
        return None
    number = frame.f_locals.get("_i", frame.f_locals.get("i"))  # Pony's name for it
    return (id(frame), number) if isinstance(number, int) else None


CONFLICTS: Final = Conflicts(random.Random())  # noqa: S311 - jitter
"""Of each thread."""
