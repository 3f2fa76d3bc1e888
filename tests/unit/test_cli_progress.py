"""The progress bar of an upload says what has left, not what was read."""

from __future__ import annotations

import hashlib
import io
import socket
import threading
from http.client import HTTPConnection

from rich.console import Console
from rich.progress import Progress

from temaki.cli.progress import THRESHOLD, showing_progress
from temaki.store import CopyingStore
from temaki.stores.memory import MemoryStore
from temaki.stores.wrapper import StoreWrapper


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _watched(store: StoreWrapper, size: int) -> tuple[object, Progress]:
    body = store.wrap_body(io.BytesIO(bytes(size)))
    return body, store._bar  # type: ignore[attr-defined]


def _on_s3() -> MemoryStore:
    store = MemoryStore()
    store.url = "s3://bucket"
    return store


def test_hashing_moves_no_bar_and_sending_does() -> None:
    """A body is read for its checksum first, and sent then; a second attempt begins at nothing."""
    with showing_progress(_on_s3(), Console(file=_Terminal(), force_terminal=True)) as store:
        body, bar = _watched(store, THRESHOLD)  # type: ignore[arg-type]
        task = bar.tasks[0]
        while data := body.read(1 << 20):  # type: ignore[attr-defined]
            hashlib.md5(data, usedforsecurity=False)
            assert task.completed == 0
        body.seek(0)  # type: ignore[attr-defined]

        ours, theirs = socket.socketpair()
        seen: list[float] = []

        def receive() -> None:
            received = 0
            while received < THRESHOLD and (data := theirs.recv(1 << 16)):
                received += len(data)
                seen.append(task.completed - received)

        reader = threading.Thread(target=receive)
        reader.start()
        connection = HTTPConnection("nowhere")
        connection.sock = ours
        connection.send(body)  # type: ignore[arg-type]
        reader.join()
        assert task.completed == THRESHOLD
        # What is shown has left: no more of it than what was received and what the socket holds.
        assert max(seen) <= ours.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) + (1 << 20)
        body.seek(0)  # type: ignore[attr-defined]
        assert task.completed == 0
        ours.close()
        theirs.close()


def test_what_is_written_to_a_folder_has_left_when_it_was_read() -> None:
    """Without HTTP there is nobody who says that something was sent."""
    with showing_progress(MemoryStore(), Console(file=_Terminal(), force_terminal=True)) as store:
        body, bar = _watched(store, THRESHOLD)  # type: ignore[arg-type]
        while body.read(1 << 20):  # type: ignore[attr-defined]
            pass
        assert bar.tasks[0].completed == THRESHOLD


def test_sizes_are_those_of_results() -> None:
    """The bar counts in MiB, as ``status`` and ``pull`` do."""
    shown = _Terminal()
    with showing_progress(_on_s3(), Console(file=shown, force_terminal=True, width=120)) as store:
        _, bar = _watched(store, 10 << 20)  # type: ignore[arg-type]
        bar.refresh()
    assert "/10.0 MiB" in shown.getvalue()


def test_a_large_copy_by_the_store_has_a_bar() -> None:
    """It is full when the store is done; a small copy has none. The copies are the store's own."""
    behind = MemoryStore()
    for key, size in (("large", THRESHOLD), ("small", THRESHOLD - 1)):
        behind.put(key, bytes(size))
    with showing_progress(behind, Console(file=_Terminal(), force_terminal=True)) as store:
        assert isinstance(store, CopyingStore)
        assert store.can_copy(store)
        for key in ("large", "small"):
            store.copy(store, behind.head(key), f"{key}-copy")
            assert behind.head(f"{key}-copy").size == behind.head(key).size
        (task,) = store._bar.tasks  # type: ignore[attr-defined]
        assert (task.description, task.completed, task.total) == ("copy", THRESHOLD, THRESHOLD)


def test_a_pipe_that_is_to_be_coloured_gets_no_bar() -> None:
    """FORCE_COLOR in CI makes rich take a pipe for a terminal."""
    pipe = io.StringIO()
    store = MemoryStore()
    with showing_progress(store, Console(file=pipe, force_terminal=True)) as shown:
        assert shown is store
    assert pipe.getvalue() == ""
