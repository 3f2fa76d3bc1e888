"""A store that fails as object stores do: at random from a seed, so that failures are repeatable, or by a plan."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from typing import TypeVar

from temaki.clock import Clock
from temaki.errors import ConfigurationError, PreconditionFailedError, StoreError, StoreUnavailableError
from temaki.store import CopyingStore, Download, ObjectInfo, ReadableBody, Store
from temaki.stores.rules import read_body
from temaki.stores.wrapper import DownloadWrapper, StoreWrapper, Verb, unwrapped

T = TypeVar("T")


class Fault(Enum):
    """The faults that a request can have."""

    LOST_REPLY = auto()
    """The store carries the request out, but its answer (or refusal) is lost. ``StoreUnavailableError``, ambiguous."""
    FAIL_BEFORE = auto()
    """The store does not carry the request out, as with a 503. ``StoreUnavailableError``, ambiguous."""
    REFUSED = auto()
    """The connection is refused, so nothing happens. ``StoreUnavailableError``, not ambiguous."""
    LATE_LANDING = auto()
    """The request fails now and lands later, if its condition still holds. ``StoreUnavailableError``, ambiguous.
    For put, delete and copy."""
    CONFLICT_409 = auto()
    """The store refuses without a decision: ``PreconditionFailedError`` with ``in_flight``. For put and copy."""
    TRUNCATED = auto()
    """The answer's body ends early: ``StoreUnavailableError`` from ``read``. For get."""
    LATENCY = auto()
    """The request succeeds after ``latency`` seconds of the clock."""


_EVERYWHERE = frozenset({Fault.LOST_REPLY, Fault.FAIL_BEFORE, Fault.REFUSED, Fault.LATENCY})
_POSSIBLE: dict[Verb, frozenset[Fault]] = {
    "get": _EVERYWHERE | {Fault.TRUNCATED},
    "head": _EVERYWHERE,
    "put": _EVERYWHERE | {Fault.LATE_LANDING, Fault.CONFLICT_409},
    "delete": _EVERYWHERE | {Fault.LATE_LANDING},
    "list": _EVERYWHERE,
    "copy": _EVERYWHERE | {Fault.LATE_LANDING, Fault.CONFLICT_409},
}

ONLY_WHEN_TOLD = 0
"""Value for ``late_after``: the request lands only in :meth:`FaultyStore.land_late`."""


@dataclass(slots=True)
class _Planned:
    verb: Verb
    key: str | None
    fault: Fault | None
    late_after: int | None


@dataclass(slots=True)
class _Late:
    calls_left: int
    carry_out: Callable[[], object]


class FaultyStore(StoreWrapper):
    """A wrapper around ``store`` that makes requests fail.

    With one thread, equal seeds and equal calls give equal faults. With several threads, the order of their calls
    decides.

    Args:
        store: The store that carries the requests out.
        seed: Seed of all random choices.
        rates: Probability of each fault, by verb: ``{"put": {Fault.LOST_REPLY: 0.25}, "get": {Fault.TRUNCATED: 0.1}}``.
        clock: Clock that sleeps for :attr:`Fault.LATENCY`. Needed only for that.
        plan: Faults of the next calls, as pairs of verb and fault. None lets one call pass. The plan has precedence
            over ``rates``.
        latency: Duration of :attr:`Fault.LATENCY`, in seconds.
        late_after: Most calls of this store after which a late request lands. The number is drawn, at least 1.

    Attributes:
        faults: Faults so far, as verb, key and fault.
    """

    copies = True

    def __init__(
        self,
        store: Store,
        *,
        seed: int = 0,
        rates: Mapping[Verb, Mapping[Fault, float]] | None = None,
        clock: Clock | None = None,
        plan: Iterable[tuple[Verb, Fault | None]] = (),
        latency: float = 0.1,
        late_after: int = 5,
    ) -> None:
        super().__init__(store)
        self._random = random.Random(seed)  # noqa: S311 - repeatable, on purpose
        self._rates = {verb: dict(chances) for verb, chances in (rates or {}).items()}
        self._clock = clock
        self._latency = latency
        self._late_after = late_after
        self._plan: list[_Planned] = []
        self._late: list[_Late] = []
        self._lock = threading.Lock()
        self.faults: list[tuple[Verb, str, Fault]] = []
        for verb, chances in self._rates.items():
            self._check(verb, *chances)
            if sum(chances.values()) > 1 or min(chances.values(), default=0) < 0:
                message = (
                    f"The rates for {verb!r} are no probabilities, or exceed 1 in all: {chances}. Give rates between "
                    "0 and 1 whose sum is at most 1."
                )
                raise ConfigurationError(message)
        for verb, fault in plan:
            self.fail_next(verb, fault)

    @property
    def late(self) -> int:
        """Number of late requests that have not landed yet."""
        with self._lock:
            return len(self._late)

    def fail_next(
        self, verb: Verb, *faults: Fault | None, key: str | None = None, late_after: int | None = None
    ) -> None:
        """Plan the faults of the next calls of ``verb``, one after the other. None lets one call pass.

        Args:
            verb: Method of the store.
            faults: One fault for each of the next calls.
            key: Key to which the plan applies; None for all keys.
            late_after: Number of calls after which a late request lands, instead of a drawn one; or
                :data:`ONLY_WHEN_TOLD`.

        Raises:
            ConfigurationError: The verb cannot have this fault.
        """
        self._check(verb, *faults)
        with self._lock:
            self._plan += [_Planned(verb, key, fault, late_after) for fault in faults]

    def land_late(self) -> int:
        """Carry out all late requests now. Returns the number of those whose condition still holds."""
        with self._lock:
            due, self._late = self._late, []
        return _carry_out(due)

    def stop(self) -> None:
        """End all faults: forget the plan and the rates. Late requests still land."""
        with self._lock:
            self._plan.clear()
            self._rates.clear()

    def get(
        self,
        key: str,
        *,
        if_none_match: str | None = None,
        if_match: str | None = None,
        byte_range: tuple[int, int] | None = None,
    ) -> Download | None:
        """See :meth:`temaki.store.Store.get`."""
        fault = self._decide("get", key)

        def request() -> Download | None:
            return self.wrapped.get(key, if_none_match=if_none_match, if_match=if_match, byte_range=byte_range)

        download = self._answer(fault, key, request)
        if download is not None and fault is Fault.TRUNCATED:
            with self._lock:
                keep = int(self._random.random() * download.length)
            return _TruncatedDownload(download, keep, f"{self.url}/{key}")
        return download

    def handle_request(self, verb: Verb, key: str, request: Callable[[], T], /) -> T:
        """See :meth:`temaki.testing.StoreWrapper.handle_request`."""
        return self._answer(self._decide(verb, key), key, request)

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
        copied = None if metadata is None else dict(metadata)

        def request(body: bytes | ReadableBody = body) -> str:
            return self.wrapped.put(key, body, metadata=copied, if_match=if_match, if_none_match=if_none_match)

        # A late request needs a copy of its body: the caller may change or close the body before it lands.
        return self._answer(self._decide("put", key), key, request, late=lambda: _with_copy(request, body))

    def delete(self, key: str) -> None:
        """See :meth:`temaki.store.Store.delete`."""

        def request() -> None:
            self.wrapped.delete(key)

        self._answer(self._decide("delete", key), key, request, late=lambda: request)

    def copy(
        self,
        source: Store,
        info: ObjectInfo,
        key: str,
        *,
        metadata: Mapping[str, str] | None = None,
        if_none_match: bool = False,
    ) -> str:
        """See :meth:`temaki.store.CopyingStore.copy`."""
        wrapped = self.wrapped
        assert isinstance(wrapped, CopyingStore), "can_copy has said so"
        behind, copied = unwrapped(source), None if metadata is None else dict(metadata)

        def request() -> str:
            return wrapped.copy(behind, info, key, metadata=copied, if_none_match=if_none_match)

        return self._answer(self._decide("copy", key), key, request, late=lambda: request)

    def _decide(self, verb: Verb, key: str) -> Fault | _Late | None:
        """Let the late requests that are due land, then choose the fault of this request."""
        with self._lock:
            for request in self._late:
                request.calls_left -= 1
            due = [request for request in self._late if request.calls_left == 0]
            self._late = [request for request in self._late if request.calls_left != 0]
            fault, late_after = self._choose(verb, key)
            if fault is not None:
                self.faults.append((verb, key, fault))
            if fault is Fault.LATE_LANDING and late_after is None:
                late_after = self._random.randint(1, self._late_after)
        _carry_out(due)
        if fault is Fault.LATE_LANDING:
            return _Late(late_after or ONLY_WHEN_TOLD, lambda: None)
        return fault

    def _choose(self, verb: Verb, key: str) -> tuple[Fault | None, int | None]:
        for number, planned in enumerate(self._plan):
            if planned.verb == verb and planned.key in {None, key}:
                del self._plan[number]
                return planned.fault, planned.late_after
        chances = self._rates.get(verb)
        if chances:
            drawn = self._random.random()
            for fault, chance in chances.items():
                drawn -= chance
                if drawn < 0:
                    return fault, None
        return None, None

    def _answer(
        self,
        fault: Fault | _Late | None,
        key: str,
        request: Callable[[], T],
        *,
        late: Callable[[], Callable[[], object]] | None = None,
    ) -> T:
        url = f"{self.url}/{key}"
        if isinstance(fault, _Late):
            assert late is not None
            fault.carry_out = late()
            with self._lock:
                self._late.append(fault)
            raise _unavailable(url, "the reply was lost, and the request is still on its way", ambiguous=True)
        if fault is Fault.FAIL_BEFORE:
            raise _unavailable(url, "503 Service Unavailable", ambiguous=True, status=503, code="ServiceUnavailable")
        if fault is Fault.REFUSED:
            raise _unavailable(url, "the connection was refused", ambiguous=False)
        if fault is Fault.CONFLICT_409:
            message = f"{url}: a conflicting request was under way (injected)."
            facts = {"url": url, "status": 409, "code": "ConditionalRequestConflict", "in_flight": True}
            raise PreconditionFailedError(message, **facts)
        if fault is Fault.LATENCY and self._clock is not None:
            self._clock.sleep(self._latency)
        if fault is Fault.LOST_REPLY:
            with suppress(StoreError):  # a refusal is a reply, too
                request()
            raise _unavailable(url, "the reply was lost", ambiguous=True)
        return request()

    def _check(self, verb: Verb, *faults: Fault | None) -> None:
        for fault in faults:
            if fault is not None and fault not in _POSSIBLE.get(verb, frozenset()):
                message = f"{verb!r} cannot fail with {fault.name}. Possible: {_POSSIBLE}."
                raise ConfigurationError(message)
            if fault is Fault.LATENCY and self._clock is None:
                message = "Fault.LATENCY needs a clock that sleeps: FaultyStore(..., clock=ManualClock())."
                raise ConfigurationError(message)


class _TruncatedDownload(DownloadWrapper):
    def __init__(self, download: Download, keep: int, url: str) -> None:
        super().__init__(download)
        self._keep = keep
        self._url = url

    def read(self, size: int, /) -> bytes:
        data = super().read(min(size, self._keep))
        self._keep -= len(data)
        if not data and size and self.length:
            raise _unavailable(self._url, "the body ended early", ambiguous=True)
        return data


def _with_copy(request: Callable[[bytes], object], body: bytes | ReadableBody) -> Callable[[], object]:
    copy = read_body(body)
    return lambda: request(copy)


def _carry_out(requests: list[_Late]) -> int:
    landed = 0
    for request in requests:
        with suppress(StoreError):  # nobody gets the error, for example of a condition that is false by now
            request.carry_out()
            landed += 1
    return landed


def _unavailable(
    url: str, what: str, *, ambiguous: bool, status: int | None = None, code: str | None = None
) -> StoreUnavailableError:
    return StoreUnavailableError(f"{url}: {what} (injected).", url=url, status=status, code=code, ambiguous=ambiguous)
