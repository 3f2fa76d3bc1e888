"""Spans and metrics for OpenTelemetry (extra ``temaki[otel]``). temaki itself never imports this module:

.. code-block:: python

    from temaki.otel import instrument

    instrument(db)

Names follow the semantic conventions for database clients (https://opentelemetry.io/docs/specs/semconv/database/). A
span's name is the operation and the database. A span has ``db.system.name``, ``db.namespace``, ``db.operation.name``
and ``error.type``. Durations are in ``db.client.operation.duration``. Names outside of the conventions begin with
``temaki.``.

A span is made when its operation is over, with the times at which the operation began and ended. It is a child of the
span that is current in the session's thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from temaki._version import __version__
from temaki.errors import ConfigurationError
from temaki.events import (
    CommitUnknown,
    Compacted,
    Conflict,
    Event,
    Failed,
    LeaseAcquired,
    LeaseTimedOut,
    Published,
    Pulled,
    Unchanged,
)
from temaki.observe.metering import Request
from temaki.orm.binding import sync_of

try:
    from opentelemetry import metrics, trace
except ImportError as missing:
    raise ConfigurationError(
        f"temaki.otel needs OpenTelemetry's API ({missing}). Install it with: pip install 'temaki[otel]'"
    ) from missing

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

_SCHEMA: Final = "https://opentelemetry.io/schemas/1.28.0"
_BUCKETS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)  # seconds, as the conventions say
_NANOSECONDS: Final = 1_000_000_000

_OPERATIONS: Final[dict[type[Event], str]] = {
    Pulled: "pull",
    Unchanged: "pull",
    Published: "commit",
    CommitUnknown: "commit",
    Compacted: "compact",
    LeaseAcquired: "lease",
    LeaseTimedOut: "lease",
}
_ERRORS: Final[dict[type[Event], str]] = {
    Conflict: "ConflictError",
    CommitUnknown: "CommitUnknownError",
    LeaseTimedOut: "LeaseTimeoutError",
}


def instrument(
    db: Any, *, tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
) -> Callable[[], None]:
    """Make spans and metrics of what happens to a bound database, from now on.

    Args:
        db: A ``Database`` after ``bind_s3``. The telemetry covers every ``Database`` on the same URL in this process,
            so instrument one of them only.
        tracer_provider: Provider of the tracer. Default: the global one.
        meter_provider: Provider of the meter. Default: the global one.

    Returns:
        A function that ends the telemetry.

    Raises:
        ConfigurationError: The database is not bound to a store.
    """
    sync = sync_of(db)
    telemetry = _Telemetry(
        trace.get_tracer("temaki", __version__, tracer_provider, _SCHEMA),
        metrics.get_meter("temaki", __version__, meter_provider, _SCHEMA),
    )
    stop_functions = (sync.on_event(telemetry.event), sync.on_request(telemetry.request))

    def stop() -> None:
        for stop_listening in stop_functions:
            stop_listening()

    return stop


class _Telemetry:
    def __init__(self, tracer: trace.Tracer, meter: metrics.Meter) -> None:
        self._tracer = tracer
        self._duration = meter.create_histogram(
            "db.client.operation.duration",
            unit="s",
            description="Duration of database client operations.",
            explicit_bucket_boundaries_advisory=_BUCKETS,
        )
        self._requests = meter.create_histogram(
            "temaki.store.request.duration",
            unit="s",
            description="Duration of single requests to the object store, until their answer begins.",
            explicit_bucket_boundaries_advisory=_BUCKETS,
        )
        self._bytes = meter.create_counter(
            "temaki.store.io", unit="By", description="Bytes that pulls fetched and commits uploaded."
        )
        self._changed = meter.create_counter(
            "temaki.commit.changed", unit="By", description="Bytes of the database pages that commits changed."
        )

    def event(self, event: Event) -> None:
        """Record an operation that is over."""
        operation = _OPERATIONS.get(type(event)) or getattr(event, "operation", None)
        seconds = getattr(event, "seconds", None)
        if operation is None or seconds is None:
            return
        attributes: dict[str, str | int | bool] = {
            "db.system.name": "sqlite",
            "db.namespace": event.url,
            "db.operation.name": operation,
        }
        error = event.error if isinstance(event, Failed) else _ERRORS.get(type(event))
        if error is not None:
            attributes["error.type"] = error
        self._duration.record(seconds, attributes)
        if isinstance(event, Pulled):
            self._bytes.add(event.received, {"db.namespace": event.url, "network.io.direction": "receive"})
        elif isinstance(event, (Published, Compacted)):
            self._bytes.add(event.size, {"db.namespace": event.url, "network.io.direction": "transmit"})
        if isinstance(event, Published):
            self._changed.add(event.changed, {"db.namespace": event.url})
        self._span(event, operation, seconds, attributes, error)

    def _span(
        self, event: Event, operation: str, seconds: float, attributes: dict[str, str | int | bool], error: str | None
    ) -> None:
        end = time.time_ns()
        span = self._tracer.start_span(
            f"{operation} {event.url}",
            kind=trace.SpanKind.CLIENT,
            attributes={**attributes, **_facts(event)},
            start_time=end - int(seconds * _NANOSECONDS),
        )
        if error is not None:
            span.set_status(trace.Status(trace.StatusCode.ERROR, error))
        span.end(end_time=end)

    def request(self, request: Request) -> None:
        """Record a request to the store."""
        attributes: dict[str, str] = {"temaki.store.verb": request.verb, "temaki.store.outcome": request.outcome}
        if request.error is not None:
            attributes["error.type"] = request.error
        self._requests.record(request.seconds, attributes)


def _facts(event: Event) -> dict[str, str | int | bool]:
    """The attributes of a span that the conventions do not name."""
    if isinstance(event, (Pulled, Published)):
        facts: dict[str, str | int | bool] = {
            "temaki.version.sequence": event.sequence,
            "temaki.version.commit": event.commit,
        }
        if isinstance(event, Pulled):
            return facts | {
                "temaki.version.size": event.size,
                "temaki.pull.received": event.received,
                "temaki.pull.catch_up": event.is_catch_up,
            }
        return facts | {
            "temaki.version.size": event.version_size,
            "temaki.commit.pages": event.pages,
            "temaki.commit.size": event.size,
            "temaki.commit.changed": event.changed,
            "temaki.commit.objects": event.objects,
            "temaki.commit.superseded": event.superseded,
        }
    if isinstance(event, CommitUnknown):
        return {"temaki.version.commit": event.commit}
    if isinstance(event, Compacted):
        return {
            "temaki.compact.size": event.size,
            "temaki.compact.freed": event.freed,
            "temaki.compact.before": event.before,
            "temaki.compact.after": event.after,
        }
    if isinstance(event, LeaseAcquired):
        return {"temaki.lease.generation": event.generation}
    return {}
