"""What a file cannot carry: an object's ETag and metadata, in a file beside it.

A file and its sidecar have to change in one step, and a file system changes one name at a time. So the sidecar is named
by what identifies the file wherever it is moved: inode, time of modification, size. It is written before the file gets
its name; the rename of the file then puts both in force at once.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from temaki.errors import StoreError
from temaki.stores.filesystem import write_durably

STATE = ".temaki"
"""The folder, inside of a bucket's, that has the sidecars and locks."""


def state_of(folder: Path, key: str) -> Path:
    """The folder with a key's lock and sidecar, in the bucket that ``folder`` is."""
    return folder / STATE / hashlib.sha256(key.encode()).hexdigest()[:32]


def name_of(facts: os.stat_result) -> str:
    """What identifies a file wherever it is renamed to, as long as nothing is written to it."""
    return f"{facts.st_ino:x}-{facts.st_mtime_ns:x}-{facts.st_size:x}"


def etag_of(name: str) -> str:
    """The ETag of a file without a sidecar, from its :func:`name_of`."""
    return hashlib.sha256(name.encode()).hexdigest()[:32]


def write_sidecar(path: Path, etag: str, metadata: Mapping[str, str]) -> None:
    """Write a sidecar durably; its name is so only when its folder is synced."""
    with suppress(FileNotFoundError):  # of a crashed write whose inode this one got
        path.unlink()
    write_durably(path, json.dumps({"etag": etag, "metadata": metadata}).encode())


def read_sidecar(path: Path, url: str) -> tuple[str, dict[str, str]]:
    """ETag and metadata.

    Raises:
        FileNotFoundError: There is none.
        StoreError: It is damaged.
    """
    data = path.read_bytes()
    try:
        content = json.loads(data)
        return str(content["etag"]), dict(content["metadata"])
    except (ValueError, KeyError, TypeError) as error:
        message = f"{url}: {path} is damaged. Remove it to go on with the object as it is, without its metadata."
        raise StoreError(message, url=url, status=None, code="DamagedSidecar") from error


def sweep(state: Path, keep: str | None) -> None:
    """Remove old sidecars and what crashed writers left. Only under the lock: then none of it is in use."""
    with suppress(OSError):  # The write is done and must not fail for this; the next one sweeps again.
        for entry in os.scandir(state):
            if entry.name not in {"lock", keep}:
                os.unlink(entry.path)
