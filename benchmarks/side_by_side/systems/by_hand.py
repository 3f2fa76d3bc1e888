"""By hand: download, work, upload. What sqlite-s3 and Temaki for PHP do, in Python."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import boto3

from benchmarks.side_by_side.systems import sql
from benchmarks.side_by_side.systems.system import Config

T = TypeVar("T")


class ByHand:
    """One GET and one PUT, or boto3's ``download_file`` and ``upload_file``, which use several connections."""

    def __init__(self, config: Config) -> None:
        self._client = boto3.session.Session().client("s3")
        self._bucket, self._key = config["bucket"], config["key"]
        self._path = Path(config["folder"]) / "app.sqlite"
        self._transfers = config["options"].get("transfers") == "yes"

    def read(self) -> tuple[str, int]:
        """Download, read."""
        return self._session(sql.read)

    def commit(self, rows: int, name: str) -> None:
        """Download, write, upload."""
        self._session(lambda connection: sql.commit(connection, rows, name))
        self._upload()

    def increment(self) -> int:
        """Download, write, upload."""
        count = self._session(sql.increment)
        self._upload()
        return count

    def _session(self, work: Callable[[Any], T]) -> T:
        if self._transfers:
            self._client.download_file(self._bucket, self._key, str(self._path))
        else:
            answer = self._client.get_object(Bucket=self._bucket, Key=self._key)
            with self._path.open("wb") as file:
                for piece in answer["Body"].iter_chunks(1 << 20):
                    file.write(piece)
        with closing(sqlite3.connect(self._path)) as connection:
            return work(connection)

    def _upload(self) -> None:
        if self._transfers:
            self._client.upload_file(str(self._path), self._bucket, self._key)
        else:
            with self._path.open("rb") as file:
                self._client.put_object(Bucket=self._bucket, Key=self._key, Body=file)


make = ByHand
