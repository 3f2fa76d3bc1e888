"""A store that counts its requests, so that a test can assert "one request, 4096 bytes"."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeVar

from temaki.errors import StoreError, StoreUnavailableError
from temaki.store import Download, ObjectInfo, ReadableBody, Store
from temaki.stores.rules import body_size
from temaki.stores.wrapper import DownloadWrapper, StoreWrapper, Verb

T = TypeVar("T")
Outcome = Literal["ok", "not_modified", "refused", "failed"]


@dataclass(slots=True)
class Call:
    """One request.

    Attributes:
        verb: Method of the store.
        key: Key of the object; the prefix for a listing.
        outcome: ``ok``; ``not_modified`` (a GET answered "unchanged"); ``refused`` (a definite no: condition false,
            no such key, access denied, …); ``failed`` (no usable answer, or an error that is not a store's).
    """

    verb: Verb
    key: str
    outcome: Outcome


class CountingStore(StoreWrapper):
    """A wrapper around ``store`` that counts its requests. Safe to use from many threads.

    Attributes:
        calls: All requests so far, in the order in which they ended. A listing is one request for all its pages.
        bytes_up: Bytes of all bodies that were given to ``put``, whether stored or not. A copy has none.
        bytes_down: Bytes of bodies that were read. The unread rest of a download does not count.
    """

    copies = True

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._lock = threading.Lock()
        self.calls: list[Call] = []
        self.bytes_up = 0
        self.bytes_down = 0

    def count(self, verb: Verb | None = None, outcome: Outcome | None = None, *, key: str | None = None) -> int:
        """Count the requests with this verb, this outcome and this key; None counts all of them."""
        with self._lock:
            return sum(
                (verb is None or call.verb == verb)
                and (outcome is None or call.outcome == outcome)
                and (key is None or call.key == key)
                for call in self.calls
            )

    def reset(self) -> None:
        """Set the counters to zero."""
        with self._lock:
            self.calls.clear()
            self.bytes_up = self.bytes_down = 0

    def handle_request(self, verb: Verb, key: str, request: Callable[[], T], /) -> T:
        """See :meth:`temaki.testing.StoreWrapper.handle_request`."""
        with self._counted(verb, key) as call:
            answer = request()
            if verb == "get" and answer is None:
                call.outcome = "not_modified"
        return answer

    def wrap_download(self, _key: str, download: Download, /) -> Download:
        """See :meth:`temaki.testing.StoreWrapper.wrap_download`."""
        return _CountedDownload(download, self)

    def wrap_body(self, body: bytes | ReadableBody, /) -> bytes | ReadableBody:
        """See :meth:`temaki.testing.StoreWrapper.wrap_body`."""
        size = body_size(body)
        with self._lock:
            self.bytes_up += size
        return body

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See :meth:`temaki.store.Store.list`."""
        with self._counted("list", prefix) as call:
            try:
                yield from self.wrapped.list(prefix)
            except GeneratorExit:  # the caller needs no more of the listing
                call.outcome = "ok"
                raise

    @contextmanager
    def _counted(self, verb: Verb, key: str) -> Iterator[Call]:
        call = Call(verb, key, "failed")
        try:
            yield call
            if call.outcome == "failed":
                call.outcome = "ok"
        except StoreUnavailableError:
            raise
        except StoreError:
            call.outcome = "refused"
            raise
        finally:
            with self._lock:
                self.calls.append(call)

    def add_bytes_down(self, size: int) -> None:
        """Count bytes that were read from a download."""
        with self._lock:
            self.bytes_down += size


class _CountedDownload(DownloadWrapper):
    def __init__(self, download: Download, store: CountingStore) -> None:
        super().__init__(download)
        self._counting = store

    def read(self, size: int, /) -> bytes:
        data = super().read(size)
        self._counting.add_bytes_down(len(data))
        return data
