"""lease-locked: writers wait for each other instead of running into each other."""

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
    """Reads as :class:`~temaki_strategies.EtagCached` does; whoever wants to write takes the lease first.

    With ``@db_session(immediate=True)`` it is taken before the first read, so such a session never conflicts with
    another one under this strategy. A session that begins by reading takes it at its first write, and is refused with
    ``ConflictError`` if what it has read is no longer current. Writers with another strategy do not wait for the lease;
    the compare-and-swap keeps all of them apart.

    Args:
        ttl: Seconds after which the lease of a process that has gone silent may be taken over. At least 1.
        acquire_timeout: Seconds for which to wait for others. More than ``ttl``, or nobody would outwait a dead holder.
            Without it, 30 seconds, or twice the ``ttl`` if that is more.
        hold: Seconds, from when it was taken, for which a process keeps the lease between sessions, so that its next
            commit needs no request for it. Others wait meanwhile.
        isolation: ``"snapshot"``: a session whose reads are no longer current when it begins to write is refused with
            ``ConflictError``. ``"pony"``: it goes on in the current version, as Pony does on a shared SQLite file. What
            it has read may be old; Pony's optimistic checks refuse to write a row that was changed since
            (``OptimisticCheckError``). For applications that were written for plain SQLite and do not ``retry``.

    Raises:
        ValueError: One of these is out of its range.
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
            raise ValueError(f"ttl is a number of seconds, 1 or more, not {ttl!r}")
        if acquire_timeout is None:
            acquire_timeout = max(_PATIENCE, 2 * ttl)
        if not ttl < acquire_timeout < float("inf"):
            raise ValueError(
                f"acquire_timeout is a number of seconds, more than ttl ({ttl:g}), not {acquire_timeout!r}"
            )
        if not 0 <= hold < float("inf"):
            raise ValueError(f"hold is a number of seconds, 0 or more, not {hold!r}")
        if isolation not in get_args(Isolation):
            raise ValueError(f'isolation is "snapshot" or "pony", not {isolation!r}')
        self.isolation = isolation
        self.ttl, self.acquire_timeout, self.hold = ttl, acquire_timeout, hold
        self._thread = threading.local()  # whether its last session was refused as too late

        from temaki.process.exit import close_on_sigterm  # no part of the cold start of those who use another strategy

        close_on_sigterm()  # here, because only the main thread can, and that is mostly the one that binds

    def pull(self, session: Session) -> None:
        """One conditional GET; before it the lease, if the session is going to write anyway."""
        use = self._use(session) if session.immediate else self._kept(session)
        session.revalidate()
        if use is not None:
            self._outgrow(session, use)

    def begin(self, session: Session) -> None:
        """Wait for the lease; then make sure that what was read is still current, or go on in what is."""
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
        """Swap, if the lease is still this process's. The version carries its generation."""
        use = self._use(session)
        use.lease.check(use.generation)
        session.publish(lease_generation=use.generation)

    def end(self, session: Session) -> None:
        """Let others write; but a session that was refused as stale is about to be run again, or to go on."""
        use, session.state = session.state, None
        if isinstance(use, _Use):
            use.lease.release(use, keep=self.ttl / 10 if use.stale else 0.0)

    @staticmethod
    def _outgrow(session: Session, use: _Use) -> None:
        if session.version is not None:
            use.generation = use.lease.outgrow(use, use.generation, session.version.lease_generation)

    def _kept(self, session: Session) -> _Use | None:
        """The lease from before the first read on, if this is a thread's next try: it must not be too late again.

        However long the pull takes; nobody waits for it here, since this process has it.
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
