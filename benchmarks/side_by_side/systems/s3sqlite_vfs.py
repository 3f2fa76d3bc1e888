"""s3sqlite: a virtual file system that reads ranges of the object through s3fs."""

from __future__ import annotations

import os
from contextlib import closing

import apsw
import s3fs
import s3sqlite

from benchmarks.side_by_side.systems import sql
from benchmarks.side_by_side.systems.system import Config


class S3Sqlite:
    """A connection for each session."""

    def __init__(self, config: Config) -> None:
        self._path = f"{config['bucket']}/{config['key']}"
        files = s3fs.S3FileSystem(
            key=os.environ["AWS_ACCESS_KEY_ID"],
            secret=os.environ["AWS_SECRET_ACCESS_KEY"],
            client_kwargs={"endpoint_url": os.environ["AWS_ENDPOINT_URL_S3"]},
        )
        self._vfs = s3sqlite.S3VFS(name="s3-vfs", fs=files)

    def read(self) -> tuple[str, int]:
        """Open, read."""
        with closing(apsw.Connection(self._path, vfs=self._vfs.name, flags=apsw.SQLITE_OPEN_READONLY)) as connection:
            return sql.read(connection)

    def commit(self, rows: int, name: str) -> None:
        """It only reads."""
        raise NotImplementedError

    def increment(self) -> int:
        """It only reads."""
        raise NotImplementedError


make = S3Sqlite
