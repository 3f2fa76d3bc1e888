"""A refused commit is undone where it was made: a conflict costs what has changed, not what the database weighs."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from pony.orm import CommitException, db_session

from temaki.errors import ConflictError
from temaki.formats.pages.names import key_of
from temaki.orm.cause import cause_of
from temaki.replica import generation
from temaki.replica.generation import Generation
from temaki.stores.memory import MemoryStore
from temaki.testing.strategies import KEY, Client
from temaki_strategies import EtagCached
from tests.threads import Background, in_thread
from tests.unit.test_pages_cycle import limits
from tests.unit.test_pages_format import Bench


@pytest.fixture(autouse=True)
def pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """New databases are made in pages, and nobody folds meanwhile."""
    monkeypatch.setenv("TEMAKI_FORMAT", "pages")
    monkeypatch.setenv("TEMAKI_COMPACT", "manual")


@pytest.fixture
def bench() -> Bench:
    """A counter of 0 beside 300 KB."""
    return Bench()


def refused(bench: Bench, *statements: str, by: Callable[[], object] | None = None) -> None:
    """Let another process come first, between our local COMMIT and our upload."""
    bench.hooked.before["put"] = [lambda: in_thread(by or bench.other.increment)]

    @db_session
    def change() -> None:
        for statement in statements:
            bench.ours.db.execute(statement)

    with pytest.raises(CommitException) as caught:
        change()
    assert isinstance(cause_of(caught.value), ConflictError)
    assert not bench.hooked.before["put"]


def win(bench: Bench, commits: int) -> None:
    """Commit once, for certain, and some times more."""
    bench.other.increment()
    bench.scribble(bench.other, commits)


def contents(client: Client) -> tuple[list[Any], list[Any], str]:
    """All rows, and what SQLite thinks of the file."""
    with db_session:
        rows = client.db.select("* FROM filler ORDER BY id")
        (verdict,) = client.db.select("* FROM pragma_integrity_check")
        return rows, client.db.select("value FROM counter"), verdict


def require_equal(bench: Bench) -> None:
    """Ours, another's, and a new process's, which pulls everything."""
    ours = contents(bench.ours)
    assert ours[2] == "ok"
    assert ours == contents(bench.other) == contents(Client(bench.bucket, EtagCached()).map())


class TestRefused:
    """The working copy stays, at the version that the store has accepted."""

    def test_only_the_head_is_fetched(self, bench: Bench) -> None:
        """The next session catches up with the winner, in the same file, and the one after it commits."""
        before = bench.generation
        refused(bench, "UPDATE filler SET body = 'ours' WHERE id BETWEEN 3 AND 40")
        bench.counting.reset()
        assert bench.ours.value() == 1
        assert [request for request in bench.requests() if request != "get .lease"] == ["get"]
        assert bench.generation is before
        require_equal(bench)
        assert bench.ours.increment() == 2
        require_equal(bench)

    def test_the_store_is_asked(self, bench: Bench) -> None:
        """Also where ``max_age`` lets a session skip the question: the store has just said that there is more."""
        client = Client(bench.counting, EtagCached(max_age=3600)).map()
        assert client.value() == 0
        bench.hooked.before["put"] = [lambda: in_thread(bench.other.increment)]
        with pytest.raises(CommitException):
            client.increment(retry=0)
        assert client.value() == 1

    @pytest.mark.parametrize(
        "statements",
        [
            ["DELETE FROM filler WHERE id > 100"],
            ["INSERT INTO filler SELECT id + 5000, hex(randomblob(300)) FROM filler"],
            ["DELETE FROM filler", "INSERT INTO filler VALUES (1, 'alone')"],
            ["UPDATE counter SET value = -1", "UPDATE filler SET body = body || 'x' WHERE id % 7 = 0"],
        ],
        ids=["freed", "grown", "nearly empty", "changed"],
    )
    def test_whatever_it_did(self, bench: Bench, statements: list[str]) -> None:
        """Pages come back that it has freed, and go that it has added."""
        before = bench.generation
        refused(bench, *statements)
        assert bench.generation is before
        require_equal(bench)

    def test_a_file_that_shrank(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Pages that were cut off come back."""
        connect = sqlite3.connect

        def with_auto_vacuum(*arguments: Any, **options: Any) -> Any:
            connection = connect(*arguments, **options)
            connection.execute("PRAGMA auto_vacuum = FULL").close()
            return connection

        with monkeypatch.context() as patch:
            patch.setattr(sqlite3, "connect", with_auto_vacuum)
            bench = Bench(MemoryStore())
        count = bench.head().page_count
        before = bench.generation
        refused(bench, "DELETE FROM filler WHERE id > 20")
        assert bench.generation is before
        require_equal(bench)
        with db_session:
            bench.ours.db.execute("DELETE FROM filler WHERE id > 20")
        assert bench.head().page_count < count, "the file is one that shrinks"
        require_equal(bench)

    def test_a_session_keeps_its_snapshot(self, bench: Bench) -> None:
        """One that began before the commit, and one of another thread that begins after it."""
        with db_session:
            rows = bench.ours.db.select("* FROM filler")
            in_thread(lambda: refused(bench, "UPDATE filler SET body = 'ours'"))
            assert bench.ours.db.select("* FROM filler") == rows
            assert in_thread(bench.ours.value) == 1
            assert bench.ours.db.select("* FROM filler") == rows
        require_equal(bench)

    def test_again_and_again(self, bench: Bench) -> None:
        """With sessions that hold up the checkpoint, so that the WAL has all of it."""
        before = bench.generation
        with db_session:
            value = bench.ours.value()
            for number in range(5):
                in_thread(lambda: refused(bench, "UPDATE filler SET body = 'ours' WHERE id < 90"))
                in_thread(lambda: bench.scribble(bench.ours, 2))
                assert in_thread(bench.ours.value) == number + 1
            assert bench.ours.Counter[1].value == value
        assert bench.generation is before
        require_equal(bench)

    def test_a_spill(self, bench: Bench) -> None:
        """A transaction that is larger than SQLite's cache has left frames in the WAL that are nobody's."""
        with db_session:
            bench.ours.db.execute("PRAGMA cache_size = 10")
            bench.ours.db.execute("SAVEPOINT s")
        before = bench.generation
        refused(
            bench,
            "PRAGMA cache_size = 10",
            "UPDATE filler SET body = hex(randomblob(90))",
            "UPDATE filler SET body = 'ours' WHERE id < 300",
        )
        assert bench.generation is before
        require_equal(bench)


class TestAbandoned:
    """Where undoing is not right or not worth it, the working copy is pulled anew, as ever."""

    def test_another_schema(self, bench: Bench) -> None:
        """A connection would take the next schema for the refused one: both have the same number."""
        before = bench.generation

        def their_table() -> None:
            with db_session:
                bench.other.db.execute("CREATE TABLE theirs (b TEXT, a TEXT)")

        refused(bench, "CREATE TABLE ours (a TEXT)", by=their_table)
        assert bench.generation is not before
        with db_session:
            assert bench.ours.db.select("name FROM sqlite_master WHERE name IN ('ours', 'theirs')") == ["theirs"]
            bench.ours.db.execute("INSERT INTO theirs VALUES ('b', 'a')")
        require_equal(bench)

    def test_a_large_transaction(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its pages would be in memory."""
        monkeypatch.setattr(generation, "MOST_TAKEN_BACK", 40_000)
        before = bench.generation
        refused(bench, "UPDATE filler SET body = 'ours'")
        assert bench.generation is not before
        require_equal(bench)

    def test_a_damaged_working_copy(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whatever goes wrong with it."""

        def fail(*_: Any) -> bool:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Generation, "_append", fail)
        before = bench.generation
        refused(bench, "UPDATE filler SET body = 'ours' WHERE id = 3")
        monkeypatch.undo()
        assert bench.generation is not before
        require_equal(bench)

    def test_an_unknown_outcome(self, bench: Bench) -> None:
        """The store may have the commit."""
        before = bench.generation

        def lost(request: Callable[[], Any]) -> Any:
            request()
            raise KeyboardInterrupt

        bench.hooked.around["put"] = [lost]
        with pytest.raises(BaseException), db_session:  # noqa: B017, PT011 - what it is, is shown elsewhere
            bench.ours.db.execute("UPDATE filler SET body = 'ours' WHERE id = 3")
        assert bench.generation is not before
        require_equal(bench)


@pytest.mark.parametrize("seed", range(12))
def test_two_processes_at_random(seed: int) -> None:
    """Whatever two processes do to each other, both read what the store holds, and SQLite finds nothing wrong."""
    rng = random.Random(seed)
    with limits(TAIL_LIMIT=12 << 10, TAIL_KEEP=3 << 10):
        bench = Bench()
        undone = 0
        for _ in range(25):
            size, part, first = rng.randrange(200), rng.randrange(40), rng.randrange(3000)
            statement = rng.choice(
                [
                    f"UPDATE filler SET body = hex(randomblob({size})) WHERE id % 40 = {part}",
                    f"DELETE FROM filler WHERE id % 40 = {part}",
                    f"INSERT OR REPLACE INTO filler SELECT id + {first}, hex(randomblob({size})) FROM filler "  # noqa: ISC004
                    f"WHERE id % 9 = {part % 9}",
                ]
            )
            before = bench.generation
            if rng.random() < 0.5:
                with db_session:
                    bench.ours.db.execute(statement)
                continue
            reader = Background(lambda: contents(bench.ours)) if rng.random() < 0.3 else None
            refused(
                bench,
                statement,
                "UPDATE counter SET value = -1",
                by=partial(win, bench, rng.randrange(3)),
            )
            undone += bench.generation is before
            if reader is not None:
                assert reader.result()[2] == "ok"
            if rng.random() < 0.5:
                require_equal(bench)
        require_equal(bench)
        assert undone > 5
        assert [*bench.bucket.list(key_of(KEY, "base"))]
