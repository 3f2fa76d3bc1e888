"""The working copy of one database in one process.

One lock does four jobs, each of which has its own name here:

* ``state``: the fields of the replica and of its generations. Held for a moment.
* ``gate``: a session takes its snapshot in here. So it never sees what the store has not accepted.
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
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from temaki.errors import ConfigurationError, TemakiError, WorkingCopyError
from temaki.process.exit import close_copy_at_exit, is_ending
from temaki.process.fork import look, reset_in_child
from temaki.replica.connection import Connection
from temaki.replica.folder import Folder
from temaki.replica.generation import Generation
from temaki.version import Version

_log = logging.getLogger(__name__)


class WriterLock:
    """One writer at a time in this process: Pony's ``transaction_lock``, one for all databases bound to one URL.

    It belongs to a thread *and* to a connection. An interrupt can strike just after the lock was taken, or just before
    it is given back; then the connection tells that the thread's lock is a leftover, which its next use clears.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self.reset()

    def reset(self) -> None:
        """As new: for a forked child, where the thread that held it does not exist."""
        self._lock = threading.RLock()  # knows its owner from the very moment that it is taken
        self._writing: Connection | None = None
        self._thread: object = None

    def acquire(self, connection: Connection) -> None:
        """Wait for the writer before.

        Raises:
            ConfigurationError: This very thread is the writer, and would wait for ever.
        """
        look()
        if self._is_mine():
            if self._is_left_over():
                _log.warning(
                    "%s: a thread has ended within a db_session. What it had not committed is rolled back.", self._url
                )
                assert self._writing is not None
                self._writing.close()
            elif self._writing is not None and self._writing is not connection and self._writing.session is not None:
                raise ConfigurationError(
                    f"This thread is already writing to {self._url}, through another Database object or another "
                    "coroutine, and would wait for itself for ever. Use one Database per URL, and finish one "
                    "db_session before the next.",
                    url=self._url,
                )
        else:
            self._lock.acquire()
        self._thread, self._writing = threading.current_thread(), connection  # in this order: an interrupt may come

    def release(self, connection: Connection | None = None) -> None:
        """Let the next writer in. Nothing happens where the writer is another thread, or another connection."""
        look()
        if self._is_mine() and (connection is None or self._writing in {None, connection}):
            self._writing = self._thread = None
            self._lock.release()

    def _is_left_over(self) -> bool:
        """Whether the lock is this thread's only by its number, which was another thread's before."""
        return self._writing is not None and self._thread is not threading.current_thread()

    def _is_mine(self) -> bool:
        # What Condition asks of its lock, too; nothing public tells it.
        return bool(self._lock._is_owned())  # type: ignore[attr-defined]  # noqa: SLF001


class _User:
    """Something that uses the working copy, and is no session."""


class Replica:
    """The current generation, and the older ones that sessions are still reading.

    Args:
        url: The database's URL.
        cache_dir: See :class:`temaki.replica.folder.Folder`.

    Attributes:
        state: See above; so are ``gate``, ``committing`` and ``files``.
        writer: Held from BEGIN IMMEDIATE to the end of the commit.
        current: Where sessions begin; None until the first pull and after a refused commit.
        known: Whether this process, or the one that left the working copy, has ever seen a stored version.
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
        """The current generation, once a commit under way is over; at first, what an earlier process left."""
        look()
        with self.state:
            if self._folder is not None and not self._folder.is_intact():
                _log.warning(
                    "%s: the working copy's folder %s was removed; a new one is made", self.url, self._folder.path
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
        """Abandon a current generation whose files were removed, replaced or truncated by another program."""
        if self.current is not None and not self.current.is_intact():
            _log.warning(
                "%s: the working copy %s was removed or damaged; it is pulled anew", self.url, self.current.path
            )
            self.abandon(self.current)

    def _reuse(self, folder: Folder) -> None:
        found = folder.reuse()
        if found is None:
            return
        path, facts = found
        version = Version.from_json(facts)
        for leftover in (f"{path}-wal", f"{path}-shm"):
            with suppress(OSError):
                os.unlink(leftover)  # all of it is in the main file, says the clean record
        if version is not None:
            self.known = True
            with suppress(sqlite3.Error, OSError, TemakiError):  # whatever is wrong with it, a fresh one can be had
                self.current = Generation(path, version, self.url, folder)
        if self.current is None:
            path.unlink(missing_ok=True)

    def next_path(self) -> Path:
        """Where to write the file of a pull; nothing is there yet."""
        assert self._folder is not None
        return self._folder.next_path()

    def install(
        self, path: Path, version: Version | None, *, instead_of: Generation | None, at: Version | None
    ) -> bool:
        """Make a file the current generation, if the current one is still what the pull was asked from.

        A slow answer must not put an old version over a newer one, and sequence numbers cannot decide that: a restore
        goes back. So the current one has to be the same generation, at the same version: this process's own commits
        move a generation on.

        Args:
            path: The file.
            version: What it holds; None for a database that has yet to be created.
            instead_of: The generation from which the pull was asked.
            at: That generation's version when it was asked.

        Returns:
            False where another generation came first; the file is gone then.

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
            if version is not None:
                self.known = True
                self._folder.forget()
                self._folder.record(path, version.to_json())
            if before is not None:
                self._leave_behind(before)
            return True

    def confirm(self, path: Path, generation: Generation, *, at: Version | None) -> bool:
        """A download turned out to be what the current generation already holds; the file is gone then.

        Returns:
            False where ``generation`` is no longer the current one, or no longer at that version.
        """
        with self.state:
            if not self._is_still(generation, at):
                return False
            path.unlink(missing_ok=True)
            return True

    def _is_still(self, generation: Generation | None, at: Version | None) -> bool:
        return self.current is generation and (generation is None or generation.version == at)

    # -- who uses it ----------------------------------------------------------------------------------------------

    @contextmanager
    def use(self) -> Iterator[None]:
        """In here the working copy stays, even if it is closed meanwhile."""
        user = _User()
        try:
            self.begin_use(user)
            yield
        finally:
            self.end_use(user)

    def begin_use(self, user: object) -> None:
        """The working copy stays until :meth:`end_use`, or until ``user`` is no more: an interrupt may come between."""
        look()
        with self._counting:
            self._users.add(user)

    def end_use(self, user: object) -> None:
        """The last one out of a closed working copy removes it. In a forked child, the parent's users are none."""
        look()
        with self._counting:
            self._users.discard(user)
        if self._is_closed or is_ending():
            with self.state:
                self._close_if_unused()

    # -- sessions -------------------------------------------------------------------------------------------------

    def enter(self) -> Generation | None:
        """Count a session into the current generation, if there is one that is intact, and give it."""
        look()
        with self.state:
            self._leave_damaged()
            if self.current is not None:
                self.current.users += 1
            return self.current

    def exit(self, generation: Generation) -> None:
        """A session is over; the last one out of an old generation removes it."""
        look()
        with self.state:
            generation.users -= 1
            if generation is not self.current:
                self._leave_behind(generation)

    def is_current(self, generation: Generation) -> bool:
        """Whether sessions still begin in it; the lock is held where the answer has to last."""
        return generation is self.current

    # -- commits; the lock is held throughout ---------------------------------------------------------------------

    def commit_locally(self, connection: Connection) -> None:
        """SQLite's COMMIT. From here on the file may hold what nobody has accepted, so its clean record goes first."""
        assert self._folder is not None
        self._folder.forget()
        connection.commit_locally()

    def settle(self, generation: Generation) -> None:
        """A local commit is over and acknowledged, or changed nothing: record the file as clean if it is."""
        assert self._folder is not None
        if generation.complete and generation.version is not None and generation is self.current:
            self._folder.record(generation.path, generation.version.to_json())

    def abandon(self, generation: Generation) -> None:
        """Forget a generation with all that the store has not accepted. The next session pulls."""
        look()
        with self.state:
            generation.abandoned = True
            if generation is self.current:
                self.current = None
                assert self._folder is not None
                with suppress(WorkingCopyError):  # that it could not be withdrawn; it was before a local COMMIT
                    self._folder.forget()
            self._leave_behind(generation)

    def _leave_behind(self, generation: Generation) -> None:
        if generation.users == 0:
            generation.dispose()
        else:
            generation.close_idle()

    # -- the end --------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Let go of the working copy: at once, or at the end of the last use.

        In a ``cache_dir`` a clean copy stays for the next owner of the folder; everything else is removed. A session
        that begins later still works. It starts from a fresh copy, which goes at its end.
        """
        with self.state:
            self._is_closed = True
            self._close_if_unused()

    def reopen(self) -> None:
        """Keep the working copy between sessions again: another database has been bound to it."""
        with self.state:
            self._is_closed = False

    def close_at_exit(self) -> None:
        """As :meth:`close`, but never wait: a thread that the exit is about to stop may be in a commit."""
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
        """In a forked child: leave the folder and its files to the parent and start with nothing."""
        self._make_locks()
        self.writer.reset()
        self.current = None
        self._folder = None  # its lock is shared with the parent: the folder is free once both are gone
        self._users = weakref.WeakSet()
