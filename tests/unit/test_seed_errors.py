"""What is wrong with rows is said with entity, row, column and value; and nothing of them is stored."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pony.orm import IntArray, Json, Optional, PrimaryKey, Required, Set

from temaki import Database, Seeded, SeedError
from tests.seeds import everything, mapped, roles

GOOD = {"id": 1, "label": "admin"}


def define_with(rows: Any, /, **settings: Any) -> Callable[[Any], None]:
    """An entity with something of each."""

    def define(db: Any) -> None:
        class Item(db.Entity, Seeded):
            id = PrimaryKey(int)
            label = Required(str, 10, unique=True)
            day = Optional(date)
            count = Optional(int, min=1)
            even = Optional(int, py_check=lambda value: value % 2 == 0)
            doc = Optional(Json)
            ints = Optional(IntArray)
            place = Optional("Place")
            tags = Set("Tag")
            owned = Set("Owned")
            passport = Optional("Passport")

        for name, value in {"rows": rows, **settings}.items():
            setattr(Item, name, value)

        class Place(db.Entity):
            a = Required(int)
            b = Required(str)
            PrimaryKey(a, b)
            items = Set(Item)

        class Tag(db.Entity):
            items = Set(Item)

        class Owned(db.Entity):
            item = Required(Item)

        class Passport(db.Entity):
            item = Required(Item)

    return define


@pytest.mark.parametrize(
    ("row", "column", "message"),
    [
        ({"id": 2, "lable": "x"}, "lable", "no such attribute. Did you mean 'label'?"),
        ({"id": 2}, "label", "a value is required, but the row names none"),
        ({"id": 2, "label": None}, "label", "a value is required"),
        ({"id": 2, "label": " "}, "label", "a value is required"),
        ({"id": 2, "label": 7}, "label", "must be str"),
        ({"id": 2, "label": "x" * 11}, "label", "too long"),
        ({"id": "two", "label": "b"}, "id", "must be int"),
        ({"id": None, "label": "b"}, "id", "a value is required"),
        ({"label": "b"}, "id", "cannot be recognised"),
        ({"id": 2, "label": "b", "day": "soon"}, "day", "date"),
        ({"id": 2, "label": "b", "count": -1}, "count", "less than the minimum"),
        ({"id": 2, "label": "b", "even": 3}, "even", "Check for attribute"),
        ({"id": 2, "label": "b", "doc": {"a": object()}}, "doc", "not JSON serializable"),
        ({"id": 2, "label": "b", "ints": ["a"]}, "ints", "Cannot store str item"),
        ({"id": 1, "label": "b"}, "id", "it has the key of row 1"),
        ({"id": "1", "label": "b", "count": 1}, "id", "it has the key of row 1"),
        ({"id": 2, "label": "admin "}, "label", "label is unique, and row 1 has the same"),
        ({"id": 2, "label": "b", "place": (1, "x")}, "place", "there is no Place with this primary key"),
        ({"id": 2, "label": "b", "place": 1}, "place", "has 2 values, this has 1"),
        ({"id": 2, "label": "b", "tags": [1]}, "tags", "there is no Tag with this primary key"),
        ({"id": 2, "label": "b", "tags": 1}, "tags", "a list of primary keys of Tag"),
        ({"id": 2, "label": "b", "tags": [None]}, "tags", "has no None"),
        ({"id": 2, "label": "b", "owned": [1]}, "owned", "Name 'item' in the rows of Owned"),
        ({"id": 2, "label": "b", "passport": 1}, "passport", "Name 'item' in the rows of Passport"),
        ({"id": 2**70, "label": "b"}, "id", "greater than the maximum"),
    ],
)
def test_wrong_row(row: dict[str, Any], column: str, message: str) -> None:
    """The second row is; the error has it as attributes, and survives pickle where the value does."""
    db = Database()
    define_with([GOOD, row])(db)
    db.bind("sqlite", ":memory:")
    with pytest.raises(SeedError) as caught:
        db.generate_mapping(create_tables=True)
    error = caught.value
    assert message in str(error)
    assert (error.entity, error.row, error.column) == ("Item", 2, column)
    if column in row:
        assert error.value == row[column] or message.startswith(("there is no Tag", "it has the key"))
    if column != "doc":
        again = pickle.loads(pickle.dumps(error))
        assert (str(again), again.row, again.value) == (str(error), 2, error.value)
    connection = db.provider.pool.con
    assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,), "nothing is half applied"


def test_missing_column_in_the_first_row() -> None:
    """Rows of several shapes are numbered as they are listed."""
    with pytest.raises(SeedError, match="Rows of Item, row 1, label"):
        mapped(define_with([{"id": 1}, {"id": 2, "label": "b"}]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rows": [("id", 1)]}, "row 1: it is tuple; a row is a dict"),
        ({"rows": 7}, "rows gave int; it must be a list of dicts"),
        ({"rows": {"id": 1}}, "rows gave dict"),
        ({"get_rows": classmethod(lambda cls: None), "rows": None}, "Item has rows and get_rows"),
        ({"seed_policy": "replace"}, "'replace'. It can be 'upsert', 'insert', 'mirror'"),
        ({"seed_key": "lable"}, "seed_key names it, but there is no such attribute"),
        ({"seed_key": "day"}, "not unique. Add unique=True, or composite_key\\(day\\)"),
        ({"rows": [{"id": 1, "label": "b"}], "seed_key": ("label",), "rows_from": "x.csv"}, "rows and rows_from"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], message: str) -> None:
    """What an entity says about its rows can be wrong as well."""
    with pytest.raises(SeedError, match=message):
        mapped(define_with([GOOD], **settings))


def test_get_rows_may_return_nothing_useful() -> None:
    """The error names entity and source; what ``get_rows`` raised, at once or while it yields, is its cause."""
    with pytest.raises(SeedError, match="get_rows gave NoneType"):
        mapped(roles(None, get_rows=classmethod(lambda cls: None)))

    def down(cls: Any) -> Any:
        raise ConnectionError("the API is down")

    def down_later(cls: Any) -> Any:
        yield GOOD
        raise ConnectionError("the API is down")

    for get_rows in (down, down_later):
        expected = "Rows of Role: get_rows raised ConnectionError: the API is down.*allow_stale_seeds"
        with pytest.raises(SeedError, match=expected) as caught:
            mapped(roles(None, get_rows=classmethod(get_rows)))
        assert isinstance(caught.value.__cause__, ConnectionError)
        assert caught.value.entity == "Role"


def test_the_database_refuses_a_row(tmp_path: Path) -> None:
    """What only the database can know: a unique value that a row not listed has. The row is found, and named."""

    def file(db: Any) -> None:
        db.bind("sqlite", str(tmp_path / "app.sqlite"), create_db=True)

    before = everything(mapped(roles([GOOD]), file))
    rows = [{"id": number, "label": "admin" if number == 7 else f"{number}"} for number in range(2, 10)]
    with pytest.raises(
        SeedError, match=r"row 6: the database refuses it: UNIQUE constraint failed: Role\.label"
    ) as caught:
        mapped(roles(rows), file)
    assert caught.value.row == 6
    assert everything(mapped(roles([GOOD]), file)) == before


def test_a_row_does_not_change_its_class() -> None:
    """Entities that inherit share a table and a key."""

    def define(animals: Any, dogs: Any) -> Callable[[Any], None]:
        def of(db: Any) -> None:
            class Animal(db.Entity, Seeded):
                id = PrimaryKey(int)

            class Dog(Animal):
                pass

            Animal.rows, Dog.rows = animals, dogs

        return of

    with pytest.raises(SeedError, match="there is a row with this key already, and it is a Animal"):
        mapped(define([{"id": 1}], [{"id": 1}]))


def test_links_within_a_hierarchy() -> None:
    """A required link of a sub-entity is required, although its column may be NULL; and it leads to its own class."""

    def define(cats: Any) -> Callable[[Any], None]:
        def of(db: Any) -> None:
            class Animal(db.Entity, Seeded):
                id = PrimaryKey(int)
                rows = [{"id": 1}]  # noqa: RUF012

            class Dog(Animal):
                cats = Set("Cat")
                rows = [{"id": 2}]  # noqa: RUF012

            class Cat(Animal):
                friend = Required(Dog)
                rows = cats

        return of

    assert everything(mapped(define([{"id": 3, "friend": 2}])), "Animal")[-1] == (3, "Cat", 2)
    with pytest.raises(SeedError, match="row 1, friend=None: a value is required"):
        mapped(define([{"id": 3, "friend": None}]))
    for other in (1, 3):
        with pytest.raises(SeedError, match=f"row 1, friend={other}: there is no Dog with this primary key"):
            mapped(define([{"id": 3, "friend": other}]))


def test_a_cycle_of_required_links_is_refused() -> None:
    """The explanation follows the links."""

    def define(db: Any) -> None:
        class Zero(db.Entity, Seeded):
            id = PrimaryKey(int)
            a = Required("A")
            rows = [{"id": 1, "a": 1}]  # noqa: RUF012

        class A(db.Entity, Seeded):
            id = PrimaryKey(int)
            b = Required("B", reverse="as_")
            bs = Set("B", reverse="a")
            zeros = Set(Zero)
            rows = [{"id": 1, "b": 1}]  # noqa: RUF012

        class B(db.Entity, Seeded):
            id = PrimaryKey(int)
            a = Required(A, reverse="bs")
            as_ = Set(A, reverse="b")
            rows = [{"id": 1, "a": 1}]  # noqa: RUF012

    with pytest.raises(SeedError, match=r"A\.b -> B\.a -> A\. Make one of these attributes Optional"):
        mapped(define)
