"""Every kind of session that Pony knows, on a database in a store: what it sees, what it stores, what it costs."""
# ruff: noqa: PT012 - what a session raises, it raises at its end: the block is all of it

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pony.orm import (
    CommitException,
    TransactionError,
    commit,
    db_session,
    flush,
    rollback,
    select,
)

from temaki import ConflictError, cause_of
from temaki.testing.counting import CountingStore
from temaki.testing.strategies import Client
from temaki_strategies import EtagCached
from tests.threads import in_thread


@pytest.fixture
def client(other: Client, counting: CountingStore) -> Client:
    """This process."""
    assert other
    client = Client(counting, EtagCached()).map()
    assert client.value() == 0
    counting.reset()
    return client


def requests(counting: CountingStore) -> list[tuple[str, str]]:
    """What was asked of the store, and with what outcome."""
    return [(call.verb, call.outcome) for call in counting.calls]


READ, WRITE = ("get", "not_modified"), ("put", "ok")


class TestKinds:
    """Of ``db_session``."""

    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"strict": True},
            {"optimistic": False},
            {"immediate": True},
            {"serializable": True},
            {"ddl": True},
            {"sql_debug": False},
        ],
    )
    def test_reading_costs_one_request(self, client: Client, counting: CountingStore, options: dict[str, bool]) -> None:
        """Of whatever kind, and whatever it locks: without a change nothing is uploaded."""
        with db_session(**options):
            assert client.Counter[1].value == 0
        assert requests(counting) == [READ]

    @pytest.mark.parametrize(
        "options",
        [{}, {"strict": True}, {"optimistic": False}, {"immediate": True}, {"serializable": True}, {"ddl": True}],
    )
    def test_writing_costs_one_upload(
        self, client: Client, other: Client, counting: CountingStore, options: dict[str, bool]
    ) -> None:
        """It is there for the next session anywhere."""
        with db_session(**options):
            client.Counter[1].value = 5
            client.Counter(id=2, value=2)
        assert requests(counting) == [READ, WRITE]
        assert other.value() == client.value() == 5

    @pytest.mark.parametrize("kind", ["execute", "select", "get_connection", "for_update", "get_for_update", "count"])
    def test_other_ways_to_read(self, client: Client, counting: CountingStore, kind: str) -> None:
        """Raw SQL and locking reads cost no upload either."""
        counter = client.Counter
        with db_session:
            found = {
                "execute": lambda: client.db.execute("SELECT value FROM Counter").fetchone()[0],
                "select": lambda: client.db.select("SELECT value FROM Counter")[0],
                "get_connection": lambda: client.db.get_connection().execute("SELECT value FROM Counter").fetchone()[0],
                "for_update": lambda: select(c for c in counter).for_update().first().value,
                "get_for_update": lambda: counter.get_for_update(id=1).value,
                "count": lambda: select(c for c in counter).count() - 1,
            }[kind]()
        assert found == 0
        assert requests(counting) == [READ]

    def test_change_that_changes_nothing_costs_no_upload(self, client: Client, counting: CountingStore) -> None:
        """A write that is undone in the same session, and one of the value that is there."""
        with db_session:
            client.Counter[1].value = 0
        with db_session:
            client.Counter[1].value = 1
            rollback()
        assert WRITE not in requests(counting)

    def test_get_for_update_builds_on_what_it_locked(self, client: Client) -> None:
        """With nothing read before, it waits for other writers and never conflicts with them."""
        for expected in (1, 2, 3):
            with db_session:
                counter = client.Counter.get_for_update(id=1)
                counter.value += 1
            assert in_thread(client.value) == expected

    def test_nested_sessions_are_one(self, client: Client, other: Client, counting: CountingStore) -> None:
        """The inner one stores nothing by itself."""

        @db_session  # type: ignore[untyped-decorator, unused-ignore]
        def inner() -> None:
            client.Counter[1].value += 1

        with db_session:
            inner()
            with db_session:
                inner()
            assert in_thread(other.value) == 0
        assert requests(counting) == [READ, WRITE]
        assert other.value() == 2

    def test_failed_session_stores_nothing(self, client: Client, counting: CountingStore) -> None:
        """With raw SQL too; what is allowed to pass is stored."""
        with pytest.raises(ZeroDivisionError), db_session:
            client.db.execute("UPDATE Counter SET value = 9")
            raise ZeroDivisionError
        assert requests(counting) == [READ]
        with pytest.raises(ZeroDivisionError), db_session(allowed_exceptions=[ZeroDivisionError]):
            client.Counter[1].value = 3
            raise ZeroDivisionError
        assert client.value() == 3


class TestSeveralTransactions:
    """In one session."""

    def test_commit_then_read_then_write(self, client: Client, other: Client, counting: CountingStore) -> None:
        """Each ``commit()`` is an upload of its own and stored when it returns; the session pulls once."""
        with db_session:
            for expected in (1, 2, 3):
                client.Counter[1].value += 1
                commit()
                assert in_thread(other.value) == expected
                assert client.Counter[1].value == expected
        assert requests(counting) == [READ, WRITE, WRITE, WRITE]

    def test_commit_then_read_costs_nothing_more(self, client: Client, counting: CountingStore) -> None:
        """Pony begins a second transaction for the read, which changes nothing."""
        with db_session:
            client.Counter[1].value = 4
            commit()
            assert client.db.select("SELECT value FROM Counter") == [4]
        assert requests(counting) == [READ, WRITE]

    def test_rollback_then_read_starts_afresh(self, client: Client, other: Client) -> None:
        """From the current version, since Pony connects again; and it may write there."""
        with db_session:
            client.Counter[1].value = 9
            flush()
            rollback()
            in_thread(other.increment)
            assert client.Counter[1].value == 1
            client.Counter[1].value = 5
        assert other.value() == 5

    def test_refused_commit_then_more(self, client: Client, other: Client) -> None:
        """After a conflict was caught the same session can read the current version, and write."""
        with db_session:
            client.Counter[1].value = 9
            flush()
            in_thread(other.increment)
            with pytest.raises(CommitException) as caught:
                commit()
            assert isinstance(cause_of(caught.value), ConflictError)
            assert client.Counter[1].value == 1
            client.Counter[1].value += 1
        assert other.value() == 2


class TestGenerators:
    """``@db_session`` on a generator: a session that interleaves with others of its thread."""

    def test_keeps_its_own_snapshot(self, client: Client, other: Client) -> None:
        """Between its steps the thread's other sessions read and write, each in a snapshot of its own."""

        @db_session  # type: ignore[untyped-decorator, unused-ignore]
        def values() -> Iterator[int]:
            for _ in range(3):
                yield client.db.select("SELECT value FROM Counter")[0]

        running = values()
        assert next(running) == 0
        other.increment()
        assert client.value() == 1
        assert next(running) == 0
        assert client.increment() == 2
        assert list(running) == [0]
        assert client.value() == other.value() == 2

    def test_stores_what_it_commits(self, client: Client, other: Client) -> None:
        """Each commit is stored before it yields; yielding without one is refused by Pony and stores nothing."""

        @db_session  # type: ignore[untyped-decorator, unused-ignore]
        def increments(*, commits: bool) -> Iterator[int]:
            while True:
                client.Counter[1].value += 1
                flush()
                if commits:
                    commit()
                yield client.Counter[1].value

        running: Any = increments(commits=True)
        for expected in (1, 2, 3):
            assert next(running) == expected
            assert other.value() == expected
        running.close()
        with pytest.raises(TransactionError, match="manually commit"):
            next(increments(commits=False))
        assert other.value() == client.value() == 3

    def test_left_half_way_holds_nothing(self, client: Client, other: Client) -> None:
        """Closed or forgotten, the thread goes on with current values."""

        @db_session  # type: ignore[untyped-decorator, unused-ignore]
        def values() -> Iterator[int]:
            yield client.db.select("SELECT value FROM Counter")[0]
            yield 0

        closed, forgotten = values(), values()
        assert (next(closed), next(forgotten)) == (0, 0)
        closed.close()
        del forgotten
        other.increment()
        assert client.value() == 1
        assert client.increment() == 2


def test_interactive_mode(tmp_path: Path) -> None:
    """Under ``python -c``, where Pony needs no ``db_session``: ``commit()`` stores, ``rollback()`` does not."""
    program = f"""
import pony
from pony.orm import *
import temaki
assert pony.MODE == "INTERACTIVE", pony.MODE
db = temaki.Database()
class Thing(db.Entity):
    name = Required(str)
db.bind_s3("file://{tmp_path}/app.sqlite")
db.generate_mapping(create_tables=True)
Thing(name="one"); commit()
Thing(name="two"); rollback()
with db_session:
    Thing(name="three")
Thing(name="four"); flush()
with db_session:
    Thing(name="five")
print(sorted(select(t.name for t in Thing)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "['five', 'four', 'one', 'three']"
