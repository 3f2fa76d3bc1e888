"""The checks of ``doctor``, in an order in which each check can rely on those before it."""

from __future__ import annotations

import os
import platform
import sqlite3
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from temaki._version import __version__
from temaki.cli.findings import Findings, State
from temaki.cli.folder_checks import FolderChecks
from temaki.cli.probe import Probe
from temaki.cli.results import Diagnosis
from temaki.cli.tables import short
from temaki.cli.target import Target
from temaki.config import settings
from temaki.config.registry import load
from temaki.engine.hint import about_pages
from temaki.errors import AccessDeniedError, ConfigurationError, NotFoundError, StoreError
from temaki.formats.pages.names import folder
from temaki.store import VersionedStore
from temaki.strategy import Strategy

if TYPE_CHECKING:
    from temaki.store import Store


class Examination:
    """An examination of one configuration. Call :meth:`run` once.

    Args:
        target: The database.
        requests: How many requests of each kind to time.
        races: Whether to let writers race.
    """

    def __init__(self, target: Target, *, requests: int, races: bool) -> None:
        self._target, self._races = target, races
        self._store: Store = target.store
        self._findings = Findings()
        self._probe = Probe(target, self._findings, repetitions=requests)
        self._folder = FolderChecks(target, self._findings)
        self._writes = True
        self._exists = False
        self._in_pages = target.settings.format == "pages"

    def run(self) -> Diagnosis:
        """Run all checks, and delete what they have written, even after an error.

        Returns:
            The findings and the measured latencies.
        """
        strategy = self._target.settings.strategy
        try:
            self._findings.check("configuration", self._configuration)
            self._findings.check("software", self._software)
            if self._findings.check("bucket", self._bucket):
                self._findings.check("database", self._database)
                self._findings.check("list", self._list)
                self._check_writing()
                if self._in_pages and self._exists:
                    self._findings.check("objects", self._folder.check_objects)
                self._findings.check("versioning", self._versioning)
                self._findings.check("lifecycle", lambda: self._folder.check_lifecycle(in_pages=self._in_pages))
                self._findings.check("leftovers", self._leftovers)
        finally:
            with suppress(StoreError, ConfigurationError):
                if self._writes:
                    self._store.delete(self._probe.key)
        return Diagnosis(
            url=self._target.url,
            strategy=str(strategy),
            works=self._findings.works,
            findings=self._findings.listed,
            latencies=self._probe.latencies,
        )

    def _check_writing(self) -> None:
        if not self._writes:
            self._findings.add("write", "skipped", "the strategy never writes")
            if self._exists:
                self._findings.check("latency", lambda: self._probe.time_get(self._target.key))
            return
        if not self._findings.check("write", self._probe.write):
            return
        self._findings.check("conditional writes", self._probe.check_conditions)
        if self._races:
            self._findings.check("races", self._probe.race)
        self._findings.check("lease", self._lease)
        self._findings.check("clock", self._probe.check_clock)
        self._findings.check("latency", self._probe.time_requests)
        self._findings.check("delete", self._probe.delete)
        if self._in_pages:
            self._findings.check("pages", self._folder.check_permissions)

    # -- checks that only read: each adds its finding, or raises ---------------------------------------------------

    def _configuration(self) -> None:
        chosen = self._target.settings
        strategy = chosen.strategy
        if isinstance(strategy, str):
            origin = chosen.origins.get("strategy", "strategy")
            configured: Strategy = settings.make_strategy(load(strategy, origin=origin), chosen.options)
            self._writes = configured.writes
        where = chosen.origins.get("url", "the command line").replace("url= of bind_s3", "the command line")
        summary = f"strategy {strategy}; URL from {where}"
        if chosen.cache_dir is not None:
            folder = chosen.cache_dir if chosen.cache_dir.exists() else chosen.cache_dir.parent
            if not os.access(folder, os.W_OK):
                self._findings.add(
                    "configuration",
                    "failed",
                    f"{summary}; cache_dir {chosen.cache_dir} cannot be written",
                    "Make the folder, or set cache_dir to one that this user may write to.",
                )
                return
            summary += f"; cache_dir {chosen.cache_dir}"
        self._findings.add("configuration", "ok", summary)

    def _software(self) -> None:
        names = [("pony", "Pony"), ("boto3", "boto3")]
        versions = [f"temaki {__version__}", f"Python {platform.python_version()}", f"SQLite {sqlite3.sqlite_version}"]
        for distribution, name in names:
            try:
                versions.append(f"{name} {version(distribution)}")
            except PackageNotFoundError:
                versions.append(f"no {name}")
        pony = next((text for text in versions if text.startswith("Pony 0.7.")), None)
        if pony is None or int(pony.rpartition(".")[2]) < 20:  # noqa: PLR2004 - as in pyproject.toml
            self._findings.add(
                "software",
                "failed",
                ", ".join(versions),
                "Install the Pony that temaki is made for: pip install 'pony>=0.7.20,<0.8'",
            )
            return
        self._findings.add("software", "ok", ", ".join(versions))

    def _bucket(self) -> None:
        try:
            self._store.head(self._target.key)
        except NotFoundError:
            self._findings.add(
                "bucket", "ok", f"{self._store.url} is there and may be read; it has no {self._target.key}"
            )
        else:
            self._exists = True
            self._findings.add("bucket", "ok", f"{self._store.url} is there and may be read")

    def _database(self) -> None:
        if not self._exists:
            advice = "" if self._writes else "A strategy that never writes needs one: store it with temaki push."
            state: State = "ok" if self._writes else "failed"
            self._findings.add(
                "database", state, "there is none yet; generate_mapping(create_tables=True) makes it", advice
            )
            return
        current, layout = self._target.look()
        self._in_pages = layout is not None
        by = "by another tool" if current.is_adopted else f"commit {short(current.commit)}"
        form = "in pages" if self._in_pages else "in one file"
        advice, found = "", None if self._in_pages else about_pages(current.size, 0)
        if found is not None:
            advice = f"A small commit {found}: temaki convert {self._target.url} --to pages"
        self._findings.add("database", "ok", f"version {current.sequence}, {by}, {current.size} bytes {form}", advice)

    def _list(self) -> None:
        try:
            next(iter(self._store.list(self._target.key)), None)
        except AccessDeniedError as error:
            if not error.lacks_permission:
                raise
            self._findings.add(
                "list",
                "warning",
                f"the bucket may not be listed ({error.status} {error.code})",
                "Grant s3:ListBucket: without it a missing database cannot be told from a forbidden one, so that a "
                "first start on an empty bucket fails.",
            )
        else:
            self._findings.add("list", "ok", "a missing object can be told from a forbidden one")

    def _lease(self) -> None:
        if self._target.settings.strategy != "lease-locked":
            return
        state = self._target.lease()
        self._findings.add("lease", "ok", f"held by {state.holder}" if state.held else "free")

    def _versioning(self) -> None:
        if not isinstance(self._store, VersionedStore):
            self._findings.add("versioning", "skipped", "this kind of store keeps no older versions")
            return
        try:
            is_on = self._store.versioning()
        except AccessDeniedError as error:
            if not error.lacks_permission:
                raise
            self._findings.add(
                "versioning",
                "skipped",
                "this user may not ask for it",
                "Grant s3:GetBucketVersioning to find out with doctor.",
            )
            return
        except StoreError as error:
            self._findings.add("versioning", "skipped", str(error))
            return
        if is_on:
            advice = (
                f"Let a lifecycle rule end old versions (NoncurrentVersionExpiration), for {self._target.key} and for "
                f"{folder(self._target.key)} after the same number of days: each commit leaves one."
            )
            self._findings.add("versioning", "ok", "the bucket keeps older versions", advice if self._in_pages else "")
        else:
            self._findings.add(
                "versioning",
                "warning",
                "the bucket keeps no older versions",
                "Turn versioning on, with a lifecycle rule that ends old versions: history, diff and restore need it.",
            )

    def _leftovers(self) -> None:
        """Look for objects that a killed process left in the middle of a probe."""
        prefixes = (f"{self._target.key}.temaki-", f"{folder(self._target.key)}temaki-")
        try:
            listed = [info.key for prefix in prefixes for info in self._store.list(prefix)]
            leftovers = [key for key in listed if key != self._probe.key]
        except AccessDeniedError as error:
            if not error.lacks_permission:
                raise
            return
        if leftovers:
            self._findings.add(
                "leftovers",
                "warning",
                f"{len(leftovers)} objects of interrupted probes: {leftovers[0]}, …",
                "Delete them.",
            )
