"""Errors in sessions: SQLite's own, which stay what Pony makes of them, and temaki's, which can be handed on."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from pony.orm import (
    CommitException,
    IntegrityError,
    Required,
    TransactionIntegrityError,
    db_session,
    select,
)

import temaki
from temaki import (
    AccessDeniedError,
    CommitUnknownError,
    Database,
    StoreUnavailableError,
    TemakiError,
    cause_of,
)
from temaki.stores.memory import MemoryStore
from temaki.testing.counting import CountingStore
from temaki.testing.strategies import KEY, Client
from temaki_strategies import EtagCached
from tests.hooked import HookedStore, failing


@pytest.fixture
def client(other: Client, counting: CountingStore) -> Client:
    """This process."""
    assert other
    client = Client(counting, EtagCached(), timeout=0.01).map()
    counting.reset()
    return client


class TestSqlites:
    """Errors that SQLite raises, and statements that few sessions have."""

    def test_deferred_foreign_key(self, bucket: MemoryStore) -> None:
        """A violation that only COMMIT finds is ``IntegrityError``; nothing is stored, and it can be repeated."""
        db = Database()

        class Parent(db.Entity):  # type: ignore[name-defined]
            name = Required(str)

        parents: Any = Parent
        db.bind_s3("memory://deferred/app.sqlite", store=bucket)
        db.generate_mapping(create_tables=True)
        with db_session:
            db.execute(
                "CREATE TABLE child (parent INTEGER REFERENCES Parent (id) DEFERRABLE INITIALLY DEFERRED NOT NULL)"
            )
        etag = bucket.head(KEY).etag

        def orphan(parent: int) -> None:
            with db_session:
                Parent(name="some")
                db.execute(f"INSERT INTO child VALUES ({parent})")

        for _ in range(2):
            with pytest.raises(CommitException) as caught:
                orphan(99)
            assert isinstance(cause_of(caught.value), IntegrityError)
            assert bucket.head(KEY).etag == etag
            with db_session:
                assert select(p for p in parents).count() == 0
        orphan(1)
        with db_session:
            assert db.select("SELECT parent FROM child") == [1]

    def test_unique_key_in_a_flush(self, client: Client, counting: CountingStore) -> None:
        """As on a plain file, and the thread's next session works."""
        with pytest.raises(TransactionIntegrityError, match="UNIQUE"), db_session:
            client.Counter(id=1, value=1)
        assert counting.count("put") == 0
        assert client.increment() == 1

    def test_drop_all_tables(self, client: Client, other: Client, bucket: MemoryStore) -> None:
        """Stored as one change, after which the tables can be made again."""
        client.db.drop_all_tables(with_all_data=True)
        assert Client(bucket, EtagCached()).map(create_tables=True).db.provider is not None
        with db_session:
            assert select(c for c in other.Counter).count() == 0

    def test_ddl_session(self, client: Client, other: Client) -> None:
        """Tables made in it are there for everyone; SQLite's own rules for foreign keys hold after it."""
        with db_session(ddl=True):
            client.db.execute("CREATE TABLE more (counter INTEGER REFERENCES Counter (id))")
        with db_session:
            assert other.db.select("SELECT count(*) FROM more") == [0]
        with pytest.raises(IntegrityError, match="FOREIGN KEY"), db_session:
            client.db.execute("INSERT INTO more VALUES (99)")
        assert client.value() == 0


ERRORS = [getattr(temaki, name) for name in temaki.__all__ if name.endswith("Error")]


class TestValues:
    """temaki's errors as values."""

    @pytest.mark.parametrize("kind", ERRORS)
    def test_survive_pickle_and_copy(self, kind: type[TemakiError]) -> None:
        """With message, class and facts: a process pool hands them on."""
        error = kind("what happened", url="s3://bucket/key", status=503, code="SlowDown", path="/tmp", commit_id="c")
        for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
            assert (type(twin), str(twin), vars(twin)) == (kind, "what happened", vars(error))
            assert vars(twin)["url"] == "s3://bucket/key"

    def test_real_ones_survive_pickle(self, client: Client, store: HookedStore) -> None:
        """As raised, with what they know."""
        lost = StoreUnavailableError("lost", url=KEY, ambiguous=True)
        store.after["put"] = [failing(lost)]
        store.before["head"] = [failing(lost)] * 10
        with pytest.raises(CommitException) as caught:
            client.increment(retry=0)
        error: Any = cause_of(caught.value)
        twin = pickle.loads(pickle.dumps(error))
        assert isinstance(twin, CommitUnknownError)
        assert (str(twin), twin.commit_id, twin.url) == (str(error), error.commit_id, error.url)

    def test_cause_of(self, client: Client, store: HookedStore) -> None:
        """Gives what Pony has wrapped, and everything else as it is."""
        refusal = AccessDeniedError("no PutObject", url=KEY, status=403, code="AccessDenied")
        store.before["put"] = [failing(refusal)]
        with pytest.raises(CommitException) as caught:
            client.increment(retry=0)
        assert cause_of(caught.value) is refusal
        for error in (ValueError("x"), refusal, KeyboardInterrupt(), ExceptionGroup("g", [ValueError("inner")])):
            assert cause_of(error) is error
