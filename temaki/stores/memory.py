"""A store in the memory of this process: for tests, and to try things out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Self

from temaki.clock import Clock, SystemClock
from temaki.errors import NotFoundError, PreconditionFailedError
from temaki.process.fork import ProcessLock
from temaki.store import Download, ObjectInfo, ReadableBody, Store
from temaki.stores.rules import (
    check_conditions,
    check_range,
    checked_key,
    checked_metadata,
    cut_range,
    no_copy,
    read_body,
)


class BytesDownload:
    """An object, or a range of it, that is already here."""

    def __init__(self, info: ObjectInfo, data: memoryview) -> None:
        self.info = info
        self.length = len(data)
        self._rest = data

    def read(self, size: int, /) -> bytes:
        """Up to ``size`` bytes; ``b""`` once all were given."""
        piece, self._rest = bytes(self._rest[:size]), self._rest[size:]
        return piece

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._rest = memoryview(b"")


@dataclass(frozen=True, slots=True)
class _Object:
    info: ObjectInfo
    data: bytes


class MemoryStore:
    """One bucket in memory, shared by all threads of the process. A forked child has a copy of its own.

    ETags are the MD5 of the contents, as S3's are: they repeat when contents repeat.

    Args:
        name: The bucket's name, for messages. Stores of the same name are different stores; :meth:`named` is not.
        clock: Where ``last_modified`` and ``date`` come from.
    """

    honours_conditions = True

    _registry: dict[str, MemoryStore] = {}  # noqa: RUF012 - one for the process, on purpose

    def __init__(self, name: str = "memory", *, clock: Clock | None = None) -> None:
        self.url = f"memory://{name}"
        self._clock = clock or SystemClock()
        self._objects: dict[str, _Object] = {}
        self._lock = ProcessLock()

    @classmethod
    def named(cls, name: str) -> MemoryStore:
        """The process's store of that name: what ``memory://name/key`` refers to."""
        return cls._registry.setdefault(name, cls(name))  # one step, so that it needs no lock

    @classmethod
    def forget(cls, name: str | None = None) -> None:
        """Drop the named store, or all of them, so that the next :meth:`named` starts with an empty one."""
        if name is None:
            cls._registry.clear()
        else:
            cls._registry.pop(name, None)

    def __repr__(self) -> str:
        return f"MemoryStore({self.url!r})"

    def get(
        self,
        key: str,
        *,
        if_none_match: str | None = None,
        if_match: str | None = None,
        byte_range: tuple[int, int] | None = None,
    ) -> Download | None:
        """See :meth:`temaki.store.Store.get`."""
        url = f"{self.url}/{key}"
        check_conditions(if_match, if_none_match, url)
        check_range(byte_range, url)
        found = self._find(key)
        if if_match is not None and found.info.etag != if_match:
            raise _refused(url, f"its ETag is {found.info.etag}, no longer {if_match}")
        if found.info.etag == if_none_match:
            return None
        start, stop = cut_range(byte_range, len(found.data), url)
        return BytesDownload(replace(found.info, date=self._now()), memoryview(found.data)[start:stop])

    def head(self, key: str) -> ObjectInfo:
        """See :meth:`temaki.store.Store.head`."""
        return replace(self._find(key).info, date=self._now())

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
        url = f"{self.url}/{key}"
        checked_key(key, self.url)
        check_conditions(if_match, if_none_match, url)
        frozen = MappingProxyType(checked_metadata(metadata, url))
        # A slow body is read before the condition is decided: the decision and the write are one step.
        data = read_body(body)
        etag = hashlib.md5(data, usedforsecurity=False).hexdigest()
        with self._lock():
            current = self._objects.get(key)
            if if_none_match and current is not None:
                raise _refused(url, f"it exists, with the ETag {current.info.etag}")
            if if_match is not None and current is None:
                raise _refused(url, "it does not exist")
            if if_match is not None and current is not None and current.info.etag != if_match:
                raise _refused(url, f"its ETag is {current.info.etag}, no longer {if_match}")
            info = ObjectInfo(key=key, etag=etag, size=len(data), metadata=frozen, last_modified=self._now())
            self._objects[key] = _Object(info, data)
        return etag

    def delete(self, key: str) -> None:
        """See :meth:`temaki.store.Store.delete`."""
        with self._lock():
            self._objects.pop(key, None)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See :meth:`temaki.store.Store.list`. The listing shows one moment."""
        with self._lock():
            found = [stored.info for key, stored in self._objects.items() if key.startswith(prefix)]
        for info in sorted(found, key=lambda info: info.key.encode()):
            yield replace(info, metadata={})

    def can_copy(self, source: Store) -> bool:
        """See :meth:`temaki.store.CopyingStore.can_copy`: from any store in memory."""
        return isinstance(source, MemoryStore)

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
        if not isinstance(source, MemoryStore):
            raise no_copy(self.url, source)
        found = source._find(info.key)  # noqa: SLF001 - of the same class
        if found.info.etag != info.etag:
            raise _refused(f"{source.url}/{info.key}", f"its ETag is {found.info.etag}, no longer {info.etag}")
        return self.put(key, found.data, metadata=metadata, if_none_match=if_none_match)

    def _find(self, key: str) -> _Object:
        with self._lock():
            found = self._objects.get(key)
        if found is None:
            url = f"{self.url}/{key}"
            raise NotFoundError(f"{url} does not exist.", url=url, status=404, code="NoSuchKey")
        return found

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.time(), UTC)


def _refused(url: str, why: str) -> PreconditionFailedError:
    message = f"The condition for {url} does not hold: {why}."
    return PreconditionFailedError(message, url=url, status=412, code="PreconditionFailed", in_flight=False)
