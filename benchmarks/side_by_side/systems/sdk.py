"""The same requests without a database: what boto3 alone costs."""

from __future__ import annotations

from typing import Any

import boto3
from botocore.exceptions import ClientError

from benchmarks.side_by_side.systems.system import Config

PIECE = 1 << 20


class Requests:
    """A conditional GET for a read; that and a PUT for a commit. What comes is read in pieces and dropped."""

    def __init__(self, config: Config) -> None:
        self._client = boto3.session.Session().client("s3")
        self._where: dict[str, Any] = {"Bucket": config["bucket"], "Key": config["key"]}
        self._etag, self._size = "", 0
        self._body = b""

    def read(self) -> tuple[str, int]:
        """One GET."""
        condition: dict[str, Any] = {"IfNoneMatch": self._etag} if self._etag else {}
        try:
            answer = self._client.get_object(**self._where, **condition)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] != 304:
                raise
        else:
            while answer["Body"].read(PIECE):
                pass
            self._etag, self._size = answer["ETag"], answer["ContentLength"]
        return "", 0

    def commit(self, _: int, name: str) -> None:
        """One GET, one PUT of as many bytes, which the last name in them makes new ones."""
        self.read()
        end = name.encode()
        self._body = (self._body or bytes(self._size))[: -len(end)] + end
        self._etag = self._client.put_object(**self._where, Body=self._body, IfMatch=self._etag)["ETag"]

    def increment(self) -> int:
        """There is nothing to count."""
        raise NotImplementedError


make = Requests
