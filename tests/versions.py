"""Databases of one number, as temaki stores them and as its working copies hold them."""

from __future__ import annotations

import io
import sqlite3
import struct
from contextlib import closing
from pathlib import Path

from temaki.remote.remote import Remote
from temaki.replica.connection import Connection
from temaki.replica.generation import Generation
from temaki.stores.memory import MemoryStore
from temaki.testing.clock import ManualClock
from temaki.version import Version

KEY = "app.sqlite"
URL = f"memory://tests/{KEY}"


def database(value: int, sequence: int) -> bytes:
    """A database whose table ``t`` has this value, as version ``sequence``."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute("CREATE TABLE t (value)")
        connection.execute("INSERT INTO t VALUES (?)", (value,))
        data = bytearray(connection.serialize())
    data[24:28] = data[92:96] = struct.pack(">I", sequence)
    return bytes(data)


def make_remote(store: object, clock: ManualClock | None = None) -> Remote:
    """The database's remote in a store, which is never asked for long."""
    return Remote(store, KEY, url=URL, clock=clock or ManualClock(), timeout=0.01)  # type: ignore[arg-type]


def publish(bucket: MemoryStore, value: int, base: Version | None = None) -> Version:
    """Store the next version, as another process would."""
    sequence = 1 if base is None else base.sequence + 1
    data = database(value, sequence)
    return make_remote(bucket).publish(io.BytesIO(data), len(data), base, sequence=sequence).version


def save(path: Path, value: int, sequence: int = 1) -> Path:
    """What a pull leaves at ``path``: the version, switched to WAL mode."""
    path.write_bytes(in_wal_mode(database(value, sequence)))
    return path


def in_wal_mode(data: bytes) -> bytes:
    """The same database, switched to WAL mode."""
    return data[:18] + b"\2\2" + data[20:]


def version(sequence: int) -> Version:
    """The facts of a version that is in no store."""
    commit = f"commit-{sequence:08}"
    return Version(f"etag-{sequence}", commit, sequence, (commit,), True, 8192)


def connect(generation: Generation, *, busy: bool = True) -> Connection:
    """A connection as the pool opens one."""
    connection = sqlite3.connect(generation.path, isolation_level=None, check_same_thread=False, factory=Connection)
    connection.busy = busy
    generation.welcome(connection)
    connection.settle_in(generation.url, str(generation.path.parent), writable=True)
    return connection


def read(connection: sqlite3.Connection) -> int:
    """The number, as the connection sees it."""
    return int(connection.cursor().execute("SELECT value FROM t").fetchall()[0][0])


def begin(connection: Connection) -> None:
    """Begin temaki's write transaction."""
    connection.end_transaction()
    connection.allow_writes()
    with connection.trusted():
        connection.cursor().execute("BEGIN IMMEDIATE TRANSACTION")


def write(connection: Connection, value: int) -> None:
    """Commit another number locally."""
    begin(connection)
    connection.cursor().execute("UPDATE t SET value = ?", (value,))
    connection.commit_locally()
