"""Processes that use a working copy while the test does things to it. See ``test_working_copy.py``."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pony.orm import db_session

import temaki.replica.folder
from temaki import cause_of
from temaki.stores import open_store
from temaki.testing import CountingStore
from tests.integration._worker import Application, create, hear, kill_myself, main, say


def look(url: str, cache_dir: str | None, umask: int = 0o077) -> dict[str, Any]:
    """Read once; what was read, and what the store was asked."""
    os.umask(umask)
    store, _ = open_store(url)
    counting = CountingStore(store)
    app = Application(url, cache_dir=cache_dir, store=counting)
    return {"value": app.value(), "calls": [[call.verb, call.outcome] for call in counting.calls]}


def increment(url: str, cache_dir: str | None, size: int) -> int:
    """Store a version that is larger by so many bytes."""
    return Application(url, cache_dir=cache_dir).increment(size=size)


def obey(url: str, cache_dir: str | None, umask: int = 0o077) -> str:
    """Do what the test says, one thing after the other: say the result, or the error."""
    os.umask(umask)
    app = Application(url, cache_dir=cache_dir)
    actions: Mapping[str, Callable[[], Any]] = {
        "value": app.value,
        "check": app.check,
        "increment": app.increment,
        "increment in vain": lambda: app.increment(retry=0),
        "increment slowly": lambda: app.increment(retry=1, then=_pause(app)),
    }
    say("ready")
    while (message := hear()) != "end":
        say(_result_of(actions[message]))
    return "ended"


def _pause(app: Application) -> Callable[[], None]:
    """In the first run of a function, wait between the query and the commit."""

    def pause() -> None:
        if app.runs == 1:
            say("read")
            hear()

    app.runs = 0
    return pause


def _result_of(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Exception as error:
        cause = cause_of(error)
        return [type(cause).__name__, str(cause)]


def on_a_full_disk(url: str, cache_dir: str, injected: bool) -> dict[str, Any]:
    """Pull what the disk has no room for, while a session reads the old version; then again when it has room."""
    app = Application(url, cache_dir=cache_dir)
    refused: list[Any] = []
    with db_session:
        before = app.Counter[1].value
        say(before)
        hear()  # now there is a larger version
        with _full_disk() if injected else _as_it_is():
            for _ in range(3):
                thread = threading.Thread(target=lambda: refused.append(_result_of(app.value)))
                thread.start()
                thread.join()
        still = app.db.select("value from Counter")[0]
    say(refused)
    hear()  # now there is room
    return {"before": before, "still": still, "after": app.value(), "next": app.increment(), "check": app.check()}


@contextmanager
def _as_it_is() -> Iterator[None]:
    yield


@contextmanager
def _full_disk() -> Iterator[None]:
    real = os.pwrite

    def pwrite(fd: int, data: Any, offset: int, /) -> int:
        if offset + len(data) > 100_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, data, offset)

    os.pwrite = pwrite
    try:
        yield
    finally:
        os.pwrite = real


def killed_while_its_folder_is_made(url: str) -> None:
    """Killed between the private folder's creation and its lock."""
    temaki.replica.folder._Lock.take = kill_myself  # type: ignore[method-assign]
    Application(url).value()


def save(url: str, as_key: str) -> None:
    """Copy the object within its bucket, with its metadata: as a backup, or as the restore of one."""
    store, key = open_store(url)
    download = store.get(key)
    assert download is not None
    with download:
        store.put(as_key, download.read(download.length), metadata=download.info.metadata)


if __name__ == "__main__":
    main(create, look, increment, obey, on_a_full_disk, killed_while_its_folder_is_made, save)
