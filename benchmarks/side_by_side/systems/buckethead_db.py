"""buckethead: a ``with`` block for each session, because only its start restores and only its end is sure to store."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

from buckethead import BucketConfig, BucketSQLite

from benchmarks.side_by_side.systems import sql
from benchmarks.side_by_side.systems.system import Config

T = TypeVar("T")


class BucketHead:
    """A database in memory, restored and flushed."""

    def __init__(self, config: Config) -> None:
        self._config = BucketConfig(
            bucket=config["bucket"],
            key=config["key"],
            endpoint_url=os.environ["AWS_ENDPOINT_URL_S3"],
            region=os.environ["AWS_REGION"],
            access_key_id=os.environ["AWS_ACCESS_KEY_ID"],
            secret_access_key=os.environ["AWS_SECRET_ACCESS_KEY"],
        )

    def read(self) -> tuple[str, int]:
        """Restore, read."""
        return self._session(sql.read)

    def commit(self, rows: int, name: str) -> None:
        """Restore, write, flush."""
        self._session(lambda connection: sql.commit(connection, rows, name))

    def increment(self) -> int:
        """Restore, write, flush."""
        return self._session(sql.increment)

    def _session(self, work: Callable[[Any], T]) -> T:
        with BucketSQLite(self._config) as database:
            return work(database.connection)


make = BucketHead
