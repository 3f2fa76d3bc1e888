"""The lease's record in the bucket: how it reads, and how it is replaced exactly once.

A JSON object of its own beside the database, ``<key>.lease``. Every write is a compare-and-swap on its ETag and carries
a random id, so that no two records have equal bytes. A write whose answer was lost is sent again. If that is refused,
the id in the record tells whether the first attempt had landed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from types import NoneType
from typing import Any, Final, TypeVar

from temaki.errors import (
    LeaseRecordError,
    NotFoundError,
    PreconditionFailedError,
    StoreError,
    StoreUnavailableError,
)
from temaki.lease.owner import Owner
from temaki.remote.retry import RetryPolicy
from temaki.remote.swap import Proof, RefusedError, Swap, UndecidedError, UnfoundedRefusalError
from temaki.store import ObjectInfo, Store

T = TypeVar("T")

SUFFIX: Final = ".lease"
_FORMAT: Final = 1
_LARGEST: Final = 1 << 16  # bytes; a record has about six hundred
_RESOLUTION: Final = 1.0  # seconds: HTTP dates are whole ones


def new_write_id() -> str:
    """A random id for one write of a record."""
    return os.urandom(12).hex()


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """The lease's record, as it is stored.

    Attributes:
        held: Whether somebody holds the lease; False after a release.
        owner: The process that wrote the record.
        generation: Number of times that the lease has been taken so far; never goes back.
        ttl: Seconds for which the owner believes in the lease after each write.
        purpose: What the lease is held for; for people.
        since: Beginning of this generation by the owner's wall clock, in seconds; for people, never compared.
        served: Last generation of each process that had the lease lately, by part of the process's token (see
            :mod:`temaki.lease.waiting`).
        waited: The last generation whose owner had to wait for the lease; 0 if there is none.
        write: Random id of this very write.
        evicted: The latest evictions: by the evicted generation, in digits, the evicting process; for people.
    """

    held: bool
    owner: Owner
    generation: int
    ttl: float
    purpose: str
    since: float
    served: Mapping[str, int]
    waited: int
    write: str = field(default_factory=new_write_id)
    evicted: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_contended(self) -> bool:
        """Whether a process had to wait for the lease, in this generation or in the one before."""
        return 0 <= self.generation - self.waited <= 1

    def to_bytes(self) -> bytes:
        """The record's JSON, as it is stored."""
        return json.dumps({"format": _FORMAT, **asdict(self)}, indent=1).encode()


@dataclass(frozen=True, slots=True)
class Seen:
    """A record as it was in the store at one moment.

    Attributes:
        record: The record.
        etag: The object's ETag, for conditions.
        age: Least age of the object in seconds, by the store's own clock; 0 if the store does not say.
    """

    record: LeaseRecord
    etag: str
    age: float = 0.0


def successor(seen: Seen | None, *, owner: Owner, held: bool, ttl: float, purpose: str, since: float) -> LeaseRecord:
    """The record of the next generation. It keeps what the record before it says of others.

    Args:
        seen: The record that it replaces; None to begin.
        owner: As in the record.
        held: As in the record.
        ttl: As in the record.
        purpose: As in the record.
        since: As in the record.
    """
    before = None if seen is None else seen.record
    return LeaseRecord(
        held=held,
        owner=owner,
        generation=1 if before is None else before.generation + 1,
        ttl=ttl,
        purpose=purpose,
        since=since,
        served={} if before is None else before.served,
        waited=0 if before is None else before.waited,
        evicted={} if before is None else before.evicted,
    )


class ChangedError(Exception):
    """Another process has replaced the record meanwhile."""


class LeaseObject:
    """The record in its bucket.

    Args:
        store: The bucket.
        key: The record's own key.
        retrying: How long each request is repeated.
    """

    def __init__(self, store: Store, key: str, retrying: RetryPolicy) -> None:
        self._store, self._key, self._retrying = store, key, retrying
        self.url = f"{store.url}/{key}"

    def read(self) -> Seen | None:
        """The record as it is now; None if there has never been one.

        Raises:
            LeaseRecordError: The object is no record.
            StoreError: The request failed, also when repeated.
        """
        return self._retrying.run(self._read_once)

    def write(self, record: LeaseRecord, instead_of: Seen | None) -> Seen:
        """Replace the record, exactly once.

        Args:
            record: The new record.
            instead_of: The record that it replaces; None to create the object.

        Raises:
            ChangedError: Another process was faster. Nothing was written.
            StoreUnavailableError: The store gave no answer. The record may be written, now or later.
            StoreError: The store refused.
        """
        swap: Swap[Seen] = Swap(
            self._store,
            self._key,
            record.to_bytes(),
            replaces=None if instead_of is None else instead_of.etag,
            look=self._look,
            proves=lambda seen: _proves(seen, record, instead_of),
            attempts=self._retrying.begin(),
        )
        try:
            landed = swap.run()
        except RefusedError as error:
            if error.seen is None and isinstance(error.__cause__, StoreError) and not error.is_gone:
                raise error.__cause__ from None  # nobody knows who came first
            raise ChangedError from error
        except UnfoundedRefusalError as error:
            raise self._unchanged(error.refusal, ambiguous=False) from error.refusal
        except UndecidedError as error:
            if isinstance(error.cause, NotFoundError):
                raise ChangedError from error.cause  # deleted or moved away, whether or not it had landed
            if isinstance(error.cause, PreconditionFailedError):
                raise self._unchanged(error.cause, ambiguous=True) from error.cause
            raise error.cause from error.cause.__cause__
        return Seen(record, landed.etag) if landed.seen is None else landed.seen

    def _unchanged(self, refusal: PreconditionFailedError, *, ambiguous: bool) -> StoreUnavailableError:
        return StoreUnavailableError(
            f"{self.url} is unchanged, and yet the store refused to replace it: {refusal}",
            url=self.url,
            status=refusal.status,
            code=refusal.code,
            ambiguous=ambiguous,
        )

    def _read_once(self) -> Seen | None:
        try:
            return self._look()
        except NotFoundError:
            return None

    def _look(self) -> Seen:
        download = self._store.get(self._key)
        assert download is not None, "an unconditional GET has a body"
        with download:
            if not 0 < download.length <= _LARGEST:
                raise self._foreign(f"it has {download.length} bytes")
            raw = b""
            while len(raw) < download.length:
                raw += download.read(download.length - len(raw))
            return Seen(self._parse(raw), download.info.etag, _age(download.info))

    def _parse(self, raw: bytes) -> LeaseRecord:
        try:
            facts = json.loads(raw)
            if _checked(facts["format"], int) != _FORMAT:
                raise self._foreign(f"its format is {facts['format']!r}, and this temaki knows {_FORMAT}")
            record = LeaseRecord(
                held=_checked(facts["held"], bool),
                owner=_owner(facts["owner"]),
                generation=_checked(facts["generation"], int),
                ttl=float(_checked(facts["ttl"], float, int)),
                purpose=_checked(facts["purpose"], str),
                since=float(_checked(facts["since"], float, int)),
                served={name: _checked(last, int) for name, last in _checked(facts["served"], dict).items()},
                waited=_checked(facts["waited"], int),
                write=_checked(facts["write"], str),
                evicted={
                    generation: _checked(by, str) for generation, by in _checked(facts.get("evicted", {}), dict).items()
                },
            )
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            # The last two: an integer too large for a float, and brackets within brackets.
            raise self._foreign(f"{type(error).__name__}: {error}") from error
        if record.generation < 1 or not 0 < record.ttl < float("inf"):
            raise self._foreign(f"generation {record.generation}, ttl {record.ttl}")
        return record

    def _foreign(self, why: str) -> LeaseRecordError:
        return LeaseRecordError(
            f"{self.url} is no lease that temaki can use: {why}. Nobody can take the lease until that is mended. "
            "Upgrade temaki here if a newer one wrote it. Else move the object away, once no writer is running.",
            url=self.url,
        )


def _proves(seen: Seen, record: LeaseRecord, instead_of: Seen | None) -> Proof:
    """What a record that was found after a refused write proves about that write.

    A record of another process proves that this process holds nothing by the write. A lease is about nothing else.
    """
    if seen.record.write == record.write:
        return Proof.OURS
    return Proof.UNCHANGED if instead_of is not None and seen.etag == instead_of.etag else Proof.DISPROVED


def _owner(facts: Any) -> Owner:
    return Owner(
        _checked(facts["host"], str),
        _checked(facts["pid"], int),
        _checked(facts["token"], str),
        # What follows was not written by temaki 0.1.
        boot=_checked(facts.get("boot"), str, NoneType),
        namespaces=_checked(facts.get("namespaces"), str, NoneType),
        started=_checked(facts.get("started"), int, NoneType),
    )


def _checked(value: Any, *types: type) -> Any:
    if type(value) not in types:
        raise TypeError(f"{value!r} is no {types[0].__name__}")
    return value


def _age(info: ObjectInfo) -> float:
    """Seconds that an object is at least old, by the store's own clock; 0 if the store does not say."""
    return max(0.0, (info.age or 0.0) - _RESOLUTION)
