"""``generate_mapping`` on a database in a store: it creates what is missing, in one upload, and only then writes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from pony.orm import Optional, PrimaryKey, Required, Set, composite_index, db_session, select
from pony.orm.core import OperationalError

from temaki import Database, NotFoundError, StoreUnavailableError
from temaki.testing.counting import CountingStore
from temaki.testing.strategies import KEY
from temaki.testing.threads import in_parallel
from tests.hooked import Gate, HookedStore, failing
from tests.threads import Background, in_thread


def persons(db: Any) -> None:
    """The first version of a program."""

    class Person(db.Entity):
        name = Required(str)


def persons_with_index(db: Any) -> None:
    """Later, it looks for names."""

    class Person(db.Entity):
        id = PrimaryKey(int, auto=True)
        name = Required(str, index=True)


def persons_and_cars(db: Any) -> None:
    """Later, it has more tables, one of them for a relationship."""

    class Person(db.Entity):
        name = Required(str)
        cars = Set("Car")

    class Car(db.Entity):
        make = Required(str)
        model = Optional(str)
        owners = Set(Person)
        composite_index(make, model)


def persons_with_age(db: Any) -> None:
    """Later, it needs a column that nobody has added."""

    class Person(db.Entity):
        name = Required(str)
        age = Required(int)


def bind(entities: Callable[[Any], None], store: Any) -> Database:
    """A process with these entities."""
    db = Database()
    entities(db)
    db.bind_s3(f"memory://mapping-{uuid4().hex}/{KEY}", store=store, timeout=0.01)
    return db


def existing(store: Any) -> None:
    """The first version has been there, and left a row."""
    db = bind(persons, store)
    db.generate_mapping(create_tables=True)
    with db_session:
        db.Person(name="Ann")


def count(db: Any) -> int:
    """How many persons."""
    with db_session:
        return int(select(p for p in db.Person).count())


def test_new_database_is_one_upload(counting: CountingStore) -> None:
    """All tables, indexes and relationships."""
    db = bind(persons_and_cars, counting)
    db.generate_mapping(create_tables=True)
    assert counting.count("put") == counting.count("put", "ok") == 1
    with db_session:
        db.Car(make="Saab", owners=[db.Person(name="Ann")])
    assert count(db) == 1


@pytest.mark.parametrize("entities", [persons_with_index, persons_and_cars])
def test_what_is_missing_is_one_upload(counting: CountingStore, entities: Callable[[Any], None]) -> None:
    """An index, or tables, in an existing database: its rows stay, and the next start writes nothing."""
    existing(counting)
    counting.reset()
    db = bind(entities, counting)
    db.generate_mapping(create_tables=True)
    assert counting.count("put") == 1
    assert count(db) == 1
    with db_session:
        found = db.select("SELECT count(*) FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'")
    counting.reset()
    again = bind(entities, counting)
    again.generate_mapping(create_tables=True)
    assert counting.count("put") == 0
    with db_session:
        assert again.select("SELECT count(*) FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'") == found
    assert found[0] > 1


def test_complete_database_keeps_no_writer_waiting(counting: CountingStore) -> None:
    """It only reads: another thread may be in the middle of a write transaction."""
    existing(counting)
    url = f"memory://mapping-{uuid4().hex}/{KEY}"
    writer, starter = Database(), Database()
    for db in (writer, starter):
        persons(db)
        db.bind_s3(url, store=counting)
    writer.generate_mapping()
    counting.reset()
    with db_session:
        writer.Person(name="Bob")
        writer.flush()
        in_thread(lambda: starter.generate_mapping(create_tables=True))
        assert counting.count("put") == 0
    assert count(starter) == 2


def test_without_create_tables_nothing_is_written(counting: CountingStore) -> None:
    """Where there is no database, the error says how to make one, and none is made."""
    for _ in range(2):
        db = bind(persons, counting)
        with pytest.raises(NotFoundError, match=r"no database at memory://mapping-.*create_tables=True"):
            db.generate_mapping()
    assert counting.count("put") == 0
    existing(counting)
    counting.reset()
    bind(persons, counting).generate_mapping()
    assert counting.count("put") == 0


@pytest.mark.parametrize(
    ("entities", "error", "message"),
    [
        (persons_and_cars, OperationalError, "no such table: Car"),
        (persons_with_age, OperationalError, r"no such column: .*age"),
    ],
)
def test_check_of_tables_is_ponys(
    counting: CountingStore, entities: Callable[[Any], None], error: type[Exception], message: str
) -> None:
    """A missing table or column is Pony's error, in Pony's words; ``check_tables=False`` does not look."""
    existing(counting)
    counting.reset()
    with pytest.raises(error, match=message):
        bind(entities, counting).generate_mapping()
    bind(entities, counting).generate_mapping(check_tables=False)
    assert counting.count("put") == 0


def test_missing_column_is_not_created(counting: CountingStore) -> None:
    """Pony does not migrate, and says so also with ``create_tables=True``; nothing is uploaded."""
    existing(counting)
    counting.reset()
    with pytest.raises(OperationalError, match="no such column"):
        bind(persons_with_age, counting).generate_mapping(create_tables=True)
    assert counting.count("put") == 0


def test_first_starts_at_once(store: HookedStore) -> None:
    """One creates the database, the others find it complete; all of them work, and nothing is created twice."""
    databases = [bind(persons_and_cars, store) for _ in range(4)]
    in_parallel([partial(db.generate_mapping, create_tables=True) for db in databases])
    for db in databases:
        with db_session(retry=0):
            db.Person(name="new")
    assert [count(db) for db in databases] == [4] * 4
    assert store.head(KEY).metadata["temaki-seq"] == "5"


def test_slow_first_start_finds_what_a_faster_one_made(store: HookedStore) -> None:
    """Also where the other program has other tables: it adds its own."""
    uploading = Gate()
    slow_store = HookedStore(store)
    slow_store.before["put"] = [uploading]
    slow = bind(persons_and_cars, slow_store)
    starting = Background(lambda: slow.generate_mapping(create_tables=True))
    uploading.wait()
    existing(store)
    uploading.open()
    starting.result()
    assert count(slow) == 1
    with db_session:
        assert select(c for c in slow.Car).count() == 0


def test_failed_creation_is_temakis_error(store: HookedStore) -> None:
    """Not wrapped by Pony: there is no session of the user's that could be run again. Nothing is stored."""
    store.before["put"] = [failing(StoreUnavailableError("down", url=KEY, ambiguous=False))] * 2
    with pytest.raises(StoreUnavailableError, match="down"):
        bind(persons, store).generate_mapping(create_tables=True)
    with pytest.raises(NotFoundError):
        store.head(KEY)
    bind(persons, store).generate_mapping(create_tables=True)
    assert store.head(KEY).size


def test_unreachable_store_is_not_an_empty_database(store: HookedStore) -> None:
    """No table is created on the strength of a failed request."""
    existing(store)
    etag = store.head(KEY).etag
    store.before["get"] = [failing(StoreUnavailableError("down", url=KEY))] * 2
    with pytest.raises(StoreUnavailableError, match="down"):
        bind(persons_and_cars, store).generate_mapping(create_tables=True)
    assert store.head(KEY).etag == etag
