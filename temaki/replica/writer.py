"""The lock of the one writer that a database has in a process."""

from __future__ import annotations

import logging
import threading

from temaki.errors import ConfigurationError
from temaki.process.fork import look
from temaki.replica.connection import Connection

_log = logging.getLogger(__name__)


class WriterLock:
    """One writer at a time in this process: Pony's ``transaction_lock``, one for all databases bound to one URL.

    It belongs to a thread *and* to a connection. An interrupt can strike just after the lock was taken, or just before
    it is released. Remembering the connection lets us recognise a lock that an interrupted session left behind; the
    next acquire clears it.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self.reset()

    def reset(self) -> None:
        """Make a new lock in a forked child, where the thread that held the old one does not exist."""
        self._lock = threading.RLock()  # knows its owner from the moment that it is taken
        self._writing: Connection | None = None
        self._thread: object = None

    def acquire(self, connection: Connection) -> None:
        """Wait for the current writer, and take the lock.

        Raises:
            ConfigurationError: This thread itself is the writer, and would wait for ever.
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
                    "coroutine. It would wait for itself for ever. Use one Database per URL, and finish one db_session "
                    "before the next.",
                    url=self._url,
                )
        else:
            self._lock.acquire()
        self._thread, self._writing = threading.current_thread(), connection  # in this order: an interrupt may come

    def release(self, connection: Connection | None = None) -> None:
        """Release the lock. Does nothing if the writer is another thread or another connection."""
        look()
        if self._is_mine() and (connection is None or self._writing in {None, connection}):
            self._writing = self._thread = None
            self._lock.release()

    def _is_left_over(self) -> bool:
        """Whether the lock is this thread's only by its number, which was another thread's before."""
        return self._writing is not None and self._thread is not threading.current_thread()

    def _is_mine(self) -> bool:
        # threading.Condition uses this method too; there is no public one.
        return bool(self._lock._is_owned())  # type: ignore[attr-defined]  # noqa: SLF001
