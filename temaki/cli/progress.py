"""A progress bar for transfers that people wait for; on a terminal only, and only for large ones."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from temaki.store import Download, ObjectInfo, ReadableBody, Store
from temaki.stores.rules import body_size

THRESHOLD: Final = 8 << 20
"""Bytes from which a transfer is shown."""


@contextmanager
def showing_progress(store: Store, console: Console) -> Iterator[Store]:
    """The store, with large transfers shown on ``console`` if that is a terminal.

    What shows is the console's, not the store's: everything is passed on.
    """
    if not console.is_terminal:
        yield store
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        yield _ProgressStore(store, bar)


class _ProgressStore:
    def __init__(self, store: Store, bar: Progress) -> None:
        self._store, self._bar = store, bar
        self._lock = threading.Lock()
        self._downloads: dict[str, TaskID] = {}

    @property
    def url(self) -> str:
        return self._store.url

    @property
    def honours_conditions(self) -> bool:
        return self._store.honours_conditions

    def get(
        self,
        key: str,
        *,
        if_none_match: str | None = None,
        if_match: str | None = None,
        byte_range: tuple[int, int] | None = None,
    ) -> Download | None:
        download = self._store.get(key, if_none_match=if_none_match, if_match=if_match, byte_range=byte_range)
        if download is None or download.info.size < THRESHOLD:
            return download
        return _Shown(download, self._bar, self._task(key, download.info.size))

    def _task(self, key: str, size: int) -> TaskID:
        """One bar for all ranges of an object."""
        with self._lock:
            if key not in self._downloads:
                self._downloads[key] = self._bar.add_task("down", total=size)
            return self._downloads[key]

    def head(self, key: str) -> ObjectInfo:
        return self._store.head(key)

    def put(
        self,
        key: str,
        body: bytes | ReadableBody,
        *,
        metadata: Mapping[str, str] | None = None,
        if_match: str | None = None,
        if_none_match: bool = False,
    ) -> str:
        size = body_size(body)
        if size >= THRESHOLD and not isinstance(body, (bytes, bytearray, memoryview)):
            body = _Watched(body, self._bar, self._bar.add_task("up", total=size))
        return self._store.put(key, body, metadata=metadata, if_match=if_match, if_none_match=if_none_match)

    def delete(self, key: str) -> None:
        self._store.delete(key)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return self._store.list(prefix)


class _Shown:
    """A download that moves the bar."""

    def __init__(self, download: Download, bar: Progress, task: TaskID) -> None:
        self._download, self._bar, self._task = download, bar, task
        self.info, self.length = download.info, download.length

    def read(self, size: int, /) -> bytes:
        data = self._download.read(size)
        self._bar.advance(self._task, len(data))
        return data

    def __enter__(self) -> Self:
        self._download.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._download.__exit__(*exc)


class _Watched:
    """A body that moves the bar. It may be read twice, for its checksum first: then the bar starts again."""

    def __init__(self, body: ReadableBody, bar: Progress, task: TaskID) -> None:
        self._body, self._bar, self._task = body, bar, task

    def read(self, size: int = -1, /) -> bytes:
        data = self._body.read(size)
        self._bar.update(self._task, completed=self._body.tell())
        return data

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._body.seek(offset, whence)

    def tell(self) -> int:
        return self._body.tell()
