"""One commit: SQLite's COMMIT, the upload, and what their results mean for the working copy."""

from __future__ import annotations

import logging
from dataclasses import replace

from temaki.clock import Moment
from temaki.engine import hint
from temaki.engine.session import EngineSession
from temaki.engine.shared import Shared
from temaki.errors import ConflictError, SyncError
from temaki.formats.choice import by_number
from temaki.replica.connection import Connection
from temaki.replica.wal import Scan
from temaki.strategy import Strategy
from temaki.version import FILE_FORMAT, Published

_log = logging.getLogger(__name__)


class Commit:
    """The commit of one write transaction. Call :meth:`run` once.

    Args:
        shared: The working copy, the object and the lease of the URL.
        strategy: Pushes the commit.
        session: The session, in the generation in which it has written.
        connection: The session's connection, in the write transaction. The caller holds the writer lock.
    """

    def __init__(self, shared: Shared, strategy: Strategy, session: EngineSession, connection: Connection) -> None:
        assert session.generation is not None, "the session has ended"
        self._shared, self._strategy, self._session, self._connection = shared, strategy, session, connection
        self._replica, self._generation = shared.replica, session.generation

    def run(self) -> bool:
        """Run SQLite's COMMIT, and upload if it changed anything.

        If this raises, the generation is abandoned; or what the store has refused is undone in it.

        Returns:
            True if the commit changed anything.

        Raises:
            SyncError, StoreError: Nothing was stored, unless it is a ``CommitUnknownError``.
            sqlite3.Error: SQLite refused its COMMIT.
        """
        published: Published | None = None
        changes: Scan | None = None
        with self._shared.watch("commit") as watch, self._replica.committing, self._replica.files:
            try:
                self._replica.commit_locally(self._connection)
                changes = self._generation.uncommitted_to_store(self._connection)
                if changes.page_count is not None:
                    published = self._publish(changes)
                else:
                    self._replica.settle(self._generation)
            except BaseException as error:
                if not self._is_taken_back(error, changes):
                    self._replica.abandon(self._generation)
                raise
            finally:
                self._session.writing = False
                self._session.forget_image()
        if (
            published is not None and changes is not None
        ):  # reported after the locks are released, so that readers do not wait for listeners
            self._report(published, changes, watch.seconds)
        return published is not None

    def _is_taken_back(self, error: BaseException, changes: Scan | None) -> bool:
        """Whether the working copy is the acknowledged version again: the store refused the commit, for certain."""
        generation, version = self._generation, self._generation.version
        if not isinstance(error, ConflictError) or version is None or changes is None or changes.page_count is None:
            return False
        extent = by_number(version.format).extent(generation)
        if extent is None or not self._replica.take_back(generation, changes, extent):
            return False
        self._shared.puller.doubt()
        return True

    def _report(self, published: Published, changes: Scan, seconds: float) -> None:
        uploaded, pages = self._session.uploaded, len(changes.pages)
        changed = pages * (changes.page_size or 0)
        self._shared.reporter.published(
            published.version,
            pages,
            seconds,
            changed=changed,
            sent=uploaded.size,
            objects=uploaded.objects,
            superseded=published.superseded,
        )
        if published.version.format == FILE_FORMAT:
            hint.after_commit(self._session.url, uploaded.size, changed)

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
                f"The strategy {type(strategy).__name__} returned from push() without session.publish(). Nothing was "
                f"stored in {session.url}. Call session.publish() in push(); or, for a strategy that never writes, set "
                "writes = False.",
                url=session.url,
            )
        self._acknowledge(session.published, changes, moment)
        return session.published

    def _acknowledge(self, published: Published, changes: Scan, moment: Moment) -> None:
        """Move the working copy to the stored commit. A failure here is no error: the next session pulls."""
        replica, generation = self._replica, self._generation
        try:
            replica.known = True
            if published.superseded:
                # Another writer has already built on the commit. We do not know the ETag of the current version.
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
