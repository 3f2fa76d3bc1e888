"""Threads at once: one wins, no update is lost, and nobody sees half an object."""

from __future__ import annotations

import threading

from temaki.errors import PreconditionFailedError
from temaki.store import Store
from temaki.testing.stores.base import Suite
from temaki.testing.stores.tools import fetch, read_all
from temaki.testing.threads import in_parallel


class Races(Suite):
    """Threads at once: one wins, no update is lost, and nobody sees half an object."""

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
        start = threading.Barrier(self.threads)

        def attempt(body: bytes) -> bytes | None:
            start.wait()
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


def _version(number: int) -> bytes:
    return bytes([number % 251]) * (10_000 + 997 * number)
