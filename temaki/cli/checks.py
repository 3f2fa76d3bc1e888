"""What ``doctor`` looks at, in an order in which each check can rely on those before it."""

from __future__ import annotations

import os
import platform
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Final, Literal

from temaki._version import __version__
from temaki.cli.results import Diagnosis, Finding, Latency
from temaki.cli.tables import short
from temaki.cli.target import Target
from temaki.cli.timing import milliseconds, quantiles
from temaki.config import settings
from temaki.config.registry import load
from temaki.errors import (
    AccessDeniedError,
    BucketNotFoundError,
    ConfigurationError,
    CorruptDatabaseError,
    LeaseRecordError,
    NotFoundError,
    PreconditionFailedError,
    StoreError,
    StoreUnavailableError,
    TemakiError,
    UnsafeStoreError,
)
from temaki.remote.probe import probe_conditions
from temaki.store import VersionedStore
from temaki.strategy import Strategy

if TYPE_CHECKING:
    from temaki.store import Store

_CLOCK_WARNING: Final = 60.0
"""Seconds. S3 refuses signatures that are off by 15 minutes; clocks that drift get there."""
_RACES: Final = 10
_RACERS: Final = 8
_PATIENCE: Final = 10.0  # seconds for the probe of conditional writes
_PROBE_SIZE: Final = 4096  # bytes

State = Literal["ok", "warning", "failed", "skipped"]


class Examination:
    """One look at one configuration. :meth:`run` once.

    Args:
        target: The database.
        requests: How many of each kind to time.
        races: Whether to let writers race.
    """

    def __init__(self, target: Target, *, requests: int, races: bool) -> None:
        self._target, self._requests, self._races = target, requests, races
        self._store: Store = target.store
        self._probe = f"{target.key}.temaki-doctor-{os.urandom(8).hex()}"
        self._findings: list[Finding] = []
        self._latencies: list[Latency] = []
        self._writes = True
        self._exists = False

    def run(self) -> Diagnosis:
        """All checks. What one of them writes is deleted at the end, however that comes."""
        strategy = self._target.settings.strategy
        try:
            self._check("configuration", self._configuration)
            self._check("software", self._software)
            if self._check("bucket", self._bucket):
                self._check("database", self._database)
                self._check("list", self._list)
                self._check_writing()
                self._check("versioning", self._versioning)
                self._check("leftovers", self._leftovers)
        finally:
            with suppress(StoreError, ConfigurationError):
                if self._writes:
                    self._store.delete(self._probe)
        return Diagnosis(
            url=self._target.url,
            strategy=str(strategy),
            works=not any(one.state == "failed" for one in self._findings),
            findings=self._findings,
            latencies=self._latencies,
        )

    def _check_writing(self) -> None:
        if not self._writes:
            self._add("write", "skipped", "the strategy never writes")
            if self._exists:
                self._check("latency", lambda: self._latency_of_get(self._target.key))
            return
        if not self._check("write", self._write):
            return
        self._check("conditional writes", self._conditions)
        if self._races:
            self._check("races", self._race)
        self._check("lease", self._lease)
        self._check("clock", self._clock)
        self._check("latency", self._latency)
        self._check("delete", self._delete)

    # -- the single checks: each adds its finding, or raises ------------------------------------------------------

    def _check(self, name: str, look: Callable[[], None]) -> bool:
        """Whether nothing stands in the way of further checks."""
        before = len(self._findings)
        try:
            look()
        except TemakiError as error:
            advice = _advice(error)
            self._add(name, "failed", str(error).removesuffix(advice).rstrip(), advice)
        return not any(one.state == "failed" for one in self._findings[before:])

    def _add(self, name: str, state: State, found: str, advice: str = "") -> None:
        self._findings.append(Finding(check=name, state=state, found=found, advice=advice))

    def _configuration(self) -> None:
        chosen = self._target.settings
        strategy = chosen.strategy
        if isinstance(strategy, str):
            origin = chosen.origins.get("strategy", "strategy")
            made: Strategy = settings.make_strategy(load(strategy, origin=origin), chosen.options)
            self._writes = made.writes
        where = chosen.origins.get("url", "the command line").replace("url= of bind_s3", "the command line")
        found = f"strategy {strategy}; URL from {where}"
        if chosen.cache_dir is not None:
            there = chosen.cache_dir if chosen.cache_dir.exists() else chosen.cache_dir.parent
            if not os.access(there, os.W_OK):
                self._add(
                    "configuration",
                    "failed",
                    f"{found}; cache_dir {chosen.cache_dir} cannot be written",
                    "Make the folder, or set cache_dir to one that this user may write to.",
                )
                return
            found += f"; cache_dir {chosen.cache_dir}"
        self._add("configuration", "ok", found)

    def _software(self) -> None:
        names = [("pony", "Pony"), ("boto3", "boto3")]
        found = [f"temaki {__version__}", f"Python {platform.python_version()}", f"SQLite {sqlite3.sqlite_version}"]
        for distribution, name in names:
            try:
                found.append(f"{name} {version(distribution)}")
            except PackageNotFoundError:
                found.append(f"no {name}")
        pony = next((text for text in found if text.startswith("Pony 0.7.")), None)
        if pony is None or int(pony.rpartition(".")[2]) < 20:  # noqa: PLR2004 - as in pyproject.toml
            self._add(
                "software",
                "failed",
                ", ".join(found),
                "Install the Pony that temaki is made for: pip install 'pony>=0.7.20,<0.8'",
            )
            return
        self._add("software", "ok", ", ".join(found))

    def _bucket(self) -> None:
        try:
            self._store.head(self._target.key)
        except NotFoundError:
            self._add("bucket", "ok", f"{self._store.url} is there and may be read; it has no {self._target.key}")
        else:
            self._exists = True
            self._add("bucket", "ok", f"{self._store.url} is there and may be read")

    def _database(self) -> None:
        if not self._exists:
            advice = "" if self._writes else "A strategy that never writes needs one: store it with temaki push."
            state: State = "ok" if self._writes else "failed"
            self._add("database", state, "there is none yet; generate_mapping(create_tables=True) makes it", advice)
            return
        found = self._target.current()
        by = "by another tool" if found.is_adopted else f"commit {short(found.commit)}"
        self._add("database", "ok", f"version {found.sequence}, {by}, {found.size} bytes")

    def _list(self) -> None:
        try:
            next(iter(self._store.list(self._target.key)), None)
        except AccessDeniedError as error:
            if not error.lacks_permission:
                raise
            self._add(
                "list",
                "warning",
                f"the bucket may not be listed ({error.status} {error.code})",
                "Grant s3:ListBucket: without it a missing database cannot be told from a forbidden one, so that a "
                "first start on an empty bucket fails.",
            )
        else:
            self._add("list", "ok", "a missing object can be told from a forbidden one")

    def _write(self) -> None:
        self._store.put(self._probe, os.urandom(_PROBE_SIZE))
        self._add("write", "ok", "objects may be written beside the database")

    def _conditions(self) -> None:
        retrying = replace(self._target.retrying, timeout=_PATIENCE)
        probe_conditions(self._store, self._target.key, retrying.begin())
        self._add("conditional writes", "ok", "a stale If-Match and a second If-None-Match are refused")

    def _race(self) -> None:
        """Writers that replace one version at once: one of them may win, each time."""
        for _ in range(_RACES):
            etag = self._store.put(self._probe, os.urandom(_PROBE_SIZE))
            if (winners := self._winners(etag)) != 1:
                self._add(
                    "races",
                    "failed",
                    f"{winners} of {_RACERS} writers replaced the same version at once",
                    "Use another store: with this one, writers overwrite each other without noticing.",
                )
                return
        self._add("races", "ok", f"in {_RACES} races of {_RACERS} writers there was one winner each")

    def _winners(self, etag: str) -> int:
        line = threading.Barrier(_RACERS)

        def write() -> bool:
            line.wait()
            try:
                self._store.put(self._probe, os.urandom(_PROBE_SIZE), if_match=etag)
            except PreconditionFailedError:
                return False
            return True

        with ThreadPoolExecutor(_RACERS) as pool:
            return sum(future.result() for future in [pool.submit(write) for _ in range(_RACERS)])

    def _lease(self) -> None:
        if self._target.settings.strategy != "lease-locked":
            return
        state = self._target.lease()
        self._add("lease", "ok", f"held by {state.holder}" if state.held else "free")

    def _clock(self) -> None:
        info = self._store.head(self._probe)
        if info.date is None:
            self._add("clock", "skipped", "the store does not say what time it is")
            return
        off = abs((info.date - datetime.now(UTC)).total_seconds())
        if off > _CLOCK_WARNING:
            self._add(
                "clock",
                "warning",
                f"this machine's clock and the store's are {off:.0f} s apart",
                "Set this machine's clock (NTP): S3 refuses requests that are 15 minutes off.",
            )
        else:
            self._add("clock", "ok", f"within {max(1, round(off))} s of the store's")

    def _latency(self) -> None:
        self._latency_of_get(self._probe)
        data = os.urandom(_PROBE_SIZE)
        self._time("PUT", lambda: self._store.put(self._probe, data))

    def _latency_of_get(self, key: str) -> None:
        """Of the request that a session begins with: one that is answered "unchanged"."""
        etag = self._store.head(key).etag

        def get() -> None:
            download = self._store.get(key, if_none_match=etag)
            if download is not None:
                download.__exit__(None, None, None)

        self._time("GET", get)

    def _time(self, request: Literal["GET", "PUT"], call: Callable[[], object]) -> None:
        taken = [milliseconds(call) for _ in range(self._requests)]
        middle, high = quantiles(taken)
        self._latencies.append(Latency(request=request, requests=len(taken), p50=middle, p95=high))

    def _delete(self) -> None:
        self._store.delete(self._probe)
        try:
            self._store.head(self._probe)
        except NotFoundError:
            self._add("delete", "ok", "what temaki writes beside the database can be deleted again")
        else:
            self._add(
                "delete",
                "warning",
                f"{self._probe} is still there",
                "Delete it, and see what keeps deletions from working.",
            )

    def _versioning(self) -> None:
        if not isinstance(self._store, VersionedStore):
            self._add("versioning", "skipped", "this kind of store keeps no older versions")
            return
        try:
            is_on = self._store.versioning()
        except AccessDeniedError as error:
            if not error.lacks_permission:
                raise
            self._add(
                "versioning",
                "skipped",
                "it may not be asked for",
                "Grant s3:GetBucketVersioning to find out with doctor.",
            )
            return
        except StoreError as error:
            self._add("versioning", "skipped", str(error))
            return
        if is_on:
            self._add("versioning", "ok", "the bucket keeps older versions")
        else:
            self._add(
                "versioning",
                "warning",
                "the bucket keeps no older versions",
                "Turn versioning on, with a lifecycle rule that ends old versions: history, diff and restore need it.",
            )

    def _leftovers(self) -> None:
        """What a process left that was killed in the middle of a probe."""
        prefix = f"{self._target.key}.temaki-"
        try:
            found = [info.key for info in self._store.list(prefix) if info.key != self._probe]
        except AccessDeniedError as error:
            if not error.lacks_permission:
                raise
            return
        if found:
            self._add(
                "leftovers", "warning", f"{len(found)} objects of interrupted probes: {found[0]}, …", "Delete them."
            )


_ADVICE: Final[tuple[tuple[type[TemakiError], str], ...]] = (
    (BucketNotFoundError, "Create the bucket, or correct its name in the URL."),
    (
        AccessDeniedError,
        (
            "Grant s3:GetObject, s3:PutObject and s3:DeleteObject on the key and what begins with it, and "
            "s3:ListBucket on the bucket; or use other credentials (AWS_PROFILE, a role)."
        ),
    ),
    (StoreUnavailableError, "Check the network, AWS_ENDPOINT_URL_S3 and AWS_DEFAULT_REGION; then run doctor again."),
    (
        UnsafeStoreError,
        "Use a store that implements If-Match and If-None-Match for PutObject, or strategy='read-only'.",
    ),
    (CorruptDatabaseError, "Bring back an earlier version with temaki restore, or use another key."),
    (LeaseRecordError, "Move the object away once no writer is running."),
    (ConfigurationError, "Correct the setting that is named."),
)


def _advice(error: TemakiError) -> str:
    """What to do. The store knows best: its words are those that every other command prints."""
    if isinstance(error, StoreError) and error.advice:
        return error.advice
    return next((text for kind, text in _ADVICE if isinstance(error, kind)), "See the message.")
