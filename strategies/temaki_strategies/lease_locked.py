"""The strategy lease-locked: writers wait for each other instead of conflicting."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Literal, get_args

from temaki.errors import ConflictError
from temaki.strategy import Lease, Session, Strategy

_PATIENCE = 30.0  # seconds

Isolation = Literal["snapshot", "pony"]


@dataclass(eq=False)
class _Use:
    """A session's part in the lease."""

    lease: Lease
    generation: int = 0
    stale: bool = False


class LeaseLocked(Strategy):
    """Reads as :class:`~temaki_strategies.EtagCached` does. A session takes the lease before it writes.

    With ``@db_session(immediate=True)``, a session takes the lease before its first read. So it never conflicts with
    another session under this strategy. A session that begins by reading takes the lease at its first write. If the
    version that it has read is no longer current, it is refused with ``ConflictError``. Writers with another strategy
    do not wait for the lease; the compare-and-swap protects against them.

    Args:
        ttl: Seconds after which others may take over the lease of a silent process. At least 1.
        acquire_timeout: Seconds to wait for other holders of the lease. Must be more than ``ttl``, to outwait a dead
            holder. Default: 30 seconds, or twice the ``ttl`` if that is more.
        hold: Seconds for which a process keeps the lease between sessions, counted from when it took the lease. Its
            next commit then needs no request for the lease. Others wait meanwhile.
        isolation: ``"snapshot"``: a session is refused with ``ConflictError`` if its reads are no longer current when
            it begins to write. ``"pony"``: the session goes on in the current version, as Pony does on a shared SQLite
            file. What it has read may be old. Pony's optimistic checks refuse to write a row that was changed since
            (``OptimisticCheckError``). For applications that were written for plain SQLite and do not ``retry``.

    Raises:
        ValueError: An option is out of its range.
    """

    def __init__(
        self,
        *,
        ttl: float = 10.0,
        acquire_timeout: float | None = None,
        hold: float = 0.0,
        isolation: Isolation = "snapshot",
    ) -> None:
        if not 1 <= ttl < float("inf"):
            raise ValueError(f"ttl must be a number of seconds, 1 or more; got {ttl!r}")
        if acquire_timeout is None:
            acquire_timeout = max(_PATIENCE, 2 * ttl)
        if not ttl < acquire_timeout < float("inf"):
            raise ValueError(
                f"acquire_timeout must be a number of seconds, more than ttl ({ttl:g}); got {acquire_timeout!r}"
            )
        if not 0 <= hold < float("inf"):
            raise ValueError(f"hold must be a number of seconds, 0 or more; got {hold!r}")
        if isolation not in get_args(Isolation):
            raise ValueError(f'isolation must be "snapshot" or "pony"; got {isolation!r}')
        self.isolation = isolation
        self.ttl, self.acquire_timeout, self.hold = ttl, acquire_timeout, hold
        self._thread = threading.local()  # remembers whether the thread's last session was refused as stale

        from temaki.process.exit import close_on_sigterm  # imported here because other strategies do not need it

        close_on_sigterm()  # called here because only the main thread can, which is usually the one that binds

    def pull(self, session: Session) -> None:
        """Make one conditional GET. If the session asked to write, take the lease before it."""
        use = self._use(session) if session.immediate else self._kept(session)
        session.revalidate()
        if use is not None:
            self._outgrow(session, use)

    def begin(self, session: Session) -> None:
        """Wait for the lease. Then make sure that the session's version is current, or go on in the current one."""
        if isinstance(session.state, _Use):
            return
        use = self._use(session)
        try:
            if self.isolation == "pony":
                session.follow()
            else:
                session.require_current()
        except ConflictError:
            use.stale = True
            self._thread.refused = self.isolation == "snapshot"  # under "pony" this very session goes on
            raise
        self._outgrow(session, use)

    def push(self, session: Session) -> None:
        """Swap, if this process still has the lease. The version contains the lease's generation."""
        use = self._use(session)
        use.lease.check(use.generation)
        session.publish(lease_generation=use.generation)

    def end(self, session: Session) -> None:
        """Release the lease. After a refusal as stale, keep it for a moment: the function is about to run again."""
        use, session.state = session.state, None
        if isinstance(use, _Use):
            use.lease.release(use, keep=self.ttl / 10 if use.stale else 0.0)

    @staticmethod
    def _outgrow(session: Session, use: _Use) -> None:
        if session.version is not None:
            use.generation = use.lease.outgrow(use, use.generation, session.version.lease_generation)

    def _kept(self, session: Session) -> _Use | None:
        """Join the lease before the first read if the thread's last try was refused, so that it is not stale again.

        This never waits: it joins only a lease that this process still has.
        """
        if not getattr(self._thread, "refused", False):
            return None
        self._thread.refused = False
        use = _Use(self._lease(session))
        generation = use.lease.rejoin(use)
        if generation is None:
            return None
        use.generation = generation
        session.state = use
        return use

    def _lease(self, session: Session) -> Lease:
        return session.lease(ttl=self.ttl, acquire_timeout=self.acquire_timeout, hold=self.hold)

    def _use(self, session: Session) -> _Use:
        if not isinstance(session.state, _Use):
            use = _Use(self._lease(session))
            use.generation = use.lease.acquire(use)
            session.state = use
        return session.state
