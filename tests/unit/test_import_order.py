"""Pony's Database in place of temaki's, because it was imported later: the error says so."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from pony import orm

import temaki


def imported(*statements: str) -> dict[str, Any]:
    """The names that a module has after these imports."""
    names: dict[str, Any] = {}
    for statement in statements:
        exec(statement, names)
    return names


@pytest.mark.parametrize("name", ["bind_s3", "unbind", "sync", "seed"])
def test_ponys_database_says_which_import_to_swap(name: str) -> None:
    """It has none of temaki's names, and says why; to who only asks whether it has them, it has not."""
    db = imported("from temaki import *", "from pony.orm import *")["Database"]()
    with pytest.raises(AttributeError, match=r"not temaki.Database: it has no .*'from temaki import \*' after it"):
        getattr(db, name)
    assert not hasattr(db, name)
    assert getattr(orm.Database, name, None) is None


def test_the_other_order_is_right() -> None:
    """Temaki's names stay where they are imported last."""
    names = imported("from pony.orm import *", "from temaki import *")
    assert names["Database"] is temaki.Database
    assert names["db_session"] is temaki.db_session


def test_a_seeded_entity_says_it_too() -> None:
    """With the rows of an entity it would be the first to notice."""
    db = imported("from temaki import *", "from pony.orm import *")["Database"]()
    with pytest.raises(temaki.ConfigurationError, match=r"after 'from temaki import \*' replaces it"):
        type(db.Entity)("Role", (db.Entity, temaki.Seeded), {"__module__": __name__})


def test_names_of_others_are_theirs() -> None:
    """A subclass of Pony's Database may have such a name itself, or from a class beside it."""

    class Beside:
        def seed(self) -> str:
            return "beside"

    class Own(orm.Database, Beside):
        sync = "own"

    db = Own()
    db.unbind = "instance"
    assert (db.seed(), db.sync, db.unbind) == ("beside", "own", "instance")


def test_the_error_survives_pickle() -> None:
    """Workers hand it over."""
    with pytest.raises(AttributeError) as caught:
        orm.Database().bind_s3("memory://a/b")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
