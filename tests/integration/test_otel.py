"""OpenTelemetry: spans and metrics under the names of the database conventions, read back from the SDK's exporters."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from temaki.otel import instrument
from temaki.testing.strategies import Client
from temaki_strategies import EtagCached
from tests.hooked import HookedStore


class Telemetry:
    """What was exported."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracing = TracerProvider()
        self.tracing.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.metering = MeterProvider([self.reader])

    def spans(self) -> list[Any]:
        """Finished ones, and none of them again."""
        found = list(self.exporter.get_finished_spans())
        self.exporter.clear()
        return found

    def metrics(self) -> dict[str, list[Any]]:
        """Data points by the metric's name."""
        data = self.reader.get_metrics_data()
        assert data is not None
        return {
            metric.name: list(metric.data.data_points)
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


def _elsewhere(call: Callable[[], object]) -> None:
    """In another thread: a session there is none of this one's."""
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    """Providers of this test's own."""
    telemetry = Telemetry()
    yield telemetry
    telemetry.tracing.shutdown()
    telemetry.metering.shutdown()


@pytest.fixture
def client(store: HookedStore, other: Client) -> Client:
    """This process, mapped, with a working copy."""
    client = Client(store, EtagCached()).map()
    client.value()
    return client


def test_spans_and_metrics_of_sessions(client: Client, other: Client, telemetry: Telemetry) -> None:
    """Pull and commit are client spans inside the application's own, with the conventions' attributes."""
    stop = instrument(client.db, tracer_provider=telemetry.tracing, meter_provider=telemetry.metering)
    url = client.db.provider.engine.url
    with telemetry.tracing.get_tracer("application").start_as_current_span("handle request"):
        client.increment()
    pull, commit, request = telemetry.spans()
    assert (pull.name, commit.name, request.name) == (f"pull {url}", f"commit {url}", "handle request")
    assert pull.parent.span_id == commit.parent.span_id == request.context.span_id
    assert request.start_time <= pull.start_time <= pull.end_time <= commit.end_time <= request.end_time
    assert commit.kind is SpanKind.CLIENT
    assert dict(commit.attributes) == {
        "db.system.name": "sqlite",
        "db.namespace": url,
        "db.operation.name": "commit",
        "temaki.version.sequence": client.db.sync.bookmark().sequence,
        "temaki.version.commit": client.db.sync.bookmark().commit,
        "temaki.version.size": client.db.sync.snapshot().size,
        "temaki.commit.pages": commit.attributes["temaki.commit.pages"],
        "temaki.commit.size": client.db.sync.snapshot().size,
        "temaki.commit.changed": 4096 * commit.attributes["temaki.commit.pages"],
        "temaki.commit.objects": 0,
        "temaki.commit.superseded": False,
    }
    found = telemetry.metrics()
    durations = {point.attributes["db.operation.name"]: point.count for point in found["db.client.operation.duration"]}
    assert durations == {"pull": 1, "commit": 1}
    assert [point.value for point in found["temaki.store.io"]] == [client.db.sync.snapshot().size]
    assert [point.value for point in found["temaki.commit.changed"]] == [commit.attributes["temaki.commit.changed"]]
    requests = {
        (point.attributes["temaki.store.verb"], point.attributes["temaki.store.outcome"])
        for point in found["temaki.store.request.duration"]
    }
    assert requests == {("get", "not_modified"), ("put", "ok")}
    stop()
    client.value()
    assert telemetry.spans() == []


def test_a_conflict_is_an_error(client: Client, other: Client, telemetry: Telemetry) -> None:
    """The span of a refused commit has the error's class, and its status says so."""
    instrument(client.db, tracer_provider=telemetry.tracing, meter_provider=telemetry.metering)
    with pytest.raises(Exception, match="Another writer"):
        client.increment(retry=0, before_commit=lambda: _elsewhere(other.increment))
    refused = telemetry.spans()[-1]
    assert refused.attributes["error.type"] == "ConflictError"
    assert refused.status.status_code is StatusCode.ERROR
    points = telemetry.metrics()["db.client.operation.duration"]
    assert [point.attributes.get("error.type") for point in points].count("ConflictError") == 1


def test_without_opentelemetry_the_message_says_what_to_install() -> None:
    """And nothing else of temaki needs it."""
    code = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "import temaki\n"
        "try: import temaki.otel\n"
        "except temaki.ConfigurationError as error: print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'temaki[otel]'" in run.stdout
