"""The public API as a user's strictly typed program uses it. Nothing here runs: mypy checks it, with all other code.

Each ``type: ignore`` is a mistake that has to be found: one that is not is an error too (``warn_unused_ignores``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar, assert_type

import pony.orm
from pony.orm import Required

import temaki
from temaki import (
    AccessDeniedError,
    CommitUnknownError,
    ConfigurationError,
    ConflictError,
    Database,
    Seeded,
    SeedError,
    StoreError,
    SyncError,
    TemakiError,
    WorkingCopyError,
    bind_s3,
    cause_of,
    db_session,
)
from temaki.clock import Clock, SystemClock
from temaki.events import Event, Published
from temaki.orm.db_session import DBSession
from temaki.store import Download, Location, ObjectInfo, ReadableBody, Store, StoreOpener
from temaki.stores import open_store
from temaki.strategy import Session, Strategy
from temaki.sync import Bookmark, Sync
from temaki.testing import (
    CountingStore,
    Fault,
    FaultyStore,
    ManualClock,
    StoreWrapper,
    StrategyTests,
    use_testing_rows,
)
from temaki_strategies import AlwaysDownload, EtagCached, ReadOnly

T = TypeVar("T")

db = Database()
assert_type(temaki.__version__, str)


class User(db.Entity):  # type: ignore[name-defined] # Pony has no types
    """An entity, as in any Pony program."""

    name = Required(str)


class Role(db.Entity, Seeded):  # type: ignore[name-defined] # as above
    """An entity that brings its rows."""

    label = Required(str)
    rows: ClassVar = [{"id": 1, "label": "admin"}]


def seeding(error: SeedError) -> None:
    """Seeding by hand, and what an error says."""
    assert_type(db.seed(force=True), None)
    Seeded.entity(db, "Country", [{"id": "DE"}], seed_policy="mirror")
    assert_type(error.row, int | None)
    assert_type(error.column, str | None)
    with use_testing_rows():
        db.seed()


def binding(folder: Path, store: Store, plain: pony.orm.Database) -> None:
    """All ways to name a place and a strategy."""
    assert_type(db.bind_s3(), None)
    db.bind_s3("s3://bucket/app.sqlite")
    db.bind_s3("s3://bucket/app.sqlite", strategy="etag-cached", cache_dir=folder, max_age=3.0, timeout=10)
    db.bind_s3("memory://name/key", strategy=EtagCached(max_age=2), store=store, cache_dir="~/.cache/app")
    bind_s3(plain, "s3://bucket/app.sqlite", strategy=ReadOnly(max_age=60), client=object())
    db.generate_mapping(create_tables=True)
    db.generate_mapping(None, check_tables=False)


def mistakes(store: Store) -> None:
    """Found before the program runs."""
    db.bind_s3(3)  # type: ignore[arg-type]
    db.seed(True)  # type: ignore[call-arg]
    db.bind_s3("s3://bucket/key", "etag-cached")  # type: ignore[call-arg]
    db.bind_s3("s3://bucket/key", strategy=EtagCached)  # type: ignore[arg-type]
    db.bind_s3("s3://bucket/key", store="s3://bucket")  # type: ignore[arg-type]
    EtagCached(max_age="long")  # type: ignore[arg-type]
    EtagCached(3.0)  # type: ignore[call-arg]
    AlwaysDownload(max_age=3)  # type: ignore[call-arg]
    db.generate_mapping(create_tables="yes")  # type: ignore[arg-type]
    Strategy()  # type: ignore[abstract]
    store.put("key", "text")  # type: ignore[arg-type]
    store.get("key", (0, 100))  # type: ignore[call-arg, arg-type]
    cause_of("an error")  # type: ignore[arg-type]


@db_session(retry=5)
def hire(name: str) -> None:
    """A retried function."""
    User(name=name)


@db_session
def count(first: int, *, step: int = 1) -> int:
    """A function that keeps its types."""
    return first + step


@db_session
def names() -> Iterator[str]:
    """A generator function."""
    yield "Ann"


def sessions(wanted: type[Exception]) -> None:
    """All ways to use it."""
    assert_type(count(1, step=2), int)
    assert_type(names(), Iterator[str])
    assert_type(hire("Ann"), None)
    assert_type(db_session(retry=3, timeout=10), DBSession)
    db_session(retry_exceptions=[wanted], allowed_exceptions=lambda error: bool(error.args))
    db_session(immediate=True, serializable=True, strict=True, optimistic=False, ddl=False, show_values=True)
    with db_session:
        count(1)
    with db_session(strict=True, sql_debug=True):
        count(2)
    hire(3)  # type: ignore[arg-type]
    count(1, 2)  # type: ignore[call-arg]
    count("one")  # type: ignore[arg-type]
    db_session(retry="5")  # type: ignore[call-overload]
    db_session(speed=3)  # type: ignore[call-overload]
    db_session(5)  # type: ignore[call-overload]


def errors() -> None:
    """What a program does with what it catches."""
    try:
        hire("Ann")
    except pony.orm.CommitException as error:
        cause = cause_of(error)
        assert_type(cause, BaseException)
        if isinstance(cause, CommitUnknownError):
            assert_type(cause.commit_id, str)
            assert_type(cause.url, str)
        if isinstance(cause, (ConflictError, AccessDeniedError)):
            assert_type(cause.should_retry, bool)
    except StoreError as error:
        assert_type(error.status, int | None)
        assert_type(error.code, str | None)
        print(error.commit_id)  # type: ignore[attr-defined]
    except WorkingCopyError as error:
        assert_type(error.path, str)
    except SyncError as error:
        assert_type(error.url, str)
    except (ConfigurationError, TemakiError) as error:
        assert_type(error.args, tuple[object, ...])  # type: ignore[assert-type] # of any, says typeshed


def observing(plain: pony.orm.Database) -> None:
    """What happened, as values with types."""
    assert_type(db.sync, Sync)
    assert_type(temaki.sync_of(plain), Sync)
    now = db.sync.snapshot()
    assert_type(now.sequence, int | None)
    assert_type(now.traffic.count("get", "ok"), int)
    now.traffic.count("post")  # type: ignore[arg-type]
    now.sessions = 3  # type: ignore[misc]

    def heard(event: Event) -> None:
        if isinstance(event, Published):
            assert_type(event.pages, int)

    stop = db.sync.on_event(heard)
    stop()
    db.sync.on_event(lambda: None)  # type: ignore[arg-type,misc]
    bookmark = db.sync.bookmark()
    assert_type(Bookmark.parse(str(bookmark)), Bookmark)
    db.sync.wait_for(bookmark, timeout=3)


class Patient(Strategy):
    """A strategy of one's own."""

    writes: ClassVar[bool] = True

    def __init__(self, *, patience: float = 1.0) -> None:
        self.patience = patience

    def pull(self, session: Session) -> None:
        """Sessions have what strategies are made of."""
        session.revalidate(max_age=self.patience)
        assert_type(session.url, str)
        assert_type(session.immediate, bool)

    def push(self, session: Session) -> None:
        """The version that was published is known."""
        published = session.publish(metadata={"by": "patient"})
        assert_type(published.version.sequence, int)
        assert_type(published.superseded, bool)
        assert_type(session.changed_pages, frozenset[int])


class Wrong(Strategy):
    """One that does not fit."""

    def pull(self, session: str) -> None:  # type: ignore[override]
        """Takes something else."""


class TestPatient(StrategyTests):
    """The published suite for it."""

    def make_strategy(self) -> Strategy:
        """As configured."""
        return Patient(patience=2)


class OwnStore:
    """A store of one's own needs no base class."""

    url = "own://bucket"
    honours_conditions = True

    def get(
        self,
        key: str,
        *,
        if_none_match: str | None = None,
        if_match: str | None = None,
        byte_range: tuple[int, int] | None = None,
    ) -> Download | None:
        """See :class:`Store`."""

    def head(self, key: str) -> ObjectInfo:
        """See :class:`Store`."""
        return ObjectInfo(key=key, etag="e", size=0)

    def put(
        self,
        key: str,
        body: bytes | ReadableBody,
        *,
        metadata: Mapping[str, str] | None = None,
        if_match: str | None = None,
        if_none_match: bool = False,
    ) -> str:
        """See :class:`Store`."""
        return "e"

    def delete(self, key: str) -> None:
        """See :class:`Store`."""

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See :class:`Store`."""
        yield self.head(prefix)


class OwnOpener(StoreOpener):
    """A scheme of one's own."""

    example = "own://bucket/key"

    def open(self, location: Location, *, client: Any = None) -> Store:
        """See :class:`StoreOpener`."""
        assert_type(location.bucket, str)
        return OwnStore()


class OwnWrapper(StoreWrapper):
    """A wrapper of one's own."""

    def handle_request(self, verb: str, key: str, request: Callable[[], T], /) -> T:
        """See :class:`StoreWrapper`."""
        return request()


class HalfAStore:
    """One that lacks most of it."""

    url = "half://bucket"

    def head(self, key: str) -> ObjectInfo:
        """The only one."""
        return ObjectInfo(key=key, etag="e", size=0)


def stores(clock: ManualClock) -> None:
    """Stores and clocks fit where they are asked for."""
    own: Store = OwnStore()
    half: Store = HalfAStore()  # type: ignore[assignment]
    for store in (CountingStore(own), FaultyStore(half, seed=1, rates={"put": {Fault.LOST_REPLY: 0.1}}, clock=clock)):
        db.bind_s3("memory://name/key", store=store)
    assert_type(open_store("memory://name/key"), tuple[Store, str])
    wrapper: Store = OwnWrapper(own)
    assert_type(OwnOpener().split("bucket/key"), tuple[str, str])
    db.bind_s3("memory://name/key", store=wrapper)
    clocks: list[Clock] = [SystemClock(), clock]
    assert_type(clocks[0].monotonic(), float)
    counting = CountingStore(own)
    counting.count("get", "not_modified")
    counting.count("fetch")  # type: ignore[arg-type]
