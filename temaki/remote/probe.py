"""Probes, before the first write, whether a store refuses writes whose condition is false."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from temaki.errors import (
    AccessDeniedError,
    PreconditionFailedError,
    StoreError,
    StoreUnavailableError,
    UnsafeStoreError,
)

if TYPE_CHECKING:
    from temaki.remote.retry import Attempts
    from temaki.store import CopyingStore, ObjectInfo, Store

_NOT_IMPLEMENTED = 501  # HTTP status


def probe_conditions(store: Store, key: str, attempts: Attempts) -> None:
    """Try conditional writes on a key of the probe's own, beside the database's key.

    The probe finds stores that ignore conditions. It cannot find a store that ignores them only when requests race.

    Args:
        store: The bucket.
        key: The database's key in it.
        attempts: Until when the probe is repeated if it gets no usable answer.

    Raises:
        UnsafeStoreError: The store accepted a write whose condition was false, or refused one whose condition was true.
        AccessDeniedError: The credentials may not write the probe's key.
        StoreUnavailableError: No usable answer before the deadline. Nothing is known.
        StoreError: The store refused for another reason.
    """

    def attempt() -> None:
        # A new key for each attempt: what a failed attempt left behind does not disturb this one.
        name = f"{key}.temaki-probe-{os.urandom(8).hex()}"
        try:
            _try_all(store, name)
        except PreconditionFailedError as refusal:
            if not refusal.in_flight:
                raise _unsafe(store, f"refused to create an object that was not there ({refusal})") from refusal
            raise StoreUnavailableError(refusal.args[0], url=refusal.url, status=refusal.status) from refusal
        except AccessDeniedError as error:
            if not error.lacks_permission:
                raise
            raise AccessDeniedError(
                f"{store.url} does not let temaki write {name}. temaki needs this object to find out whether the store "
                f"honours conditional writes. Allow PutObject and DeleteObject for {key}* as well as for {key}. "
                f"({error})",
                url=error.url,
                status=error.status,
                code=error.code,
            ) from error
        except StoreError as error:
            if error.status == _NOT_IMPLEMENTED:
                raise _unsafe(store, f"answers that they are not implemented ({error})") from error
            raise
        finally:
            with contextlib.suppress(StoreError):
                store.delete(name)

    attempts.run(attempt)


def probe_copies(store: Store, copying: CopyingStore, key: str, attempts: Attempts) -> bool:
    """Try copies within the store whose condition is false, on keys of the probe's own, beside the database's key.

    Args:
        store: The bucket.
        copying: The bucket, too.
        key: The database's key in it.
        attempts: Until when the probe is repeated if it gets no usable answer.

    Returns:
        True if the store refused them: copies that must replace nothing, and of an object that has changed.

    Raises:
        AccessDeniedError: The credentials may not write the probe's keys.
        StoreUnavailableError: No usable answer before the deadline. Nothing is known.
        StoreError: The store refused for another reason.
    """

    def attempt() -> bool:
        name = f"{key}.temaki-probe-{os.urandom(8).hex()}"
        try:
            store.put(name, b"temaki probes copies: 1", if_none_match=True)
            info = store.head(name)
            if not _is_copied(copying, store, info, f"{name}-copy") or _is_copied(copying, store, info, f"{name}-copy"):
                return False
            store.put(name, b"temaki probes copies: 2", if_match=info.etag)
            return not _is_copied(copying, store, info, f"{name}-stale")
        except StoreError as error:
            if error.status == _NOT_IMPLEMENTED:
                return False
            raise
        finally:
            for one in (name, f"{name}-copy", f"{name}-stale"):
                with contextlib.suppress(StoreError):
                    store.delete(one)

    return attempts.run(attempt)


def _is_copied(copying: CopyingStore, store: Store, info: ObjectInfo, name: str) -> bool:
    try:
        copying.copy(store, info, name, if_none_match=True)
    except PreconditionFailedError as refusal:
        if refusal.in_flight:
            raise StoreUnavailableError(refusal.args[0], url=refusal.url, status=refusal.status) from refusal
        return False
    return True


def _try_all(store: Store, name: str) -> None:
    first = store.put(name, b"temaki probes conditional writes: 1", if_none_match=True)
    if _is_accepted(store, name, 2, if_none_match=True):
        raise _unsafe(store, "overwrote an object by a write with If-None-Match: *")
    if not _is_accepted(store, name, 3, if_match=first):
        raise _unsafe(store, f"refused a write with the right If-Match: {first}")
    if _is_accepted(store, name, 4, if_match=first):
        raise _unsafe(store, "overwrote an object by a write with a stale If-Match")


def _is_accepted(
    store: Store, name: str, number: int, *, if_match: str | None = None, if_none_match: bool = False
) -> bool:
    try:
        store.put(
            name, b"temaki probes conditional writes: %d" % number, if_match=if_match, if_none_match=if_none_match
        )
    except PreconditionFailedError as refusal:
        if refusal.in_flight:
            raise
        return False
    return True


def _unsafe(store: Store, what: str) -> UnsafeStoreError:
    return UnsafeStoreError(
        f"{store.url} cannot hold a database that is written to: it does not honour conditional writes. temaki probed "
        f"it beside the database, and the store {what}. Two writers would overwrite each other without noticing. Use a "
        "store that implements If-Match and If-None-Match for PutObject (or a newer version of this one), or "
        "strategy='read-only'.",
        url=store.url,
        status=None,
        code=None,
    )
