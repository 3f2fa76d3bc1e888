"""``temaki.db_session``: Pony's, with another ``retry``."""

from __future__ import annotations

import functools
import inspect
import json
import pickle
import subprocess
import sys
import threading
import types
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from pony.orm import CommitException, commit, core, flush, rollback, select
from pony.orm.core import DBSessionContextManager, OptimisticCheckError, PonyRuntimeWarning, TransactionError

import temaki
from temaki import (
    AccessDeniedError,
    CommitUnknownError,
    ConflictError,
    ReadOnlyError,
    StoreUnavailableError,
    TemakiError,
    cause_of,
    db_session,
)
from temaki.engine import shared
from temaki.orm.db_session import DBSession
from temaki.stores.memory import MemoryStore
from temaki.testing.clock import ManualClock
from temaki.testing.strategies import KEY, Client
from temaki_strategies import AlwaysDownload, EtagCached, LeaseLocked, ReadOnly
from tests.hooked import HookedStore, denied, failing, lose_answers
from tests.threads import Background, in_thread, until


@pytest.fixture
def clock(other: Client, monkeypatch: pytest.MonkeyPatch) -> ManualClock:
    """That of all databases that are bound from now on."""
    assert other
    clock = ManualClock()
    monkeypatch.setattr(shared, "SystemClock", lambda: clock)
    return clock


@pytest.fixture
def client(clock: ManualClock, store: HookedStore) -> Client:
    """This process."""
    assert clock
    return Client(store, EtagCached(), timeout=5).map()


class Runs:
    """A function under ``retry`` that counts how often it began."""

    def __init__(self, client: Client, meanwhile: Callable[[int], object] = lambda _: None, **options: Any) -> None:
        self.began = 0

        @db_session(**{"retry": 5, **options})
        def run() -> None:
            self.began += 1
            client.Counter[1].value += 1
            flush()
            meanwhile(self.began)

        self.run: Callable[[], None] = run


def down() -> StoreUnavailableError:
    """What a client says that finds nobody to connect to."""
    return StoreUnavailableError("refused", url=KEY, ambiguous=False)


class TestNotRunAgain:
    """The function is not entered after an outcome that must not be repeated."""

    def test_unknown_commit(self, client: Client, store: HookedStore) -> None:
        """It may have landed: here it has."""
        runs = Runs(client)
        lose_answers(store)
        with pytest.raises(CommitUnknownError) as caught:
            runs.run()
        store.before.clear()
        assert runs.began == 1
        assert caught.value.commit_id == store.head(KEY).metadata["temaki-commit"]
        assert client.value() == 1

    def test_access_denied(self, client: Client, store: HookedStore) -> None:
        """It would fail again."""
        runs = Runs(client)
        store.before["put"] = [failing(denied())]
        with pytest.raises(AccessDeniedError):
            runs.run()
        assert (runs.began, client.value()) == (1, 0)

    def test_read_only(self, client: Client, store: HookedStore) -> None:
        """A strategy that never writes never will."""
        runs = Runs(Client(store, ReadOnly()).map())
        with pytest.raises(ReadOnlyError):
            runs.run()
        assert runs.began == 1

    @pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
    def test_interrupt(self, client: Client, kind: type[BaseException], monkeypatch: pytest.MonkeyPatch) -> None:
        """Before the upload it arrives as what it is, which no ``except Exception`` takes."""
        runs = Runs(client)
        bound = client.db.provider.engine
        monkeypatch.setattr(bound.strategy, "push", lambda _: failing(kind())())
        with pytest.raises(kind):
            runs.run()
        monkeypatch.undo()
        assert (runs.began, client.value()) == (1, 0)

    @pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
    def test_interrupt_in_the_upload(self, client: Client, store: HookedStore, kind: type[BaseException]) -> None:
        """The bytes may have been sent: it is not known."""
        runs = Runs(client)
        store.before["put"] = [failing(kind())]
        with pytest.raises(CommitUnknownError) as caught:
            runs.run()
        assert isinstance(caught.value.__cause__, kind)
        assert runs.began == 1

    def test_first_half_was_stored(self, client: Client, other: Client) -> None:
        """A function with a ``commit()`` in it is not run again for what comes after: the first half counts once."""
        began = []

        @db_session(retry=5)
        def run() -> None:
            began.append(1)
            client.Counter[1].value += 1
            commit()
            client.Counter[1].value += 10
            flush()
            in_thread(other.increment)

        with pytest.raises(ConflictError):
            run()
        assert (began, other.value()) == ([1], 2)

    def test_swallowed_unknown_commit(self, client: Client, other: Client, store: HookedStore) -> None:
        """A function may go on after it; but if it fails later, it is not run again."""
        began = []

        @db_session(retry=5, timeout=1000)
        def run() -> None:
            began.append(1)
            client.Counter[1].value += 1
            try:
                commit()
            except CommitException:
                rollback()
            store.before.clear()
            client.Counter[1].value += 10
            flush()
            in_thread(other.increment)

        lose_answers(store)
        with pytest.raises(ConflictError):
            run()
        assert (began, other.value()) == ([1], 2)

    def test_two_databases(self, client: Client, other: Client, store: HookedStore) -> None:
        """Where the first is stored and the second is not, another run would store the first again."""
        second = Client(store, EtagCached()).map()
        second.db.priority = -1
        began = []

        @db_session(retry=5)
        def run() -> None:
            began.append(1)
            client.Counter[1].value += 1
            second.Counter[1].value += 1

        with pytest.raises(core.PartialCommitException):
            run()
        assert (began, other.value()) == ([1], 1)

    def test_what_follows(self, client: Client, store: HookedStore) -> None:
        """The next call is a call of its own."""
        runs = Runs(client)
        for expected in (1, 2):
            store.before["put"] = [failing(denied())]
            with pytest.raises(AccessDeniedError):
                runs.run()
            assert runs.began == expected
        runs.run()
        in_thread(runs.run)
        assert client.value() == 2


class TestPonysOwn:
    """Pony's ``db_session`` on a temaki database: no wait, no timeout, and no second entry either."""

    def test_entered_once(self, client: Client, store: HookedStore) -> None:
        """Whatever stands at the top of the function happens once."""
        began = []

        @core.db_session(retry=5)
        def run() -> None:
            began.append(1)
            client.Counter[1].value += 1

        lose_answers(store)
        with pytest.raises(CommitUnknownError):
            run()
        assert began == [1]

    def test_own_retry_exceptions(self, client: Client, store: HookedStore) -> None:
        """What the user wants to have tried again still is, and nothing else; the guard is put there once."""
        asked = []

        def wanted(error: BaseException) -> bool:
            asked.append(type(error))
            return isinstance(error, ZeroDivisionError)

        session = core.db_session(retry=2, retry_exceptions=wanted)

        @session
        def run(error: BaseException) -> None:
            client.Counter[1].value += 1
            raise error

        for error in (ZeroDivisionError(), ValueError()):
            with pytest.raises(type(error)):
                run(error)
        assert asked == [ZeroDivisionError] * 3 + [ValueError]
        asked.clear()
        with pytest.raises(CommitUnknownError):
            run(CommitUnknownError("?", url=KEY, commit_id="c"))
        assert asked == []

    def test_waits(self, client: Client, other: Client, clock: ManualClock) -> None:
        """Each try after a conflict waits first; see ``test_orm_retry_waits.py``."""
        began = []

        @core.db_session(retry=3)
        def run() -> None:
            began.append(1)
            client.Counter[1].value += 1
            flush()
            if len(began) < 4:
                in_thread(other.increment)

        run()
        assert (len(began), len(clock.slept)) == (4, 3 + 1), "and once for the turn that it takes"


class TestRunAgain:
    """Where a fresh start can succeed, after a wait."""

    def test_conflict(self, client: Client, other: Client, clock: ManualClock) -> None:
        """From the version that is there by then."""
        runs = Runs(client, lambda began: in_thread(other.increment) if began < 3 else None)
        runs.run()
        assert (runs.began, other.value()) == (3, 3)
        assert len(clock.slept) == 2
        assert 0 < clock.slept[0] < clock.slept[1]

    def test_users_own_error_is_not(self, client: Client) -> None:
        """Pony's rule, unchanged."""

        def fail(_: int) -> None:
            raise ZeroDivisionError

        runs = Runs(client, fail)
        with pytest.raises(ZeroDivisionError):
            runs.run()
        assert (runs.began, client.value()) == (1, 0)

    @pytest.mark.parametrize("wanted", [[ZeroDivisionError], lambda error: isinstance(error, ZeroDivisionError)])
    def test_retry_exceptions(self, client: Client, wanted: Any) -> None:
        """A list of classes, or a function."""

        def fail(began: int) -> None:
            if began < 3:
                raise ZeroDivisionError

        runs = Runs(client, fail, retry_exceptions=wanted)
        runs.run()
        assert (runs.began, client.value()) == (3, 1)

    def test_store_that_is_down(self, client: Client, store: HookedStore, clock: ManualClock) -> None:
        """``retry=2, timeout=5`` gives up after 5 s."""
        runs = Runs(client, retry=2)
        store.before["put"] = [failing(down())] * 1000
        begun = clock.monotonic()
        with pytest.raises(StoreUnavailableError):
            runs.run()
        assert begun + 5 <= clock.monotonic() < begun + 5.5

    def test_own_timeout(self, client: Client, other: Client, clock: ManualClock) -> None:
        """For a function that takes longer than the store may."""

        def meanwhile(_: int) -> None:
            clock.advance(4)
            in_thread(other.increment)

        runs = Runs(client, meanwhile, timeout=10)
        with pytest.raises(ConflictError) as caught:
            runs.run()
        assert runs.began == 3
        assert "timeout of 10 s is over" in caught.value.__notes__[-1]

    def test_under_lease_locked(self, client: Client, other: Client, store: HookedStore) -> None:
        """The lease keeps conflicts among such writers away; one with another writer is tried again as ever."""
        locked = Client(store, LeaseLocked()).map()
        runs = Runs(locked, lambda began: in_thread(other.increment) if began == 1 else None)
        runs.run()
        assert (runs.began, client.value()) == (2, 2)


class TestSlowSession:
    """After three conflicts in a row a slow session is let through."""

    @pytest.mark.parametrize("strategy", [EtagCached, AlwaysDownload])
    def test_beside_a_fast_writer(self, bucket: MemoryStore, other: Client, strategy: Any) -> None:
        """The writer never stops by itself; each try lasts until it has stored another version, or gives way."""
        slow, fast = Client(bucket, strategy()).map(), Client(bucket, strategy()).map()
        over, seen = threading.Event(), []

        def write() -> None:
            while not over.is_set():
                with core.db_session:  # whatever its db_session is
                    fast.Counter[1].value += 1

        def gives_way() -> bool:
            return bool(fast.db.provider.engine.shared.lease.turns._waiting)

        @db_session(retry=50)
        def run() -> None:
            row = slow.Counter[1]
            before = bucket.head(KEY).etag
            seen.append(False)
            until(lambda: bucket.head(KEY).etag != before or gives_way())
            seen[-1] = gives_way()
            row.value += 1000

        writer = Background(lambda: _despite_conflicts(write))
        try:
            run()
            download = bucket.get(f"{KEY}.lease")
            assert download is not None
            held = json.loads(download.read(1 << 16))["held"]
        finally:
            over.set()
            writer.result()
        assert seen[:3] == [False] * 3
        assert seen[-1]
        assert other.value() >= 1000
        assert held is False, "others would wait until it runs out"

    def test_between_threads(self, client: Client, clock: ManualClock) -> None:
        """Threads of one process need no lease: the slow session begins as the one writer."""
        seen = []

        @db_session(retry=5)
        def run() -> None:
            row = client.Counter[1]
            seen.append(core.local.db_session.immediate)
            if not seen[-1]:
                in_thread(client.increment)
            row.value += 1

        run()
        assert seen == [False] * 3 + [True]
        assert client.value() == 4
        assert len(clock.slept) == 3

    def test_no_request_without_contention(self, client: Client, store: HookedStore) -> None:
        """A writer that is alone, and not busy, never looks at the lease."""
        lease = HookedStore(store, f"{KEY}.lease")
        asked: list[int] = []
        lease.before = {verb: [lambda: asked.append(1)] * 10 for verb in ("get", "head", "put")}
        alone = Client(lease, EtagCached()).map()
        for _ in range(3):
            Runs(alone).run()
        assert asked == []


def _despite_conflicts(write: Callable[[], None]) -> None:
    """A writer without ``retry``, which begins again by itself."""
    while True:
        try:
            write()
        except (ConflictError, CommitException):
            continue
        return


class TestErrors:
    """How they arrive."""

    def decorated(self, run: Callable[[], None]) -> None:
        """From a decorated function."""
        db_session(run)()

    def retried(self, run: Callable[[], None]) -> None:
        """From one that is tried again."""
        db_session(retry=1)(run)()

    def managed(self, run: Callable[[], None]) -> None:
        """From a block."""
        with db_session:
            run()

    @pytest.mark.parametrize("how", ["decorated", "retried", "managed"])
    @pytest.mark.parametrize("explicit", [True, False])
    def test_both_kinds(self, client: Client, other: Client, how: str, explicit: bool) -> None:
        """An error of the commit is Pony's and temaki's: both ``except`` clauses take it, and it has the facts."""

        def run() -> None:
            client.Counter[1].value += 1
            flush()
            in_thread(other.increment)
            if explicit:
                commit()

        with pytest.raises(ConflictError) as caught:
            getattr(self, how)(run)
        error = caught.value
        assert isinstance(error, CommitException)
        assert isinstance(error, TransactionError)
        original = cause_of(error)
        assert type(original) is ConflictError
        assert (str(error), error.url) == (str(original), original.url)
        assert error.should_retry
        assert type(error).__name__ == "ConflictError"
        copy = pickle.loads(pickle.dumps(error))
        assert (type(copy), str(copy)) == (ConflictError, str(error))

    def test_of_ponys(self, client: Client) -> None:
        """What has no cause of temaki's arrives as Pony raises it."""

        @db_session
        def run() -> None:
            row = client.Counter[1]
            in_thread(client.increment)
            row.value += 1

        with pytest.raises(OptimisticCheckError):
            run()

    def test_interrupted_block(self, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        """Ctrl-C in a commit is Ctrl-C."""
        client.value()
        monkeypatch.setattr(client.db.provider.engine.strategy, "push", lambda _: failing(KeyboardInterrupt())())
        with pytest.raises(KeyboardInterrupt), db_session:
            client.Counter[1].value += 1

    def test_every_error_can_be_joined(self) -> None:
        """Also those with facts of their own."""
        from temaki.orm.cause import joined

        for name in temaki.__all__:
            kind = getattr(temaki, name)
            if isinstance(kind, type) and issubclass(kind, TemakiError):
                cause = kind("what happened", url="u")
                error = joined(CommitException("what happened", [(kind, cause, None)]))
                assert isinstance(error, kind)
                assert cause_of(error) is cause
                assert joined(error) is error


async def _coroutine() -> None:
    """An async function."""


async def _async_generator() -> AsyncIterator[int]:
    """An async generator function."""
    yield 1


class _AsyncCallable:
    """An object that is called as an async function is."""

    async def __call__(self) -> None:
        """Nothing."""


class TestAsync:
    """It raises where it is decorated, and says what to do."""

    @pytest.mark.parametrize(
        "func",
        [_coroutine, _async_generator, functools.partial(_coroutine), _AsyncCallable(), _AsyncCallable().__call__],
    )
    @pytest.mark.parametrize("session", [db_session, db_session(retry=3), db_session(strict=True)])
    def test_refused(self, func: Any, session: DBSession) -> None:
        """However it is async, and whatever the options are."""
        with pytest.raises(TypeError, match=r"asyncio\.to_thread"):
            session(func)

    @pytest.mark.parametrize("retry", [0, 3])
    def test_in_disguise(self, client: Client, retry: int) -> None:
        """A plain function that returns a coroutine is found when it is called; nothing is stored."""

        @db_session(retry=retry)
        def disguised() -> object:
            client.Counter[1].value += 1
            return _coroutine()

        with pytest.raises(TypeError, match=r"disguised\(\).*asyncio\.to_thread"):
            disguised()
        assert client.value() == 0


class TestAsPonys:
    """Everything else is Pony's own."""

    def test_is_ponys(self) -> None:
        """Its class, its parameters with their defaults, and one more."""
        assert isinstance(db_session, DBSessionContextManager)
        ponys = inspect.signature(DBSessionContextManager.__init__).parameters
        ours = dict(inspect.signature(DBSession.__init__).parameters)
        del ours["timeout"]
        assert [(one.name, one.default) for one in ours.values()] == [(one.name, one.default) for one in ponys.values()]

    @pytest.mark.parametrize("decorate", [db_session, db_session(), db_session(retry=2), db_session(strict=True)])
    def test_decorator(self, client: Client, decorate: Any) -> None:
        """With and without parentheses; arguments, result, name and signature are the function's."""

        @decorate
        def change(by: int, *, twice: bool = False) -> int:
            """Change it."""
            client.Counter[1].value += by * (1 + twice)
            value: int = client.Counter[1].value
            return value

        assert change(2, twice=True) == 4
        assert (change.__name__, change.__doc__) == ("change", "Change it.")
        assert list(inspect.signature(change).parameters) == ["by", "twice"]
        assert client.value() == 4

    def test_method(self, client: Client) -> None:
        """Of a class."""

        class Service:
            @db_session(retry=2)
            def change(self) -> None:
                client.Counter[1].value += 1

        Service().change()
        assert client.value() == 1

    @pytest.mark.parametrize("retry", [0, 2])
    def test_other_callables(self, client: Client, retry: int) -> None:
        """What is no function."""

        def change(by: int) -> None:
            client.Counter[1].value += by

        db_session(retry=retry)(functools.partial(change, 3))()
        assert client.value() == 3

    def test_block(self, client: Client) -> None:
        """Also within another one, whose transaction it joins; ``retry`` needs a function to run again."""
        with db_session:
            with db_session(strict=True):
                client.Counter[1].value += 1
            assert core.local.db_session is db_session
            client.Counter[1].value += 1
        assert client.value() == 2
        with pytest.raises(TypeError, match="only when used as decorator"), db_session(retry=2):
            pass

    @pytest.mark.parametrize("outer", [db_session, core.db_session])
    def test_nested(self, client: Client, other: Client, outer: Any) -> None:
        """A retried function in another session is part of it: it warns, at the line of the call."""
        runs = Runs(client, lambda _: in_thread(other.increment))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with pytest.raises(CommitException), outer:
                runs.run()
        assert [(one.category, one.filename) for one in caught] == [(PonyRuntimeWarning, __file__)]
        assert "ignored for run() function" in str(caught[0].message)
        assert runs.began == 1

    def test_ponys_in_ours(self, client: Client, other: Client) -> None:
        """A function of Pony's in a retried one of ours runs again with it."""

        @core.db_session
        def inner() -> None:
            client.Counter[1].value += 1

        began = []

        @db_session(retry=3)
        def outer() -> None:
            began.append(1)
            inner()
            flush()
            if len(began) == 1:
                in_thread(other.increment)

        outer()
        assert (len(began), other.value()) == (2, 2)

    @pytest.mark.parametrize("retry", [0, 2])
    def test_allowed_exceptions(self, client: Client, retry: int) -> None:
        """They are raised, and the transaction is committed."""

        def fail(_: int) -> None:
            raise ZeroDivisionError

        runs = Runs(client, fail, retry=retry, allowed_exceptions=[ZeroDivisionError])
        with pytest.raises(ZeroDivisionError):
            runs.run()
        assert (runs.began, client.value()) == (1, 1)

    def test_allowed_and_retried(self, client: Client) -> None:
        """An error that is both is tried again, and nothing of the failed try is committed."""

        def fail(began: int) -> None:
            if began < 3:
                raise ZeroDivisionError

        runs = Runs(client, fail, retry_exceptions=[ZeroDivisionError], allowed_exceptions=[ArithmeticError])
        runs.run()
        assert (runs.began, client.value()) == (3, 1)

    @pytest.mark.parametrize("option", ["immediate", "serializable", "strict"])
    @pytest.mark.parametrize("retry", [0, 2])
    def test_option_reaches_the_session(self, client: Client, option: str, retry: int) -> None:
        """With and without ``retry``."""
        options: Any = {"retry": retry, option: True}

        @db_session(**options)
        def run() -> tuple[bool, bool]:
            cache = client.db._get_cache()
            return getattr(core.local.db_session, option), cache.immediate

        assert run() == (True, option != "strict")

    @pytest.mark.parametrize("retry", [0, 2])
    def test_not_optimistic(self, client: Client, retry: int) -> None:
        """Writes from its start."""

        @db_session(retry=retry, optimistic=False)
        def run() -> bool:
            return bool(client.db._get_cache().immediate)

        assert run()

    @pytest.mark.parametrize("retry", [0, 2])
    def test_sql_debug(self, client: Client, retry: int) -> None:
        """For the function alone, nested or not."""

        @db_session(retry=retry, sql_debug=True, show_values=True)
        def run() -> None:
            assert core.local.debug
            assert core.local.show_values
            assert client.Counter[1].value == 0

        run()
        assert not core.local.debug
        with db_session, warnings.catch_warnings():
            warnings.simplefilter("ignore", PonyRuntimeWarning)
            run()
            assert not core.local.debug

    def test_ddl(self, client: Client) -> None:
        """A function that changes tables."""

        @db_session(ddl=True)
        def run() -> None:
            client.db.execute("CREATE TABLE extra (id INTEGER)")

        run()
        with db_session:
            assert client.db.select("SELECT count(*) FROM extra") == [0]
            with pytest.raises(TransactionError):
                run()
        with pytest.raises(TypeError):
            db_session(ddl=True, retry=2)

    def test_generator(self, client: Client) -> None:
        """A session that is suspended between values; it cannot be retried."""

        @db_session
        def values() -> Iterator[int]:
            yield client.Counter[1].value
            client.Counter[1].value += 1
            commit()
            yield client.Counter[1].value

        assert list(values()) == [0, 1]
        with pytest.raises(TypeError, match="generator"):
            db_session(retry=2)(values.__wrapped__)  # type: ignore[attr-defined]
        assert isinstance(values(), (types.GeneratorType, Iterator))

    @pytest.mark.parametrize("options", [{"retry": -1}, {"retry": "5"}, {"timeout": 0}, {"timeout": -1}, {"speed": 3}])
    def test_mistakes(self, options: dict[str, Any]) -> None:
        """Are found where they are made."""
        with pytest.raises(TypeError):
            db_session(**options)

    def test_not_a_function(self) -> None:
        """`@db_session(5)` says what is right."""
        with pytest.raises(TypeError, match="retry=5"):
            db_session(5)  # type: ignore[call-overload]

    def test_another_database(self) -> None:
        """It works on any of Pony's databases."""
        plain = temaki.Database()

        class Row(plain.Entity):  # type: ignore[name-defined]
            name = core.Required(str)

        plain.bind("sqlite", ":memory:")
        plain.generate_mapping(create_tables=True)

        @db_session(retry=2)
        def run() -> int:
            Row(name="a")
            return int(select(row for row in Row).count())  # type: ignore[attr-defined]

        assert run() == 1

    def test_star_imports(self) -> None:
        """After Pony's names, ``from temaki import *`` brings its own."""
        code = "from pony.orm import *; from temaki import *; import temaki; assert db_session is temaki.db_session"
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
