"""What a session reads is what the rows gave; else nothing is stored, and the error says which value and what to do."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from pony.orm import FloatArray, IntArray, Json, Optional, PrimaryKey, Required, db_session

from temaki import Database, Seeded, SeedError
from tests.seeds import everything, mapped, memory

NAN, INF = float("nan"), float("inf")
UNEVEN = 2**53 + 1  # the first integer that is no float
AWARE = datetime(2025, 3, 30, 2, 30, 0, 5, tzinfo=timezone(timedelta(hours=-3)))


def declared(rows: list[dict[str, Any]], kind: Any, *arguments: Any, key: bool = False, **options: Any) -> Any:
    """A program whose entity declares ``value``; as its unique key, if asked for."""
    settings = {name: options.pop(name) for name in ("seed_policy",) if name in options}

    def define(db: Any) -> None:
        namespace = {
            "id": PrimaryKey(int),
            "value": Optional(kind, *arguments, **options, **({"unique": True} if key else {})),
            "note": Optional(str),
            "rows": rows,
            **settings,
        }
        if key:
            namespace["seed_key"] = "value"
        type(db.Entity)("Item", (db.Entity, Seeded), {"__module__": __name__, **namespace})

    return define


def inferred(value: Any) -> Callable[[Any], None]:
    """A program whose entity is inferred from a row with a key."""
    return lambda db: Seeded.entity(db, "Item", [{"id": 1, "value": value}])


def keyless(value: Any) -> Callable[[Any], None]:
    """A program whose entity is inferred from rows that are recognised by all that they name."""
    return lambda db: Seeded.entity(db, "Item", [{"value": value, "other": 1}, {"value": None, "other": 2}])


LOST = {
    "wide decimal": (Decimal("1234567890123456.78"), Decimal, (18, 2)),
    "precise decimal": (Decimal("0.12345678901234567"), Decimal, (20, 17)),
    "decimal beyond its context": (Decimal("12345678901234567890.123456789012"), Decimal, (40, 12)),
    "aware": (datetime(2026, 1, 10, 12, 34, 56, tzinfo=UTC), datetime, ()),
    "aware with microseconds": (AWARE, datetime, ()),
    "long timedelta": (timedelta(days=9_999_999, microseconds=1), timedelta, ()),
    "nan": (NAN, float, ()),
    "first day": (date(1, 1, 1), date, ()),
    "tuple in json": ({"a": [(1, 2)]}, Json, ()),
    "number as key": ({"a": {1: 2}}, Json, ()),
    "nan in json": ([1.0, NAN], Json, ()),
    "infinity in json": ({"a": -INF}, Json, ()),
    "surrogate": ("a\ud800", str, ()),
    "surrogate in json": ({"a": "\udfff"}, Json, ()),
    "surrogate as key": ({"\ud800": 1}, Json, ()),
    "int beyond 64 bits": (2**63, int, ()),
}


@pytest.mark.parametrize("name", LOST)
@pytest.mark.parametrize("define", [inferred, keyless])
def test_an_inferred_entity_keeps_its_values_or_says_so(define: Any, name: str) -> None:
    """It promises the type of its values: there is nobody else who chose the attribute."""
    value, *_ = LOST[name]
    with pytest.raises(SeedError) as caught:
        mapped(define(value))
    error = caught.value
    assert (error.entity, error.row, error.column) == ("Item", 1, "value")
    assert error.value is value or error.value == value
    assert "Rows of Item, row 1, value=" in str(error)


@pytest.mark.parametrize("name", [name for name in LOST if "decimal" not in name or "context" in name])
def test_a_declared_entity_does_too(name: str) -> None:
    """Where nobody declared what is lost."""
    value, kind, arguments = LOST[name]
    options = {"nullable": True} if kind in {str, Json} else {}
    with pytest.raises(SeedError, match="Rows of Item, row 2, value="):
        mapped(declared([{"id": 1, "value": None}, {"id": 2, "value": value}], kind, *arguments, **options))


@pytest.mark.parametrize(
    ("value", "kind", "options", "advice"),
    [
        (Decimal("1.005"), Decimal, {}, "reads back as Decimal.*scale=2: round the value, or declare a larger one"),
        ("1.005", Decimal, {}, "scale=2"),
        (Decimal("1234567890123456.78"), Decimal, {}, "Give fewer digits, or declare the attribute as str"),
        (AWARE, datetime, {}, r"keeps no time zone. Give UTC without one: value.astimezone\(UTC\)"),
        (NAN, float, {}, "has no NaN, and would store NULL. Give None"),
        (2**53 + 1, float, {}, "reads back as 9007199254740992.0. .*attribute of type int"),
        ("false", bool, {}, "reads back as True. Give True or False"),
        ({"a": (1,)}, Json, {}, r"reads back as {'a': \[1\]}. JSON has lists"),
        ([1.0, INF], FloatArray, {}, "no infinity"),
        ("007", str, {"sql_type": "INTEGER"}, "reads back as 7. The database cannot keep it"),
    ],
)
def test_the_error_has_both_values_and_what_to_do(value: Any, kind: Any, options: Any, advice: str) -> None:
    """Each type has its own way out."""
    with pytest.raises(SeedError, match=advice):
        mapped(declared([{"id": 1, "value": value}], kind, **options))


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (" 7 ", str, "7"),
        ("7", int, 7),
        (True, int, 1),
        (1, bool, True),
        (1, float, 1.0),
        (-INF, float, -INF),
        (0.1 + 0.2, Decimal, Decimal("0.30")),
        ("1E+3", Decimal, Decimal(1000)),
        (Decimal("-0.00"), Decimal, Decimal(0)),
        (Decimal("NaN"), Decimal, None),
        ("2026-01-02 03:04", datetime, datetime(2026, 1, 2, 3, 4)),
        (datetime(2026, 1, 2, 3), date, date(2026, 1, 2)),
        (time(23, 59, 59, 7), time, time(23, 59, 59, 7)),
        ("10:20", time, time(10, 20)),
        (timedelta(days=-3, microseconds=1), timedelta, timedelta(days=-3, microseconds=1)),
        ("00000000-0000-0000-0000-000000000007", UUID, UUID(int=7)),
        (b"\0\xff", bytes, b"\0\xff"),
        ("a\0b", str, "a\0b"),
        ("", str, ""),
        ({"a": [1, 2.5, None, True, "\0", 2**70]}, Json, {"a": [1, 2.5, None, True, "\0", 2**70]}),
        (Json({"a": 1}), Json, {"a": 1}),
        ((1, 2), IntArray, [1, 2]),
    ],
)
def test_what_an_attribute_converts_is_no_difference(value: Any, kind: Any, expected: Any) -> None:
    """Its declaration asks for it; and a session reads what it would read after writing the same."""
    db = mapped(declared([{"id": 1, "value": value}], kind))
    with db_session:
        found = db.Item[1].value
    assert found.is_nan() if expected is None else found == expected


def test_declared_digits_are_the_users_own(caplog: pytest.LogCaptureFixture) -> None:
    """What the application stores in such a column is rounded, too: the log says so, and the rows are stored."""
    rows = [{"id": 1, "value": Decimal("0.12")}, {"id": 2, "value": Decimal("12345678901234567890.12")}]
    with caplog.at_level(logging.WARNING, "temaki.seed"):
        db = mapped(declared(rows, Decimal, precision=22, scale=2))
    assert "Item.value: SQLite keeps some 15 digits of a Decimal. The values of 1 rows, the first of them row 2" in (
        caplog.text
    )
    assert len(everything(db, "Item")) == 2


@pytest.mark.parametrize("text", [" a ", "\ta", "a\n", " "])
def test_inferred_text_is_not_stripped(text: str) -> None:
    """Pony strips by default; who infers has to say that it may not."""
    db = mapped(lambda db: Seeded.entity(db, "Item", [{"id": text, "value": text, "some": text}, {"id": "b"}]))
    with db_session:
        item = db.Item.select(lambda item: item.value is not None).first() if text.strip() else db.Item.get(value=text)
        assert (item.id, item.value, item.some) == (text, text, text)


def test_keys_are_read_back_too() -> None:
    """A key that is stored as another is not found again, and two of them may become one."""
    value = Decimal("1234567890123456.78")
    with pytest.raises(SeedError, match=r"row 1, id=.*reads back as Decimal"):
        mapped(lambda db: Seeded.entity(db, "Item", [{"id": value}, {"id": value + Decimal("0.02")}]))
    with pytest.raises(SeedError, match=r"row 1, value=.*no time zone"):
        mapped(declared([{"id": 1, "value": AWARE}], datetime, key=True))


def test_a_default_key_of_several_columns() -> None:
    """Rows are found by all columns of their key."""

    def define(db: Any) -> None:
        class Item(db.Entity, Seeded):
            day = Required(date)
            number = Required(int)
            PrimaryKey(day, number)
            value = Optional(float)
            rows = [  # noqa: RUF012
                {"day": date(2026, 1, 1), "number": number, "value": UNEVEN if number == 250 else 0.5}
                for number in range(300)
            ]

    with pytest.raises(SeedError, match="row 251, value=9007199254740993"):
        mapped(define)


def test_nothing_is_stored_after_a_difference(tmp_path: Path) -> None:
    """The rows that were there stay as they were, and the next start is not told that these are on record."""

    def file(db: Any) -> None:
        db.bind("sqlite", str(tmp_path / "app.sqlite"), create_db=True)

    mapped(declared([{"id": 1, "value": 0.5}], float), file)
    for _ in range(2):
        with pytest.raises(SeedError, match="row 2, value=9007199254740993"):
            mapped(declared([{"id": 1, "value": 1.5}, {"id": 2, "value": UNEVEN}], float), file)
    assert everything(mapped(declared([], float), file), "Item") == [(1, 0.5, "")]


def test_existing_rows_of_insert_may_have_any_values(tmp_path: Path) -> None:
    """With the policy ``"insert"`` they are left alone, and are not taken for what the rows gave."""

    def file(db: Any) -> None:
        db.bind("sqlite", str(tmp_path / "app.sqlite"), create_db=True)

    mapped(declared([{"id": 1, "value": 0.5}], float), file)
    rows = [{"id": 1, "value": 2.5}, {"id": 2, "value": 3.5}]
    db = mapped(declared(rows, float, seed_policy="insert"), file)
    assert everything(db, "Item") == [(1, 0.5, ""), (2, 3.5, "")]
    with pytest.raises(SeedError, match="row 2, value=9007199254740993"):
        mapped(declared([{"id": 1, "value": UNEVEN}, {"id": 3, "value": UNEVEN}], float, seed_policy="insert"), file)


def test_an_updated_row_is_read_back(tmp_path: Path) -> None:
    """And a row that is found by a ``seed_key`` keeps its primary key, which is no difference."""

    def file(db: Any) -> None:
        db.bind("sqlite", str(tmp_path / "app.sqlite"), create_db=True)

    mapped(declared([{"id": 1, "value": "a"}], str, key=True), file)
    db = mapped(declared([{"id": 7, "value": "a", "note": "x"}], str, key=True), file)
    assert everything(db, "Item") == [(1, "a", "x")]


@pytest.mark.parametrize("bind", [memory, lambda db: db.bind_s3(f"memory://{id(db)}/time.sqlite")])
def test_time_is_read_as_time(bind: Any) -> None:
    """Pony alone gives it back as text, and cannot update an object that has it."""
    db = mapped(declared([{"id": 1, "value": time(1, 2, 3, 4)}], time), bind)
    with db_session:
        item = db.Item[1]
        assert item.value == time(1, 2, 3, 4)
        item.note = "changed"
    with db_session:
        assert db.Item.get(value=time(1, 2, 3, 4)).note == "changed"


def test_a_type_without_equality_is_compared_as_it_is_stored() -> None:
    """Of a type of the user's own, what its converter makes of it decides."""
    from pony.orm.dbapiprovider import Converter
    from pony.orm.dbproviders.sqlite import SQLiteProvider

    class Point:
        def __init__(self, x: int) -> None:
            self.x = x

    class PointConverter(Converter):
        lossy = False

        def py2sql(self, val: Any) -> Any:
            return f"{val.x}"

        def sql2py(self, val: Any) -> Any:
            return Point(int(val) // 10 if self.lossy else int(val))

        def sql_type(self) -> str:
            return "TEXT"

    def start() -> Any:
        db = Database()
        declared([{"id": 1, "value": Point(70)}], Point)(db)
        db.bind("sqlite", ":memory:")
        db.provider.converter_classes = [*SQLiteProvider.converter_classes, (Point, PointConverter)]
        db.generate_mapping(create_tables=True)

    start()
    PointConverter.lossy = True
    with pytest.raises(SeedError, match="row 1, value="):
        start()
