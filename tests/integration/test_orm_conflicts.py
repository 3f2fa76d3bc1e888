"""Promises two to four at Pony's level: sessions that meet, in other processes and in other threads of this one."""
# ruff: noqa: PT012 - what a session raises, it raises at its end: the block is all of it

from __future__ import annotations

from collections.abc import Callable

import pytest
from pony.orm import CommitException, OptimisticCheckError, commit, db_session, flush

from temaki import ConflictError, StoreUnavailableError, cause_of
from temaki.stores.memory import MemoryStore
from temaki.testing.counting import CountingStore
from temaki.testing.strategies import KEY, Client
from temaki.testing.threads import in_parallel
from temaki_strategies import EtagCached
from tests.hooked import Gate, HookedStore, failing
from tests.threads import Background, in_thread, until


@pytest.fixture
def other(bucket: MemoryStore) -> Client:
    """Another process, which has created the database with two counters at 0."""
    other = Client(bucket, EtagCached()).map(create_tables=True)
    with db_session:
        other.Counter(id=1, value=0)
        other.Counter(id=2, value=0)
    return other


@pytest.fixture
def client(other: Client, store: HookedStore) -> Client:
    """This process."""
    assert other
    return Client(store, EtagCached(), timeout=0.01).map()


def values(client: Client) -> tuple[int, int]:
    """Both counters, as a session sees them."""
    with db_session:
        return client.Counter[1].value, client.Counter[2].value


class TestCheckAtBegin:
    """After BEGIN IMMEDIATE the session's version must still be the current one."""

    def test_newer_version_pulled_by_another_thread(self, client: Client, other: Client) -> None:
        """A session that has read the old one may not write, not even to another row; nothing is uploaded."""
        with (
            pytest.raises(ConflictError, match=r"^Nothing was stored in .*: run .* again, as @db_session"),
            db_session,
        ):
            assert client.Counter[1].value == 0
            in_thread(other.increment)
            assert in_thread(client.value) == 1
            client.Counter[2].value = 5
            flush()
        assert values(client) == values(other) == (1, 0)

    def test_writer_that_waited_for_a_refused_commit(self, client: Client, store: HookedStore) -> None:
        """Whoever waits for another thread's commit neither reads nor builds on the refused value."""
        refused = Gate()
        first_changed, second_read = Gate(), Gate()
        seen: list[int] = []

        def second() -> None:
            with db_session:
                counter = client.Counter[1]
                assert counter.value == 0
                second_read()
                seen.append(client.db.execute("SELECT value FROM Counter WHERE id = 1").fetchone()[0])
                counter.value += 10

        def refuse() -> None:
            refused()
            raise StoreUnavailableError("refused", url=KEY, ambiguous=False)

        store.before["put"] = [refuse, *[failing(StoreUnavailableError("refused", url=KEY, ambiguous=False))] * 3]
        writing = Background(lambda: client.increment(retry=0, before_commit=first_changed))
        first_changed.wait()
        waiting = Background(second)
        second_read.wait()
        first_changed.open()
        refused.wait()
        second_read.open()
        refused.open()
        with pytest.raises(CommitException):
            writing.result()
        with pytest.raises(ConflictError):
            waiting.result()
        assert seen == []
        store.before.clear()
        assert values(client) == (0, 0)
        assert client.increment() == 1

    def test_other_threads_commit_in_the_same_generation(self, client: Client) -> None:
        """Between threads Pony's own optimistic check decides, as on a plain file."""
        with pytest.raises(OptimisticCheckError), db_session:
            counter = client.Counter[1]
            assert counter.value == 0
            in_thread(client.increment)
            counter.value = 5
        with db_session:
            assert client.Counter[2].value == 0
            in_thread(client.increment)
            client.Counter[2].value = 5
        assert values(client) == (2, 5)


class TestCheckAtCommit:
    """And once more with the upload, since a pull may come while the session writes."""

    def test_newer_version_pulled_while_writing(self, client: Client, other: Client, store: HookedStore) -> None:
        """The commit is refused before anything is uploaded, although its version's ETag was once right."""
        counting = CountingStore(store)
        client = Client(counting, EtagCached()).map()
        with pytest.raises(CommitException) as caught, db_session:
            client.Counter[2].value = 5
            flush()
            in_thread(other.increment)
            assert in_thread(client.value) == 1
        assert isinstance(cause_of(caught.value), ConflictError)
        assert counting.count("put") == 0
        assert values(client) == values(other) == (1, 0)

    def test_newer_version_nobody_has_pulled(self, client: Client, other: Client) -> None:
        """The swap itself refuses it."""
        with pytest.raises(CommitException) as caught, db_session:
            client.Counter[2].value = 5
            flush()
            in_thread(other.increment)
        assert isinstance(cause_of(caught.value), ConflictError)
        assert values(client) == values(other) == (1, 0)

    def test_blind_write_is_checked_too(self, client: Client, other: Client) -> None:
        """Raw SQL in a session that never read anything."""
        with pytest.raises(CommitException) as caught, db_session:
            client.db.execute("UPDATE Counter SET value = 5 WHERE id = 2")
            in_thread(other.increment)
        assert isinstance(cause_of(caught.value), ConflictError)
        assert values(client) == (1, 0)

    def test_restored_store_is_followed(self, client: Client, other: Client, bucket: MemoryStore) -> None:
        """A commit on a version that was replaced by an older one is refused; the next one builds on the older."""
        old = bucket.get(KEY)
        assert old is not None
        with old:
            data = old.read(old.length)
        for _ in range(3):
            other.increment()
        assert client.value() == 3
        with pytest.raises(CommitException), db_session:
            client.Counter[1].value += 1
            bucket.put(KEY, data, metadata=old.info.metadata)
        assert client.increment() == 1
        assert other.value() == 1


def test_session_reads_on_while_a_newer_version_is_pulled(client: Client, other: Client) -> None:
    """A ``db.execute`` session keeps its snapshot, and may end, while another thread's sessions see the new version."""
    with db_session:
        cursor = client.db.execute("SELECT value FROM Counter ORDER BY id")
        assert cursor.fetchone() == (0,)
        in_thread(other.increment)
        assert in_thread(client.value) == 1
        assert cursor.fetchone() == (0,)
        assert client.db.execute("SELECT value FROM Counter WHERE id = 1").fetchone() == (0,)
    assert client.value() == 1


def test_reader_waits_for_no_writer(client: Client, store: HookedStore) -> None:
    """A session that began before an upload reads on during it, its old value; SQLite's own readers do."""
    uploading, began = Gate(), Gate()
    store.before["put"] = [uploading]
    seen: list[int] = []

    def reader() -> None:
        with db_session:
            seen.append(client.Counter[1].value)
            began()
            seen.extend(client.db.select("SELECT value FROM Counter WHERE id = 1"))

    writing = Background(lambda: client.increment(before_commit=began.wait))
    reading = Background(reader)
    uploading.wait()
    began.open()
    until(lambda: len(seen) == 2)
    assert (seen, writing.is_running) == ([0, 0], True)
    uploading.open()
    reading.result()
    assert (writing.result(), client.value()) == (1, 1)


def test_refused_value_is_read_by_nobody(client: Client, store: HookedStore) -> None:
    """A session that begins during an upload sees the value from before, or from after it was accepted."""
    uploading = Gate()

    def refuse() -> None:
        uploading()
        raise StoreUnavailableError("refused", url=KEY, ambiguous=False)

    store.before["put"] = [refuse, failing(StoreUnavailableError("refused", url=KEY, ambiguous=False))]
    writing = Background(lambda: client.increment(retry=0))
    uploading.wait()
    readers = [Background(client.value) for _ in range(4)]
    uploading.open()
    with pytest.raises(CommitException):
        writing.result()
    assert [reader.result() for reader in readers] == [0] * 4


def test_no_increment_is_lost(client: Client, other: Client) -> None:
    """Threads of two processes on one counter: it ends at the number of increments that returned."""
    returned: list[int] = []

    def work(who: Client) -> Callable[[], None]:
        return lambda: returned.extend(who.increment() for _ in range(5))

    in_parallel([work(client), work(other), work(client), work(other)])
    assert values(client) == values(other) == (20, 0)
    assert sorted(returned) == list(range(1, 21))


def test_conflict_in_the_middle_of_a_session_leaves_what_was_committed(client: Client, other: Client) -> None:
    """Of several commits in one session the accepted ones stand."""
    with pytest.raises(CommitException) as caught, db_session:
        client.Counter[1].value = 7
        commit()
        client.Counter[2].value = 7
        flush()
        in_thread(other.increment)
    assert isinstance(cause_of(caught.value), ConflictError)
    assert values(client) == values(other) == (8, 0)


def test_waiting_writers_go_one_after_the_other(client: Client, store: HookedStore) -> None:
    """Those who have read nothing wait for the writer before them, and build on what it stored."""
    uploading = Gate()
    store.before["put"] = [uploading]
    first = Background(client.increment)
    uploading.wait()

    @db_session(immediate=True)  # type: ignore[untyped-decorator, unused-ignore]
    def immediate() -> int:
        client.Counter[1].value += 1
        value: int = client.Counter[1].value
        return value

    others = [Background(immediate) for _ in range(3)]
    until(lambda: all(other.is_running for other in others))
    uploading.open()
    assert first.result() == 1
    assert sorted(other.result() for other in others) == [2, 3, 4]


def test_superseded_commit_is_not_built_on(client: Client, other: Client, store: HookedStore) -> None:
    """A commit stands whose answer was lost, and on which another writer has built since. But what it left here is old
    by then: the session's next transaction is refused like any other.
    """

    def lose_the_answer() -> None:
        in_thread(other.increment)
        raise StoreUnavailableError("the reply was lost", url=store.url, status=None, code=None, ambiguous=True)

    store.after["put"] = [lose_the_answer]
    with pytest.raises((CommitException, ConflictError)) as caught, db_session:
        client.Counter[2].value = 5
        commit()
        client.Counter[2].value = 6
    assert isinstance(cause_of(caught.value), ConflictError)
    assert values(client) == values(other) == (1, 5)
