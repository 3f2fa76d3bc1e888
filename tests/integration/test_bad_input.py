"""Bad input, and what it gets: an error that names the thing and the way out, and nothing lost or overwritten.

What is wrong before there is any object: how the database was named, and how it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
from pony.orm import PrimaryKey, Required, db_session

import temaki
from temaki import AccessDeniedError, BucketNotFoundError, ConfigurationError, Database, TemakiError, UnsafeStoreError
from temaki.stores.directory import DirectoryStore
from temaki.stores.memory import MemoryStore
from temaki.stores.s3.store import S3Store
from temaki.testing import Server
from temaki.testing.counting import CountingStore
from temaki.testing.strategies import KEY, Client
from temaki_strategies import EtagCached, ReadOnly
from tests.hooked import HookedStore, failing


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """No settings but the test's own."""
    monkeypatch.chdir(tmp_path)
    for name in ("TEMAKI_URL", "TEMAKI_STRATEGY", "TEMAKI_KEY", "AWS_BUCKET"):
        monkeypatch.delenv(name, raising=False)


def define(db: Any) -> Any:
    """One counter; the entity."""

    class Counter(db.Entity):
        id = PrimaryKey(int)
        value = Required(int)

    return Counter


class TestUrl:
    """What names no database."""

    @pytest.mark.parametrize(
        ("url", "reason", "example"),
        [
            ("", "expected a URL", "s3://bucket/key"),
            ("app.sqlite", "no scheme", "s3://my-bucket/app.sqlite"),
            ("s3:/bucket/key", "no scheme", "s3://my-bucket/app.sqlite"),
            ("s3://", "no bucket", "s3://my-bucket/app.sqlite"),
            ("s3://bucket", "no key", "s3://my-bucket/app.sqlite"),
            ("s3://bucket/folder/", "names a folder", "s3://my-bucket/app.sqlite"),
            ("s3://b/key", "no name of a bucket", "s3://my-bucket/app.sqlite"),
            ("s3://bucket/key?versionId=3", "a query", "s3://my-bucket/app.sqlite"),
            ("s3://user:secret@bucket/key", "credentials", "s3://my-bucket/app.sqlite"),
            ("https://bucket.s3.amazonaws.com/key", "does not know the scheme 'https'", "s3://my-bucket/app.sqlite"),
            ("file://folder/app.sqlite", "not absolute", "file:///srv/data/app.sqlite"),
            ("file:///folder/", "no key", "file:///srv/data/app.sqlite"),
            ("memory:///key", "no bucket", "memory://tests/app.sqlite"),
        ],
    )
    def test_malformed(self, url: str, reason: str, example: str) -> None:
        """The message quotes it without secrets, says what is wrong, and has a right one; then a right one works."""
        db = Database()
        with pytest.raises(ConfigurationError) as caught:
            db.bind_s3(url)
        message = str(caught.value)
        assert reason in message
        assert example in message
        assert "secret" not in message
        db.bind_s3(f"memory://bad-{uuid4().hex}/{KEY}")

    def test_none_at_all(self) -> None:
        """Lists the places where it could have been given."""
        with pytest.raises(ConfigurationError, match=r"bind_s3 a URL.*TEMAKI_URL.*AWS_BUCKET.*\[tool\.temaki\]"):
            Database().bind_s3()


class TestOptions:
    """Strategies and settings by name."""

    def test_unknown_strategy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Suggests the nearest and lists all, and says where the name came from."""
        available = "Available: .*always-download.*etag-cached.*read-only"
        with pytest.raises(
            ConfigurationError, match=rf"strategy=.*'etag-cashed'.*Did you mean 'etag-cached'.*{available}"
        ):
            Database().bind_s3("memory://x/key", strategy="etag-cashed")
        monkeypatch.setenv("TEMAKI_STRATEGY", "nothing-like-it")
        with pytest.raises(ConfigurationError, match=rf"TEMAKI_STRATEGY.*'nothing-like-it'.*{available}"):
            Database().bind_s3("memory://x/key")

    @pytest.mark.parametrize("strategy", [3, EtagCached, object()])
    def test_no_strategy(self, strategy: Any) -> None:
        """A class, a number, anything else."""
        with pytest.raises(ConfigurationError, match=r"strategy=.*expected a name or an instance"):
            Database().bind_s3("memory://x/key", strategy=strategy)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"max_aeg": 3}, r"max_aeg= of bind_s3: .*Did you mean max_age= of bind_s3\?"),
            ({"timeuot": 3}, r"timeuot= of bind_s3: .*Did you mean timeout= of bind_s3\?"),
            ({"wholly_different": 3}, r"wholly_different= of bind_s3: .*Its options: max_age"),
            ({"max_age": "long"}, "max_age= of bind_s3: expected float; got 'long'"),
            ({"max_age": -1.0}, "max_age must be a number of seconds, 0 or more"),
            ({"timeout": 0}, "timeout= of bind_s3: expected seconds, a number greater than 0; got 0"),
            (
                {"strategy": EtagCached(), "max_age": 3},
                r"max_age= of bind_s3: the strategy is an instance.*EtagCached\(",
            ),
            ({"cache_dir": 5}, "cache_dir= of bind_s3: expected a folder; got 5"),
            ({"client": object()}, "memory://x/key takes no client"),
        ],
    )
    def test_bad_option(self, options: dict[str, Any], message: str) -> None:
        """Is named, with where it came from, and what would be right."""
        with pytest.raises(ConfigurationError, match=message):
            Database().bind_s3("memory://x/key", **options)


class TestUse:
    """Of a database that is bound twice, or not at all."""

    def test_binding_twice(self) -> None:
        """Names the place that it is bound to, which stays; so does a database that Pony itself has bound."""
        url = f"memory://bad-{uuid4().hex}/{KEY}"
        db = Database()
        counter = define(db)
        db.bind_s3(url)
        with pytest.raises(ConfigurationError, match=rf"already bound, to {url}; .*Make another Database"):
            db.bind_s3("memory://elsewhere/key")
        db.generate_mapping(create_tables=True)
        with db_session:
            counter(id=1, value=1)
        assert MemoryStore.named(url.split("/")[2]).head(KEY).size
        local = Database()
        local.bind("sqlite", ":memory:")
        with pytest.raises(ConfigurationError, match="already bound, to SQLite"):
            local.bind_s3(url)

    @pytest.mark.parametrize(
        "use",
        [
            lambda db: db.generate_mapping(),
            lambda db: db.generate_mapping(create_tables=True),
            lambda db: db.execute("SELECT 1"),
            lambda db: db.select("SELECT 1"),
            lambda db: db.insert("Counter", value=1),
            lambda db: db.get_connection(),
            lambda db: db.flush(),
        ],
        ids=["generate_mapping", "create_tables", "execute", "select", "insert", "get_connection", "flush"],
    )
    def test_without_binding(self, use: Callable[[Any], object]) -> None:
        """Every way in says how to bind; and binding is still possible."""
        db = Database()
        define(db)
        with pytest.raises(ConfigurationError, match=r"not bound to any place yet. Call db\.bind_s3\("), db_session:
            use(db)
        db.bind_s3(f"memory://bad-{uuid4().hex}/{KEY}")
        db.generate_mapping(create_tables=True)

    def test_failed_bind_is_no_bind(self) -> None:
        """After a mistake the same object can be bound rightly."""
        db = Database()
        mistakes: list[dict[str, Any]] = [{"url": "nonsense"}, {"url": "memory://x/key", "strategy": "nonsense"}]
        for options in mistakes:
            with pytest.raises(ConfigurationError):
                db.bind_s3(**options)
        assert db.provider is None
        temaki.bind_s3(db, f"memory://bad-{uuid4().hex}/{KEY}")


class TestBucket:
    """That is missing, or closed to us."""

    def test_missing_folder(self, tmp_path: Any) -> None:
        """Is no empty database: nothing is made of it."""
        store = DirectoryStore(tmp_path / "nowhere")
        with pytest.raises(BucketNotFoundError, match="nowhere"):
            Client(store, EtagCached()).map(create_tables=True)
        assert not (tmp_path / "nowhere").exists()

    def test_missing_bucket(self, moto: Server) -> None:
        """Of S3, with its name."""
        store = S3Store("nobody-has-made-this", client=moto.client())
        with pytest.raises(BucketNotFoundError, match="nobody-has-made-this"):
            Client(store, EtagCached()).map(create_tables=True)

    @pytest.fixture
    def store(self) -> Iterator[HookedStore]:
        """A bucket with a counter at 0."""
        bucket = MemoryStore()
        creator = Client(bucket, EtagCached()).map(create_tables=True)
        with db_session:
            creator.Counter(id=1, value=0)
        return HookedStore(bucket)  # type: ignore[return-value]

    def test_access_denied_to_readers(self, store: HookedStore) -> None:
        """Is no empty database either; with the permission the same client works."""
        client = Client(store, EtagCached()).map()
        error = AccessDeniedError(
            f"{KEY}: 403; check the permission GetObject", url=KEY, status=403, code="AccessDenied"
        )
        for _ in range(2):
            store.before["get"] = [failing(error)]
            with pytest.raises(AccessDeniedError, match="GetObject") as caught:
                client.value()
            assert (caught.value.status, caught.value.url) == (403, KEY)
        assert client.value() == 0

    def test_access_denied_to_writers(self, store: HookedStore) -> None:
        """They have read; their write is not stored, and the old value stays readable."""
        client = Client(store, EtagCached()).map()
        etag = store.head(KEY).etag
        store.before["put"] = [failing(AccessDeniedError("403: PutObject", url=KEY, status=403, code="AccessDenied"))]
        with pytest.raises(AccessDeniedError, match="PutObject"):
            client.increment()
        assert (client.value(), store.head(KEY).etag) == (0, etag)


class IgnoringStore(HookedStore):
    """A store that knows nothing of conditions, as some servers do."""

    honours_conditions = False

    def __init__(self, store: MemoryStore, ignored: str) -> None:
        super().__init__(store)
        self._ignored = ignored

    def put(self, key: str, body: Any, **conditions: Any) -> str:
        """Without asking what is there."""
        if self._ignored in {"if_match", "both"} and conditions.get("if_match"):
            conditions["if_match"] = None
        if self._ignored in {"if_none_match", "both"}:
            conditions["if_none_match"] = False
        return super().put(key, body, **conditions)


class TestUnsafeStore:
    """One that ignores conditions would lose updates in silence."""

    @pytest.mark.parametrize("ignored", ["if_match", "if_none_match", "both"])
    def test_is_never_written_to(self, ignored: str) -> None:
        """The first write finds out, and names bucket and way out; the database has not changed, nothing is left."""
        bucket = MemoryStore("bad")
        creator = Client(bucket, EtagCached()).map(create_tables=True)
        with db_session:
            creator.Counter(id=1, value=0)
        before = bucket.head(KEY)
        store = CountingStore(IgnoringStore(bucket, ignored))
        client = Client(store, EtagCached()).map()
        for _ in range(2):
            with pytest.raises(UnsafeStoreError, match=r"memory://bad cannot hold.*If-Match.*read-only"):
                client.increment()
        assert bucket.head(KEY).etag == before.etag
        assert [info.key for info in bucket.list()] == [KEY]
        assert store.count("put", key=KEY) == 0
        assert client.value() == 0

    def test_no_database_is_created_there(self) -> None:
        """Nor is a new one begun."""
        bucket = MemoryStore("bad")
        with pytest.raises(UnsafeStoreError, match="memory://bad"):
            Client(IgnoringStore(bucket, "both"), EtagCached()).map(create_tables=True)
        assert list(bucket.list()) == []

    def test_can_be_read(self) -> None:
        """As the message says: with a strategy that never writes."""
        bucket = MemoryStore()
        creator = Client(bucket, EtagCached()).map(create_tables=True)
        with db_session:
            creator.Counter(id=1, value=4)
        store = CountingStore(IgnoringStore(bucket, "both"))
        assert Client(store, ReadOnly()).map().value() == 4
        assert store.count("put") == 0

    def test_good_store_that_is_not_known_is_probed_once(self) -> None:
        """On keys beside the database's, which are removed again."""
        bucket = MemoryStore()
        store = CountingStore(IgnoringStore(bucket, "nothing"))
        client = Client(store, EtagCached()).map(create_tables=True)
        with db_session:
            client.Counter(id=1, value=0)
        probes = store.count("put") - store.count("put", key=KEY)
        assert client.increment() == 1
        assert (store.count("put") - store.count("put", key=KEY), probes) == (probes, 4)
        assert [info.key for info in bucket.list()] == [KEY]


def test_every_error_is_one_of_temakis() -> None:
    """So that one ``except`` catches them."""
    errors = [getattr(temaki, name) for name in temaki.__all__ if name.endswith("Error")]
    assert all(issubclass(error, TemakiError) for error in errors)
    assert len(errors) > 15
