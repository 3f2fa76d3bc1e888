"""The results of the commands, as data: printed as JSON with ``--json``, and as tables without it.

These classes are the documented schema of the JSON: ``temaki schema status`` prints the schema of ``status``.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import msgspec


class StoredVersion(msgspec.Struct, frozen=True, kw_only=True):
    """One version of the database.

    Attributes:
        sequence: Number of the version: one more than that of the version it replaced.
        commit: Id of the commit that made the version.
        size: Size of the database, in bytes.
        modified: Time when the version was stored, by the store's clock; null if that is unknown.
        version_id: The bucket's own id of the version; null if the command did not ask for it.
        current: Whether sessions start from this version.
    """

    sequence: int
    commit: str
    size: int
    modified: datetime | None = None
    version_id: str | None = None
    current: bool = True


class TableRows(msgspec.Struct, frozen=True, kw_only=True):
    """A table and its number of rows."""

    name: str
    rows: int


class LeaseState(msgspec.Struct, frozen=True, kw_only=True):
    """The state of the lease, from its record.

    Attributes:
        held: Whether a process holds the lease. False if it was given back or was never taken.
        holder: Process and machine of the holder, or of the last holder if the lease is free.
        purpose: Purpose of the holder.
        since: Time when this generation began, by the holder's clock.
        ttl: Seconds after which another process may take the lease from a silent holder.
        generation: How often the lease was taken; 0 if never.
    """

    held: bool
    holder: str | None = None
    purpose: str | None = None
    since: datetime | None = None
    ttl: float | None = None
    generation: int = 0


class Base(msgspec.Struct, frozen=True, kw_only=True):
    """The base of a database in pages: a SQLite file of one version.

    Attributes:
        sequence: Number of the version.
        size: Size of the file, in bytes.
    """

    sequence: int
    size: int


class Pieces(msgspec.Struct, frozen=True, kw_only=True):
    """Segments, or pages in the tail: how many there are, and their size in bytes."""

    number: int
    size: int


class FullPull(msgspec.Struct, frozen=True, kw_only=True):
    """The cost of a pull of the whole database, as on a cold start.

    Attributes:
        requests: Number of GETs. A large base takes more of them where the network is slow.
        size: Number of bytes.
        ratio: ``size`` divided by the size of the database.
    """

    requests: int
    size: int
    ratio: float


class PagesLayout(msgspec.Struct, frozen=True, kw_only=True):
    """The objects of a database in the format ``pages``.

    Attributes:
        base: The base.
        segments: The segments.
        tail: The pages in the head.
        since: Number of the oldest version that a working copy can catch up from. An older one takes a full pull.
        condemned: Number of objects that are no longer needed, and that are going to be deleted. Those that are named
            in a list of their own count as one for each list.
        claimed: Time when a fold has begun to write a new base, by the store's clock; null if none has.
        full_pull: The cost of a full pull now.
        compacted: The cost of a full pull after ``temaki compact``, if it folds.
    """

    base: Base
    segments: Pieces
    tail: Pieces
    since: int
    condemned: int
    claimed: datetime | None
    full_pull: FullPull
    compacted: FullPull


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The result of ``temaki status``.

    Attributes:
        format: Format of the stored version.
        layout: The objects that the version consists of; null in the format ``file``.
        age: Age of the stored version, in seconds, by the store's clock.
        pages: Number of pages in the database.
        page_size: Size of a page, in bytes.
        lineage: Ids of this commit and those before it, newest first, as far as the object's metadata go back.
        tables: The tables with their numbers of rows; null with ``--quick``.
        adopted: Whether another tool wrote this version.
    """

    url: str
    version: StoredVersion
    format: Literal["file", "pages"]
    layout: PagesLayout | None = None
    age: float | None
    pages: int
    page_size: int
    adopted: bool
    lineage: list[str]
    lease: LeaseState
    tables: list[TableRows] | None = None


class Pulled(msgspec.Struct, frozen=True, kw_only=True):
    """The result of ``temaki pull``: the version that was written to ``path``."""

    url: str
    path: str
    version: StoredVersion


class Pushed(msgspec.Struct, frozen=True, kw_only=True):
    """The result of ``temaki push`` and ``temaki restore``: the stored version, and the one that it replaced."""

    url: str
    version: StoredVersion
    replaced: StoredVersion | None = None


class Converted(msgspec.Struct, frozen=True, kw_only=True):
    """The result of ``temaki convert``.

    Attributes:
        version: The stored version.
        replaced: The version that it replaced; null if the database already had the format, and nothing was stored.
        format: Format of the stored version.
    """

    url: str
    version: StoredVersion
    format: Literal["file", "pages"]
    replaced: StoredVersion | None = None


class Copied(msgspec.Struct, frozen=True, kw_only=True):
    """The result of ``temaki copy``.

    Attributes:
        url: URL of the new database.
        version: Its version.
        source: URL of the database that was copied.
        original: The version that was copied.
        format: Format of both.
        within_store: True if the store has copied the bytes by itself; false if they passed through this machine.
        objects: Number of the objects that were copied.
        copied: Size of these objects, in bytes.
        requests: Number of requests of the command. A copy is one, however many parts it has.
        bytes_up: Bytes that this machine has sent.
        bytes_down: Bytes that this machine has received.
    """

    url: str
    version: StoredVersion
    source: str
    original: StoredVersion
    format: Literal["file", "pages"]
    within_store: bool
    objects: int
    copied: int
    requests: int
    bytes_up: int
    bytes_down: int


class Compacted(msgspec.Struct, frozen=True, kw_only=True):
    """The result of ``temaki compact``. With ``--dry-run`` it says what would be done.

    Attributes:
        format: Format of the stored version. In the format ``file`` there is nothing to compact.
        dry_run: Whether nothing was done.
        busy: Whether another process was compacting the database, or was faster. A later run does what is left.
        folded: Whether there is a new base.
        merged: Number of segments that were replaced by fewer ones.
        uploaded: Size of the uploads, in bytes; with ``--dry-run`` an upper limit.
        condemned: Number of objects that a run in an hour, or later, deletes.
        deleted: Number of objects that were deleted.
        freed: Size of the deleted objects, in bytes.
        waiting: Size of the objects that are condemned and not deleted yet, in bytes.
        pull_before: Bytes that a full pull had to fetch before.
        pull_after: Bytes that a full pull has to fetch now.
    """

    url: str
    version: StoredVersion
    format: Literal["file", "pages"]
    dry_run: bool
    busy: bool = False
    folded: bool = False
    merged: int = 0
    uploaded: int = 0
    condemned: int = 0
    deleted: int = 0
    freed: int = 0
    waiting: int = 0
    pull_before: int
    pull_after: int


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """The result of ``temaki verify``.

    Attributes:
        problems: Problems that SQLite's integrity_check and foreign_key_check found; empty for a sound database.
    """

    url: str
    version: StoredVersion
    sound: bool
    problems: list[str]


class History(msgspec.Struct, frozen=True, kw_only=True):
    """The result of ``temaki history``.

    Attributes:
        versions: The versions, newest first.
        truncated: Whether the bucket has more versions, older than the listed ones.
        unreadable: The bucket's ids of listed versions that temaki cannot read.
        deleted: Whether the object is deleted now (a delete marker is current).
    """

    url: str
    versions: list[StoredVersion]
    truncated: bool
    deleted: bool
    unreadable: list[str]


class TableDifference(msgspec.Struct, frozen=True, kw_only=True):
    """The difference of one table between two versions.

    Attributes:
        state: ``added`` or ``removed`` if one version lacks the table. ``changed`` if both have it, even if no row
            differs.
        added: Number of rows that only the newer version has, by primary key, or by rowid if the table has none.
        changed: Number of rows in both versions that differ in a column of both versions.
        removed: Number of rows that only the older version has.
        columns: Names of columns that only one version has: ``+`` before those of the newer, ``-`` of the older.
    """

    name: str
    state: Literal["added", "changed", "removed"]
    added: int
    changed: int
    removed: int
    columns: list[str]


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """The result of ``temaki diff``, with the tables that differ."""

    url: str
    old: StoredVersion
    new: StoredVersion
    tables: list[TableDifference]


class LeaseResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of ``temaki lease show`` and ``temaki lease break``.

    Attributes:
        evicted: Process and machine of the holder that ``break`` evicted; null if it evicted nobody.
    """

    url: str
    lease: LeaseState
    evicted: str | None = None


class StatementResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one SQL statement. ``rows`` holds numbers, texts and nulls. Binary values are text in Base64."""

    sql: str
    columns: list[str]
    rows: list[list[Any]]


class ShellResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of ``temaki shell`` with statements from ``--command`` or from a pipe.

    Attributes:
        version: The version that the statements ran on.
        published: The version that stores their changes; null if nothing was stored.
    """

    url: str
    version: StoredVersion
    statements: list[StatementResult]
    published: StoredVersion | None = None


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one check of ``temaki doctor``.

    Attributes:
        check: Name of the check.
        state: ``ok``; ``warning``: works, with a problem; ``failed``: does not work; ``skipped``: could not be
            checked, or need not be.
        found: What the check found.
        advice: What to do; empty if there is nothing to do.
    """

    check: str
    state: Literal["ok", "warning", "failed", "skipped"]
    found: str
    advice: str = ""


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Latency of one kind of request from here.

    Attributes:
        request: Kind of request.
        requests: Number of measured requests.
        p50: Median, in milliseconds.
        p95: 95th percentile, in milliseconds.
    """

    request: Literal["GET", "PUT"]
    requests: int
    p50: float
    p95: float


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """The result of ``temaki doctor``. ``works`` is false if a check failed."""

    url: str
    strategy: str
    works: bool
    findings: list[Finding]
    latencies: list[Latency]


class SessionCost(msgspec.Struct, frozen=True, kw_only=True):
    """The cost of one kind of session.

    Attributes:
        session: Kind of session.
        sessions: Number of measured sessions.
        requests: Average number of requests per session, by verb. Conditional requests that are answered "unchanged"
            count as GET.
        bytes_up: Average number of bytes sent per session.
        bytes_down: Average number of bytes received per session.
        p50: Median duration of a session, in milliseconds.
        p95: 95th percentile of the duration of a session, in milliseconds.
        dollars_per_1000: Price of the requests of 1000 such sessions, in dollars.
    """

    session: str
    sessions: int
    requests: dict[str, float]
    bytes_up: int
    bytes_down: int
    p50: float
    p95: float
    dollars_per_1000: float


class Bench(msgspec.Struct, frozen=True, kw_only=True):
    """The result of ``temaki bench``.

    Attributes:
        format: Format of the measured database, which is that of the stored one.
        size: Size of the measured database, in bytes.
        prices: Price of 1000 requests, in dollars, by verb.
    """

    url: str
    strategy: str
    format: Literal["file", "pages"]
    size: int
    prices: dict[str, float]
    sessions: list[SessionCost]


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """The output of any command with ``--json`` if it fails.

    Attributes:
        error: Class of the error, such as ``ConflictError``.
        message: Message of the error: what happened, to which object, and what to do.
        exit_code: Exit code of the process.
    """

    error: str
    message: str
    exit_code: int


RESULTS: dict[str, type[msgspec.Struct]] = {
    "status": Status,
    "pull": Pulled,
    "push": Pushed,
    "copy": Copied,
    "convert": Converted,
    "compact": Compacted,
    "verify": Verified,
    "history": History,
    "diff": Difference,
    "restore": Pushed,
    "lease show": LeaseResult,
    "lease break": LeaseResult,
    "shell": ShellResult,
    "doctor": Diagnosis,
    "bench": Bench,
}
"""The class of each command's result, which the command prints with ``--json`` unless it fails."""


def schema(command: str) -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of the output of ``command --json``: a result or a :class:`Failure`."""
    schemas, components = msgspec.json.schema_components([RESULTS[command], Failure], ref_template="#/$defs/{name}")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "anyOf": list(schemas), "$defs": components}
