"""The working copy of one database in one process.

One lock does four jobs, each of which has its own name here:

* ``state``: guards the fields of the replica and of its generations. Held for a moment.
* ``gate``: held while a session takes its snapshot. So a session never sees what the store has not accepted.
* ``committing``: one commit at a time, from before SQLite's COMMIT until the store has answered.
* ``files``: neither a commit nor a checkpoint changes the files while an image of them is read.

Locks are taken in this order only: the writer lock, then these.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from temaki.errors import TemakiError, WorkingCopyError
from temaki.process.exit import close_copy_at_exit, is_ending
from temaki.process.fork import look, process, reset_in_child
from temaki.replica.connection import Connection
from temaki.replica.folder import Folder
from temaki.replica.generation import Extent, Generation, Knowledge
from temaki.replica.image import Image
from temaki.replica.wal import Scan
from temaki.replica.writer import WriterLock
from temaki.version import Version

_log = logging.getLogger(__name__)


class _User:
    """A user of the working copy that is no session."""


class CaughtUp(Enum):
    """What came of a catch-up."""

    DONE = "done"
    OVERTAKEN = "overtaken"  # the working copy has gone on meanwhile
    IMPOSSIBLE = "impossible"  # not at this moment: the version has to come as a file of its own


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """What leads from one version to a newer one.

    Attributes:
        pages: The pages that differ, by number; page 1 in WAL mode.
        page_count: The newer version's size, in pages.
        page_size: In bytes.
        version: The newer version.
    """

    pages: Mapping[int, bytes]
    page_count: int
    page_size: int
    version: Version


@dataclass(frozen=True, slots=True, eq=False)
class Pinned:
    """A version that stays readable while sessions go on.

    Attributes:
        image: Its pages.
        folder: A folder for temporary files.
    """

    image: Image
    folder: Path


class Replica:
    """The working copy: the current generation, and the older ones that sessions still read.

    Args:
        url: The database's URL.
        cache_dir: Parent folder that stays between processes, or None; see :class:`temaki.replica.folder.Folder`.

    Attributes:
        url: URL of the database.
        cache_dir: Parent folder that stays between processes, or None.
        state: Lock on the fields of the replica and of its generations; see the module for the four locks.
        gate: Lock that is held while a session takes its snapshot.
        committing: Lock that is held during a commit.
        files: Lock that is held while files change or an image of them is read.
        writer: Lock that is held from BEGIN IMMEDIATE to the end of the commit.
        current: Generation in which sessions begin; None until the first pull and after a refused commit.
        known: True if this process, or the one that left the working copy, has ever seen a stored version.
        noted: The ignored pragmas that the log has a line about.
    """

    def __init__(self, url: str, cache_dir: Path | None) -> None:
        self.url = url
        self.cache_dir = cache_dir
        self.writer = WriterLock(url)
        self._make_locks()
        self.current: Generation | None = None
        self.known = False
        self.noted: set[str] = set()
        self._folder: Folder | None = None
        self._users: weakref.WeakSet[object] = weakref.WeakSet()
        self._is_closed = False
        reset_in_child(self)

    def _make_locks(self) -> None:
        self.state = self.gate = self.committing = self.files = threading.RLock()
        # Users come and go without waiting for a commit under way: an interrupt must surface at once.
        self._counting = threading.Lock()

    # -- pulling --------------------------------------------------------------------------------------------------

    def base(self) -> Generation | None:
        """Get the current generation, after a commit under way. The first call takes over an earlier process's."""
        look()
        with self.state:
            if self._folder is not None and not self._folder.is_intact():
                _log.warning(
                    "%s: the folder %s of the working copy was removed; making a new one", self.url, self._folder.path
                )
                if self.current is not None:
                    self.abandon(self.current)
                self._folder.release()
                self._folder = None
            if self._folder is None:
                self._folder = Folder(self.url, self.cache_dir)
                close_copy_at_exit(self)
                with self._folder.errors_named(self._folder.path):
                    self._reuse(self._folder)
            self._leave_damaged()
            return self.current

    def _leave_damaged(self) -> None:
        """Abandon the current generation if another program has removed, replaced or truncated its files."""
        if self.current is not None and not self.current.is_intact():
            _log.warning("%s: the working copy %s was removed or damaged; pulling it anew", self.url, self.current.path)
            self.abandon(self.current)

    def _reuse(self, folder: Folder) -> None:
        recorded = folder.reuse()
        if recorded is None:
            return
        path, facts = recorded
        version = Version.from_json(facts)
        for leftover in (f"{path}-wal", f"{path}-shm"):
            with suppress(OSError):
                os.unlink(leftover)  # the clean record says that the main file has everything
        if version is not None:
            self.known = True
            with suppress(sqlite3.Error, OSError, TemakiError):  # whatever is wrong with the file, a pull replaces it
                self.current = Generation(path, version, self.url, folder)
                kept = facts.get("knowledge")
                self.current.knowledge = kept if isinstance(kept, dict) else None
        if self.current is None:
            path.unlink(missing_ok=True)

    def next_path(self) -> Path:
        """Choose the path for the file of a pull. No such file exists yet."""
        assert self._folder is not None
        return self._folder.next_path()

    def install(
        self,
        path: Path,
        version: Version | None,
        *,
        instead_of: Generation | None,
        at: Version | None,
        knowledge: Knowledge | None = None,
    ) -> bool:
        """Make a file the current generation, if the current one is still the one that the pull started from.

        A slow answer must not replace a newer version by an old one. Sequence numbers cannot decide that, because a
        restore goes back. So the current generation must be the same one, at the same version. (The version moves on
        with this process's own commits.)

        Args:
            path: Path of the file.
            version: The version that the file holds; None if there is no database yet.
            instead_of: The generation that was current when the pull started.
            at: The version of that generation when the pull started.
            knowledge: What the version's format knows of it.

        Returns:
            False if another generation came first. Then the file is removed.

        Raises:
            CorruptDatabaseError: SQLite cannot read the file.
        """
        assert self._folder is not None
        with self.state, self._folder.errors_named(path):
            before = self.current
            if not self._is_still(instead_of, at):
                path.unlink(missing_ok=True)
                return False
            try:
                self.current = Generation(path, version, self.url, self._folder)
            except BaseException:
                for name in (f"{path}", f"{path}-wal", f"{path}-shm"):
                    Path(name).unlink(missing_ok=True)
                raise
            self.current.knowledge = knowledge
            if version is not None:
                self.known = True
                self._folder.forget()
                self._folder.record(path, self.current.facts())
            if before is not None:
                self._leave_behind(before)
            return True

    def confirm(self, path: Path, generation: Generation, *, at: Version | None) -> bool:
        """Drop a downloaded file that has the same version as the current generation.

        Returns:
            False if ``generation`` is no longer the current one, or no longer at version ``at``. Then the file stays.
        """
        with self.state:
            if not self._is_still(generation, at):
                return False
            path.unlink(missing_ok=True)
            return True

    def adopt(
        self, generation: Generation, *, at: Version | None, version: Version, knowledge: Knowledge | None
    ) -> bool:
        """The stored version is the one that is here, in other bytes: its ETag is a new one, and nothing else changes.

        Returns:
            False where ``generation`` is no longer the current one, or no longer at version ``at``.
        """
        with self.state:
            if not self._is_still(generation, at):
                return False
            generation.version, generation.knowledge = version, knowledge
            self.settle(generation)
            return True

    def catch_up(
        self, generation: Generation, *, at: Version | None, step: Callable[[], Step], knowledge: Knowledge
    ) -> CaughtUp:
        """Bring a newer version into the current generation, if it is still the one that the pull was asked from.

        Args:
            generation: From which the pull was asked.
            at: Its version when it was asked.
            step: Gives what has changed, after a look at the pages that are here. What it raises leaves everything as
                it is.
            knowledge: What the newer version's format knows of it.
        """
        assert self._folder is not None
        with self.state:
            if not self._is_still(generation, at):
                return CaughtUp.OVERTAKEN
            found = step()
            try:
                self._folder.forget()
                if not generation.catch_up(found.pages, found.page_count, found.page_size, found.version):
                    self.settle(generation)
                    return CaughtUp.IMPOSSIBLE
                generation.knowledge = knowledge
                self.known = True
                self.settle(generation)
            except BaseException:
                self.abandon(generation)
                raise
            return CaughtUp.DONE

    def _is_still(self, generation: Generation | None, at: Version | None) -> bool:
        return self.current is generation and (generation is None or generation.version == at)

    # -- who uses it ----------------------------------------------------------------------------------------------

    @contextmanager
    def use(self) -> Iterator[None]:
        """Keep the working copy within the ``with``, even if it is closed meanwhile."""
        user = _User()
        try:
            self.begin_use(user)
            yield
        finally:
            self.end_use(user)

    def begin_use(self, user: object) -> None:
        """Keep the working copy until :meth:`end_use`, or until ``user`` is garbage, because of an interrupt."""
        look()
        with self._counting:
            self._users.add(user)

    def end_use(self, user: object) -> None:
        """End a use. The last user of a closed working copy removes it. A forked child has no users of the parent."""
        look()
        with self._counting:
            self._users.discard(user)
        if self._is_closed or is_ending():
            with self.state:
                self._close_if_unused()

    # -- sessions -------------------------------------------------------------------------------------------------

    def enter(self) -> Generation | None:
        """Let a session enter the current generation. Returns it; None if there is no intact one."""
        look()
        with self.state:
            self._leave_damaged()
            if self.current is not None:
                self.current.users += 1
            return self.current

    def exit(self, generation: Generation) -> None:
        """Let a session leave its generation. The last session that leaves an old generation removes it."""
        look()
        with self.state:
            generation.users -= 1
            if generation is not self.current:
                self._leave_behind(generation)

    @contextmanager
    def pinned(self, extent: Callable[[Generation], Extent | None]) -> Iterator[Pinned | None]:
        """Keep the acknowledged version of now readable within the ``with``, while sessions go on.

        Args:
            extent: Gives the version's size, under the lock; None if it is not known.

        Yields:
            The version; None if there is none, or if its size is not known.

        Raises:
            WorkingCopyError: The working copy cannot be read.
        """
        with self.use():
            pinned = self._pin(extent)
            if pinned is None:
                yield None
                return
            generation, connection, image = pinned
            try:
                yield Pinned(image, generation.path.parent)
            finally:
                if connection.process == process():
                    with self.state:
                        try:
                            generation.unpin(connection)
                            self.settle(generation)
                        finally:
                            self.exit(generation)

    def _pin(self, extent: Callable[[Generation], Extent | None]) -> tuple[Generation, Connection, Image] | None:
        with self.state:
            generation = self.enter()
            if generation is None:
                return None
            pinned = None
            try:
                size = None if generation.version is None else extent(generation)
                if size is not None:
                    pinned = generation.pin(size)
            except sqlite3.Error as error:
                raise generation.damaged(error) from error
            finally:
                if pinned is None:
                    self.exit(generation)
            return None if pinned is None else (generation, *pinned)

    def is_current(self, generation: Generation, catch_ups: int | None = None) -> bool:
        """Whether sessions still begin in ``generation``. Hold the lock if the answer has to last.

        Args:
            generation: The generation of a session.
            catch_ups: Number of catch-ups when the session pinned its snapshot: none may have come since.
        """
        return generation is self.current and catch_ups in {None, generation.catch_ups}

    # -- commits; the lock is held throughout ---------------------------------------------------------------------

    def commit_locally(self, connection: Connection) -> None:
        """Run SQLite's COMMIT. The clean record goes first: the file may now hold data that the store lacks."""
        assert self._folder is not None
        self._folder.forget()
        connection.commit_locally()

    def settle(self, generation: Generation) -> None:
        """Record the file as clean, if it is, after a commit that was acknowledged or changed nothing."""
        assert self._folder is not None
        if generation.complete and generation.version is not None and generation is self.current:
            self._folder.record(generation.path, generation.facts())

    def take_back(self, generation: Generation, changes: Scan, extent: Extent) -> bool:
        """Undo a local commit that the store has refused; see :meth:`Generation.take_back`.

        Returns:
            False if the generation is to be abandoned.
        """
        if generation is not self.current or generation.abandoned:
            return False
        try:
            if not generation.take_back(changes, extent):
                return False
            self.settle(generation)
        except (WorkingCopyError, sqlite3.Error, OSError):
            _log.debug("%s: a refused commit could not be undone", self.url, exc_info=True)
            return False
        return True

    def abandon(self, generation: Generation) -> None:
        """Drop a generation with all changes that the store has not accepted. The next session pulls."""
        look()
        with self.state:
            generation.abandoned = True
            if generation is self.current:
                self.current = None
                assert self._folder is not None
                with suppress(WorkingCopyError):  # harmless: the record was removed before the local COMMIT
                    self._folder.forget()
            self._leave_behind(generation)

    def _leave_behind(self, generation: Generation) -> None:
        if generation.users == 0:
            generation.dispose()
        else:
            generation.close_idle()

    # -- the end --------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the working copy: at once, or at the end of its last use.

        In a ``cache_dir`` a clean copy stays for the next owner of the folder. Everything else is removed. A session
        that begins later still works: it starts from a fresh copy, which is removed at its end.
        """
        with self.state:
            self._is_closed = True
            self._close_if_unused()

    def reopen(self) -> None:
        """Keep the working copy between sessions again, because another database has been bound to it."""
        with self.state:
            self._is_closed = False

    def close_at_exit(self) -> None:
        """Close as :meth:`close` does, but never wait: a thread that the exit is about to stop may be in a commit."""
        if self.state.acquire(blocking=False):
            try:
                self._close_if_unused()
            finally:
                self.state.release()

    def _close_if_unused(self) -> None:
        with self._counting:
            if self._users:
                return
        generation, self.current = self.current, None
        folder, self._folder = self._folder, None
        if generation is not None:
            if folder is not None and folder.reusable and generation.complete and generation.version is not None:
                generation.close()
            else:
                generation.dispose()
        if folder is not None:
            folder.release()

    # -- fork -----------------------------------------------------------------------------------------------------

    def reset_after_fork(self) -> None:
        """Leave the folder and its files to the parent in a forked child, and start with nothing."""
        self._make_locks()
        self.writer.reset()
        self.current = None
        self._folder = None  # parent and child share the folder's lock, which is free once both have ended
        self._users = weakref.WeakSet()
