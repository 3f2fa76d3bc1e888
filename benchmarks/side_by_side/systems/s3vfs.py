"""sqlite-s3vfs: a virtual file system over one object for each page."""

from __future__ import annotations

from contextlib import closing

import apsw
import boto3
import sqlite_s3vfs

from benchmarks.side_by_side.systems import sql
from benchmarks.side_by_side.systems.system import Config


class S3Vfs:
    """A connection for each session."""

    def __init__(self, config: Config) -> None:
        self._key = config["key"]
        self._vfs = sqlite_s3vfs.S3VFS(bucket=boto3.session.Session().resource("s3").Bucket(config["bucket"]))

    def read(self) -> tuple[str, int]:
        """Open, read."""
        with closing(apsw.Connection(self._key, vfs=self._vfs.name)) as connection:
            return sql.read(connection)

    def commit(self, rows: int, name: str) -> None:
        """Open, write."""
        with closing(apsw.Connection(self._key, vfs=self._vfs.name)) as connection:
            sql.commit(connection, rows, name)

    def increment(self) -> int:
        """It has no locks: its README has callers see to it that writes do not overlap."""
        raise NotImplementedError


make = S3Vfs
