"""``temaki_bind``: one Database, another store for each test, whatever it was bound to before."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from pony.orm import Database as PlainDatabase
from pony.orm import PrimaryKey, Required, db_session, select

from temaki import ConfigurationError, Database, Seeded
from temaki.orm.binding import mapping_of
from temaki.stores.memory import MemoryStore
from temaki.testing import Binder


def _entity(db: PlainDatabase) -> Any:
    class Note(db.Entity):
        text = Required(str)

    return Note


def _write_and_count(note: Any) -> int:
    with db_session:
        note(text="x")
    with db_session:
        return int(note.select().count())


@pytest.mark.parametrize("kind", [Database, PlainDatabase])
def test_each_binder_starts_with_nothing(kind: Any) -> None:
    """The same database, mapped once, in one store after the other; in between it is bound to nothing."""
    db = kind()
    note = _entity(db)
    for _ in range(3):
        binder = Binder(MemoryStore())
        binder(db)
        assert _write_and_count(note) == 1
        binder.unbind()
        assert db.provider is None
        assert mapping_of(db).provider is None


def test_binding_again_is_a_new_start_on_the_same_store(temaki_bind: Binder, temaki_store: MemoryStore) -> None:
    """As another process would: what was stored is there."""
    db = Database()
    note = _entity(db)
    assert temaki_bind(db) is temaki_store
    first = db.provider
    assert _write_and_count(note) == 1
    temaki_bind(db)
    assert db.provider is not first
    assert _write_and_count(note) == 2
    assert db.sync.snapshot().pulls == 1


@pytest.mark.parametrize("mapped", [False, True])
def test_what_it_was_bound_to_comes_back(mapped: bool) -> None:
    """An application that was started already goes on where it was."""
    db = Database()
    note = _entity(db)
    db.bind("sqlite", ":memory:")
    if mapped:
        db.generate_mapping(create_tables=True)
        assert _write_and_count(note) == 1
    before = db.provider
    binder = Binder(MemoryStore())
    binder(db)
    assert _write_and_count(note) == 1
    binder.unbind()
    assert (db.provider, db.provider_name) == (before, "sqlite")
    if mapped:
        assert _write_and_count(note) == 2


def test_two_databases_in_one_store(temaki_bind: Binder, temaki_store: MemoryStore) -> None:
    """Each under its key, with its own strategy."""
    first, second = Database(), PlainDatabase()
    notes = [_entity(first), _entity(second)]
    temaki_bind(first)
    temaki_bind(second, key="other.sqlite", strategy="lease-locked", ttl=5.0)
    assert [_write_and_count(note) for note in notes] == [1, 1]
    assert [info.key for info in temaki_store.list()] == ["app.sqlite", "other.sqlite", "other.sqlite.lease"]


def test_what_is_configured_for_the_application_is_not_for_its_tests(
    temaki_bind: Binder, temaki_store: MemoryStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """Neither its URL, nor its strategy, nor its cache folder."""
    monkeypatch.setenv("TEMAKI_URL", "s3://production/app.sqlite")
    monkeypatch.setenv("TEMAKI_STRATEGY", "read-only")
    monkeypatch.setenv("TEMAKI_CACHE_DIR", str(tmp_path))
    db = Database()
    note = _entity(db)
    temaki_bind(db)
    assert _write_and_count(note) == 1
    assert list(tmp_path.iterdir()) == []
    assert [info.key for info in temaki_store.list()] == ["app.sqlite"]


def test_not_in_a_session(temaki_bind: Binder) -> None:
    """A session in which the database would change under it is refused."""
    with db_session, pytest.raises(ConfigurationError, match="inside of a db_session"):
        temaki_bind(Database())


def test_without_tables(temaki_bind: Binder, temaki_store: MemoryStore) -> None:
    """A test of a first start makes them itself."""
    db = Database()
    _entity(db)
    temaki_bind(db, create_tables=False)
    assert list(temaki_store.list()) == []


def _country(db: Any) -> Any:
    class Country(db.Entity, Seeded):
        code = PrimaryKey(str)
        rows: ClassVar[list[dict[str, str]]] = [{"code": "DE"}, {"code": "FR"}]

        @classmethod
        def testing_rows(cls) -> list[dict[str, str]]:
            return [{"code": "XX"}]

    return Country


_seeded = Database()
_Country = _country(_seeded)


def _codes() -> set[str]:
    with db_session:
        return set(select(country.code for country in _Country))


def test_rows_come_with_each_binding(temaki_bind: Binder) -> None:
    """The first time that the entities are mapped, and in each store after that."""
    for _ in range(2):
        temaki_bind(_seeded)
        assert _codes() == {"DE", "FR"}
        temaki_bind.unbind()
        temaki_bind.store = MemoryStore()


@pytest.mark.usefixtures("testing_rows")
def test_testing_rows(temaki_bind: Binder) -> None:
    """A test that asks for them has those, although the entities may have been mapped with their own."""
    temaki_bind(_seeded)
    assert _codes() == {"XX"}
