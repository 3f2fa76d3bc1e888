"""A progress bar for large transfers, on a terminal."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping
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

from temaki.store import Download, ObjectInfo, ReadableBody, Store
from temaki.stores.rules import body_size
from temaki.stores.wrapper import DownloadWrapper, StoreWrapper

THRESHOLD: Final = 8 << 20
"""Smallest size of a transfer that is shown, in bytes."""


@contextmanager
def showing_progress(store: Store, console: Console) -> Iterator[Store]:
    """Return the store with a progress bar for large transfers on ``console``, if that is a terminal.

    The bar changes nothing else: all requests go to the store.
    """
    if not (console.is_terminal and console.file.isatty()):  # rich may have been told to colour a pipe
        yield store
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),  # as sizes in results
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        yield _ProgressStore(store, bar)


class _ProgressStore(StoreWrapper):
    copies = True

    def __init__(self, store: Store, bar: Progress) -> None:
        super().__init__(store)
        self._bar = bar
        self._lock = threading.Lock()
        self._downloads: dict[str, TaskID] = {}

    def wrap_download(self, key: str, download: Download, /) -> Download:
        """See :meth:`temaki.testing.StoreWrapper.wrap_download`."""
        if download.info.size < THRESHOLD:
            return download
        return _Shown(download, self._bar, self._task(key, download.info.size))

    def _task(self, key: str, size: int) -> TaskID:
        """Return the object's bar, which all its ranges share."""
        with self._lock:
            if key not in self._downloads:
                self._downloads[key] = self._bar.add_task("down", total=size)
            return self._downloads[key]

    def wrap_body(self, body: bytes | ReadableBody, /) -> bytes | ReadableBody:
        """See :meth:`temaki.testing.StoreWrapper.wrap_body`."""
        size = body_size(body)
        if size < THRESHOLD or isinstance(body, (bytes, bytearray, memoryview)):
            return body
        over_http = self.url.startswith("s3:")
        return _Watched(body, self._bar, self._bar.add_task("up", total=size), over_http=over_http)

    def copy(
        self,
        source: Store,
        info: ObjectInfo,
        key: str,
        *,
        metadata: Mapping[str, str] | None = None,
        if_none_match: bool = False,
    ) -> str:
        """See :meth:`temaki.store.CopyingStore.copy`. The store does not say how far it is, only when it is done."""
        if info.size < THRESHOLD:
            return super().copy(source, info, key, metadata=metadata, if_none_match=if_none_match)
        task = self._bar.add_task("copy", total=info.size)
        etag = super().copy(source, info, key, metadata=metadata, if_none_match=if_none_match)
        self._bar.update(task, completed=info.size)
        return etag


class _Shown(DownloadWrapper):
    """A download that advances the bar."""

    def __init__(self, download: Download, bar: Progress, task: TaskID) -> None:
        super().__init__(download)
        self._bar, self._task = bar, task

    def read(self, size: int, /) -> bytes:
        data = super().read(size)
        self._bar.advance(self._task, len(data))
        return data


class _Watched:
    """A body that advances the bar as it is sent. Reading it for its checksum does not count as sending.

    Over HTTP, a piece has been sent once http.client has sent something after reading it, and reads the next one.
    """

    def __init__(self, body: ReadableBody, bar: Progress, task: TaskID, *, over_http: bool) -> None:
        self._body, self._bar, self._task, self._over_http = body, bar, task, over_http
        self._read = self._sent = 0  # bytes: of the last piece, and of all pieces before it
        if over_http:
            _Sending.watch()

    def read(self, size: int = -1, /) -> bytes:
        if self._read and (not self._over_http or _Sending.happened()):
            self._sent += self._read
            self._bar.update(self._task, completed=self._sent)
        data = self._body.read(size)
        self._read = len(data)
        _Sending.forget()
        return data

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self._read = self._sent = 0  # it is hashed, or sent again
        self._bar.update(self._task, completed=0)
        return self._body.seek(offset, whence)

    def tell(self) -> int:
        return self._body.tell()


class _Sending:
    """Whether this thread has sent something over HTTP. An audit hook of Python learns it from http.client."""

    _thread = threading.local()
    _is_watched = False

    @classmethod
    def watch(cls) -> None:
        if not cls._is_watched:
            cls._is_watched = True
            sys.addaudithook(cls._hear)  # it cannot be removed again: only a command that shows an upload has it

    @classmethod
    def _hear(cls, event: str, _arguments: object) -> None:
        if event == "http.client.send":
            cls._thread.has_sent = True

    @classmethod
    def happened(cls) -> bool:
        return getattr(cls._thread, "has_sent", False)

    @classmethod
    def forget(cls) -> None:
        cls._thread.has_sent = False
