"""What is asked of a store, counted where it is asked: requests by verb and outcome, bytes, seconds.

A lock and a few additions for each request: some microseconds beside the milliseconds that a request takes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Literal, Self, TypeVar

from temaki.errors import StoreError, StoreUnavailableError
from temaki.process.fork import ProcessLock, reset_in_child
from temaki.store import Download, ObjectInfo, ReadableBody, Store
from temaki.stores.rules import body_size
from temaki.stores.wrapper import DownloadWrapper, StoreWrapper, Verb

_log = logging.getLogger(__name__)

T = TypeVar("T")
Outcome = Literal["ok", "not_modified", "refused", "failed"]


@dataclass(frozen=True, slots=True)
class Request:
    """One request, when its answer has begun, or has failed to come.

    Attributes:
        verb: The store's method.
        outcome: ``ok``; ``not_modified`` (a GET answered "unchanged"); ``refused`` (a definite no: condition false, no
            such key, access denied, …); ``failed`` (no usable answer).
        seconds: Until then. A download's body takes more, which :class:`Traffic` counts.
        error: What was raised: the class's name; None for a success.
    """

    verb: Verb
    outcome: Outcome
    seconds: float
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Traffic:
    """What was asked of a store so far.

    Attributes:
        requests: By verb, then by outcome. Attempts that are made again count again; a listing is one request.
        seconds: By verb, bodies included.
        bytes_up: Of all bodies that were sent or begun to be, whatever became of them.
        bytes_down: Of bodies that were read.
    """

    requests: Mapping[Verb, Mapping[Outcome, int]]
    seconds: Mapping[Verb, float]
    bytes_up: int
    bytes_down: int

    def count(self, verb: Verb | None = None, outcome: Outcome | None = None) -> int:
        """How many requests; of this verb, with this outcome, where given."""
        return sum(
            number
            for one, outcomes in self.requests.items()
            for result, number in outcomes.items()
            if verb in {None, one} and outcome in {None, result}
        )


class Meter:
    """The counters. Safe to use from many threads."""

    def __init__(self) -> None:
        self._listeners: tuple[Callable[[Request], object], ...] = ()
        self._lock = ProcessLock()
        self.reset_after_fork()
        reset_in_child(self)

    def reset_after_fork(self) -> None:
        """In a forked child: what the parent asked was not asked by this process."""
        self._requests: dict[Verb, dict[Outcome, int]] = {}
        self._seconds: dict[Verb, float] = {}
        self._up = self._down = 0

    def reset(self) -> None:
        """Begin at nothing."""
        with self._lock():
            self.reset_after_fork()

    def listen(self, listener: Callable[[Request], object]) -> Callable[[], None]:
        """Have ``listener`` called with each request, from now on; gives a function that ends it.

        What it raises is logged.
        """
        with self._lock():
            self._listeners = (*self._listeners, listener)

        def stop() -> None:
            with self._lock():
                self._listeners = tuple(one for one in self._listeners if one is not listener)

        return stop

    def traffic(self) -> Traffic:
        """So far."""
        with self._lock():
            requests: Mapping[Verb, Mapping[Outcome, int]] = {
                verb: dict(found) for verb, found in self._requests.items()
            }
            return Traffic(requests, dict(self._seconds), self._up, self._down)

    def ended(self, request: Request, *, sent: int = 0) -> None:
        """A request has ended, with a body of ``sent`` bytes."""
        with self._lock():
            outcomes = self._requests.setdefault(request.verb, {})
            outcomes[request.outcome] = outcomes.get(request.outcome, 0) + 1
            self._seconds[request.verb] = self._seconds.get(request.verb, 0.0) + request.seconds
            self._up += sent
        for listener in self._listeners:
            try:
                listener(request)
            except Exception:  # noqa: BLE001 - it is somebody else's code, in the middle of a session
                _log.exception("a callback failed on a request")

    def received(self, count: int, seconds: float) -> None:
        """A part of a body has come."""
        with self._lock():
            self._down += count
            self._seconds["get"] = self._seconds.get("get", 0.0) + seconds


class MeteredStore(StoreWrapper):
    """Passes everything on to ``store``, and counts.

    Args:
        store: The bucket.
        meter: Where it is counted.
    """

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
        """See :meth:`temaki.store.Store.list`. Counted when its first page has come."""
        listing = iter(self.wrapped.list(prefix))
        with _Timed(self._meter, "list"):
            first = next(listing, None)
        if first is not None:
            yield first
            yield from listing


class _Timed:
    """The time of one request, and how it ended."""

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
