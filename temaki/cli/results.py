"""What each command finds out, as data: printed as JSON with ``--json``, and as tables without.

These classes are the documented schema of the JSON: ``temaki schema status`` prints that of ``status``.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import msgspec


class StoredVersion(msgspec.Struct, frozen=True, kw_only=True):
    """One version of the database.

    Attributes:
        sequence: Its number: one more than that of the version it replaced.
        commit: Its identity.
        size: In bytes.
        modified: When it was stored, by the store's clock.
        version_id: The bucket's own name for it; null where that was not asked for.
        current: Whether it is the one that sessions start from.
    """

    sequence: int
    commit: str
    size: int
    modified: datetime | None = None
    version_id: str | None = None
    current: bool = True


class TableRows(msgspec.Struct, frozen=True, kw_only=True):
    """A table and how many rows it has."""

    name: str
    rows: int


class LeaseState(msgspec.Struct, frozen=True, kw_only=True):
    """The lease, as its record says.

    Attributes:
        held: False where it was given back, or has never been taken.
        holder: Process and machine of who has it, or had it last.
        purpose: What for.
        since: When this generation began, by the holder's clock.
        ttl: Seconds after which a holder that has gone silent may be succeeded.
        generation: How often it has been taken; 0 for never.
    """

    held: bool
    holder: str | None = None
    purpose: str | None = None
    since: datetime | None = None
    ttl: float | None = None
    generation: int = 0


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """``temaki status``.

    Attributes:
        age: Seconds since it was stored, by the store's clock.
        pages: In the file.
        page_size: In bytes.
        lineage: Ids of this commit and those before it, newest first, as far as the object's metadata go back.
        tables: Null with ``--quick``.
        adopted: Whether another tool wrote this version.
    """

    url: str
    version: StoredVersion
    age: float | None
    pages: int
    page_size: int
    adopted: bool
    lineage: list[str]
    lease: LeaseState
    tables: list[TableRows] | None = None


class Pulled(msgspec.Struct, frozen=True, kw_only=True):
    """``temaki pull``: what was written to ``path``."""

    url: str
    path: str
    version: StoredVersion


class Pushed(msgspec.Struct, frozen=True, kw_only=True):
    """``temaki push`` and ``temaki restore``: the version that is current now, and the one it replaced."""

    url: str
    version: StoredVersion
    replaced: StoredVersion | None = None


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """``temaki verify``.

    Attributes:
        problems: What SQLite's integrity_check and foreign_key_check say; empty for a sound database.
    """

    url: str
    version: StoredVersion
    sound: bool
    problems: list[str]


class History(msgspec.Struct, frozen=True, kw_only=True):
    """``temaki history``.

    Attributes:
        versions: Newest first.
        truncated: Whether the bucket has older ones than were asked for.
        unreadable: Ids of versions whose metadata are not temaki's to read.
        deleted: Whether the object is deleted now (a delete marker is current).
    """

    url: str
    versions: list[StoredVersion]
    truncated: bool
    deleted: bool
    unreadable: list[str]


class TableDifference(msgspec.Struct, frozen=True, kw_only=True):
    """How a table differs.

    Attributes:
        state: ``changed`` stands for tables that both versions have, whether or not rows differ.
        added: Rows by primary key (by rowid where a table has none) that only the newer one has.
        changed: Rows that both have, with other values in the columns that both have.
        removed: Rows that only the older one has.
        columns: Names of columns that only one of them has, with ``+`` or ``-`` before them.
    """

    name: str
    state: Literal["added", "changed", "removed"]
    added: int
    changed: int
    removed: int
    columns: list[str]


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """``temaki diff``: only tables that differ are listed."""

    url: str
    old: StoredVersion
    new: StoredVersion
    tables: list[TableDifference]


class LeaseResult(msgspec.Struct, frozen=True, kw_only=True):
    """``temaki lease show`` and ``temaki lease break``.

    Attributes:
        evicted: Who was, by ``break``.
    """

    url: str
    lease: LeaseState
    evicted: str | None = None


class StatementResult(msgspec.Struct, frozen=True, kw_only=True):
    """One SQL statement. ``rows`` holds numbers, texts and nulls; what is binary is text in Base64."""

    sql: str
    columns: list[str]
    rows: list[list[Any]]


class ShellResult(msgspec.Struct, frozen=True, kw_only=True):
    """``temaki shell``, with statements from ``--command`` or from a pipe.

    Attributes:
        version: What they ran on.
        published: The version that they made; null where nothing was stored.
    """

    url: str
    version: StoredVersion
    statements: list[StatementResult]
    published: StoredVersion | None = None


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that ``temaki doctor`` looked at.

    Attributes:
        check: Its name.
        state: ``ok``; ``warning`` (works, but); ``failed`` (does not); ``skipped`` (could not be looked at,
            or need not).
        found: What was found.
        advice: What to do; empty where there is nothing to do.
    """

    check: str
    state: Literal["ok", "warning", "failed", "skipped"]
    found: str
    advice: str = ""


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds that a request takes from here: the median and the 95th percentile of ``requests`` of them."""

    request: Literal["GET", "PUT"]
    requests: int
    p50: float
    p95: float


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """``temaki doctor``. ``works`` is false where a check failed."""

    url: str
    strategy: str
    works: bool
    findings: list[Finding]
    latencies: list[Latency]


class SessionCost(msgspec.Struct, frozen=True, kw_only=True):
    """What one kind of session costs.

    Attributes:
        session: Which.
        sessions: How many were measured.
        requests: By verb, on average per session. Conditional requests that are answered "unchanged" count as GET.
        bytes_up: On average per session.
        bytes_down: On average per session.
        p50: Milliseconds, the median.
        p95: Milliseconds.
        dollars_per_1000: For a thousand such sessions, requests alone.
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
    """``temaki bench``.

    Attributes:
        size: Bytes of the database that was measured with.
        prices: Dollars per 1000 requests that were counted with.
    """

    url: str
    strategy: str
    size: int
    prices: dict[str, float]
    sessions: list[SessionCost]


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """What any command prints with ``--json`` where it fails.

    Attributes:
        error: The error's class, such as ``ConflictError``.
        message: What happened, to which object, and what to do.
        exit_code: As the process's.
    """

    error: str
    message: str
    exit_code: int


RESULTS: dict[str, type[msgspec.Struct]] = {
    "status": Status,
    "pull": Pulled,
    "push": Pushed,
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
"""What each command prints with ``--json`` where it does not fail."""


def schema(command: str) -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of what ``command --json`` prints: its result, or a :class:`Failure`."""
    found, components = msgspec.json.schema_components([RESULTS[command], Failure], ref_template="#/$defs/{name}")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "anyOf": list(found), "$defs": components}
