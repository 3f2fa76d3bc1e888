"""The clients' sessions: they call the real provider in the order in which Pony calls it."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Final

from pony.orm import core
from pony.orm.dbapiprovider import IntegrityError

from temaki.errors import (
    CommitUnknownError,
    ConflictError,
    CorruptDatabaseError,
    LeaseLostError,
    LeaseTimeoutError,
    NotFoundError,
    ReadOnlyError,
    StoreError,
)
from temaki.replica.connection import Connection
from temaki.testing.histories import Operation, Outcome, Value
from temaki.testing.simulation.scheduler import Crash, Task, Violation, running

if TYPE_CHECKING:
    from temaki.orm.provider import StoreProvider
    from temaki.testing.simulation.roles import Actor, Stage

KINDS: Final = ("write", "read", "immediate", "twice", "rollback", "violate")
"""Kinds of sessions: a deferred write (it reads first); a read; a write from the start; two transactions in one
session; a write that is rolled back; a write that SQLite refuses at COMMIT, for a foreign key."""

SCHEMA: Final = (
    "CREATE TABLE history (position INTEGER PRIMARY KEY, name TEXT, filler BLOB)",
    "CREATE TABLE child (parent REFERENCES history (position) DEFERRABLE INITIALLY DEFERRED)",
)
BALLAST: Final = "CREATE TABLE ballast (number INTEGER PRIMARY KEY, bytes BLOB)"
"""In the format ``pages``: rows that fill a page each, so that a commit changes some of many pages."""
PIECES: Final = 12
PIECE: Final = 400  # bytes
_EXPECTED: Final = (ConflictError, CommitUnknownError, LeaseTimeoutError, LeaseLostError, StoreError)


class _Cache:
    """A substitute for Pony's ``SessionCache``, as far as the provider uses it."""

    db_session = None
    saved_fk_state = None

    def __init__(self, *, immediate: bool) -> None:
        self.immediate = immediate
        self.in_transaction = False


class _Attempt:
    """An operation under way."""

    def __init__(self, session: _Session, name: str, *, writes: bool) -> None:
        self.session, self.name, self.writes = session, name, writes
        self.began = session.world.scheduler.tick()
        self.fresh_from = session.fresh_from
        self.follows = session.follows
        self.reads: list[Value] = []
        self.committing = False

    def end(self, outcome: Outcome, *, returned: bool = True) -> None:
        world = self.session.world
        operation = Operation(
            self.name,
            self.session.process.name,
            self.began,
            world.scheduler.tick() if returned else None,
            outcome,
            tuple(self.reads),
            self.writes,
            self.fresh_from,
            self.follows,
        )
        world.history.append(operation)
        world.log(self.session.process.name, operation)


class _Session:
    """One ``db_session``, with the provider's calls in Pony's order."""

    def __init__(self, program: Program, process: Actor, provider: StoreProvider, max_age: float) -> None:
        self.program, self.process, self.provider = program, process, provider
        self.world = process.world
        task = running()
        assert task is not None
        self.task: Task = task
        self.fresh_from = self.world.tick_before(max_age)
        self.follows: str | None = None
        self.attempt: _Attempt | None = None
        self.connection: Connection | None = None

    def run(self, kind: str) -> bool:
        """Run the session. Returns True if it did what it meant to do."""
        cache = _Cache(immediate=kind in {"immediate", "twice"})
        core.local.db2cache = {self.provider.database: cache}
        self._start("r" if not cache.immediate else "w", writes=cache.immediate)
        try:
            self._connect(cache)
            self._transact(cache, kind)
        except Crash:
            self._died()
            raise
        except Exception as error:
            if self.process.dead:
                self._died()
                raise
            self._failed(error, kind)
            if self.connection is not None:
                self.provider.rollback(self.connection, cache)
            return kind == "violate" and isinstance(error, IntegrityError)
        finally:
            if self.connection is not None and not self.process.dead:
                self.provider.release(self.connection, cache)
        return True

    def _connect(self, cache: _Cache) -> None:
        """As Pony's ``SessionCache.connect``."""
        connection, _ = self.provider.connect()
        try:
            self.provider.set_transaction_mode(connection, cache)
        except Exception:
            if not self.process.dead:
                self.provider.drop(connection, cache)
            raise
        self.connection = connection

    def _begin_to_write(self, cache: _Cache) -> None:
        """As Pony's ``SessionCache.prepare_connection_for_query_execution``: connect anew if the provider says so."""
        assert self.connection is not None
        cache.immediate = True
        try:
            self.provider.set_transaction_mode(self.connection, cache)
        except Exception as error:
            if self.process.dead or not self.provider.should_reconnect(error):
                raise
            self.world.log(self.process.name, "connects anew, to go on in the current version")
            moved, self.connection = self.connection, None
            self.provider.drop(moved, cache)
            self._connect(cache)

    def _start(self, letter: str, *, writes: bool) -> _Attempt:
        self.attempt = _Attempt(self, self.program.new_name(letter), writes=writes)
        return self.attempt

    def _transact(self, cache: _Cache, kind: str) -> None:
        task, attempt = self.task, self.attempt
        assert attempt is not None
        if not cache.immediate:
            for _ in range(2):
                attempt.reads.append(self._read(self._connected))
                if attempt.reads[-1]:
                    self.world.check_file(self._connected)
                task.step()
            self.process.has_seen |= bool(attempt.reads[0])
            attempt.end(Outcome.OK)
            self.attempt = None
            if kind == "read":
                return
            attempt = self._start("w", writes=True)
            self._begin_to_write(cache)
        self._write(self._connected, cache, attempt, kind)
        if kind == "twice":
            self.follows = attempt.name
            self.fresh_from = attempt.began
            again = self._start("w", writes=True)
            self._begin_to_write(cache)
            self._write(self._connected, cache, again, kind)

    @property
    def _connected(self) -> Connection:
        assert self.connection is not None
        return self.connection

    def _write(self, connection: Connection, cache: _Cache, attempt: _Attempt, kind: str) -> None:
        attempt.reads.append(self._read(connection))
        self.task.step()
        cursor = connection.cursor()
        if not self._has_table(connection):
            for statement in SCHEMA if not self.world.in_pages else (*SCHEMA, BALLAST):
                cursor.execute(statement)
        filler = self.world.choices.pick((0, 0, 900))
        cursor.execute("INSERT INTO history (name, filler) VALUES (?, zeroblob(?))", (attempt.name, filler))
        if self.world.in_pages:
            self._shift_ballast(connection, attempt.name)
        self.task.step()
        if kind == "violate":
            cursor.execute("INSERT INTO child VALUES (-1)")
        elif kind == "rollback":
            self.provider.rollback(connection, cache)
            attempt.end(Outcome.REFUSED)
            self.attempt = None
            return
        attempt.committing = True
        self.provider.commit(connection, cache)
        attempt.end(Outcome.OK)
        self.attempt = None

    def _shift_ballast(self, connection: Connection, name: str) -> None:
        below = self.world.choices.below
        for _ in range(below(4)):
            piece = random.Random(name).randbytes(PIECE)  # noqa: S311 - repeatable, on purpose
            connection.cursor().execute("INSERT OR REPLACE INTO ballast VALUES (?, ?)", (below(PIECES), piece))
        if not below(6):
            connection.cursor().execute("DELETE FROM ballast WHERE number >= ?", (below(PIECES),))

    def _read(self, connection: Connection) -> Value:
        if not self._has_table(connection):
            return ()
        cursor = connection.cursor()
        if self.world.choices.chance(0.2):
            # A cursor that is half read, and that outlives the session. It must not keep the session's snapshot.
            self.program.kept = connection.cursor().execute("SELECT name FROM history UNION ALL SELECT 1")
        return tuple(name for (name,) in cursor.execute("SELECT name FROM history ORDER BY position").fetchall())

    def _has_table(self, connection: Connection) -> bool:
        row = connection.cursor().execute("SELECT count(*) FROM sqlite_master WHERE name = 'history'").fetchone()
        return bool(row[0])

    def _died(self) -> None:
        attempt, self.attempt = self.attempt, None
        if attempt is not None:
            attempt.end(Outcome.UNKNOWN if attempt.committing else Outcome.REFUSED, returned=False)

    def _failed(self, error: Exception, kind: str) -> None:
        attempt, self.attempt = self.attempt, None
        self.world.log(self.process.name, error)
        if attempt is not None:
            attempt.end(Outcome.UNKNOWN if isinstance(error, CommitUnknownError) else Outcome.REFUSED)
        if isinstance(error, NotFoundError):
            fine = self.process.met_bad_answer
        elif isinstance(error, CorruptDatabaseError):
            # The pull must find this, before SQLite sees any of the file.
            fine = self.process.met_bad_answer and getattr(error, "reason", None) is not None
        elif isinstance(error, IntegrityError):
            fine = kind == "violate"
        elif isinstance(error, ReadOnlyError):
            fine = not self.provider.engine.writes
        else:
            fine = isinstance(error, _EXPECTED)
        if not fine:
            raise Violation(f"{self.process.name} meets {type(error).__name__}: {error}") from error


class Program:
    """The program of one thread of a client, over all incarnations of the client."""

    def __init__(self, world: Stage, number: int, thread: int, strategy: tuple[str, dict[str, Any]]) -> None:
        self.world, self.number, self.thread, self.strategy = world, number, thread, strategy
        self.writes = strategy[0] != "read-only"
        self.left = world.choices.pick((1, 2, 4) if world.in_pages else (1, 1, 2))
        self.done = False
        self.kept: object = None
        self._names = 0

    def new_name(self, letter: str) -> str:
        """Make a unique name for an operation."""
        self._names += 1
        return f"{letter}{self.number}{'abc'[self.thread]}{self._names}"

    def run(self, process: Actor) -> None:
        """Run the sessions that are left."""
        provider = process.provider(*self.strategy)
        choices = self.world.choices
        while self.left:
            self.left -= 1
            kind = choices.pick(KINDS) if self.writes else choices.pick(("read", "write"))
            process.pause(choices.pick((0.0, 0.0, 0.1, 1.0)))
            self._session(process, provider).run(kind)
        provider.pool.disconnect()
        self.done = True
        self.world.wake_director()

    def finish(self, process: Actor) -> None:
        """Run a session that must succeed, because all faults are over."""
        provider = process.provider(*self.strategy)
        for _ in range(20):
            if self._session(process, provider).run("immediate" if self.writes else "read"):
                break
            process.pause(0.5)
        else:
            raise Violation(f"{process.name} never gets through, though all trouble is over")
        provider.pool.disconnect()
        self.world.wake_director()

    def _session(self, process: Actor, provider: StoreProvider) -> _Session:
        return _Session(self, process, provider, self.strategy[1].get("max_age", 0.0))
