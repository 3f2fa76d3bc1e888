"""A progress bar for transfers that people wait for; on a terminal only, and only for large ones."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

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

from temaki.passing import PassingDownload, PassingStore
from temaki.store import Download, ReadableBody, Store
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


class _ProgressStore(PassingStore):
    def __init__(self, store: Store, bar: Progress) -> None:
        super().__init__(store)
        self._bar = bar
        self._lock = threading.Lock()
        self._downloads: dict[str, TaskID] = {}

    def _opened(self, key: str, download: Download, /) -> Download:
        if download.info.size < THRESHOLD:
            return download
        return _Shown(download, self._bar, self._task(key, download.info.size))

    def _task(self, key: str, size: int) -> TaskID:
        """One bar for all ranges of an object."""
        with self._lock:
            if key not in self._downloads:
                self._downloads[key] = self._bar.add_task("down", total=size)
            return self._downloads[key]

    def _sending(self, body: bytes | ReadableBody, /) -> bytes | ReadableBody:
        size = body_size(body)
        if size < THRESHOLD or isinstance(body, (bytes, bytearray, memoryview)):
            return body
        return _Watched(body, self._bar, self._bar.add_task("up", total=size))


class _Shown(PassingDownload):
    """A download that moves the bar."""

    def __init__(self, download: Download, bar: Progress, task: TaskID) -> None:
        super().__init__(download)
        self._bar, self._task = bar, task

    def read(self, size: int, /) -> bytes:
        data = super().read(size)
        self._bar.advance(self._task, len(data))
        return data


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
