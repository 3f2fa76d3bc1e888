"""Counters of the requests to a store: requests by verb and outcome, bytes, seconds.

Counting a request takes a lock and a few additions: some microseconds beside the milliseconds of the request.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Literal, Self, TypeVar

from temaki.errors import StoreError, StoreUnavailableError
from temaki.observe.listeners import Listeners
from temaki.process.fork import ProcessLock, reset_in_child
from temaki.store import Download, ObjectInfo, ReadableBody, Store
from temaki.stores.rules import body_size
from temaki.stores.wrapper import DownloadWrapper, StoreWrapper, Verb

_log = logging.getLogger(__name__)

T = TypeVar("T")
Outcome = Literal["ok", "not_modified", "refused", "failed"]


@dataclass(frozen=True, slots=True)
class Request:
    """One request whose answer has begun or has failed to come.

    Attributes:
        verb: The store's method.
        outcome: ``ok``; ``not_modified`` (a GET answered "unchanged"); ``refused`` (a definite no: condition false, no
            such key, access denied, …); ``failed`` (no usable answer).
        seconds: Time until the answer began or failed, in seconds. :class:`Traffic` also counts the time of bodies.
        error: Name of the error's class; None for a success.
    """

    verb: Verb
    outcome: Outcome
    seconds: float
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Traffic:
    """The requests to a store so far.

    Attributes:
        requests: Number of requests by verb, then by outcome. Each retry counts. A listing is one request.
        seconds: Seconds by verb, including bodies.
        bytes_up: Bytes of all bodies that an upload was begun with, whatever became of the upload.
        bytes_down: Bytes of bodies that were read.
    """

    requests: Mapping[Verb, Mapping[Outcome, int]]
    seconds: Mapping[Verb, float]
    bytes_up: int
    bytes_down: int

    def count(self, verb: Verb | None = None, outcome: Outcome | None = None) -> int:
        """Count the requests with this verb and this outcome; None counts all of them."""
        return sum(
            number
            for counted_verb, outcomes in self.requests.items()
            for counted_outcome, number in outcomes.items()
            if verb in {None, counted_verb} and outcome in {None, counted_outcome}
        )


class Meter:
    """Counts requests. Safe to use from many threads.

    Attributes:
        listen: Registers a callback for each request: see :meth:`temaki.observe.listeners.Listeners.listen`.
    """

    def __init__(self) -> None:
        self._listeners = Listeners[Request](_log)
        self.listen = self._listeners.listen
        self._lock = ProcessLock()
        self.reset_after_fork()
        reset_in_child(self)

    def reset_after_fork(self) -> None:
        """Reset the counters in a forked child: this process did not make the parent's requests."""
        self._requests: dict[Verb, dict[Outcome, int]] = {}
        self._seconds: dict[Verb, float] = {}
        self._up = self._down = 0

    def reset(self) -> None:
        """Set the counters to zero."""
        with self._lock():
            self.reset_after_fork()

    def traffic(self) -> Traffic:
        """Get the counters so far."""
        with self._lock():
            requests: Mapping[Verb, Mapping[Outcome, int]] = {
                verb: dict(outcomes) for verb, outcomes in self._requests.items()
            }
            return Traffic(requests, dict(self._seconds), self._up, self._down)

    def ended(self, request: Request, *, sent: int = 0) -> None:
        """Count a request that has ended, with an upload body of ``sent`` bytes."""
        with self._lock():
            outcomes = self._requests.setdefault(request.verb, {})
            outcomes[request.outcome] = outcomes.get(request.outcome, 0) + 1
            self._seconds[request.verb] = self._seconds.get(request.verb, 0.0) + request.seconds
            self._up += sent
        self._listeners.call(request, "a callback failed on a request")

    def received(self, count: int, seconds: float) -> None:
        """Count a part of a body that has come."""
        with self._lock():
            self._down += count
            self._seconds["get"] = self._seconds.get("get", 0.0) + seconds


class MeteredStore(StoreWrapper):
    """A wrapper around a store that counts its requests.

    Args:
        store: The bucket.
        meter: Counts the requests.
    """

    copies = True

    def __init__(self, store: Store, meter: Meter) -> None:
        super().__init__(store)
        self._meter = meter

    def handle_request(self, verb: Verb, _key: str, request: Callable[[], T], /) -> T:
        """See :meth:`temaki.testing.StoreWrapper.handle_request`."""
        with _Timed(self._meter, verb) as timed:
            answer = request()
            if verb == "get" and answer is None:
                timed.success = "not_modified"
        return answer

    def wrap_download(self, _key: str, download: Download, /) -> Download:
        """See :meth:`temaki.testing.StoreWrapper.wrap_download`."""
        return _MeteredDownload(download, self._meter)

    def put(
        self,
        key: str,
        body: bytes | ReadableBody,
        *,
        metadata: Mapping[str, str] | None = None,
        if_match: str | None = None,
        if_none_match: bool = False,
    ) -> str:
        """See :meth:`temaki.store.Store.put`."""
        with _Timed(self._meter, "put", sent=body_size(body)):
            return self.wrapped.put(key, body, metadata=metadata, if_match=if_match, if_none_match=if_none_match)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See :meth:`temaki.store.Store.list`. A listing counts when its first page has come."""
        listing = iter(self.wrapped.list(prefix))
        with _Timed(self._meter, "list"):
            first = next(listing, None)
        if first is not None:
            yield first
            yield from listing


class _Timed:
    """Measures one request, and reports how it ended."""

    __slots__ = ("_begin", "_meter", "_sent", "_verb", "success")

    def __init__(self, meter: Meter, verb: Verb, *, sent: int = 0) -> None:
        self._meter, self._verb, self._sent = meter, verb, sent
        self.success: Outcome = "ok"
        self._begin = 0.0

    def __enter__(self) -> Self:
        self._begin = perf_counter()
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        seconds = perf_counter() - self._begin
        if error is None:
            outcome = self.success
        elif isinstance(error, StoreError) and not isinstance(error, StoreUnavailableError):
            outcome = "refused"
        else:
            outcome = "failed"
        name = None if error is None else type(error).__name__
        self._meter.ended(Request(self._verb, outcome, seconds, name), sent=self._sent)


class _MeteredDownload(DownloadWrapper):
    def __init__(self, download: Download, meter: Meter) -> None:
        super().__init__(download)
        self._meter = meter

    def read(self, size: int, /) -> bytes:
        begin = perf_counter()
        data = super().read(size)
        self._meter.received(len(data), perf_counter() - begin)
        return data
