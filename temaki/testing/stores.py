"""What a store has to keep: a suite to run over each of them, temaki's own and anyone else's."""

from __future__ import annotations

import io
import secrets
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import ClassVar, TypeVar

import pytest

from temaki.errors import (
    AccessDeniedError,
    BucketNotFoundError,
    ConfigurationError,
    NotFoundError,
    PreconditionFailedError,
    StoreError,
)
from temaki.store import Store
from temaki.testing.threads import in_parallel

T = TypeVar("T")

KEYS = [
    "plain",
    "with space and  two",
    "plus+and%20percent%",
    "a/deeper/one.sqlite",
    "ünïcödé-日本-🍣",
    "quotes'\"&<>=;,:@$!*()[]{}|^~`",
    "back\\slash",
    "question?mark#hash",
    "-dash",
    "dots..in.it",
]
"""Names that are easily damaged on their way through URLs, headers, XML and file systems."""


class StoreTests:
    """Subclass it, and give it a fixture ``store``: an empty bucket, or one that others use under other keys.

    For the promises about what goes wrong, override ``missing_bucket_store`` (a store for a bucket that does not
    exist) and ``denied_store`` (one with wrong credentials). Without them, those tests are skipped.

    Attributes:
        listed: How many objects the long listing has: more than the 1000 that S3 puts on a page; 0 skips it.
        threads: How many threads race.
        rounds: How many times each of them does. Small for servers on which contended writes are slow.
        odd_keys: Names of objects that have to work.
    """

    listed: ClassVar[int] = 1005
    threads: ClassVar[int] = 8
    rounds: ClassVar[int] = 5
    odd_keys: ClassVar[list[str]] = KEYS

    @pytest.fixture
    def store(self) -> Store:
        """The store under test."""
        message = "Give the subclass of StoreTests a fixture named 'store'."
        raise NotImplementedError(message)

    @pytest.fixture
    def missing_bucket_store(self) -> Store:
        """A store for a bucket that does not exist."""
        pytest.skip("no missing_bucket_store")

    @pytest.fixture
    def denied_store(self) -> Store:
        """A store with wrong credentials, for a bucket that exists."""
        pytest.skip("no denied_store")

    @pytest.fixture
    def key(self) -> str:
        """A name that no other test uses."""
        return f"{secrets.token_hex(6)}/app.sqlite"

    # What is written can be read.

    def test_what_was_put_is_got(self, store: Store, key: str) -> None:
        """The bytes come back as they were, with their length, whatever the size of the pieces."""
        data = bytes(range(256)) * 300
        etag = store.put(key, data)
        download = store.get(key)
        assert download is not None
        with download:
            assert download.length == download.info.size == len(data)
            assert download.info.etag == etag
            assert download.info.key == key
            pieces = []
            while piece := download.read(7_000):
                assert len(piece) <= 7_000
                pieces.append(piece)
            assert b"".join(pieces) == data
            assert download.read(1) == b""

    def test_a_download_can_be_left_early(self, store: Store, key: str) -> None:
        """Whoever has seen enough leaves, and the store goes on working."""
        store.put(key, b"x" * 1_000_000)
        download = store.get(key)
        assert download is not None
        with download:
            assert download.read(10) == b"x" * 10
        assert fetch(store, key) == b"x" * 1_000_000

    def test_head_says_what_get_says(self, store: Store, key: str) -> None:
        """HEAD gives the same facts as GET, without the bytes."""
        etag = store.put(key, b"12345", metadata={"temaki-seq": "7"})
        info = store.head(key)
        assert (info.key, info.etag, info.size, dict(info.metadata)) == (key, etag, 5, {"temaki-seq": "7"})
        download = store.get(key)
        assert download is not None
        with download:
            got = download.info
        assert (got.etag, got.size, dict(got.metadata), got.last_modified) == (
            info.etag,
            info.size,
            dict(info.metadata),
            info.last_modified,
        )

    def test_times_are_aware_and_plausible(self, store: Store, key: str) -> None:
        """Where a store says when it wrote and answered, the times carry their zone, and are in order."""
        store.put(key, b"x")
        info = store.head(key)
        for moment in (info.last_modified, info.date):
            if moment is not None:
                assert moment.tzinfo is not None
                assert abs(datetime.now(UTC) - moment) < timedelta(days=2)
        if info.last_modified is not None and info.date is not None:
            assert info.date - info.last_modified > timedelta(seconds=-2)

    def test_an_overwrite_replaces_everything(self, store: Store, key: str) -> None:
        """Nothing of the old version is left: neither bytes, nor metadata, nor its ETag."""
        old = store.put(key, b"a longer old version", metadata={"old": "yes"})
        new = store.put(key, b"new", metadata={"new": "yes"})
        assert old != new
        assert fetch(store, key) == b"new"
        assert dict(store.head(key).metadata) == {"new": "yes"}
        assert store.head(key).etag == new

    def test_an_empty_object_is_an_object(self, store: Store, key: str) -> None:
        """Zero bytes are no missing object."""
        store.put(key, b"")
        assert fetch(store, key) == b""
        assert store.head(key).size == 0

    def test_a_deleted_object_is_gone(self, store: Store, key: str) -> None:
        """After a delete the key is missing; deleting it again, or what never was, is no error."""
        store.put(key, b"x")
        store.delete(key)
        with pytest.raises(NotFoundError):
            store.get(key)
        store.delete(key)
        store.put(key, b"again", if_none_match=True)
        assert fetch(store, key) == b"again"

    def test_a_missing_object_is_said_to_be_missing(self, store: Store, key: str) -> None:
        """GET and HEAD of a missing key, in a bucket that exists, raise NotFoundError and say which."""
        for ask in (store.get, store.head):
            with pytest.raises(NotFoundError, match=r"app\.sqlite") as caught:
                ask(key)
            assert caught.value.url.startswith(store.url)
        with pytest.raises(NotFoundError):
            store.get(key, if_none_match="0" * 32)

    def test_odd_keys(self, store: Store, key: str) -> None:
        """A key is any string: spaces, percent signs, plus signs and other scripts arrive as they are."""
        names = [f"{key}.d/{odd}" for odd in self.odd_keys]
        for number, name in enumerate(names):
            store.put(name, str(number).encode(), if_none_match=True)
        for number, name in enumerate(names):
            assert fetch(store, name) == str(number).encode(), name
            assert store.head(name).key == name
        assert {info.key for info in store.list(f"{key}.d/")} == set(names)
        for name in names:
            store.delete(name)
        assert list(store.list(f"{key}.d/")) == []

    # Metadata.

    def test_metadata_have_lower_case_names(self, store: Store, key: str) -> None:
        """Names are written in lower case, as S3 does; values stay as they are."""
        store.put(key, b"x", metadata={"Temaki-Commit": "AbC, d=e;f", "plain": "1"})
        assert dict(store.head(key).metadata) == {"temaki-commit": "AbC, d=e;f", "plain": "1"}

    def test_metadata_may_be_left_out(self, store: Store, key: str) -> None:
        """No metadata, and empty metadata, are both empty."""
        store.put(key, b"x")
        assert dict(store.head(key).metadata) == {}
        store.put(key, b"x", metadata={})
        assert dict(store.head(key).metadata) == {}

    def test_metadata_of_almost_2_kb(self, store: Store, key: str) -> None:
        """Up to S3's limit everything is kept; beyond it nothing is written."""
        metadata = {"lineage": "0123456789abcdef" * 120, "seq": "1"}
        store.put(key, b"x", metadata=metadata)
        assert dict(store.head(key).metadata) == metadata
        with pytest.raises(StoreError):
            store.put(key, b"y", metadata={"lineage": "x" * 2048})
        assert fetch(store, key) == b"x"

    @pytest.mark.parametrize("metadata", [{"a": "ü"}, {"a": "x\r\ny: z"}, {"a b": "c"}, {"": "c"}, {"a": " b"}])
    def test_metadata_that_no_header_can_carry(self, store: Store, key: str, metadata: dict[str, str]) -> None:
        """What would arrive changed, or as another header, is refused before anything is written."""
        with pytest.raises(StoreError):
            store.put(key, b"x", metadata=metadata)
        with pytest.raises(NotFoundError):
            store.head(key)

    # Conditions.

    def test_create_only_if_missing(self, store: Store, key: str) -> None:
        """if_none_match writes where nothing is, and nowhere else."""
        etag = store.put(key, b"first", if_none_match=True)
        with pytest.raises(PreconditionFailedError) as caught:
            store.put(key, b"second", if_none_match=True)
        assert not caught.value.in_flight
        assert fetch(store, key) == b"first"
        assert store.head(key).etag == etag

    def test_swap_only_the_version_that_was_read(self, store: Store, key: str) -> None:
        """if_match writes over the version that it names; once that is gone, it is refused."""
        first = store.put(key, b"first")
        second = store.put(key, b"second", if_match=first)
        with pytest.raises(PreconditionFailedError):
            store.put(key, b"third", if_match=first)
        assert fetch(store, key) == b"second"
        store.put(key, b"third", if_match=second)
        assert fetch(store, key) == b"third"

    def test_a_head_gives_the_etag_to_swap(self, store: Store, key: str) -> None:
        """The ETags of put, get, head and list all serve for conditions."""
        store.put(key, b"0")
        store.put(key, b"1", if_match=store.head(key).etag)
        download = store.get(key)
        assert download is not None
        with download:
            store.put(key, b"2", if_match=download.info.etag)
        (listed,) = store.list(key)
        store.put(key, b"3", if_match=listed.etag)
        assert fetch(store, key) == b"3"

    def test_a_missing_object_has_no_version_to_swap(self, store: Store, key: str) -> None:
        """if_match on a missing object is refused, and creates nothing; also after a delete."""
        with pytest.raises(PreconditionFailedError):
            store.put(key, b"x", if_match="0" * 32)
        etag = store.put(key, b"x")
        store.delete(key)
        with pytest.raises(PreconditionFailedError):
            store.put(key, b"y", if_match=etag)
        with pytest.raises(NotFoundError):
            store.head(key)

    def test_contents_that_come_back(self, store: Store, key: str) -> None:
        """An ETag decides by itself: where contents repeat it may too, and then the condition holds."""
        first = store.put(key, b"A", metadata={"version": "1"})
        store.put(key, b"B", metadata={"version": "2"})
        third = store.put(key, b"A", metadata={"version": "3"})
        assert store.head(key).metadata["version"] == "3"
        if first == third:
            store.put(key, b"C", if_match=first)
        else:
            with pytest.raises(PreconditionFailedError):
                store.put(key, b"C", if_match=first)
            store.put(key, b"C", if_match=third)
        assert fetch(store, key) == b"C"

    def test_unchanged_sends_nothing(self, store: Store, key: str) -> None:
        """A GET with the current ETag answers None; with an old one it answers the object."""
        first = store.put(key, b"first")
        assert store.get(key, if_none_match=first) is None
        second = store.put(key, b"second")
        assert fetch(store, key, if_none_match=first) == b"second"
        assert store.get(key, if_none_match=second) is None

    def test_get_of_one_version_only(self, store: Store, key: str) -> None:
        """A GET with if_match answers that version or is refused, also for a range and for a missing object."""
        first = store.put(key, b"first")
        assert fetch(store, key, if_match=first) == b"first"
        store.put(key, b"second")
        with pytest.raises(PreconditionFailedError):
            store.get(key, if_match=first)
        with pytest.raises(PreconditionFailedError):
            store.get(key, if_match=first, byte_range=(0, 2))

    def test_two_conditions_exclude_each_other(self, store: Store, key: str) -> None:
        """What no store defines is refused before it is sent."""
        with pytest.raises(ConfigurationError):
            store.put(key, b"x", if_match="0" * 32, if_none_match=True)

    # Ranges.

    @pytest.mark.parametrize(
        ("byte_range", "expected"),
        [
            ((0, 1), b"0"),
            ((0, 10), b"0123456789"),
            ((3, 6), b"345"),
            ((9, 10), b"9"),
            ((8, 100), b"89"),
            ((0, 1_000_000), b"0123456789"),
        ],
    )
    def test_a_range(self, store: Store, key: str, byte_range: tuple[int, int], expected: bytes) -> None:
        """A range gives its bytes, cut at the object's end; the facts are those of the whole object."""
        etag = store.put(key, b"0123456789", metadata={"a": "b"})
        download = store.get(key, byte_range=byte_range, if_match=etag)
        assert download is not None
        with download:
            assert download.length == len(expected)
            assert read_all(download.read) == expected
            assert (download.info.size, download.info.etag) == (10, etag)
            assert dict(download.info.metadata) == {"a": "b"}

    @pytest.mark.parametrize("data", [b"0123456789", b""])
    def test_a_range_beyond_the_end(self, store: Store, key: str, data: bytes) -> None:
        """A range that starts at or beyond the end is an error, and no empty body; an empty object has none at all."""
        store.put(key, data)
        for first in (len(data), len(data) + 5):
            with pytest.raises(StoreError) as caught:
                store.get(key, byte_range=(first, first + 10))
            assert not isinstance(caught.value, (NotFoundError, PreconditionFailedError))

    def test_a_range_of_an_unchanged_object(self, store: Store, key: str) -> None:
        """A range with the current ETag in if_none_match answers None as well."""
        etag = store.put(key, b"0123456789")
        assert store.get(key, byte_range=(0, 4), if_none_match=etag) is None
        assert fetch(store, key, byte_range=(0, 4), if_none_match="0" * 32) == b"0123"

    # Bodies.

    def test_a_file_is_read_from_its_start(self, store: Store, key: str) -> None:
        """A body that was left at its end is uploaded whole."""
        body = io.BytesIO()
        body.write(b"some contents" * 1_000)
        store.put(key, body)
        assert fetch(store, key) == b"some contents" * 1_000

    def test_a_body_can_be_sent_again(self, store: Store, key: str) -> None:
        """The same body serves for several requests; that is how a put is repeated."""
        body = io.BytesIO(b"x" * 100_000)
        etag = store.put(key, body, if_none_match=True)
        with pytest.raises(PreconditionFailedError):
            store.put(key, body, if_none_match=True)
        store.put(key, body, if_match=etag)
        assert fetch(store, key) == b"x" * 100_000

    def test_a_body_whose_reads_are_short(self, store: Store, key: str) -> None:
        """A body may give less than it was asked for without being at its end."""
        data = secrets.token_bytes(5_000)
        store.put(key, _ShortReads(data))
        assert fetch(store, key) == data

    # Listings.

    def test_a_listing_has_what_begins_with_the_prefix(self, store: Store, key: str) -> None:
        """A listing gives keys, sizes and ETags, in the order of the keys' bytes; a prefix is no folder."""
        names = [f"{key}/{name}" for name in ("a-b", "a/b", "a0", "b", "B", "é", "z")]
        etags = {name: store.put(name, b"x" * number) for number, name in enumerate(names)}
        found = list(store.list(f"{key}/"))
        assert [info.key for info in found] == sorted(names, key=str.encode)
        assert {info.key: info.etag for info in found} == etags
        assert {info.key: info.size for info in found} == {name: number for number, name in enumerate(names)}
        assert [info.key for info in store.list(f"{key}/a-")] == [f"{key}/a-b"]
        assert list(store.list(f"{key}/nothing")) == []

    def test_a_long_listing(self, store: Store, key: str) -> None:
        """A listing is complete, however many objects there are, and whatever fits on one of the store's pages."""
        if not self.listed:
            pytest.skip("listed = 0")
        names = [f"{key}.d/{number:05}" for number in range(self.listed)]
        in_parallel([lambda part=part: [store.put(name, b"") for name in part] for part in split(names, 4)])  # type: ignore[misc]
        assert [info.key for info in store.list(f"{key}.d/")] == names

    # Races.

    def test_of_many_creators_one_wins(self, store: Store, key: str) -> None:
        """Threads that create the same object: exactly one is told that it did, and its bytes are there."""
        for number in range(self.rounds):
            name = f"{key}-{number}"
            won = self._race(store, name, if_none_match=True)
            assert len(won) == 1
            assert fetch(store, name) == won[0]

    def test_of_many_swappers_one_wins(self, store: Store, key: str) -> None:
        """Threads that swap the same version: exactly one is told that it did, and its bytes are there."""
        for number in range(self.rounds):
            name = f"{key}-{number}"
            won = self._race(store, name, if_match=store.put(name, b"base"))
            assert len(won) == 1
            assert fetch(store, name) == won[0]

    def test_no_update_is_lost(self, store: Store, key: str) -> None:
        """Threads that read, add one and swap, until it works: the sum is exact."""
        store.put(key, b"0")

        def add() -> None:
            for _ in range(self.rounds):
                while True:
                    download = store.get(key)
                    assert download is not None
                    with download:
                        number = int(read_all(download.read))
                    try:
                        store.put(key, str(number + 1).encode(), if_match=download.info.etag)
                    except PreconditionFailedError:
                        continue
                    break

        in_parallel([add] * self.threads)
        assert int(fetch(store, key)) == self.threads * self.rounds

    def test_readers_see_whole_objects(self, store: Store, key: str) -> None:
        """While an object is replaced, each reader gets one version: bytes, length, metadata and ETag of one put."""
        store.put(key, _version(0), metadata={"version": "0"})
        ended = threading.Event()

        def write() -> None:
            try:
                for number in range(1, 5 * self.rounds):
                    store.put(key, _version(number), metadata={"version": str(number)})
            finally:
                ended.set()

        def read() -> None:
            while not ended.is_set():
                download = store.get(key)
                assert download is not None
                with download:
                    data = read_all(download.read)
                assert len(data) == download.length == download.info.size
                assert data == _version(int(download.info.metadata["version"]))

        in_parallel([write, read, read, read])

    def _race(self, store: Store, key: str, *, if_match: str | None = None, if_none_match: bool = False) -> list[bytes]:
        """The bodies of those that were told that they won."""

        def attempt(body: bytes) -> bytes | None:
            while True:
                try:
                    store.put(key, body, if_match=if_match, if_none_match=if_none_match)
                except PreconditionFailedError as error:
                    if error.in_flight:
                        continue
                    return None
                return body

        bodies = [f"body of thread {number}".encode() * 500 for number in range(self.threads)]
        results = in_parallel([lambda body=body: attempt(body) for body in bodies])  # type: ignore[misc]
        return [body for body in results if body is not None]

    # What goes wrong.

    def test_a_missing_bucket_is_no_missing_object(self, missing_bucket_store: Store) -> None:
        """Reading says that the bucket is missing: a wrong name must not look like an empty database."""
        for ask in _reads(missing_bucket_store):
            with pytest.raises(BucketNotFoundError):
                ask()

    def test_nothing_is_written_to_a_missing_bucket(self, missing_bucket_store: Store) -> None:
        """Writing says that the bucket is missing, whatever the condition."""
        for ask in _writes(missing_bucket_store):
            with pytest.raises(BucketNotFoundError):
                ask()

    def test_wrong_credentials(self, denied_store: Store) -> None:
        """Each verb says that access is denied, and not that there is nothing."""
        for ask in _reads(denied_store) + _writes(denied_store):
            with pytest.raises(AccessDeniedError):
                ask()

    def test_a_bad_key_is_refused(self, store: Store) -> None:
        """An empty key, and one beyond S3's 1024 bytes, are errors of the store, and not "no such object"."""
        for key in ("", "x" * 1025):
            with pytest.raises(StoreError) as caught:
                store.put(key, b"x")
            assert not isinstance(caught.value, NotFoundError)


def fetch(store: Store, key: str, **conditions: object) -> bytes:
    """All bytes of an object."""
    download = store.get(key, **conditions)  # type: ignore[arg-type]
    assert download is not None
    with download:
        return read_all(download.read)


def read_all(read: Callable[[int], bytes]) -> bytes:
    """All that a download has left."""
    pieces = []
    while piece := read(65_536):
        pieces.append(piece)
    return b"".join(pieces)


def split(items: list[T], parts: int) -> list[list[T]]:
    """The items, dealt out."""
    return [items[number::parts] for number in range(parts)]


def _version(number: int) -> bytes:
    return bytes([number % 251]) * (10_000 + 997 * number)


def _reads(store: Store) -> list[Callable[[], object]]:
    return [
        lambda: store.get("app.sqlite"),
        lambda: store.get("app.sqlite", if_none_match="0" * 32),
        lambda: store.get("app.sqlite", byte_range=(0, 10)),
        lambda: store.head("app.sqlite"),
        lambda: list(store.list()),
    ]


def _writes(store: Store) -> list[Callable[[], object]]:
    return [
        lambda: store.put("app.sqlite", b"x", if_match="0" * 32),
        lambda: store.put("app.sqlite", b"x", if_none_match=True),
        lambda: store.put("app.sqlite", b"x"),
        lambda: store.delete("app.sqlite"),
    ]


class _ShortReads(io.BytesIO):
    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(700, size) if size is not None and size > 0 else size)
