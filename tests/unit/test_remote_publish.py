"""`Remote.publish`: what is reported is what became of the commit. And the probe that goes before the first write."""

from __future__ import annotations

import io
import pickle
import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

from temaki.errors import (
    AccessDeniedError,
    CommitUnknownError,
    ConfigurationError,
    ConflictError,
    NotFoundError,
    PreconditionFailedError,
    StoreError,
    StoreUnavailableError,
    UnsafeStoreError,
)
from temaki.remote.remote import Remote
from temaki.remote.swap import Rebuilt
from temaki.store import ReadableBody, Store
from temaki.stores.memory import MemoryStore
from temaki.testing.clock import ManualClock
from temaki.testing.faulty import Fault, FaultyStore
from temaki.version import MetadataError, NewerFormatError, Published, Version, read_version
from tests.hooked import Around, HookedStore, failing

KEY = "app.sqlite"
URL = f"memory://memory/{KEY}"


class LoggingStore(HookedStore):
    """A hooked store that logs its uploads.

    Attributes:
        puts: Body, metadata and conditions of each attempt.
    """

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.puts: list[tuple[bytes, Mapping[str, str], str | None, bool]] = []

    def put(
        self,
        key: str,
        body: bytes | ReadableBody,
        *,
        metadata: Mapping[str, str] | None = None,
        if_match: str | None = None,
        if_none_match: bool = False,
    ) -> str:
        """Log the attempt, then let the hook decide."""
        if not isinstance(body, bytes):
            body.seek(0)
        self.puts.append(
            (body if isinstance(body, bytes) else body.read(), dict(metadata or {}), if_match, if_none_match)
        )
        return super().put(key, body, metadata=metadata, if_match=if_match, if_none_match=if_none_match)


def unavailable(*, ambiguous: bool = True) -> StoreUnavailableError:
    """No usable answer."""
    return StoreUnavailableError("no answer", url=URL, ambiguous=ambiguous)


def lost(request: Callable[[], Any]) -> Any:
    """Carried out; the reply is lost."""
    request()
    raise unavailable()


def dropped(_request: Callable[[], Any]) -> Any:
    """Not carried out, and nobody can tell."""
    raise unavailable()


def in_flight(_request: Callable[[], Any]) -> Any:
    """S3's 409."""
    raise PreconditionFailedError("409", url=URL, status=409, code="ConditionalRequestConflict", in_flight=True)


def refused(_request: Callable[[], Any]) -> Any:
    """A 412, whatever is there."""
    raise PreconditionFailedError("412", url=URL, status=412, code="PreconditionFailed", in_flight=False)


def after(action: Callable[[], object], hook: Around = lambda request: request()) -> Around:
    """Somebody does something just before."""

    def combined(request: Callable[[], Any]) -> Any:
        action()
        return hook(request)

    return combined


@dataclass
class Bench:
    """A remote over a hooked store, and another writer on the same object whose requests always work."""

    bucket: MemoryStore = field(default_factory=MemoryStore)
    clock: ManualClock = field(default_factory=ManualClock)

    def __post_init__(self) -> None:
        self.store = LoggingStore(self.bucket)
        self.remote = Remote(self.store, KEY, url=URL, clock=self.clock, timeout=60, rng=random.Random(1))
        self.other = Remote(self.bucket, KEY, url=URL, clock=self.clock)

    def publish(self, base: Version | None, **options: Any) -> Published:
        """Through the hooks."""
        return publish(self.remote, base, "ours", **options)

    def others(self, base: Version | None = None) -> Version:
        """Another writer's commit, on the current version if no other is given."""
        return publish(self.other, base or self.current(), "theirs").version

    def current(self) -> Version | None:
        """What is in the store."""
        try:
            return read_version(self.bucket.head(KEY))
        except NotFoundError:
            return None

    def foreign(self) -> None:
        """Another tool overwrites the object."""
        self.bucket.put(KEY, b"by another tool")

    def delete(self) -> None:
        """Somebody deletes the object."""
        self.bucket.delete(KEY)

    def restore_unrelated(self) -> None:
        """A version of some other lineage is put there, of which the root is not known."""
        version = Version("", "f" * 24, 7, ("f" * 24,), complete=False, size=1)
        self.bucket.put(KEY, b"unrelated", metadata=metadata_of(version))


def publish(remote: Remote, base: Version | None, text: str, **options: Any) -> Published:
    """One commit whose bytes have its number in them, as the real ones do."""
    sequence = 1 if base is None else base.sequence + 1
    body = f"{text} {sequence}".encode()
    return remote.publish(io.BytesIO(body), len(body), base, sequence=sequence, **options)


def metadata_of(version: Version) -> dict[str, str]:
    """As it is stored."""
    lineage = ".".join([*version.lineage, "root"] if version.complete else version.lineage)
    values = {"commit": version.commit, "seq": str(version.sequence), "lineage": lineage, "format": "1"}
    return {f"temaki-{name}": value for name, value in values.items()}


@pytest.fixture
def bench() -> Bench:
    """An empty bucket."""
    return Bench()


@pytest.fixture
def base(bench: Bench) -> Version:
    """The second version of a database: what the commits here are built on."""
    return bench.others(bench.others())


class TestAccepted:
    """The commit is stored, once, and reported so."""

    def test_create_and_replace(self, bench: Bench) -> None:
        """What publish returns is what the store then has: ETag, id, number, size and lineage."""
        first = bench.publish(None)
        assert not first.superseded
        assert first.version == bench.current()
        second = bench.publish(first.version)
        current = bench.current()
        assert second.version == current != first.version
        assert current is not None
        assert (current.sequence, current.size, current.complete) == (2, len(b"ours 2"), True)
        assert current.lineage == (second.version.commit, first.version.commit) == second.version.lineage
        assert current.metadata == second.version.metadata

    def test_ids_are_random_or_given(self, bench: Bench) -> None:
        """Two commits have two ids of 24 hexadecimal digits; an id can be passed in; a bad one is refused."""
        first = bench.publish(None).version
        second = bench.publish(first).version
        assert first.commit != second.commit
        assert len(bytes.fromhex(first.commit)) == 12
        assert bench.publish(second, commit_id="0" * 24).version.commit == "0" * 24
        with pytest.raises(ValueError, match="no id"):
            bench.publish(second, commit_id="a.b")

    @pytest.mark.parametrize("attempts", [1, 2, 5])
    def test_lost_replies(self, bench: Bench, base: Version, attempts: int) -> None:
        """The reply is lost, the repetition is refused: the object has our id, so it is our success."""
        bench.store.around["put"] = [lost, *[dropped] * (attempts - 1)]
        published = bench.publish(base)
        assert published == Published(bench.current(), found=True)  # type: ignore[arg-type]
        assert len(bench.store.puts) == attempts + 1

    def test_attempts_are_equal(self, bench: Bench, base: Version) -> None:
        """Every attempt sends the same bytes, the same id and the same condition."""
        bench.store.around["put"] = [dropped, in_flight, failing(unavailable(ambiguous=False))]
        bench.publish(base)
        assert len(bench.store.puts) == 4
        assert all(attempt == bench.store.puts[0] for attempt in bench.store.puts)
        assert bench.store.puts[0][2:] == (base.etag, False)

    def test_lost_reply_of_a_creation(self, bench: Bench) -> None:
        """The same for the first version of all."""
        bench.store.around["put"] = [lost]
        assert bench.publish(None).version == bench.current()

    def test_superseded(self, bench: Bench, base: Version) -> None:
        """Our reply was lost and others have built on our version: success, with no ETag to go on from."""
        bench.store.around["put"] = [lost, after(lambda: bench.others(bench.others()))]
        published = bench.publish(base)
        assert published.superseded
        assert published.version.etag == ""
        current = bench.current()
        assert current is not None
        assert current.lineage[2] == published.version.commit
        with pytest.raises(ConfigurationError, match="superseded"):
            bench.publish(published.version)

    def test_late_landing_before_the_look(self, bench: Bench, base: Version) -> None:
        """A first attempt that lands while the second is refused with 409 is found by the third's refusal."""
        late: list[Callable[[], Any]] = []

        def under_way(request: Callable[[], Any]) -> Any:
            late.append(request)
            raise unavailable()

        def land() -> None:
            late[0]()

        bench.store.around["put"] = [under_way, in_flight, after(land)]
        assert bench.publish(base).version == bench.current()

    def test_in_flight_conflicts_are_sent_again(self, bench: Bench, base: Version) -> None:
        """A 409 decides nothing: with the base still there the commit is sent again, with pauses."""
        bench.store.around["put"] = [in_flight] * 6
        assert bench.publish(base).version == bench.current()
        assert len(bench.clock.slept) == 6

    def test_creation_after_a_deletion(self, bench: Bench) -> None:
        """What refused a creation has been deleted since: it is sent again."""
        bench.others()
        bench.store.around["put"] = [after(bench.delete, refused)]
        assert bench.publish(None).version == bench.current()

    def test_creation_in_flight(self, bench: Bench) -> None:
        """409 for a creation, perhaps because of our own attempt in doubt: nothing is there yet, so sent again."""
        bench.store.around["put"] = [dropped, in_flight]
        assert bench.publish(None).version == bench.current()

    def test_a_look_that_fails_is_repeated(self, bench: Bench, base: Version) -> None:
        """A HEAD without an answer is tried again."""
        bench.store.around["put"] = [lost]
        bench.store.around["head"] = [dropped, dropped]
        assert bench.publish(base).version == bench.current()


class TestConflict:
    """Nothing of ours is stored, and never will be."""

    def test_other_writer(self, bench: Bench, base: Version) -> None:
        """Another commit on the same base came first."""
        theirs = bench.others()
        with pytest.raises(ConflictError, match=theirs.commit) as caught:
            bench.publish(base)
        assert caught.value.should_retry
        assert caught.value.url == URL
        assert bench.current() == theirs

    def test_other_creator(self, bench: Bench) -> None:
        """Two create; one is second."""
        bench.others()
        with pytest.raises(ConflictError):
            bench.publish(None)

    @pytest.mark.parametrize("overwrite", ["foreign", "restore_unrelated"])
    def test_unknown_object_without_doubt(self, bench: Bench, base: Version, overwrite: str) -> None:
        """Whatever replaced the base: an attempt that was refused without doubt is a conflict."""
        getattr(bench, overwrite)()
        with pytest.raises(ConflictError):
            bench.publish(base)

    def test_lineage_decides_after_doubt(self, bench: Bench, base: Version) -> None:
        """An attempt got no answer, but the lineage shows that others replaced our base: a conflict for certain."""
        bench.store.around["put"] = [dropped, after(lambda: bench.others(bench.others()))]
        with pytest.raises(ConflictError):
            bench.publish(base)

    def test_creation_decided_by_a_complete_lineage(self, bench: Bench) -> None:
        """The same for a creation, if the lineage goes back to the first version."""
        bench.store.around["put"] = [dropped, after(lambda: bench.others(bench.others()))]
        with pytest.raises(ConflictError):
            bench.publish(None)

    def test_late_attempts_cannot_land_any_more(self, base: Version, bench: Bench) -> None:
        """After the conflict is reported the attempt that was under way arrives, and is refused."""
        faulty = FaultyStore(bench.bucket)
        faulty.fail_next("put", Fault.LATE_LANDING, late_after=0)
        remote = Remote(faulty, KEY, url=URL, clock=bench.clock)
        theirs: list[Version] = []

        def sleep(seconds: float) -> None:
            theirs.append(bench.others())

        bench.clock.sleep = sleep  # type: ignore[method-assign]
        with pytest.raises(ConflictError):
            publish(remote, base, "ours")
        assert (faulty.late, faulty.land_late()) == (1, 0)
        assert bench.current() == theirs[0]

    def test_look_fails_without_doubt(self, bench: Bench, base: Version) -> None:
        """A refusal is certain even where the store then does not say what is there."""
        bench.others()
        bench.store.around["head"] = [dropped] * 1000
        with pytest.raises(ConflictError) as caught:
            bench.publish(base)
        assert isinstance(caught.value.__cause__, StoreUnavailableError)

    def test_restored_copy_of_the_base(self, bench: Bench, base: Version) -> None:
        """The same commit under another ETag is not what the condition names: pull again."""
        bench.bucket.put(KEY, b"other bytes, same id", metadata=metadata_of(base))
        with pytest.raises(ConflictError):
            bench.publish(base)


class TestUnknown:
    """Nothing can be proved, and the error says how to look."""

    def assert_unknown(self, bench: Bench, base: Version | None) -> CommitUnknownError:
        """It is raised, with its facts, and not to be repeated."""
        with pytest.raises(CommitUnknownError) as caught:
            bench.publish(base)
        error = caught.value
        assert error.commit_id == bench.store.puts[0][1]["temaki-commit"]
        assert error.url == URL
        for part in (error.commit_id, URL, "temaki-commit", "temaki-lineage"):
            assert part in str(error)
        assert not error.may_repeat
        assert pickle.loads(pickle.dumps(error)).commit_id == error.commit_id
        return error

    @pytest.mark.parametrize("hook", [lost, dropped])
    def test_out_of_time(self, bench: Bench, base: Version, hook: Around) -> None:
        """No answer until the deadline: unknown, whether or not it landed."""
        bench.store.around["put"] = [hook, *[dropped] * 1000]
        error = self.assert_unknown(bench, base)
        assert isinstance(error.__cause__, StoreUnavailableError)
        assert 58 < sum(bench.clock.slept) <= 60

    @pytest.mark.parametrize("overwrite", ["foreign", "restore_unrelated", "delete"])
    def test_the_object_does_not_tell(self, bench: Bench, base: Version, overwrite: str) -> None:
        """Replaced from outside or deleted: it may have landed before that."""
        bench.store.around["put"] = [lost, after(getattr(bench, overwrite))]
        self.assert_unknown(bench, base)

    @pytest.mark.parametrize("overwrite", ["foreign", "restore_unrelated", "delete"])
    def test_the_object_does_not_tell_of_a_creation(self, bench: Bench, overwrite: str) -> None:
        """The same for a creation. (Deleted after it landed: refused, and then nothing is there.)"""
        action = getattr(bench, overwrite)
        bench.store.around["put"] = [lost, after(action, refused)]
        self.assert_unknown(bench, None)

    def test_adopted_after_a_creation(self, bench: Bench) -> None:
        """A lineage that begins with another tool's file is complete, and proves nothing: the tool overwrote."""

        def adopt() -> None:
            bench.foreign()
            bench.others()

        bench.store.around["put"] = [lost, after(adopt)]
        self.assert_unknown(bench, None)
        current = bench.current()
        assert current is not None
        assert current.complete

    def test_lineage_too_short(self, bench: Bench, base: Version) -> None:
        """So many commits came since that neither our base nor we would still be in the lineage."""

        def many_commits() -> None:
            version = bench.current()
            for _ in range(100):
                version = bench.others(version)

        bench.store.around["put"] = [dropped, after(many_commits)]
        self.assert_unknown(bench, base)

    def test_in_flight_conflicts_after_doubt(self, bench: Bench, base: Version) -> None:
        """409 until the deadline, after an attempt that may land yet."""
        bench.store.around["put"] = [dropped, *[in_flight] * 1000]
        self.assert_unknown(bench, base)

    @pytest.mark.parametrize("error", [AccessDeniedError("no", url=URL), StoreError("400", url=URL)])
    def test_refused_for_another_reason(self, bench: Bench, base: Version, error: StoreError) -> None:
        """Credentials that expire after an attempt without an answer do not tell what became of it."""
        bench.store.around["put"] = [lost, failing(error)]
        assert self.assert_unknown(bench, base).__cause__ is error

    @pytest.mark.parametrize("error", [AccessDeniedError("no", url=URL), KeyboardInterrupt()])
    def test_look_fails(self, bench: Bench, base: Version, error: BaseException) -> None:
        """After doubt and a refusal, a look that fails or is interrupted leaves it open."""
        bench.store.around["put"] = [lost]
        bench.store.around["head"] = [failing(error)]
        assert self.assert_unknown(bench, base).__cause__ is error

    def test_look_gets_no_answer(self, bench: Bench, base: Version) -> None:
        """The same where it never gets an answer."""
        bench.store.around["put"] = [lost]
        bench.store.around["head"] = [dropped] * 1000
        self.assert_unknown(bench, base)

    @pytest.mark.parametrize("interrupt", [KeyboardInterrupt(), SystemExit(), MemoryError()])
    def test_interrupted_attempt(self, bench: Bench, base: Version, interrupt: BaseException) -> None:
        """Ctrl-C while an attempt is under way: it may have landed."""

        def hook(request: Callable[[], Any]) -> Any:
            request()
            raise interrupt

        bench.store.around["put"] = [hook]
        assert self.assert_unknown(bench, base).__cause__ is interrupt

    def test_interrupted_pause_after_doubt(self, bench: Bench, base: Version) -> None:
        """Ctrl-C while waiting for the next attempt, after one that may have landed."""
        bench.store.around["put"] = [lost]
        bench.clock.sleep = failing(KeyboardInterrupt())  # type: ignore[method-assign]
        assert isinstance(self.assert_unknown(bench, base).__cause__, KeyboardInterrupt)


class TestDefinite:
    """Errors that are what they are, since no attempt is in doubt."""

    def test_never_reached_the_store(self, bench: Bench, base: Version) -> None:
        """Refused connections until the deadline: unavailable, not unknown."""
        bench.store.around["put"] = [failing(unavailable(ambiguous=False))] * 1000
        with pytest.raises(StoreUnavailableError):
            bench.publish(base)
        assert bench.current() == base

    @pytest.mark.parametrize("error", [AccessDeniedError("no", url=URL), StoreError("400", url=URL)])
    def test_refused_for_another_reason(self, bench: Bench, base: Version, error: StoreError) -> None:
        """Denied at the first attempt: as it is, and not repeated."""
        bench.store.around["put"] = [failing(error)]
        with pytest.raises(type(error)) as caught:
            bench.publish(base)
        assert caught.value is error
        assert len(bench.store.puts) == 1

    def test_interrupted_pause_without_doubt(self, bench: Bench, base: Version) -> None:
        """Ctrl-C where nothing can have landed is Ctrl-C."""
        bench.store.around["put"] = [failing(unavailable(ambiguous=False))]
        bench.clock.sleep = failing(KeyboardInterrupt())  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            bench.publish(base)

    def test_interrupted_look_without_doubt(self, bench: Bench, base: Version) -> None:
        """The same during the look after a refusal."""
        bench.others()
        bench.store.around["head"] = [failing(KeyboardInterrupt())]
        with pytest.raises(KeyboardInterrupt):
            bench.publish(base)

    def test_deleted_base(self, bench: Bench, base: Version) -> None:
        """The object is gone: not a conflict that a retry could solve, and never a new database."""
        bench.delete()
        with pytest.raises(NotFoundError, match="deleted"):
            bench.publish(base)
        assert bench.current() is None

    def test_store_that_refuses_its_own_etag(self, bench: Bench, base: Version) -> None:
        """412 although the base is there: sent again a few times, then the store's fault, and nobody's conflict."""
        bench.store.around["put"] = [refused] * 1000
        with pytest.raises(StoreError, match="conditional writes") as caught:
            bench.publish(base)
        assert type(caught.value) is StoreError
        assert len(bench.store.puts) < 6

    def test_in_flight_until_the_deadline(self, bench: Bench, base: Version) -> None:
        """409 for ever: an error of the store, with the base still there."""
        bench.store.around["put"] = [in_flight] * 1000
        with pytest.raises(StoreError, match="under way"):
            bench.publish(base)
        assert bench.current() == base


class TestMetadata:
    """What is written beside the bytes."""

    def test_lineage_fits_into_two_kilobytes(self, bench: Bench) -> None:
        """However long the history and whatever a strategy adds: S3's limit holds, and the newest ids are there."""
        version: Version | None = None
        ids: list[str] = []
        extra = {"temaki-lease-generation": "1" * 19}
        for _ in range(120):
            version = bench.publish(version, metadata=extra).version
            ids.insert(0, version.commit)
            metadata = bench.bucket.head(KEY).metadata
            assert sum(len(name) + len(value) for name, value in metadata.items()) <= 2048
            assert version.lineage == tuple(ids[: len(version.lineage)])
            assert version.complete == (len(version.lineage) == len(ids))
            assert bench.current() == version
            assert version.metadata["temaki-lease-generation"] == "1" * 19
        assert version is not None
        assert not version.complete
        assert len(version.lineage) > 70

    def test_two_ids_are_always_there(self, bench: Bench, base: Version) -> None:
        """Metadata of others cannot crowd out the two ids that a conflict is decided by; the store refuses instead."""
        version = bench.publish(base, metadata={"x": "x" * 1910}).version
        assert version.lineage == (version.commit, base.commit)
        with pytest.raises(StoreError, match="metadata"):
            bench.publish(version, metadata={"x": "x" * 1950})

    def test_a_lineage_that_was_cut_stays_cut(self, bench: Bench, base: Version) -> None:
        """Once ids are missing from a lineage it never again claims to be complete."""
        version = bench.publish(base, metadata={"x": "x" * 1910}).version
        following = bench.publish(version).version
        assert (following.lineage, following.complete) == ((following.commit, version.commit, base.commit), False)

    def test_own_names_are_taken(self, bench: Bench) -> None:
        """Nobody replaces temaki's own metadata by accident."""
        with pytest.raises(ValueError, match="temaki's own"):
            bench.publish(None, metadata={"Temaki-Commit": "x"})

    def test_adopted_file_is_replaced(self, bench: Bench) -> None:
        """A file of another tool is a base like any other, and its id is the end of the lineage."""
        bench.foreign()
        adopted = bench.current()
        assert adopted is not None
        bench.store.around["put"] = [in_flight]  # "still the base" works without metadata, too
        version = bench.publish(adopted).version
        assert version.lineage == (version.commit, adopted.commit)
        assert version.complete

    def test_version_survives_json(self, bench: Bench, base: Version) -> None:
        """The record beside a working copy gives back the version, or nothing if it is not one."""
        facts = base.to_json()
        again = Version.from_json(facts)
        assert again == base
        assert again is not None
        assert again.to_json() == facts
        for name in facts:
            assert Version.from_json({**facts, name: None}) is None
        assert Version.from_json({**facts, "lineage": ["other"]}) is None

    @pytest.mark.parametrize(
        ("changes", "error"),
        [
            ({"temaki-format": "3"}, NewerFormatError),
            ({"temaki-format": "zwei"}, MetadataError),
            ({"temaki-seq": "two"}, MetadataError),
            ({"temaki-seq": None}, MetadataError),
            ({"temaki-commit": None}, MetadataError),
            ({"temaki-lineage": "a" * 24 + ".root"}, MetadataError),
            ({"temaki-lineage": "root"}, MetadataError),
            ({"temaki-lineage": ""}, MetadataError),
        ],
    )
    def test_broken_metadata(self, base: Version, changes: dict[str, str | None], error: type[Exception]) -> None:
        """Metadata that another tool has broken are no version."""
        metadata = {name: value for name, value in {**metadata_of(base), **changes}.items() if value is not None}
        store = MemoryStore()
        store.put(KEY, b"x", metadata=metadata)
        with pytest.raises(error) as caught:
            read_version(store.head(KEY))
        assert type(caught.value) is error


@dataclass
class Crowd:
    """Writers that count up one number through one faulty store, each in the middle of the others' requests.

    A request is preceded, with some probability, by a whole transaction of another writer. Everything follows from
    the seed.
    """

    seed: int
    timeout: float = 0.4

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.clock = ManualClock()
        self.landed: list[str] = []
        self.outcomes: dict[str, str] = {}
        self.bucket = MemoryStore()
        faults = (Fault.LOST_REPLY, Fault.LATE_LANDING, Fault.FAIL_BEFORE, Fault.REFUSED, Fault.CONFLICT_409)
        rates: Any = {
            "put": dict.fromkeys(faults, 0.1),
            "get": {Fault.FAIL_BEFORE: 0.05, Fault.TRUNCATED: 0.05},
            "head": {Fault.FAIL_BEFORE: 0.1},
        }
        self.faulty = FaultyStore(_Recording(self.bucket, self.landed), seed=self.seed, rates=rates)
        store: Store = _Interrupting(self.faulty, self)
        self.remotes = [
            Remote(store, KEY, url=URL, clock=self.clock, timeout=self.timeout, rng=self.random) for _ in range(4)
        ]
        self.busy: set[int] = set()

    def someone_else(self) -> None:
        """A free writer does a whole transaction, or nobody is free or wants to."""
        free = sorted(set(range(4)) - self.busy)
        if free and self.random.random() < 0.3:
            self.transaction(self.random.choice(free))

    def transaction(self, writer: int) -> None:
        """Read the number, add one, publish."""
        self.busy.add(writer)
        commit = self.random.randbytes(12).hex()
        try:
            base, value = self.read()
            body = f"{value + 1} {0 if base is None else base.sequence + 1}".encode()
            sequence = 1 if base is None else base.sequence + 1
            published = self.remotes[writer].publish(
                io.BytesIO(body), len(body), base, sequence=sequence, commit_id=commit
            )
            self.outcomes[commit] = "superseded" if published.superseded else "stored"
        except (ConflictError, CommitUnknownError, StoreError) as error:
            self.outcomes[commit] = type(error).__name__
        finally:
            self.busy.remove(writer)

    def read(self) -> tuple[Version | None, int]:
        """What a pull would give; reading is not what is tested here."""
        try:
            download = self.bucket.get(KEY)
        except NotFoundError:
            return None, 0
        assert download is not None
        return read_version(download.info), int(download.read(100).split()[0])


@dataclass
class _Recording:
    inner: MemoryStore
    landed: list[str]

    def put(self, key: str, body: Any, *, metadata: Any = None, **conditions: Any) -> str:
        etag = self.inner.put(key, body, metadata=metadata, **conditions)
        self.landed.append(metadata["temaki-commit"])
        return etag

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


@dataclass
class _Interrupting:
    inner: FaultyStore
    crowd: Crowd

    def put(self, *arguments: Any, **options: Any) -> str:
        self.crowd.someone_else()
        return self.inner.put(*arguments, **options)

    def head(self, key: str) -> Any:
        self.crowd.someone_else()
        return self.inner.head(key)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def test_every_outcome_is_true() -> None:
    """4 writers, half of all uploads faulted, late ones included: what is reported is what happened, every time.

    Each commit lands at most once; each that was reported stored did; none that was reported refused did, not even
    later; and the number in the store is the number of commits that landed.
    """
    seen: Counter[tuple[str, bool]] = Counter()
    for seed in range(150):
        crowd = Crowd(seed)
        while len(crowd.outcomes) < 40:
            crowd.transaction(crowd.random.randrange(4))
        crowd.faulty.land_late()
        _version, value = crowd.read()
        assert value == len(crowd.landed) == len(set(crowd.landed)), f"seed {seed}: a commit landed twice, or was lost"
        for commit, outcome in crowd.outcomes.items():
            landed = commit in crowd.landed
            seen[outcome, landed] += 1
            if outcome in {"stored", "superseded"}:
                assert landed, f"seed {seed}: {commit} was acknowledged and is not stored"
            elif outcome != "CommitUnknownError":
                assert not landed, f"seed {seed}: {commit} was reported as {outcome} and is stored"
    wanted = {("stored", True), ("superseded", True), ("ConflictError", False)}
    wanted |= {("CommitUnknownError", True), ("CommitUnknownError", False), ("StoreUnavailableError", False)}
    assert wanted <= set(seen), f"the simulation no longer reaches every outcome: {seen}"


@dataclass
class LaxStore:
    """A store in memory that ignores some conditions."""

    ignores: frozenset[str]
    inner: Any = field(default_factory=MemoryStore)
    honours_conditions: bool = False

    def put(self, key: str, body: Any, *, if_match: str | None = None, if_none_match: bool = False, **rest: Any) -> str:
        """Drop what is ignored."""
        if "if_match" in self.ignores:
            if_match = None
        if "if_none_match" in self.ignores:
            if_none_match = False
        return str(self.inner.put(key, body, if_match=if_match, if_none_match=if_none_match, **rest))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def probing(store: Any, clock: ManualClock | None = None) -> Remote:
    """A remote over a store that is not known to honour conditions."""
    return Remote(store, KEY, url=URL, clock=clock or ManualClock(), rng=random.Random(1))


class TestProbe:
    """`Remote.probe_conditions`."""

    def test_a_good_store_is_probed_once(self) -> None:
        """Four small writes beside the database's key, cleaned up, and never again."""
        store = LaxStore(frozenset(), FaultyStore(MemoryStore()))
        remote = probing(store)
        remote.probe_conditions()
        assert list(store.list()) == []
        store.put = failing(AssertionError("a second probe"))  # type: ignore[method-assign]
        remote.probe_conditions()

    def test_a_known_store_is_not_probed(self) -> None:
        """AWS is not asked."""
        store = LaxStore(frozenset({"if_match"}), honours_conditions=True)
        probing(store).probe_conditions()

    @pytest.mark.parametrize(
        ("ignores", "message"), [("if_match", "stale If-Match"), ("if_none_match", "If-None-Match: \\*")]
    )
    def test_a_store_that_ignores_conditions(self, ignores: str, message: str) -> None:
        """Each condition that is ignored is found and named, every time, and the database is not touched."""
        store = LaxStore(frozenset({ignores}))
        store.inner.put(KEY, b"database")
        remote = probing(store)
        for _ in range(2):
            with pytest.raises(UnsafeStoreError, match=message) as caught:
                remote.probe_conditions()
            assert "memory://memory" in str(caught.value)
        assert [info.key for info in store.list()] == [KEY]
        assert store.head(KEY).size == len(b"database")

    def test_a_store_that_refuses_true_conditions(self) -> None:
        """A store that wants its ETags in another form cannot be written to either; that is found before any work."""

        class Fussy(LaxStore):
            def put(self, key: str, body: Any, *, if_match: str | None = None, **rest: Any) -> str:
                return super().put(key, body, if_match=if_match and f'"{if_match}"', **rest)

        with pytest.raises(UnsafeStoreError, match="right If-Match"):
            probing(Fussy(frozenset())).probe_conditions()

    def test_a_store_that_refuses_to_create(self) -> None:
        """A store that refuses If-None-Match on a key that cannot be there."""
        store = LaxStore(frozenset())
        store.put = failing(PreconditionFailedError("412", url=URL, status=412))  # type: ignore[method-assign]
        with pytest.raises(UnsafeStoreError, match="refused to create"):
            probing(store).probe_conditions()

    def test_a_store_without_conditional_writes(self) -> None:
        """501 NotImplemented is an answer as well."""
        store = LaxStore(frozenset())
        error = StoreError("501", url=URL, status=501, code="NotImplemented")
        store.put = failing(error)  # type: ignore[method-assign]
        with pytest.raises(UnsafeStoreError, match="not implemented"):
            probing(store).probe_conditions()

    @pytest.mark.parametrize("fault", [Fault.LOST_REPLY, Fault.FAIL_BEFORE, Fault.CONFLICT_409, Fault.LATE_LANDING])
    @pytest.mark.parametrize("at", range(4))
    def test_faults_are_repeated(self, fault: Fault, at: int) -> None:
        """An answer that is lost, or a 409, at any step is no verdict: the probe begins again, elsewhere."""
        for ignores in (frozenset[str](), frozenset({"if_match"}), frozenset({"if_none_match"})):
            faulty = FaultyStore(MemoryStore())
            faulty.fail_next("put", *[None] * at, fault)
            remote = probing(LaxStore(ignores, faulty))
            if ignores:
                with pytest.raises(UnsafeStoreError):
                    remote.probe_conditions()
            else:
                remote.probe_conditions()

    def test_no_answer_is_not_remembered_as_safe(self) -> None:
        """A probe without an answer raises, and the next write probes again."""
        store = LaxStore(frozenset({"if_match"}))
        works, store.put = store.put, failing(unavailable())  # type: ignore[method-assign]
        remote = probing(store)
        with pytest.raises(StoreUnavailableError):
            remote.probe_conditions()
        store.put = works  # type: ignore[method-assign]
        with pytest.raises(UnsafeStoreError):
            remote.probe_conditions()

    def test_missing_permission_is_explained(self) -> None:
        """A policy that allows the database's key alone: the message says which one the probe needs."""
        store = LaxStore(frozenset())
        denied = AccessDeniedError("403", url=URL, status=403, code="AccessDenied")
        store.put = failing(denied)  # type: ignore[method-assign]
        with pytest.raises(AccessDeniedError, match=r"app\.sqlite\.temaki-probe-[0-9a-f]{16}.*PutObject"):
            probing(store).probe_conditions()

    def test_leftovers_do_not_matter(self) -> None:
        """Without the permission to delete, the probe still passes."""
        store = LaxStore(frozenset())
        store.inner.delete = failing(AccessDeniedError("403", url=URL))
        probing(store).probe_conditions()


class TestMaintenance:
    """The base in other bytes is no conflict: the body is built anew on it, and lands once."""

    @staticmethod
    def maintain(bench: Bench, text: str = "maintained") -> None:
        """Somebody stores the current version in other bytes."""
        current = bench.current()
        assert current is not None
        bench.bucket.put(KEY, f"{text} {current.sequence}".encode(), metadata=metadata_of(current))

    @staticmethod
    def rebuild(version: Version) -> Rebuilt | None:
        """A body that tells what it was built on."""
        return Rebuilt(f"ours on {version.etag}".encode(), version.etag)

    def test_it_lands(self, bench: Bench, base: Version) -> None:
        """With the id that it had from the start; its version is what the store has."""
        bench.store.around["put"] = [after(lambda: self.maintain(bench))]
        published = bench.publish(base, commit_id="0" * 24, rebuild=self.rebuild)
        assert published.version == bench.current()
        assert (published.version.commit, published.superseded) == ("0" * 24, False)
        first, second = bench.store.puts
        assert (first[1], first[2]) == (second[1], base.etag)
        assert second[0] == f"ours on {second[2]}".encode()

    def test_an_attempt_in_doubt_cannot_land_any_more(self, bench: Bench, base: Version) -> None:
        """It names an ETag that has gone: however late it arrives, the store has one commit of ours."""
        late: list[Callable[[], Any]] = []

        def under_way(request: Callable[[], Any]) -> Any:
            late.append(request)
            raise unavailable()

        bench.store.around["put"] = [under_way, after(lambda: self.maintain(bench))]
        published = bench.publish(base, rebuild=self.rebuild)
        assert len(bench.store.puts) == 3
        with pytest.raises(PreconditionFailedError):
            late[0]()
        assert bench.current() == published.version

    def test_an_attempt_that_landed_is_found(self, bench: Bench, base: Version) -> None:
        """Our own version, maintained: nothing is built anew, and its bytes are not taken for ours."""

        def lost_and_maintained(request: Callable[[], Any]) -> Any:
            request()
            self.maintain(bench)
            raise unavailable()

        bench.store.around["put"] = [lost_and_maintained]
        published = bench.publish(base, rebuild=failing(AssertionError("built anew")))
        assert published.found
        assert published.version == bench.current()
        assert len(bench.store.puts) == 2

    def test_twice(self, bench: Bench, base: Version) -> None:
        """The rebuilt body is refused by the next maintenance."""
        bench.store.around["put"] = [after(partial(self.maintain, bench, text)) for text in ("one", "two")]
        assert bench.publish(base, rebuild=self.rebuild).version == bench.current()
        assert len({attempt[0] for attempt in bench.store.puts}) == 3

    def test_it_does_not_wait(self, bench: Bench, base: Version) -> None:
        """Maintenance does not wait between its steps, and would win each time if a writer waited ever longer."""
        began = bench.clock.monotonic()
        bench.store.around["put"] = [after(partial(self.maintain, bench, f"number {step}")) for step in range(20)]
        assert bench.publish(base, rebuild=self.rebuild).version == bench.current()
        assert len(bench.store.puts) == 21
        assert bench.clock.monotonic() == began

    def test_a_conflict_comes_after_maintenance(self, bench: Bench, base: Version) -> None:
        """The object has been replaced by the time that the body is to be built: a look tells by whom."""

        def too_late(_version: Version) -> None:
            bench.others()

        bench.store.around["put"] = [after(lambda: self.maintain(bench))]
        with pytest.raises(ConflictError):
            bench.publish(base, rebuild=too_late)

    def test_maintenance_without_end(self, bench: Bench, base: Version) -> None:
        """Out of time, it is a conflict: nothing was stored, and the function may run again."""
        numbers = iter(range(10_000))

        def hinder(request: Callable[[], Any]) -> Any:
            self.maintain(bench, f"number {next(numbers)}")
            bench.clock.advance(0.1)
            return request()

        bench.store.around["put"] = [hinder] * 5000
        with pytest.raises(ConflictError):
            bench.publish(base, rebuild=self.rebuild)

    def test_a_rebuild_that_fails(self, bench: Bench, base: Version) -> None:
        """Its error is the commit's: nothing was stored, although an attempt had been in doubt."""
        bench.store.around["put"] = [dropped, after(lambda: self.maintain(bench))]
        with pytest.raises(AccessDeniedError):
            bench.publish(base, rebuild=failing(AccessDeniedError("no", url=URL)))

    def test_a_format_without_maintenance(self, bench: Bench, base: Version) -> None:
        """Then it is a conflict, as any other replacement."""
        bench.store.around["put"] = [after(lambda: self.maintain(bench))]
        with pytest.raises(ConflictError):
            bench.publish(base)
