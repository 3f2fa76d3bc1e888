"""What is seeded is stored as the ORM stores it: every type of attribute, every kind of key and relationship."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st
from pony.orm import (
    Discriminator,
    FloatArray,
    IntArray,
    Json,
    LongStr,
    Optional,
    PrimaryKey,
    Required,
    Set,
    StrArray,
    composite_key,
    db_session,
)

from temaki import Database, Seeded

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
FILLED = TEXT.filter(str.strip)
SMALL = st.integers(-(2**31), 2**31 - 1)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | FLOATS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
MOMENTS = st.datetimes(datetime(1000, 1, 1), datetime(9999, 12, 31))
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "flag": st.booleans(),
    "number": SMALL | st.integers(0, 9).map(str),
    "big": st.integers(-(2**63), 2**63 - 1),
    "tiny": st.integers(0, 255),
    "real": FLOATS | SMALL,
    "money": st.decimals(-99999, 99999, places=2) | SMALL | st.floats(-9, 9).map(lambda each: round(each, 2)),
    "text": TEXT,
    "raw": TEXT,
    "long": TEXT,
    "blob": st.binary(max_size=8),
    "day": st.dates(date(1000, 1, 1)) | MOMENTS | st.dates(date(1000, 1, 1)).map(date.isoformat),
    "moment": MOMENTS,
    "second": MOMENTS,
    "clock": st.times(),
    "span": st.timedeltas(timedelta(-9999), timedelta(9999)),
    "uid": st.uuids() | st.uuids().map(str),
    "doc": JSON.filter(lambda each: each is not None),
    "ints": st.lists(SMALL, max_size=3),
    "strs": st.lists(TEXT, max_size=3),
    "floats": st.lists(FLOATS, max_size=3),
}


def define(db: Any, rows: dict[str, list[dict[str, Any]]] | None) -> None:
    """One of everything; seeded, if there are rows."""

    def base(name: str) -> tuple[type, ...]:
        return (type(name, (Seeded,), {"__slots__": (), "rows": rows[name]}),) if rows is not None else ()

    class Thing(db.Entity, *base("Thing")):  # type: ignore[misc]
        id = PrimaryKey(int)
        must = Required(str)
        with_default = Required(int, default=7)
        computed = Optional(str, default=lambda: "computed")
        by_database = Required(str, sql_default="'database'")
        flag = Optional(bool)
        number = Optional(int)
        big = Optional(int, size=64)
        tiny = Optional(int, size=8, unsigned=True)
        real = Optional(float)
        money = Optional(Decimal, 10, 2)
        text = Optional(str)
        raw = Optional(str, nullable=True, autostrip=False)
        long = Optional(LongStr)
        blob = Optional(bytes)
        day = Optional(date)
        moment = Optional(datetime)
        second = Optional(datetime, precision=0)
        clock = Optional(time)
        span = Optional(timedelta)
        uid = Optional(UUID, unique=True)
        doc = Optional(Json)
        ints = Optional(IntArray)
        strs = Optional(StrArray)
        floats = Optional(FloatArray)
        profile = Optional("Profile")
        parent = Optional("Thing", reverse="children")
        children = Set("Thing", reverse="parent")
        tags = Set("Tag")
        friends = Set("Thing", reverse="friends")
        visits = Set("Visit")

    class Profile(db.Entity, *base("Profile")):  # type: ignore[misc]
        thing = PrimaryKey(Thing)
        motto = Optional(str, column="the motto")

    class Place(db.Entity, *base("Place")):  # type: ignore[misc]
        country = Required(str)
        code = Required(int)
        PrimaryKey(country, code)
        visits = Set("Visit")
        tags = Set("Tag")

    class Visit(db.Entity, *base("Visit")):  # type: ignore[misc]
        thing = Required(Thing)
        place = Required(Place)
        PrimaryKey(thing, place)
        rating = Optional(int)

    class Tag(db.Entity, *base("Tag")):  # type: ignore[misc]
        _table_ = "tags, quoted"
        id = PrimaryKey(int, auto=True)
        name = Required(str, unique=True)
        things = Set(Thing)
        places = Set(Place)

    class Animal(db.Entity, *base("Animal")):  # type: ignore[misc]
        kind = Discriminator(int)
        _discriminator_ = 1
        id = PrimaryKey(UUID)
        name = Required(str)
        age = Optional(int)
        composite_key(name, age)

    class Dog(Animal, *base("Dog")):  # type: ignore[misc]
        _discriminator_ = 2
        trick = Required(str)
        walks = Optional(int)


def dump(db: Any) -> dict[str, list[Any]]:
    """Every table: each value with its storage class."""
    found = {}
    with db_session:
        for name in db.select("SELECT name FROM sqlite_master WHERE type = 'table' AND name <> 'temaki_seed'"):
            columns = [row[1] for row in db.execute(f'PRAGMA table_info("{name}")').fetchall()]
            what = ", ".join(f'"{column}", typeof("{column}")' for column in columns)
            found[name] = sorted(db.execute(f'SELECT {what} FROM "{name}"').fetchall(), key=repr)
    return found


@st.composite
def all_rows(draw: st.DrawFn) -> dict[str, list[dict[str, Any]]]:
    """Rows for each of the entities, which may refer to each other."""
    numbers = draw(st.lists(st.integers(1, 9), unique=True, min_size=1, max_size=4))
    tags = draw(st.lists(st.integers(1, 9), unique=True, max_size=3))
    places = draw(st.lists(st.tuples(FILLED.map(str.strip), st.integers(0, 3)), unique=True, max_size=3))
    things = []
    for number in numbers:
        some = {name: values for name, values in VALUES.items() if draw(st.booleans())}
        row = draw(st.fixed_dictionaries({"must": FILLED, **some}))
        for name in some:
            if name not in {"text", "long", "doc", "ints", "strs", "floats"} and draw(st.integers(0, 5)) == 0:
                row[name] = None
        optional = {
            "parent": st.none() | st.sampled_from(numbers),
            "friends": st.lists(st.sampled_from(numbers), unique=True, max_size=3),
            "with_default": SMALL,
            "computed": TEXT,
            "by_database": FILLED | st.none(),
        }
        if tags:
            optional["tags"] = st.lists(st.sampled_from(tags), unique=True)
        things.append({"id": number, **row, **draw(st.fixed_dictionaries({}, optional=optional))})
    seen: set[str] = set()
    for row in things:
        if row.get("uid") is not None:
            if str(row["uid"]) in seen:
                del row["uid"]
            else:
                seen.add(str(row["uid"]))
    pairs = draw(st.lists(st.sampled_from(numbers), unique=True))
    visits = [(number, place) for number in numbers for place in places if draw(st.booleans())]
    animals = draw(st.lists(st.uuids(), unique=True, max_size=4))
    place_tags = [
        {
            "country": country,
            "code": code,
            **({"tags": draw(st.lists(st.sampled_from(tags), unique=True))} if tags else {}),
        }
        for country, code in places
    ]
    return {
        "Thing": things,
        "Profile": [{"thing": number, "motto": draw(TEXT)} for number in pairs],
        "Place": place_tags,
        "Visit": [{"thing": number, "place": place, "rating": draw(st.none() | SMALL)} for number, place in visits],
        "Tag": [{"id": number, "name": f"tag {number}"} for number in tags],
        "Animal": [{"id": uid, "name": f"animal {place}"} for place, uid in enumerate(animals[::2])],
        "Dog": [
            {"id": uid, "name": "dog", "age": place, "trick": draw(FILLED)} for place, uid in enumerate(animals[1::2])
        ],
    }


def create(db: Any, rows: dict[str, list[dict[str, Any]]]) -> None:
    """The same through the ORM."""
    with db_session:
        for name in ("Tag", "Place", "Thing", "Profile", "Visit", "Animal", "Dog"):
            for row in rows[name]:
                values = {column: value for column, value in row.items() if column not in {"parent", "friends", "tags"}}
                made = getattr(db, name)(**values)
                made.flush()
        for row in rows["Thing"]:
            thing = db.Thing[row["id"]]
            thing.parent = db.Thing[row["parent"]] if row.get("parent") is not None else None
            thing.tags = [db.Tag[number] for number in row.get("tags", ())]
            for number in row.get("friends", ()):
                thing.friends.add(db.Thing[number])
        for row in rows["Place"]:
            db.Place[row["country"], row["code"]].tags = [db.Tag[number] for number in row.get("tags", ())]


def mapped(rows: dict[str, list[dict[str, Any]]] | None) -> Any:
    """A new database in memory."""
    db = Database()
    define(db, rows)
    db.bind("sqlite", ":memory:")
    db.generate_mapping(create_tables=True)
    return db


@settings(deadline=None, max_examples=40)
@given(all_rows())
def test_seeded_as_the_orm_creates(rows: dict[str, list[dict[str, Any]]]) -> None:
    """Table by table, each value and its storage class; and a second application changes no row."""
    by_orm = mapped(None)
    create(by_orm, rows)
    seeded = mapped(rows)
    expected = dump(by_orm)
    assert dump(seeded) == expected
    with db_session:
        before = seeded.get_connection().total_changes
    seeded.seed(force=True)
    with db_session:
        assert seeded.get_connection().total_changes == before
    assert dump(seeded) == expected
