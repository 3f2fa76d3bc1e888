"""One commit: SQLite's own, the upload, and what either of them means for the working copy."""

from __future__ import annotations

import logging
from dataclasses import replace

from temaki.engine.session import EngineSession
from temaki.engine.shared import Shared
from temaki.errors import SyncError
from temaki.replica.connection import Connection
from temaki.replica.wal import Scan
from temaki.strategy import Strategy
from temaki.version import Published

_log = logging.getLogger(__name__)


class Commit:
    """The commit of one write transaction. :meth:`run` once.

    Args:
        shared: What it works on.
        strategy: Pushes it.
        session: The session, in the generation in which it has written.
        connection: The session's connection, in the write transaction. Its caller holds the writer lock.
    """

    def __init__(self, shared: Shared, strategy: Strategy, session: EngineSession, connection: Connection) -> None:
        assert session.generation is not None, "the session has ended"
        self._shared, self._strategy, self._session, self._connection = shared, strategy, session, connection
        self._replica, self._generation = shared.replica, session.generation

    def run(self) -> bool:
        """SQLite's COMMIT, and the upload if it changed anything. If this raises, the generation is abandoned.

        Returns:
            Whether it changed anything.

        Raises:
            SyncError, StoreError: Nothing was stored, unless it is a ``CommitUnknownError``.
            sqlite3.Error: SQLite refused its COMMIT.
        """
        published: Published | None = None
        with self._shared.watch("commit") as watch, self._replica.committing, self._replica.files:
            try:
                self._replica.commit_locally(self._connection)
                changes = self._generation.uncommitted_to_store(self._connection)
                if changes.page_count is not None:
                    published = self._publish(changes)
                else:
                    self._replica.settle(self._generation)
            except BaseException:
                self._replica.abandon(self._generation)
                raise
            finally:
                self._session.writing = False
                self._session.forget_image()
        if published is not None:  # told when readers need not wait any more
            self._shared.reporter.published(
                published.version, len(changes.pages), watch.seconds, superseded=published.superseded
            )
        return published is not None

    def _publish(self, changes: Scan) -> Published:
        session, strategy = self._session, self._strategy
        if not self._replica.is_current(self._generation, session.catch_ups):
            raise session.conflict("replaced while it was being changed")
        session.prepare(changes)
        moment = self._shared.puller.moment()
        try:
            strategy.push(session)
        except Exception:
            if session.published is None:
                raise
            _log.exception("%s: the strategy failed after its commit was stored; the commit stands", session.url)
        if session.published is None:
            raise SyncError(
                f"The strategy {type(strategy).__name__} returned from push() without session.publish(); nothing was "
                f"stored in {session.url}. A strategy that never writes says so with writes = False.",
                url=session.url,
            )
        self._acknowledge(session.published, changes, moment)
        return session.published

    def _acknowledge(self, published: Published, changes: Scan, moment: tuple[float, float]) -> None:
        """The commit is stored: whatever goes wrong here costs the next session a pull, and nobody an error."""
        replica, generation = self._replica, self._generation
        try:
            replica.known = True
            if published.superseded:
                # Another writer has already built on it; that version's ETag is not ours to adopt.
                replica.abandon(generation)
                return
            known = self._session.knowledge
            if published.found and known is not None:
                # Maintenance may have come in since: what is stored then is not what was sent.
                generation.acknowledge(changes, replace(published.version, etag=""))
                generation.knowledge = None
                self._shared.puller.doubt()
            else:
                generation.acknowledge(changes, published.version)
                generation.knowledge = known
                self._shared.puller.acknowledged(moment)
            replica.settle(generation)
        except Exception:  # noqa: BLE001 - see above
            _log.exception("%s: version %s is stored; the working copy is not", replica.url, published.version.sequence)
            replica.abandon(generation)
