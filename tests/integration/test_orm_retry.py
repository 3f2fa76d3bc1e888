"""Pony's own ``@db_session(retry=N)``: what is run again, and what never is."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest
from pony.orm import CommitException, commit, db_session, flush, rollback
from pony.orm.core import PonyRuntimeWarning

from temaki import (
    AccessDeniedError,
    CommitUnknownError,
    ConflictError,
    TemakiError,
    cause_of,
)
from temaki.stores.memory import MemoryStore
from temaki.testing.faulty import Fault, FaultyStore
from temaki.testing.strategies import KEY, Client
from temaki_strategies import EtagCached
from tests.hooked import HookedStore, denied, failing, lose_answers
from tests.threads import in_thread


@pytest.fixture
def client(other: Client, store: HookedStore) -> Client:
    """This process."""
    assert other
    return Client(store, EtagCached(), timeout=0.01).map()


class Runs:
    """A function under ``retry`` that counts how often it began, and how often it came as far as the database."""

    def __init__(self, client: Client, retry: int = 5, *, read: bool = True) -> None:
        self.began = self.read = 0

        @db_session(retry=retry)  # type: ignore[untyped-decorator, unused-ignore]
        def run() -> None:
            self.began += 1
            if read:
                client.Counter[1].value += 1
            else:
                client.db.execute("UPDATE Counter SET value = value + 1")
            self.read += 1

        self.run: Callable[[], None] = run


class TestNotRunAgain:
    """A function whose commit may have landed, or would only fail in the same way."""

    @pytest.mark.parametrize("read", [True, False])
    def test_unknown_commit(self, client: Client, store: HookedStore, read: bool) -> None:
        """It does not begin a second time; the user gets the error with the id, and the commit counts once."""
        runs = Runs(client, read=read)
        lose_answers(store)
        with pytest.raises(CommitUnknownError) as caught:
            runs.run()
        assert runs.began == 1
        store.before.clear()
        assert caught.value.commit_id == store.head(KEY).metadata["temaki-commit"]
        assert client.value() == 1

    def test_access_denied(self, client: Client, store: HookedStore) -> None:
        """Asking again would be pointless."""
        runs = Runs(client)
        store.before["put"] = [failing(denied())]
        with pytest.raises(AccessDeniedError):
            runs.run()
        assert (runs.began, client.value()) == (1, 0)

    @pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
    def test_interrupt_in_the_upload(self, client: Client, store: HookedStore, kind: type[BaseException]) -> None:
        """Pony would take it for an error like any other. The bytes may have been sent: it is not known."""
        runs = Runs(client)
        store.before["put"] = [failing(kind())]
        with pytest.raises(CommitUnknownError) as caught:
            runs.run()
        assert isinstance(caught.value.__cause__, kind)
        assert (runs.began, client.value()) == (1, 0)

    @pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
    def test_interrupt_before_the_upload(
        self, client: Client, kind: type[BaseException], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The interrupt itself comes back, and nothing is stored."""
        runs = Runs(client)
        engine = client.db.provider.engine
        monkeypatch.setattr(engine.strategy, "push", lambda _: failing(kind())())
        with pytest.raises(kind):
            runs.run()
        monkeypatch.undo()
        assert (runs.began, client.value()) == (1, 0)


@pytest.fixture(params=["unknown", "denied", "interrupted"])
def refused(request: pytest.FixtureRequest, client: Client, store: HookedStore) -> int:
    """A retried function has just failed for good in this thread; how much of it was stored."""
    if request.param == "unknown":
        lose_answers(store)
    elif request.param == "denied":
        store.before["put"] = [failing(denied())]
    else:
        store.before["put"] = [failing(KeyboardInterrupt())]
    with pytest.raises(TemakiError):
        Runs(client).run()
    store.before.clear()
    return int(request.param == "unknown")


class TestWhatFollows:
    """An error that stopped one function stops no other."""

    def test_a_plain_session(self, client: Client, refused: int) -> None:
        """Of the same thread."""
        assert client.value() == refused
        with db_session:
            client.Counter[1].value += 1
        assert client.value() == refused + 1

    def test_another_retried_function(self, client: Client, refused: int) -> None:
        """Of the same thread, and of another one."""
        runs = Runs(client)
        runs.run()
        in_thread(runs.run)
        assert (runs.read, client.value()) == (2, refused + 2)

    def test_the_same_function_called_again(self, client: Client, store: HookedStore) -> None:
        """By whoever knows better: the second call is a call of its own."""
        runs = Runs(client)
        for expected in (1, 2, 3):
            store.before["put"] = [failing(denied())]
            with pytest.raises(AccessDeniedError):
                runs.run()
            assert runs.began == expected
        runs.run()
        assert (runs.began, client.value()) == (4, 1)

    def test_without_retry_the_session_can_go_on(self, client: Client, store: HookedStore) -> None:
        """A caller that catches the error inside its session reads the old value, and may write."""

        def session() -> None:
            client.Counter[1].value = 7
            store.before["put"] = [failing(denied())]
            with pytest.raises(CommitException) as caught:
                commit()
            assert isinstance(cause_of(caught.value), AccessDeniedError)
            assert client.Counter[1].value < 3
            client.Counter[1].value += 1

        db_session(session)()
        with db_session:
            session()
        assert client.value() == 2

    def test_another_thread_meanwhile(self, client: Client, store: HookedStore) -> None:
        """While a function goes on after its failed commit, other threads are not held up."""

        @db_session(retry=3)  # type: ignore[untyped-decorator, unused-ignore]
        def run() -> None:
            client.Counter[1].value += 10
            with suppress(CommitException):
                commit()
            assert in_thread(client.increment) == 1
            client.Counter[1].value += 10

        store.before["put"] = [failing(denied())]
        with pytest.raises(AccessDeniedError):
            run()
        assert client.value() == 1


class TestRunAgain:
    """Where a fresh start can succeed."""

    def test_conflict(self, client: Client, other: Client) -> None:
        """Until it is the first to come; each time from the current version."""
        seen = []

        @db_session(retry=5)  # type: ignore[untyped-decorator, unused-ignore]
        def run() -> None:
            counter = client.Counter[1]
            seen.append(counter.value)
            counter.value += 1
            flush()
            if len(seen) < 4:
                in_thread(other.increment)

        run()
        assert (seen, other.value()) == ([0, 1, 2, 3], 4)

    def test_conflict_at_begin(self, client: Client, other: Client) -> None:
        """It is not wrapped by Pony, and says itself that it should be retried."""
        seen = []

        @db_session(retry=5)  # type: ignore[untyped-decorator, unused-ignore]
        def run() -> None:
            seen.append(client.Counter[1].value)
            if len(seen) < 3:
                in_thread(other.increment)
                in_thread(client.value)
            client.Counter[1].value += 1

        run()
        assert (seen, other.value()) == ([0, 1, 2], 3)

    def test_unavailable_store(self, client: Client, bucket: MemoryStore) -> None:
        """Where certainly nothing was stored."""
        faulty = FaultyStore(bucket)
        client = Client(faulty, EtagCached(), timeout=0.01).map()
        runs = Runs(client)
        faulty.fail_next("put", *[Fault.REFUSED] * 3, key=KEY)
        runs.run()
        assert (runs.read, client.value()) == (2, 1)

    def test_no_more_often_than_asked(self, client: Client, other: Client) -> None:
        """Then the last conflict is raised."""
        began = []

        @db_session(retry=2)  # type: ignore[untyped-decorator, unused-ignore]
        def run() -> None:
            began.append(1)
            client.Counter[1].value += 100
            flush()
            in_thread(other.increment)

        with pytest.raises(CommitException) as caught:
            run()
        assert isinstance(cause_of(caught.value), ConflictError)
        assert (len(began), other.value()) == (3, 3)

    def test_users_own_error_is_not(self, client: Client) -> None:
        """Pony's rule, unchanged."""
        began = []

        @db_session(retry=5)  # type: ignore[untyped-decorator, unused-ignore]
        def run() -> None:
            client.Counter[1].value += 1
            began.append(1)
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            run()
        assert (began, client.value()) == ([1], 0)


class TestNesting:
    """A retry within a session is none, says Pony; a retry within a retried call's function neither."""

    def test_the_outer_function_counts(self, client: Client, store: HookedStore) -> None:
        """What must not be repeated is the outer one, whose commit it was."""
        began: list[str] = []

        @db_session(retry=3)  # type: ignore[untyped-decorator, unused-ignore]
        def inner() -> None:
            began.append("inner")
            client.Counter[1].value += 1

        @db_session(retry=3)  # type: ignore[untyped-decorator, unused-ignore]
        def outer() -> None:
            client.Counter[1]
            began.append("outer")
            with pytest.warns(PonyRuntimeWarning, match="ignored"):
                inner()

        lose_answers(store)
        with pytest.raises(CommitUnknownError):
            outer()
        assert began == ["outer", "inner"]

    def test_recursion(self, client: Client, store: HookedStore) -> None:
        """A retried function that calls itself is one session, and run once."""
        began: list[int] = []

        @db_session(retry=3)  # type: ignore[untyped-decorator, unused-ignore]
        def run(depth: int) -> None:
            client.Counter[1].value += 1
            began.append(depth)
            if depth:
                with pytest.warns(PonyRuntimeWarning, match="ignored"):
                    run(depth - 1)

        lose_answers(store)
        with pytest.raises(CommitUnknownError):
            run(2)
        assert began == [2, 1, 0]
        store.before.clear()
        assert client.value() == 3

    def test_commit_in_the_middle(self, client: Client, store: HookedStore) -> None:
        """An unknown commit of the function's own ``commit()`` is not repeated either, even where it is swallowed."""
        began: list[int] = []

        @db_session(retry=3)  # type: ignore[untyped-decorator, unused-ignore]
        def run() -> None:
            client.Counter[1].value += 1
            began.append(1)
            commit()

        lose_answers(store)
        with pytest.raises(CommitUnknownError):
            run()
        assert began == [1]

    def test_function_that_goes_on_after_its_refused_commit(self, client: Client, store: HookedStore) -> None:
        """Its next touch of the database, in that same call, raises the error again: better than a second run."""

        @db_session(retry=3)  # type: ignore[untyped-decorator, unused-ignore]
        def run() -> None:
            client.Counter[1].value += 1
            try:
                commit()
            except CommitException:
                rollback()
                client.Counter[1].value += 10

        lose_answers(store)
        with pytest.raises(CommitUnknownError):
            run()
        store.before.clear()
        assert client.value() == 1
