"""When rows are applied, and what each policy does to rows that are there."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from pony.orm import Optional, PrimaryKey, Required, Set, composite_key, db_session, select

from temaki import ConfigurationError, Database, Seeded, SeedError
from temaki.orm.seed.sql import Sql
from temaki.testing import use_testing_rows
from tests.seeds import everything, mapped, roles

ONE_TWO = [{"id": 1, "label": "admin"}, {"id": 2, "label": "user"}]
TWO_THREE = [{"id": 2, "label": "member"}, {"id": 3, "label": "guest"}]


@pytest.fixture(params=["upsert of the database", "looking first"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Databases without ON CONFLICT get what the others get."""
    if request.param == "looking first":
        monkeypatch.setattr("temaki.orm.seed.sql._HAS_ON_CONFLICT", ())


@pytest.fixture
def file(tmp_path: Path) -> Any:
    """Binds to the same file, start after start."""
    return lambda db: db.bind("sqlite", str(tmp_path / "app.sqlite"), create_db=True)


def changes(db: Any) -> int:
    """How many rows this connection has written."""
    with db_session:
        return int(db.get_connection().total_changes)


def test_upsert_updates_named_columns_and_leaves_the_rest(file: Any) -> None:
    """Columns that the rows do not name survive, and rows that are not listed stay."""
    db = mapped(roles(ONE_TWO), file)
    with db_session:
        db.Role[2].note = "kept"
        db.Role(id=9, label="own")
    assert everything(mapped(roles(TWO_THREE), file)) == [
        (1, "admin", ""),
        (2, "member", "kept"),
        (3, "guest", ""),
        (9, "own", ""),
    ]


def test_insert_never_touches_an_existing_row(file: Any) -> None:
    """Neither its columns, nor its sets and links."""

    def define(rows: Any) -> Any:
        def of(db: Any) -> None:
            class Node(db.Entity, Seeded):
                id = PrimaryKey(int)
                label = Required(str)
                parent = Optional("Node", reverse="children")
                children = Set("Node", reverse="parent")
                peers = Set("Node", reverse="peers")
                seed_policy = "insert"

            Node.rows = rows

        return of

    mapped(define([{"id": 1, "label": "a", "peers": [1]}]), file)
    db = mapped(
        define(
            [{"id": 1, "label": "b", "parent": 2, "peers": [2]}, {"id": 2, "label": "c", "parent": 1, "peers": [2]}]
        ),
        file,
    )
    assert everything(db, "Node") == [(1, "a", None), (2, "c", 1)]
    assert everything(db, "Node_peers") == [(1, 1), (2, 2)]


def test_mirror_deletes_what_is_not_listed(file: Any) -> None:
    """Its rows only; a list that is empty, which is an outage more often than meant, only if it is forced."""
    mapped(roles(ONE_TWO), file)
    assert everything(mapped(roles(TWO_THREE, seed_policy="mirror"), file)) == [(2, "member", ""), (3, "guest", "")]
    db = Database()
    roles([], seed_policy="mirror")(db)
    file(db)
    with pytest.raises(SeedError, match=r"Rows of Role: rows gave none.*all that are stored \(2\).*force=True"):
        db.generate_mapping(create_tables=True)
    assert len(everything(db)) == 2
    db.seed(force=True)
    assert everything(db) == []
    assert everything(mapped(roles([], seed_policy="mirror"), file)) == [], "on record, so nobody is asked again"


def test_mirror_names_who_still_refers(file: Any) -> None:
    """The row that would go, those that refer to it; and nothing is changed."""
    db = mapped(roles(ONE_TWO), file)
    with db_session:
        for name in "abcdefg":
            db.User(name=name, role=db.Role[1])
    with pytest.raises(
        SeedError, match=r"Role\[1\] is no longer listed.*User\.role\): User\[1\].*User\[5\] and 2 more"
    ) as caught:
        mapped(roles(TWO_THREE, seed_policy="mirror"), file)
    assert (caught.value.entity, caught.value.value) == ("Role", 1)
    assert everything(mapped(roles(ONE_TWO), file)) == [(1, "admin", ""), (2, "user", "")]


def test_mirror_of_parents_and_children_and_sets(file: Any) -> None:
    """Children go first; a set that the rows name goes with its row, a link that is somebody else's is an error."""

    def define(groups: Any, members: Any) -> Any:
        def of(db: Any) -> None:
            class Group(db.Entity, Seeded):
                id = PrimaryKey(int)
                parent = Optional("Group", reverse="parts")
                parts = Set("Group", reverse="parent")
                members = Set("Member")
                tags = Set("Tag")
                seed_policy = "mirror"

            class Member(db.Entity, Seeded):
                id = PrimaryKey(int)
                group = Required(Group)
                seed_policy = "mirror"

            class Tag(db.Entity, Seeded):
                id = PrimaryKey(int)
                groups = Set(Group)
                rows = [{"id": 1}, {"id": 2}]  # noqa: RUF012

            Group.rows, Member.rows = groups, members

        return of

    both = [{"id": 1, "tags": [1, 2]}, {"id": 2, "parent": 1, "tags": [1]}, {"id": 3, "parent": 2, "tags": []}]
    db = mapped(define(both, [{"id": 1, "group": 1}, {"id": 2, "group": 2}]), file)
    assert everything(db, "Group_Tag") == [(1, 1), (1, 2), (2, 1)]
    db = mapped(define(both[:1], [{"id": 1, "group": 1}]), file)
    assert (everything(db, "Group"), everything(db, "Member"), everything(db, "Group_Tag")) == (
        [(1, None)],
        [(1, 1)],
        [(1, 1), (1, 2)],
    )
    with pytest.raises(SeedError, match=r"Group\[1\].*\(Tag\.groups\): Tag\[1\], Tag\[2\]"):
        mapped(define([{"id": 7}], [{"id": 9, "group": 7}]), file)


def test_a_named_set_is_all_there_is(file: Any) -> None:
    """From either side, also from both; links of rows that do not name the set stay."""

    def define(left: Any, right: Any) -> Any:
        def of(db: Any) -> None:
            class A(db.Entity, Seeded):
                name = PrimaryKey(str)
                bs = Set("B")

            class B(db.Entity, Seeded):
                label = Required(str, unique=True)
                as_ = Set(A)
                seed_key = "label"

            A.rows, B.rows = left, right

        return of

    db = mapped(define([{"name": "x", "bs": [1, 2]}, {"name": "y"}], [{"label": "one"}, {"label": "two"}]), file)
    assert everything(db, "A_B") == [("x", 1), ("x", 2)]
    with db_session:
        db.A["y"].bs = [db.B[2]]
    db = mapped(
        define([{"name": "x", "bs": []}, {"name": "y"}], [{"label": "one", "as_": ["x", "y"]}, {"label": "two"}]), file
    )
    assert everything(db, "A_B") == [("x", 1), ("y", 1), ("y", 2)]


def test_unchanged_rows_change_nothing(file: Any) -> None:
    """Neither a second start, nor one that is forced to apply them."""
    mapped(roles(ONE_TWO), file)
    db = mapped(roles(ONE_TWO), file)
    before = changes(db)
    db.seed(force=True)
    db.seed()
    assert changes(db) == before


def test_seed_key_with_automatic_keys(file: Any) -> None:
    """Rows are found by it, keep their keys, and an unchanged application uses no number up."""

    def define(rows: Any) -> Any:
        def of(db: Any) -> None:
            class City(db.Entity, Seeded):
                country = Required(str)
                name = Required(str)
                size = Optional(int)
                composite_key(country, name)
                seed_key = ("country", "name")

            City.rows = rows

        return of

    first = [{"country": "FR", "name": "Lyon", "size": 1}, {"country": "DE", "name": "Ulm", "size": 2}]
    db = mapped(define(first), file)
    with db_session:
        before = db.get_connection().total_changes
    db.seed(force=True)
    assert changes(db) == before
    db = mapped(define([{"country": "IT", "name": "Bari"}, {**first[1], "size": 3}]), file)
    assert everything(db, "City") == [(1, "FR", "Lyon", 1), (2, "DE", "Ulm", 3), (3, "IT", "Bari", None)]


def test_row_found_by_its_seed_key_keeps_its_primary_key(file: Any) -> None:
    """Others refer to it; a key that the row names is for a row that is not there yet."""
    db = mapped(roles(None), file)
    with db_session:
        db.User(name="Ann", role=db.Role(id=7, label="admin"))
    rows = [{"id": 1, "label": "admin", "note": "n"}, {"id": 2, "label": "user"}]
    assert everything(mapped(roles(rows, seed_key="label"), file)) == [(2, "user", ""), (7, "admin", "n")]


def test_known_rows_are_not_applied_again(file: Any, caplog: pytest.LogCaptureFixture) -> None:
    """An old version of the program that starts after a new one leaves its rows alone, and says so."""
    mapped(roles(ONE_TWO), file)
    new = everything(mapped(roles(TWO_THREE), file))
    with caplog.at_level(logging.WARNING, "temaki.seed"):
        assert everything(mapped(roles(ONE_TWO), file)) == new
    assert "Role: its rows are not applied: they were applied before, and other rows since." in caplog.text
    caplog.clear()
    assert everything(mapped(roles(TWO_THREE), file)) == new
    assert caplog.text == ""


def test_force_applies_known_rows_and_makes_them_the_last(file: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A rollback by intent: from then on the other ones are the old ones."""
    mapped(roles(ONE_TWO), file)
    mapped(roles(TWO_THREE), file)
    old = mapped(roles(ONE_TWO), file)
    old.seed(force=True)
    rolled_back = everything(old)
    assert (2, "user", "") in rolled_back
    caplog.clear()
    assert everything(mapped(roles(ONE_TWO), file)) == rolled_back
    assert caplog.text == ""
    assert everything(mapped(roles(TWO_THREE), file)) == rolled_back


def test_computed_rows_follow_their_source(file: Any) -> None:
    """The same code may compute what it computed before; other code that was replaced is not listened to."""
    computed: list[Any] = []
    calls = 0

    def new(cls: Any) -> Any:
        nonlocal calls
        calls += 1
        return iter(computed)

    def old(cls: Any) -> Any:
        return [{"id": 1, "label": "from old code"}]

    with_new, with_old = roles(None, get_rows=classmethod(new)), roles(None, get_rows=classmethod(old))
    assert everything(mapped(with_old, file)) == [(1, "from old code", "")]
    for label in ("a", "b", "a"):
        computed[:] = [{"id": 1, "label": label}]
        calls = 0
        assert everything(mapped(with_new, file)) == [(1, label, "")]
        assert calls == 1
        assert everything(mapped(with_old, file)) == [(1, label, "")]


def test_a_changed_table_or_policy_is_applied(file: Any) -> None:
    """The same rows under another policy are not the same rows."""
    db = mapped(roles(ONE_TWO), file)
    with db_session:
        db.Role(id=9, label="own")
    assert len(everything(mapped(roles(ONE_TWO, seed_policy="mirror"), file))) == 2


def test_without_create_tables(file: Any) -> None:
    """Seeding has a transaction of its own; where there are no tables yet, there is none."""
    mapped(roles(None), file)
    db = mapped(roles(ONE_TWO), file, create_tables=False)
    assert len(everything(db)) == 2
    early = Database()
    roles(ONE_TWO)(early)
    early.bind("sqlite", ":memory:")
    early.generate_mapping(check_tables=False)
    early.create_tables()
    assert len(everything(early)) == 2


def test_dropped_tables_come_back_with_their_rows() -> None:
    """What was applied is forgotten with the tables."""
    db = mapped(roles(ONE_TWO))
    db.drop_all_tables(with_all_data=True)
    db.create_tables()
    assert len(everything(db)) == 2


def test_testing_rows() -> None:
    """Used within the switch alone, by those entities that have them."""

    def define(db: Any) -> None:
        class A(db.Entity, Seeded):
            id = PrimaryKey(int)
            rows = [{"id": 1}]  # noqa: RUF012

            @classmethod
            def testing_rows(cls) -> Any:
                return [{"id": 2}]

        class B(db.Entity, Seeded):
            id = PrimaryKey(int)
            rows = [{"id": 3}]  # noqa: RUF012

    with use_testing_rows():
        db = mapped(define)
        assert (everything(db, "A"), everything(db, "B")) == ([(2,)], [(3,)])
    assert everything(mapped(define), "A") == [(1,)]


def test_after_seed_is_in_the_transaction() -> None:
    """It sees the rows of all entities, may write, and takes everything with it if it fails."""
    fail = False

    def define(db: Any) -> None:
        class A(db.Entity, Seeded):
            id = PrimaryKey(int)
            rows = [{"id": 1}]  # noqa: RUF012

            @classmethod
            def after_seed(cls) -> None:
                db.B(id=2, note=f"{select(b.id for b in db.B)[:]}")
                if fail:
                    db.execute("INSERT INTO C (b) VALUES (77)")

        class B(db.Entity, Seeded):
            id = PrimaryKey(int)
            note = Optional(str)
            cs = Set("C")
            rows = [{"id": 1}]  # noqa: RUF012

        class C(db.Entity):
            b = Required(B)

    assert everything(mapped(define), "B") == [(1, ""), (2, "[1]")]
    fail = True
    with pytest.raises(SeedError, match="after_seed left a row in C that refers to none in B"):
        mapped(define)


def test_sub_entities_bring_their_own_rows() -> None:
    """Those of the parent are not theirs; a class without rows has none."""

    def define(db: Any) -> None:
        class Animal(db.Entity, Seeded):
            id = PrimaryKey(int)
            rows = [{"id": 1}]  # noqa: RUF012
            seed_policy = "mirror"

        class Dog(Animal):
            trick = Required(str)

        class Cat(Animal):
            lives = Required(int)
            rows = [{"id": 2, "lives": 9}]  # noqa: RUF012

    assert everything(mapped(define), "Animal") == [(1, "Animal", None, None), (2, "Cat", None, 9)]


def test_cycles_are_closed_afterwards() -> None:
    """Entities that refer to each other, and to themselves, in any order."""

    def define(db: Any) -> None:
        class Head(db.Entity, Seeded):
            id = PrimaryKey(int)
            team = Required("Team", reverse="heads")
            teams = Set("Team", reverse="head")
            rows = [{"id": 1, "team": "x"}]  # noqa: RUF012

        class Team(db.Entity, Seeded):
            id = PrimaryKey(str)
            head = Optional(Head, reverse="teams")
            heads = Set(Head, reverse="team")
            above = Optional("Team", reverse="below")
            below = Set("Team", reverse="above")
            rows = [{"id": "x", "head": 1, "above": "y"}, {"id": "y"}]  # noqa: RUF012

    db = mapped(define)
    with db_session:
        before = db.get_connection().total_changes
        assert (db.Team["x"].above.id, db.Team["x"].head.id, db.Head[1].team.id) == ("y", 1, "x")
    db.seed(force=True)
    assert changes(db) == before


def test_many_rows_pass_every_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """No statement has more parameters than the database takes ("too many SQL variables")."""
    monkeypatch.setattr(Sql, "limit", 20)
    most = 0
    run = Sql.run

    def counted(self: Any, sql: str, values: Any = ()) -> Any:
        nonlocal most
        most = max(most, len(values))
        return run(self, sql, values)

    monkeypatch.setattr(Sql, "run", counted)
    rows = [{"id": number, "label": str(number)} for number in range(100)]
    define = roles(rows, seed_policy="mirror")
    db = mapped(define)
    with db_session:
        for number in range(100, 200):
            db.Role(id=number, label=str(number))
    db.seed(force=True)
    assert len(everything(db)) == 100
    assert 0 < most <= 20


def test_seed_where_it_cannot_work() -> None:
    """It needs a mapping, and a transaction of its own; a plain Pony database has no seeding."""
    from pony.orm import Database as PlainDatabase

    db = Database()
    with pytest.raises(ConfigurationError, match="generate_mapping"):
        db.seed()
    db = mapped(roles(ONE_TWO))
    with pytest.raises(ConfigurationError, match="outside of the db_session"), db_session:
        db.seed()
    with pytest.raises(ConfigurationError, match="Role is Seeded, but its database is a plain"):
        roles(ONE_TWO)(PlainDatabase())
