"""Reads a stored database from its documented bytes, with the standard library alone.

It shares nothing with temaki's own reader: the simulation compares the two. See docs/reference/pages-format.md.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import struct
import zlib
from collections.abc import Callable
from contextlib import closing
from typing import Any, Final

from temaki.testing.histories import Value

_FIRST_LINE: Final = b"temaki pages 1\n"
_SEGMENT_HEADER: Final = 33
Fetch = Callable[[str], bytes]
"""Gives the bytes of an object beside the head by its name, or raises ``KeyError``."""


class DamageError(Exception):
    """The stored bytes are no database."""


def manifest_of(data: bytes) -> dict[str, Any] | None:
    """The manifest of a head; None if the object is a SQLite file."""
    if not data.startswith(_FIRST_LINE):
        return None
    manifest: dict[str, Any] = json.loads(data.split(b"\n", 3)[2])
    return manifest


def names_of(manifest: dict[str, Any]) -> set[str]:
    """Names of the objects that a head needs now."""
    return {manifest["base"][0], *(row[0] for row in manifest["segments"]), *manifest["gone"]}


def canonical(data: bytes) -> bytes:
    """A database file without the header's fields that differ from copy to copy."""
    raw = bytearray(data)
    raw[18:20], raw[24:32], raw[92:96] = b"\1\1", bytes(8), bytes(4)
    return bytes(raw)


def digest_of(data: bytes) -> str:
    """A fingerprint of a database file, equal for equal versions."""
    return hashlib.sha256(canonical(data)).hexdigest()


def materialised(data: bytes, fetch: Fetch) -> bytes:
    """The canonical database file of a stored object.

    Raises:
        DamageError: It is none: an object is missing, or the checksum is wrong.
    """
    manifest = manifest_of(data)
    if manifest is None:
        return canonical(data)
    size, count = manifest["page_size"], manifest["page_count"]
    try:
        base = fetch(manifest["base"][0])
        pages = {number: base[(number - 1) * size : number * size] for number in range(1, len(base) // size + 1)}
        for name, last, _, _ in manifest["segments"]:
            found = _segment(fetch(name), size)
            if last > manifest["base"][2]:
                pages.update(found)
    except KeyError as error:
        raise DamageError(f"{error.args[0]} is missing") from error
    images = data.split(b"\n", 3)[3]
    for number, _, offset, length in manifest["tail"]:
        pages[number] = _page(images[offset : offset + length], size)
    missing = [number for number in range(1, count + 1) if number not in pages]
    if missing:
        raise DamageError(f"nothing has page {missing[0]}")
    file = canonical(b"".join(pages[number] for number in range(1, count + 1)))
    total = sum(_value(number, file[(number - 1) * size : number * size]) for number in range(1, count + 1))
    if f"{total % (1 << 64):016x}" != manifest["checksum"]:
        raise DamageError("the checksum is wrong")
    return file


def value_of(file: bytes) -> Value:
    """What the clients have written to a database file; nothing if it has no table of theirs."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.deserialize(file)
        if not connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'history'").fetchone()[0]:
            return ()
        return tuple(name for (name,) in connection.execute("SELECT name FROM history ORDER BY position"))


def _segment(raw: bytes, size: int) -> dict[int, bytes]:
    count = struct.unpack_from(">I", raw, _SEGMENT_HEADER - 12)[0]
    at, pages = _SEGMENT_HEADER + 8 * count, {}
    for number, length in struct.iter_unpack(">II", raw[_SEGMENT_HEADER:at]):
        pages[number] = _page(raw[at : at + length], size)
        at += length
    return pages


def _page(image: bytes, size: int) -> bytes:
    return image if len(image) == size else zlib.decompress(image)


def _value(number: int, page: bytes) -> int:
    return int.from_bytes(hashlib.sha256(struct.pack(">I", number) + page).digest()[:8], "big")
