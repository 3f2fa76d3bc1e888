"""Rows in files, inferred attributes, fingerprints."""

from __future__ import annotations

import subprocess
import sys
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from pony.orm import IntArray, Json, Optional, PrimaryKey, Required, Set, StrArray, db_session

from temaki import Database, Seeded, SeedError
from temaki.orm.seed import fingerprint
from tests.seeds import everything, mapped, memory

ROW = {
    "id": 1,
    "name": "Zoë, the first",
    "flag": False,
    "price": Decimal("1.10"),
    "day": date(2024, 2, 29),
    "at": datetime(2024, 2, 29, 12, 30),
    "clock": time(1, 2, 3),
    "uid": UUID(int=7),
    "data": b"\x00\xff",
    "doc": {"a": [1, None]},
    "ints": [1, 2],
    "strs": ["a"],
    "above": None,
    "place": (1, "x"),
    "tags": [1, 2],
}
CSV = """\ufeffid,name,flag,price,day,at,clock,uid,data,doc,ints,strs,above,place,tags\r
1,"Zoë, the first",no,1.10,2024-02-29,2024-02-29 12:30:00,01:02:03,00000000-0000-0000-0000-000000000007,00ff,\
"{""a"": [1, null]}","[1, 2]","[""a""]",,"[1, ""x""]","[1, 2]"\r
\r
2,second,true,2,,,,,,{},[],[],1,,\r
"""
JSON = """[{"id": 1, "name": "Zoë, the first", "flag": false, "price": "1.10", "day": "2024-02-29",
"at": "2024-02-29 12:30:00", "clock": "01:02:03", "uid": "00000000-0000-0000-0000-000000000007", "data": "00ff",
"doc": {"a": [1, null]}, "ints": [1, 2], "strs": ["a"], "above": null, "place": [1, "x"], "tags": [1, 2]},
{"id": 2, "name": "second", "flag": true, "price": 2, "doc": {}, "ints": [], "strs": [], "above": 1}]"""


def define_with(**settings: Any) -> Any:
    """An entity with something of each."""

    def define(db: Any) -> None:
        class Item(db.Entity, Seeded):
            id = PrimaryKey(int)
            name = Required(str)
            flag = Required(bool)
            price = Required(Decimal)
            day = Optional(date)
            at = Optional(datetime)
            clock = Optional(time)
            uid = Optional(UUID)
            data = Optional(bytes)
            doc = Optional(Json)
            ints = Optional(IntArray)
            strs = Optional(StrArray)
            note = Optional(str)
            above = Optional("Item", reverse="below")
            below = Set("Item", reverse="above")
            place = Optional("Place")
            tags = Set("Tag")

        for name, value in settings.items():
            setattr(Item, name, value)

        class Place(db.Entity, Seeded):
            a = Required(int)
            b = Required(str)
            PrimaryKey(a, b)
            items = Set(Item)
            rows = [{"a": 1, "b": "x"}]  # noqa: RUF012

        class Tag(db.Entity, Seeded):
            id = PrimaryKey(int)
            items = Set(Item)
            rows = [{"id": 1}, {"id": 2}]  # noqa: RUF012

    return define


@pytest.mark.parametrize(("name", "content"), [("items.csv", CSV), ("items.json", JSON)])
def test_files_are_typed_by_the_attributes(tmp_path: Path, name: str, content: str) -> None:
    """They are stored as the same rows in Python are."""
    (tmp_path / name).write_text(content, encoding="utf-8", newline="")
    second = {"id": 2, "name": "second", "flag": True, "price": 2, "above": 1}
    expected = mapped(define_with(rows=[ROW, second]))
    found = mapped(define_with(rows_from=str(tmp_path / name)))
    for table in ("Item", "Item_Tag"):
        assert everything(found, table) == everything(expected, table)


def test_file_is_found_beside_the_module(tmp_path: Path) -> None:
    """Wherever the program was started; a changed file is applied."""
    (tmp_path / "roles.json").write_text('[{"id": 1, "label": "admin"}]')
    (tmp_path / "program.py").write_text(
        "from pony.orm import PrimaryKey, Required, db_session\n"
        "from temaki import Database, Seeded\n"
        "db = Database()\n"
        "class Role(db.Entity, Seeded):\n"
        "    id = PrimaryKey(int)\n"
        "    label = Required(str)\n"
        "    rows_from = 'roles.json'\n"
        "db.bind('sqlite', 'app.sqlite', create_db=True)\n"
        "db.generate_mapping(create_tables=True)\n"
        "with db_session:\n"
        "    print(Role[1].label)\n"
    )
    command = [sys.executable, str(tmp_path / "program.py")]
    assert subprocess.check_output(command, cwd="/", text=True) == "admin\n"
    (tmp_path / "roles.json").write_text('[{"id": 1, "label": "root"}]')
    assert subprocess.check_output(command, cwd="/", text=True) == "root\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", "", "is empty. Its first line must name the attributes"),
        ("x.csv", "id,nmae\n1,a\n", "the header of x.csv names it.*Did you mean 'name'"),
        ("x.csv", "id,id\n1,1\n", "names it twice"),
        ("x.csv", "id,name,flag,price\n1,a,no,1\n2,b\n", "row 2: line 3 of x.csv has 2 cells; the header has 4"),
        ("x.csv", "id,name,flag,price\n1,a,maybe,1\n", "row 1, flag='maybe': it is no boolean"),
        ("x.csv", "id,data\n1,xyz\n", "row 1, data='xyz': non-hexadecimal"),
        ("x.csv", "id,doc\n1,{\n", "row 1, doc=.*it is no JSON"),
        ("x.csv", "id,name,flag,price\n1,,no,1\n", "row 1, name='': a value is required"),
        ("x.csv", 'id,name\n1,"a\n', "is no CSV"),
        ("x.json", "[", "the file x.json is no JSON"),
        ("x.json", "{}", "a list of objects"),
        ("x.json", "[1]", "row 1: in x.json it is no object"),
        ("x.json", '[{"id": 1, "data": "q"}]', "data='q': non-hexadecimal"),
        ("x.xml", "", "a .csv or a .json file"),
        ("x.csv", None, "cannot be read: No such file"),
        ("x.csv", b"\xff\xfe", "is not UTF-8"),
    ],
)
def test_wrong_files(tmp_path: Path, name: str, content: str | bytes | None, message: str) -> None:
    """What is wrong, in which file, row and column."""
    if content is not None:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SeedError, match=message):
        mapped(define_with(rows_from=str(tmp_path / name)))


# -- Seeded.entity ---------------------------------------------------------------------------------------------------


def inferred(rows: Any, **overrides: Any) -> Any:
    """A database with one inferred entity."""
    db = Database()
    Seeded.entity(db, "Thing", rows, **overrides)
    memory(db)
    db.generate_mapping(create_tables=True)
    return db


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([1, 2], int, [1, 2]),
        ([1, 2**40], int, [1, 2**40]),
        ([1, 2.5], float, [1.0, 2.5]),
        ([1, Decimal("2.125")], Decimal, [Decimal(1), Decimal("2.125")]),
        ([Decimal("123456789012.5")], Decimal, [Decimal("123456789012.5")]),
        ([True, False], bool, [True, False]),
        (["a", ""], str, ["a", ""]),
        (["a", None], str, ["a", None]),
        (["", None], str, ["", None]),
        ([date(2024, 1, 1)], date, [date(2024, 1, 1)]),
        ([datetime(2024, 1, 1, 1), None], datetime, [datetime(2024, 1, 1, 1), None]),
        ([timedelta(1)], timedelta, [timedelta(1)]),
        ([UUID(int=1)], UUID, [UUID(int=1)]),
        ([b"a"], bytes, [b"a"]),
        ([{"a": 1}, [1]], Json, [{"a": 1}, [1]]),
    ],
)
def test_attributes_are_inferred_from_all_rows(values: list[Any], kind: type, expected: list[Any]) -> None:
    """The type that takes all values; None makes it optional."""
    db = inferred([{"id": number, "value": value} for number, value in enumerate(values)])
    attribute = db.Thing.value
    assert attribute.py_type is kind
    assert attribute.is_required == (None not in values and "" not in values)
    with db_session:
        assert [db.Thing[number].value for number in range(len(values))] == expected


def test_missing_columns_are_optional_and_keys_may_be_of_any_type() -> None:
    """A row need not name what others do; ``id`` is the key, of its own type, or another one by keyword."""
    db = inferred([{"id": "a", "x": 1}, {"id": "b", "y": 2}])
    assert everything(db, "Thing") == [("a", 1, None), ("b", None, 2)]
    db = inferred([{"code": "a"}, {"code": "b"}], code=PrimaryKey(str), _table_="codes")
    assert everything(db, "codes") == [("a",), ("b",)]
    db = inferred([], code=PrimaryKey(str))
    assert everything(db, "Thing") == []


def test_inferred_entity_without_a_key(tmp_path: Path) -> None:
    """Its keys are automatic; a changed row is a new one, and with ``mirror`` the only one."""

    def start(rows: Any, **overrides: Any) -> list[Any]:
        db = Database()
        Seeded.entity(db, "Thing", rows, **overrides)
        db.bind("sqlite", str(tmp_path / "app.sqlite"), create_db=True)
        db.generate_mapping(create_tables=True)
        return everything(db, "Thing")

    assert start([{"x": Decimal("1.5")}, {"x": None}]) == [(1, 1.5), (2, None)]
    assert start([{"x": Decimal("1.50")}, {"x": None}, {"x": Decimal(2)}]) == [(1, 1.5), (2, None), (3, 2)]
    assert start([{"x": Decimal(3)}, {"x": None}], seed_policy="mirror") == [(2, None), (4, 3)]
    with pytest.raises(SeedError, match="row 2: it repeats row 1"):
        start([{"x": Decimal(1)}, {"x": Decimal(1)}])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no row to infer attributes from"),
        ([{"a": None}], "None in every row"),
        ([{"a": 1}, {"a": "x"}], "row 2, a='x': it is str, but in the rows before it was int"),
        ([{"a": True}, {"a": 1}], "row 2, a=1: it is int, but in the rows before it was bool"),
        ([{"a": date(2024, 1, 1)}, {"a": datetime(2024, 1, 1)}], "row 2"),
        ([{"a": object()}], "row 1, a=.*no attribute can be inferred for type object"),
        ([{"id": 1}, {"x": 1}], "row 2, id=None: the primary key is missing"),
        ([{"id": 1.5}], "cannot be a primary key"),
        ([{"two words": 1}], "cannot be an attribute's name"),
    ],
)
def test_what_cannot_be_inferred(rows: Any, message: str) -> None:
    """It says which row and column."""
    with pytest.raises(SeedError, match=message):
        inferred(rows)


# -- fingerprints ----------------------------------------------------------------------------------------------------


def mark(rows: Any) -> str:
    """The fingerprint of rows."""
    return fingerprint.digest(*fingerprint.of_rows(rows))


def test_fingerprints_tell_rows_apart() -> None:
    """Values, types, order and names count; the order of a row's columns does not."""
    rows: list[Any] = [
        [],
        [{}],
        [{"a": 1}],
        [{"a": True}],
        [{"a": 1.0}],
        [{"a": "1"}],
        [{"a": b"1"}],
        [{"a": None}],
        [{"b": 1}],
        [{"a": 1}, {"a": 2}],
        [{"a": 2}, {"a": 1}],
        [{"a": 1}, {}],
        [{"a": 1, "b": 2}],
        [{"a": 2, "b": 1}],
        [{"a": Decimal("1.0")}],
        [{"a": Decimal("1.00")}],
        [{"a": date(2024, 1, 1)}],
        [{"a": datetime(2024, 1, 1)}],
        [{"a": [1, 2]}],
        [{"a": (1, 2)}],
        [{"a": {"x": date(2024, 1, 1)}}],
        [{"a": Json({"x": 1})}],
        [{"a": {1, 2}}],
    ]
    assert len({mark(each) for each in rows}) == len(rows)
    assert mark([{"a": 1, "b": 2}]) == mark([{"b": 2, "a": 1}])


def test_fingerprints_are_the_same_in_every_process() -> None:
    """Whatever else it has in memory, and however its hashes are seeded."""
    code = (
        "import sys; from decimal import Decimal; from temaki.orm.seed import fingerprint as f\n"
        "x = 'shared' if sys.argv[1] == '1' else ''.join(['sha', 'red'])\n"
        "rows = [{'a': x, 'b': {'p', 'q', 'r'}, 'c': Decimal(n)} for n in range(3)] + [{'a': x * 1}]\n"
        "print(f.digest(*f.of_rows(rows), f.of_code((lambda: [1, 'a']).__code__)))"
    )
    found = {
        subprocess.check_output([sys.executable, "-c", code, seed], env={"PYTHONHASHSEED": seed, "PYTHONPATH": "."})
        for seed in "123"
    }
    assert len(found) == 1
