"""Checks of ``doctor`` that write an object of their own: permissions, conditions, races, clock and latency."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final, Literal

from temaki.cli.findings import Findings
from temaki.cli.results import Latency
from temaki.cli.target import Target
from temaki.cli.timing import milliseconds, quantiles
from temaki.errors import NotFoundError, PreconditionFailedError
from temaki.remote.probe import probe_conditions

_CLOCK_WARNING: Final = 60.0
"""Difference of the clocks from which doctor warns, in seconds. S3 refuses signatures that are off by 15 minutes."""
_RACES: Final = 10
_RACERS: Final = 8
_PATIENCE: Final = 10.0
"""Longest duration of the probe of conditional writes, in seconds."""
_PROBE_SIZE: Final = 4096
"""Size of the object that the checks write, in bytes."""


class Probe:
    """An object beside the database that the checks write, read and delete. Each check adds its finding, or raises.

    Args:
        target: The database.
        findings: The findings of all checks.
        repetitions: How many requests of each kind to time.

    Attributes:
        key: The key of the object.
        latencies: The latencies that were measured.
    """

    def __init__(self, target: Target, findings: Findings, *, repetitions: int) -> None:
        self._target, self._findings, self._repetitions = target, findings, repetitions
        self._store = target.store
        self.key = f"{target.key}.temaki-doctor-{os.urandom(8).hex()}"
        self.latencies: list[Latency] = []

    def write(self) -> None:
        """Check that objects may be written."""
        self._store.put(self.key, os.urandom(_PROBE_SIZE))
        self._findings.add("write", "ok", "objects may be written beside the database")

    def check_conditions(self) -> None:
        """Check that the store refuses a write whose condition does not hold."""
        retrying = replace(self._target.retrying, timeout=_PATIENCE)
        probe_conditions(self._store, self._target.key, retrying.begin())
        self._findings.add("conditional writes", "ok", "a stale If-Match and a second If-None-Match are refused")

    def race(self) -> None:
        """Let writers replace one version at once, several times. Exactly one of them must win each time."""
        for _ in range(_RACES):
            etag = self._store.put(self.key, os.urandom(_PROBE_SIZE))
            if (winners := self._winners(etag)) != 1:
                self._findings.add(
                    "races",
                    "failed",
                    f"{winners} of {_RACERS} writers replaced the same version at once",
                    "Use another store: with this one, writers overwrite each other without noticing.",
                )
                return
        self._findings.add("races", "ok", f"in {_RACES} races of {_RACERS} writers there was one winner each")

    def _winners(self, etag: str) -> int:
        start = threading.Barrier(_RACERS)

        def write() -> bool:
            start.wait()
            try:
                self._store.put(self.key, os.urandom(_PROBE_SIZE), if_match=etag)
            except PreconditionFailedError:
                return False
            return True

        with ThreadPoolExecutor(_RACERS) as pool:
            return sum(future.result() for future in [pool.submit(write) for _ in range(_RACERS)])

    def check_clock(self) -> None:
        """Compare this machine's clock with the store's."""
        info = self._store.head(self.key)
        if info.date is None:
            self._findings.add("clock", "skipped", "the store does not say what time it is")
            return
        difference = abs((info.date - datetime.now(UTC)).total_seconds())
        if difference > _CLOCK_WARNING:
            self._findings.add(
                "clock",
                "warning",
                f"this machine's clock and the store's are {difference:.0f} s apart",
                "Set this machine's clock (NTP): S3 refuses requests that are 15 minutes off.",
            )
        else:
            self._findings.add("clock", "ok", f"within {max(1, round(difference))} s of the store's")

    def time_requests(self) -> None:
        """Measure the latencies of GET and PUT."""
        self.time_get(self.key)
        data = os.urandom(_PROBE_SIZE)
        self._time("PUT", lambda: self._store.put(self.key, data))

    def time_get(self, key: str) -> None:
        """Measure the latency of the GET that a session begins with, which is answered "unchanged"."""
        etag = self._store.head(key).etag

        def get() -> None:
            download = self._store.get(key, if_none_match=etag)
            if download is not None:
                download.__exit__(None, None, None)

        self._time("GET", get)

    def _time(self, request: Literal["GET", "PUT"], call: Callable[[], object]) -> None:
        durations = [milliseconds(call) for _ in range(self._repetitions)]
        median, high = quantiles(durations)
        self.latencies.append(Latency(request=request, requests=len(durations), p50=median, p95=high))

    def delete(self) -> None:
        """Check that objects may be deleted."""
        self._store.delete(self.key)
        try:
            self._store.head(self.key)
        except NotFoundError:
            self._findings.add("delete", "ok", "objects beside the database may be deleted again")
        else:
            self._findings.add(
                "delete",
                "warning",
                f"{self.key} is still there",
                "Delete it, and find out what prevents deletions.",
            )
