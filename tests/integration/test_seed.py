"""Seeding a database in a store: one upload with its tables, none where nothing is due, nothing half applied."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from pony.orm import db_session
from pony.orm.core import OperationalError

from temaki import ConflictError, Database, NotFoundError, SeedError, StoreUnavailableError
from temaki.testing.counting import CountingStore
from temaki.testing.strategies import KEY
from temaki.testing.threads import in_parallel
from tests.hooked import HookedStore, failing
from tests.seeds import everything, roles
from tests.threads import in_thread

ROWS = [{"id": 1, "label": "admin"}, {"id": 2, "label": "user"}]
NEW_ROWS = [{"id": 1, "label": "root"}]


def bind(define: Callable[[Any], None], store: Any, **options: Any) -> Any:
    """A process with these entities."""
    db = Database()
    define(db)
    db.bind_s3(f"memory://seed-{uuid4().hex}/{KEY}", store=store, timeout=0.01, **options)
    return db


def start(define: Callable[[Any], None], store: Any, **options: Any) -> Any:
    """The same, mapped."""
    db = bind(define, store, **options)
    db.generate_mapping(create_tables=True)
    return db


def test_tables_and_rows_are_one_upload(counting: CountingStore) -> None:
    """And the second start only looks: one request, which it needs anyway."""
    db = start(roles(ROWS), counting)
    assert counting.count("put") == 1
    assert everything(db) == [(1, "admin", ""), (2, "user", "")]
    counting.reset()
    again = start(roles(ROWS), counting)
    plain = start(roles(None), counting)
    assert counting.count("put") == 0
    assert everything(again) == everything(plain)


def test_changed_rows_are_one_upload(counting: CountingStore) -> None:
    """And the old ones, started again, none."""
    start(roles(ROWS), counting)
    counting.reset()
    start(roles(NEW_ROWS), counting)
    assert counting.count("put") == 1
    db = start(roles(ROWS), counting)
    assert counting.count("put") == 1
    assert everything(db) == [(1, "root", ""), (2, "user", "")]
    db.seed(force=True)
    assert counting.count("put") == 2
    assert everything(db) == [(1, "admin", ""), (2, "user", "")]
    db.seed(force=True)
    assert counting.count("put") == 2, "forced, and nothing changed"


def test_second_start_keeps_no_writer_waiting(counting: CountingStore) -> None:
    """It only reads: another thread may be in the middle of a write transaction."""
    url = f"memory://seed-{uuid4().hex}/{KEY}"
    writer, starter = Database(), Database()
    for db in (writer, starter):
        roles(ROWS)(db)
        db.bind_s3(url, store=counting)
    writer.generate_mapping(create_tables=True)
    with db_session:
        writer.User(name="Ann", role=1)
        writer.flush()
        in_thread(lambda: starter.generate_mapping(create_tables=True))
    assert counting.count("put") == 2


def test_refused_commit_leaves_nothing(store: HookedStore) -> None:
    """Neither tables, nor rows, nor a fingerprint: the next start applies all of it."""
    store.before["put"] = [failing(StoreUnavailableError("down", url=KEY, ambiguous=False))] * 2
    with pytest.raises(StoreUnavailableError, match="down"):
        start(roles(ROWS), store)
    with pytest.raises(NotFoundError):
        store.head(KEY)
    db = start(roles(ROWS), store)
    store.before["put"] = [failing(StoreUnavailableError("down", url=KEY, ambiguous=False))] * 2
    with pytest.raises(StoreUnavailableError, match="down"):
        start(roles(NEW_ROWS), store)
    assert everything(db) == [(1, "admin", ""), (2, "user", "")]
    assert everything(start(roles(NEW_ROWS), store))[0] == (1, "root", "")


def test_wrong_row_stores_nothing(counting: CountingStore) -> None:
    """Not even the tables; the error is temaki's own, not wrapped by Pony."""
    with pytest.raises(SeedError, match="Rows of Role, row 2, label"):
        start(roles([*ROWS[:1], {"id": 2}]), counting)
    assert counting.count("put") == 0
    assert everything(start(roles(ROWS), counting))


def test_conflict_is_overcome(store: HookedStore) -> None:
    """A row of the application's came first: the rows go on top of it, and ``get_rows`` is not called again."""
    other = start(roles(ROWS), store)
    calls = []

    def get_rows(cls: Any) -> Any:
        calls.append(1)
        return NEW_ROWS

    def interfere(*_: Any, **__: Any) -> None:
        with db_session:
            other.Role(id=9, label="own")

    store.before["put"] = [lambda *_a, **_k: in_thread(interfere)]
    db = start(roles(None, get_rows=classmethod(get_rows)), store)
    assert everything(db) == [(1, "root", ""), (2, "user", ""), (9, "own", "")]
    assert calls == [1]


def test_conflict_without_end_is_reported(store: HookedStore) -> None:
    """It does not go on for ever."""
    db = start(roles(ROWS), store)
    store.before["put"] = [failing(ConflictError("lost", url=KEY))] * 50
    with pytest.raises(ConflictError, match="lost"):
        start(roles(NEW_ROWS), store)
    store.before["put"] = []
    assert everything(db)[0] == (1, "admin", "")


def test_threads_start_at_once(store: HookedStore) -> None:
    """With one working copy between them, as well."""
    url = f"memory://seed-{uuid4().hex}/{KEY}"
    databases = []
    for _ in range(4):
        db = Database()
        roles(ROWS)(db)
        db.bind_s3(url, store=store)
        databases.append(db)
    in_parallel([partial(db.generate_mapping, create_tables=True) for db in databases])
    assert store.head(KEY).metadata["temaki-seq"] == "1"
    assert {tuple(everything(db)) for db in databases} == {((1, "admin", ""), (2, "user", ""))}


def test_without_create_tables(counting: CountingStore) -> None:
    """A transaction of its own, where there are tables; without a database there is the error that says so."""
    with pytest.raises(NotFoundError, match="no database at"):
        bind(roles(ROWS), counting).generate_mapping()
    bind(roles(ROWS), counting).generate_mapping(check_tables=False)
    assert counting.count("put") == 0
    start(roles(None), counting)
    db = bind(roles(ROWS), counting)
    db.generate_mapping()
    assert counting.count("put") == 2
    assert everything(db) == [(1, "admin", ""), (2, "user", "")]
    bind(roles(ROWS), counting).generate_mapping()
    assert counting.count("put") == 2


def test_read_only_reads_what_there_is(counting: CountingStore, caplog: pytest.LogCaptureFixture) -> None:
    """Rows that are due are left to those who may write, and the log says so."""
    start(roles(ROWS), counting)
    counting.reset()
    with caplog.at_level(logging.WARNING):
        db = start(roles(NEW_ROWS), counting, strategy="read-only")
    assert "rows are due, and the strategy never writes" in caplog.text
    assert everything(db)[0] == (1, "admin", "")
    assert counting.count("put") == 0


def test_missing_column_is_ponys_error(counting: CountingStore) -> None:
    """The check of the tables comes before the rows."""
    start(roles(ROWS), counting)
    from pony.orm import Optional

    with pytest.raises(OperationalError, match="no such column"):
        bind(roles(NEW_ROWS, extra=Optional(str)), counting).generate_mapping()
    assert counting.count("put") == 1
