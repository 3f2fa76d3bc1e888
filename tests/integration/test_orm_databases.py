"""Several databases in one process: in two places, in one place twice, plain Pony ones, and their handlers."""
# ruff: noqa: PT012 - what a session raises, it raises at its end: the block is all of it

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any
from uuid import uuid4

import pony.orm
import pytest
from pony.orm import CommitException, PrimaryKey, Required, commit, db_session, flush, select
from pony.orm.core import PartialCommitException

import temaki
from temaki import (
    AccessDeniedError,
    ConfigurationError,
    ConflictError,
    Database,
    ReadOnlyError,
    cause_of,
)
from temaki.stores.memory import MemoryStore
from temaki.strategy import Strategy
from temaki.testing.counting import CountingStore
from temaki.testing.strategies import KEY
from temaki_strategies import EtagCached, ReadOnly
from tests.hooked import HookedStore, failing
from tests.threads import in_thread


@pytest.fixture
def url() -> str:
    """A place of its own for each test."""
    return f"memory://databases-{uuid4().hex}/{KEY}"


def define(db: pony.orm.Database) -> Any:
    """One counter; the entity."""

    class Counter(db.Entity):
        id = PrimaryKey(int)
        value = Required(int)

    return Counter


def make(url: str, *, strategy: Strategy | str | None = None, create: bool = True, **options: Any) -> Any:
    """A database that is bound and mapped, and has a counter at 0; its entity."""
    db = Database()
    counter = define(db)
    db.bind_s3(url, strategy=strategy, **options)
    db.generate_mapping(create_tables=create)
    if create:
        with db_session:
            if not counter.get(id=1):
                counter(id=1, value=0)
    return counter


def value(counter: Any) -> int:
    """As a session of its own sees it."""
    with db_session:
        found: int = counter[1].value
        return found


class TestTwoPlaces:
    """One session writes to two databases. There is no transaction over both, and Pony says so."""

    def test_both_are_stored(self, url: str) -> None:
        """Each with a commit of its own."""
        one, two = make(url), make(url.replace(KEY, "two.sqlite"))
        with db_session:
            one[1].value = 1
            two[1].value = 2
        assert (value(one), value(two)) == (1, 2)

    def test_failure_of_the_second_is_partial(self, url: str) -> None:
        """``PartialCommitException``: the first is stored, the second is not; ``cause_of`` gives the reason."""
        store = HookedStore(MemoryStore(), "two.sqlite")
        one, two = make(url), make(url.replace(KEY, "two.sqlite"), store=store)
        two._database_.priority = -1
        store.before["put"] = [failing(AccessDeniedError("no", url="two.sqlite"))]
        with pytest.raises(PartialCommitException) as caught, db_session:
            one[1].value = 1
            two[1].value = 2
        assert isinstance(cause_of(caught.value), AccessDeniedError)
        assert (value(one), value(two)) == (1, 0)

    @pytest.mark.parametrize("stored_first", [True, False])
    def test_priority_decides_who_is_first(self, url: str, stored_first: bool) -> None:
        """With ``db.priority = 1`` the stored database commits first: where it fails, the local one is not changed."""
        store = HookedStore(MemoryStore())
        stored = make(url, store=store)
        local_db = Database()
        local = define(local_db)
        local_db.bind("sqlite", ":sharedmemory:")
        local_db.generate_mapping(create_tables=True)
        with db_session:
            local(id=1, value=0)
        stored._database_.priority = 1 if stored_first else -1
        store.before["put"] = [failing(AccessDeniedError("no", url=url))]
        with pytest.raises(CommitException if stored_first else PartialCommitException), db_session:
            local[1].value = 1
            stored[1].value = 1
        assert (value(local), value(stored)) == (0 if stored_first else 1, 0)


class TestOnePlaceTwice:
    """One URL has one working copy in a process, however many databases are bound to it."""

    def test_each_has_its_own_strategy(self, url: str) -> None:
        """A reader and a writer share a working copy: what one commits, the other need not download."""
        counting = CountingStore(MemoryStore())
        writer = make(url, store=counting)
        reader = make(url, store=counting, strategy=ReadOnly(), create=False)
        assert value(reader) == 0
        counting.reset()
        with db_session:
            writer[1].value = 5
        assert value(reader) == 5
        assert (counting.bytes_down, counting.count("get", "ok")) == (0, 0)
        with pytest.raises(ReadOnlyError), db_session:
            reader[1].value = 6
        assert value(writer) == 5

    def test_two_writers_see_each_other(self, url: str) -> None:
        """In turn, also from other threads."""
        one, two = make(url), make(url)
        for expected in (1, 3, 5):
            with db_session:
                one[1].value += 1
            assert in_thread(lambda: value(two)) == expected
            with db_session:
                two[1].value += 1
            assert value(one) == expected + 1

    def test_one_thread_writing_through_both_is_an_error(self, url: str) -> None:
        """Not a wait for ever: the message says what to do, and nothing is stored; then everything works."""
        one, two = make(url), make(url)
        with (
            pytest.raises(ConfigurationError, match=r"already writing to memory://.*Use one Database per URL"),
            db_session,
        ):
            one[1].value = 1
            flush()
            two[1].value = 2
            flush()
        assert (value(one), value(two)) == (0, 0)
        with db_session:
            two[1].value = 2
        assert value(one) == 2

    def test_one_thread_may_read_through_the_other(self, url: str) -> None:
        """It sees what is stored, and not what this very session has yet to commit."""
        one, two = make(url), make(url)
        with db_session:
            one[1].value = 1
            flush()
            assert two[1].value == 0
        assert value(two) == 1

    def test_another_folder_is_an_error(self, url: str, tmp_path: Path) -> None:
        """As is another store; both messages name the URL. The database can be bound rightly then."""
        first = make(url, cache_dir=tmp_path / "one")
        for options, what in (
            ({"cache_dir": tmp_path / "two"}, "cache_dir"),
            ({}, "cache_dir"),
            ({"cache_dir": tmp_path / "one", "store": MemoryStore()}, "another store or client"),
        ):
            db = Database()
            define(db)
            with pytest.raises(ConfigurationError, match=rf"{url} is already bound in this process.*{what}"):
                db.bind_s3(url, **options)
            db.bind_s3(url, cache_dir=tmp_path / "one")
            db.generate_mapping()
        assert value(first) == 0

    def test_forgotten_database_frees_its_place(self, url: str, tmp_path: Path) -> None:
        """What is bound no more is in nobody's way."""
        import gc

        def once(folder: str) -> int:
            return value(make(url, cache_dir=tmp_path / folder))

        assert once("one") == 0
        gc.collect()
        assert once("two") == 0


class TestPlainDatabase:
    """``temaki.bind_s3`` for ``pony.orm.Database``."""

    def test_works_like_temakis(self, url: str) -> None:
        """Tables are created, rows stored, and another database finds them."""
        db = pony.orm.Database()
        counter = define(db)
        temaki.bind_s3(db, url)
        db.generate_mapping(create_tables=True)
        with db_session:
            counter(id=1, value=3)
        assert value(make(url, create=False)) == 3
        assert db.provider_name == "sqlite"

    def test_complete_database_is_not_uploaded(self, url: str) -> None:
        """Pony opens a write transaction for ``create_tables``; without a change it costs no upload."""
        make(url)
        counting = CountingStore(MemoryStore.named(url.split("/")[2]))
        db = pony.orm.Database()
        define(db)
        temaki.bind_s3(db, f"memory://elsewhere-{uuid4().hex}/{KEY}", store=counting)
        db.generate_mapping(create_tables=True)
        assert counting.count("put") == 0
        assert counting.count("get") > 0

    def test_binding_twice(self, url: str) -> None:
        """Is temaki's error, whatever it was bound to before."""
        db = pony.orm.Database()
        temaki.bind_s3(db, url)
        with pytest.raises(ConfigurationError, match=f"already bound, to {url}"):
            temaki.bind_s3(db, url)
        local = pony.orm.Database("sqlite", ":memory:")
        with pytest.raises(ConfigurationError, match="SQLite already"):
            temaki.bind_s3(local, url)


class TestHandlers:
    """``@db.on_connect``."""

    def test_called_once_per_connection(self, url: str) -> None:
        """At a thread's first session, again for a new generation or a thread, and not at bind or between sessions."""
        bucket = MemoryStore()
        called: list[int] = []
        db = Database()
        counter = define(db)

        @db.on_connect(provider="sqlite")  # type: ignore[untyped-decorator, unused-ignore]
        def matching(_db: Any, connection: Any) -> None:
            called.append(threading.get_ident())
            assert connection.execute("SELECT 1").fetchone() == (1,)

        @db.on_connect(provider="postgres")  # type: ignore[untyped-decorator, unused-ignore]
        def other(_db: Any, _connection: Any) -> None:
            called.append(0)

        @db.on_connect  # type: ignore[untyped-decorator, unused-ignore]
        def always(_db: Any, _connection: Any) -> None:
            called.append(-1)

        make(f"memory://creator-{uuid4().hex}/{KEY}", store=bucket)
        db.bind_s3(url, store=bucket)
        assert called == []
        db.generate_mapping()
        me = threading.get_ident()
        for _ in range(3):
            assert value(counter) == 0
            with db_session:
                counter[1].value = 0
                commit()
                assert counter[1].value == 0
        assert called == [me, -1]
        in_thread(lambda: [value(counter) for _ in range(2)])
        assert len(called) == 4
        assert called[2] != me
        elsewhere = make(f"memory://other-{uuid4().hex}/{KEY}", store=bucket)
        with db_session:
            elsewhere[1].value = 7
        assert value(counter) == 7
        assert called[4:] == [me, -1]

    def test_error_leaves_nothing_behind(self, url: str) -> None:
        """The session fails with it, and the next one calls the handler again; no generation stays in use."""
        counter = make(url)
        db = counter._database_
        called: list[Any] = []

        @db.on_connect  # type: ignore[untyped-decorator, unused-ignore]
        def handler(_db: Any, connection: Any) -> None:
            called.append(connection)
            if len(called) < 3:
                raise ZeroDivisionError

        def session() -> int:
            for _ in range(2):
                with pytest.raises(ZeroDivisionError):
                    value(counter)
            users = db.provider.engine._replica.current.users
            return value(counter) + int(users)

        assert in_thread(session) == 0
        assert [connection.closed for connection in called[:2]] == [True, True]
        assert len(called) == 3
        with db_session:
            counter[1].value = 1
        assert value(counter) == 1

    def test_handler_may_read(self, url: str) -> None:
        """Through the connection it is given."""
        counter = make(url)
        with db_session:
            counter[1].value = 42
        seen = []

        @counter._database_.on_connect  # type: ignore[untyped-decorator, unused-ignore]
        def handler(_db: Any, connection: Any) -> None:
            seen.append(connection.execute("SELECT value FROM Counter").fetchone())

        in_thread(lambda: value(counter))
        assert seen == [(42,)]

    def test_what_it_left_half_read_pins_nothing(self, url: str) -> None:
        """The session's snapshot is taken after the handlers, whatever they have open."""
        counter = make(url)
        with db_session:
            counter(id=2, value=0)
        kept: list[Any] = []

        @counter._database_.on_connect  # type: ignore[untyped-decorator, unused-ignore]
        def handler(_db: Any, connection: Any) -> None:
            if not kept:
                kept.append(connection.execute("SELECT value FROM Counter"))
                assert kept[0].fetchone() == (0,)
                in_thread(change)

        def change() -> None:
            with db_session:
                counter[1].value = 5

        assert in_thread(lambda: value(counter)) == 5

    def test_refused_commit_calls_it_again(self, url: str) -> None:
        """Since the thread's connection went with the generation."""
        store = HookedStore(MemoryStore())
        counter = make(url, store=store, strategy=EtagCached())
        called = []

        @counter._database_.on_connect  # type: ignore[untyped-decorator, unused-ignore]
        def handler(_db: Any, _connection: Any) -> None:
            called.append(1)

        store.before["put"] = [failing(ConflictError("no", url=url))]
        with pytest.raises(CommitException), db_session:
            counter[1].value = 1
        assert (value(counter), called) == (0, [1])


def test_entities_of_two_databases_do_not_mix(url: str) -> None:
    """Queries go to the database of their entity."""
    one, two = make(url), make(url.replace(KEY, "two.sqlite"))
    with db_session:
        one(id=2, value=5)
        flush()
        assert select(c for c in one).count() == 2
        assert select(c for c in two).count() == 1
