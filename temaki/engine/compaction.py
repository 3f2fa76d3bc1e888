"""Compaction beside the sessions: a thread that does the maintenance which the stored version's format needs.

It starts when a commit or a pull finds that something is due, and ends when that is done. There is at most one for each
URL and process.

**A process must have time for it.** Compaction claims the stored object before it uploads, and keeps others from doing
the same for an hour. So a process that is about to end, or to be frozen, had better not begin. A process does not know
its future, but one that has just run for a while will probably run for as long again. So the thread first waits for
about as long as the upload will take, five seconds at least. A command is over by then, and its thread ends with it. If
the clocks say that the process was frozen meanwhile, as AWS Lambda does between two requests, the thread gives up.

**It disturbs nobody.** A failure is logged, and tried again later: after a minute at first, after an hour at most. The
thread is a daemon, so that it holds up no exit. What it leaves behind then is an object that nothing refers to, and a
claim that expires. A forked child has no such thread, and starts its own.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Final, TypeVar

from temaki.clock import Moment
from temaki.formats.choice import by_number
from temaki.process.exit import is_ending, stop_at_exit
from temaki.process.fork import look, process, reset_in_child
from temaki.remote.remote import Remote
from temaki.stores.wrapper import StoreWrapper

if TYPE_CHECKING:
    from collections.abc import Callable

    from temaki.clock import Clock
    from temaki.observe.reporter import Reporter
    from temaki.replica.replica import Replica
    from temaki.store import ReadableBody, Store
    from temaki.stores.wrapper import Verb

T = TypeVar("T")

_log = logging.getLogger(__name__)

LEAST_LIFE: Final = 5.0
"""Seconds for which the thread waits before it begins."""
LONGEST_LIFE: Final = 600.0
UPLOAD_RATE: Final = 16 << 20
"""Bytes a second that an upload is expected to make."""

_TICK: Final = 0.5  # seconds
_FROZEN: Final = 5.0  # seconds by which a tick is late if the process was frozen
_FIRST_PAUSE: Final = 60.0  # seconds between two compactions; doubled after each failure
_LONGEST_PAUSE: Final = 3600.0
_PATIENCE: Final = 1.0  # seconds for which the end of the thread is awaited


class Compaction:
    """Starts the thread when there is work for it.

    Args:
        remote: The database's object, for the probe of conditions.
        store: The bucket.
        key: The object's key in the bucket.
        replica: The working copy.
        clock: Measures and waits.
        timeout: Seconds after which no new attempt of a request is made.
        reporter: Gets the result.
        enabled: False if it is left to the command.
    """

    def __init__(  # noqa: PLR0917 - one call, from share()
        self,
        remote: Remote,
        store: Store,
        key: str,
        replica: Replica,
        clock: Clock,
        timeout: float,
        reporter: Reporter,
        *,
        enabled: bool,
    ) -> None:
        self._remote, self._store, self._key, self._replica, self._timeout = remote, store, key, replica, timeout
        self._clock, self._reporter, self._enabled = clock, reporter, enabled
        self.reset_after_fork()
        reset_in_child(self)

    def reset_after_fork(self) -> None:
        """Forget the parent's thread in a forked child."""
        self._lock = threading.Lock()
        self._seen: object = None
        self._run: _Run | None = None
        self._collected: Moment | None = None
        self._is_closed = False
        self._pause = _FIRST_PAUSE
        self._not_before: Moment | None = None

    def look(self) -> None:
        """Start the thread if something is due. Called after each commit and each pull; makes no request."""
        generation = self._replica.current
        if not self._enabled or generation is None or generation.version is None:
            return
        look()
        if generation.knowledge is self._seen or self._is_closed or is_ending():
            return
        if self._run is not None or (self._not_before is not None and self._not_before.age(self._clock) < self._pause):
            return
        self._seen = generation.knowledge
        form = by_number(generation.version.format)
        size = form.is_due(generation, now=self._clock.time(), idle=self._idle())
        if size is not None:
            self._start(min(LONGEST_LIFE, max(LEAST_LIFE, size / UPLOAD_RATE)))

    def _idle(self) -> float:
        return float("inf") if self._collected is None else self._collected.age(self._clock)

    def _start(self, life: float) -> None:
        with self._lock:
            if self._run is not None or self._is_closed:
                return
            run = self._run = _Run(self, life)
            stop_at_exit(run)
        try:
            run.thread.start()
        except RuntimeError:  # the system gives no more threads, or the interpreter shuts down
            self._over(run, failed=True)

    def reopen(self) -> None:
        """Compact again, because another database has been bound to the URL."""
        self._is_closed = False

    def close(self) -> None:
        """Stop the thread. What it was about to do is left to the next process."""
        look()
        with self._lock:
            self._is_closed = True
            run = self._run
        if run is not None:
            run.close_at_exit()

    # -- in the thread --------------------------------------------------------------------------------------------

    def work(self, run: _Run) -> None:
        """What the thread does."""
        failed = True
        try:
            if not self._lives_on(run):
                failed = False
                return
            began = self._clock.monotonic()
            self._remote.probe_conditions()
            remote = Remote(
                _StoppableStore(self._store, self._key, run),
                self._key,
                url=self._replica.url,
                clock=_StoppableClock(self._clock, run),
                timeout=self._timeout,
            )
            generation = self._replica.current
            if generation is None or generation.version is None:
                return
            form = by_number(generation.version.format)
            done = form.maintain(remote.source, self._replica, idle=self._idle())
            failed = False
            if done.sent or done.freed:
                self._reporter.compacted(
                    done.sent, done.freed, done.before, done.after, self._clock.monotonic() - began
                )
            if done.has_collected:
                self._collected = Moment.now(self._clock)
        except StoppedError:
            failed = False
        except Exception as error:  # noqa: BLE001 - nobody waits for it
            if not run.is_stopped:
                _log.warning(
                    "%s could not be compacted, and is not harmed: %s It is tried again later. If it never works, set "
                    "compact to 'manual' here, and run `temaki compact` elsewhere.",
                    self._replica.url,
                    f"{type(error).__name__}: {error}",
                )
        finally:
            self._over(run, failed=failed)

    def _lives_on(self, run: _Run) -> bool:
        """Wait for as long as the work will take; False if the process was frozen meanwhile, or is to stop."""
        left = run.life
        while left > 0 and not run.is_stopped:
            tick = min(_TICK, left)
            before = Moment.now(self._clock)
            self._clock.sleep(tick)
            if before.age(self._clock) > tick + _FROZEN:
                return False
            left -= tick
        return run.begin()

    def _over(self, run: _Run, *, failed: bool) -> None:
        with self._lock:
            if self._run is run:
                self._run, self._seen = None, None
                self._not_before = Moment.now(self._clock)
                self._pause = min(_LONGEST_PAUSE, 2 * self._pause) if failed else _FIRST_PAUSE


class _Run:
    """One run of the thread.

    Args:
        owner: What it works for.
        life: Seconds to wait before the work.
    """

    def __init__(self, owner: Compaction, life: float) -> None:
        self.life = life
        self.is_stopped = False
        self._process = process()
        self._works = False
        self._lock = threading.Lock()
        self.thread = threading.Thread(target=owner.work, args=(self,), name="temaki-compaction", daemon=True)

    def begin(self) -> bool:
        """Whether the work may begin."""
        with self._lock:
            self._works = not self.is_stopped
            return self._works

    def check(self) -> None:
        """Raise ``StoppedError`` if it is to stop."""
        if self.is_stopped:
            raise StoppedError

    def close_at_exit(self) -> None:
        """Stop it, and wait for a moment. A thread that only waits for its turn holds nothing, and is not awaited."""
        if self._process != process():
            return  # the thread is the parent's
        with self._lock:
            self.is_stopped = True
            works = self._works
        if works and self.thread is not threading.current_thread():
            self.thread.join(_PATIENCE)


class StoppedError(Exception):
    """The process ends, or the database was unbound."""


class _StoppableClock:
    """The clock, whose waits end when the thread is to stop."""

    def __init__(self, clock: Clock, run: _Run) -> None:
        self._clock, self._run = clock, run

    def monotonic(self) -> float:
        return self._clock.monotonic()

    def time(self) -> float:
        return self._clock.time()

    def sleep(self, seconds: float) -> None:
        while seconds > 0:
            self._run.check()
            self._clock.sleep(min(_TICK, seconds))
            seconds -= _TICK
        self._run.check()


class _StoppableStore(StoreWrapper):
    """The bucket, in which no request begins and no upload goes on when the thread is to stop.

    Requests for the database's own object are small, and still made: they take back what the thread has claimed.
    """

    def __init__(self, store: Store, key: str, run: _Run) -> None:
        super().__init__(store)
        self._key, self._run = key, run

    def handle_request(self, verb: Verb, key: str, request: Callable[[], T], /) -> T:  # noqa: ARG002 - the hook's
        """See :meth:`temaki.testing.StoreWrapper.handle_request`."""
        if key != self._key:
            self._run.check()
        return request()

    def wrap_body(self, body: bytes | ReadableBody, /) -> bytes | ReadableBody:
        """See :meth:`temaki.testing.StoreWrapper.wrap_body`."""
        return body if isinstance(body, (bytes, bytearray, memoryview)) else _StoppableBody(body, self._run)


class _StoppableBody:
    """A body that cannot be read to its end when the thread is to stop."""

    def __init__(self, body: ReadableBody, run: _Run) -> None:
        self._body, self._run = body, run

    def read(self, size: int = -1, /) -> bytes:
        self._run.check()
        return self._body.read(size)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self._run.check()
        return self._body.seek(offset, whence)

    def tell(self) -> int:
        return self._body.tell()
