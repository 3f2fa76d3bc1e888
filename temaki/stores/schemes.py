"""The schemes of temaki's own stores. Each store is imported by those who open one: binding is part of a cold start."""

from __future__ import annotations

import os
import re
from typing import Any, ClassVar, Final
from urllib.parse import quote, unquote_to_bytes

from temaki.store import Location, Store, StoreOpener

_OLD_BUCKET: Final = re.compile(r"[A-Za-z0-9._-]{3,255}")
_IP: Final = re.compile(r"\d+\.\d+\.\d+\.\d+")


class S3Opener(StoreOpener):
    """``s3://bucket/key``. All characters of the key stand for themselves, as in the AWS CLI."""

    example: ClassVar[str] = "s3://my-bucket/app.sqlite"
    takes_client: ClassVar[bool] = True

    def split(self, rest: str) -> tuple[str, str]:
        """See :meth:`temaki.store.StoreOpener.split`."""
        bucket = rest.partition("/")[0]
        _check_port(bucket)
        if bucket and (not _OLD_BUCKET.fullmatch(bucket) or ".." in bucket or _IP.fullmatch(bucket)):
            raise ValueError(
                f"{bucket!r} is no name of a bucket: 3 to 63 lower-case letters, digits, hyphens and dots, starting "
                f"and ending with a letter or digit"
            )
        return super().split(rest)

    def open(self, location: Location, *, client: Any = None) -> Store:
        """See :meth:`temaki.store.StoreOpener.open`."""
        from temaki.stores.s3.store import S3Store

        return S3Store(location.bucket, client=client)


class MemoryOpener(StoreOpener):
    """``memory://name/key``: the process's store of that name."""

    example: ClassVar[str] = "memory://tests/app.sqlite"

    def split(self, rest: str) -> tuple[str, str]:
        """See :meth:`temaki.store.StoreOpener.split`."""
        _check_port(rest.partition("/")[0])
        return super().split(rest)

    def open(self, location: Location, *, client: Any = None) -> Store:  # noqa: ARG002 - it takes none
        """See :meth:`temaki.store.StoreOpener.open`."""
        from temaki.stores.memory import MemoryStore

        return MemoryStore.named(location.bucket)


class FileOpener(StoreOpener):
    """``file:///folder/key``. Special characters are percent-encoded; the bucket is the folder's absolute path."""

    example: ClassVar[str] = "file:///srv/data/app.sqlite"

    def split(self, rest: str) -> tuple[str, str]:
        """See :meth:`temaki.store.StoreOpener.split`."""
        authority, _, path = rest.partition("/")
        _check_port(authority)
        if authority not in {"", "localhost"}:
            raise ValueError(f"its path is not absolute: three slashes after 'file:', not {authority!r}")
        try:
            decoded = unquote_to_bytes("/" + path).decode()
        except UnicodeDecodeError as error:
            raise ValueError("its percent-encoding is not UTF-8") from error
        if "\0" in decoded:
            raise ValueError("it has a NUL character in it")
        if decoded.endswith(("/", "/.", "/..")):
            raise ValueError("its path ends in a folder, so that it has no key")
        # Two slashes at the start survive abspath(): POSIX lets them mean something, Linux and macOS do not.
        folder, key = os.path.split(os.path.abspath("/" + decoded.lstrip("/")))
        from temaki.stores.sidecar import STATE

        if STATE in {part.casefold() for part in folder.split("/")} or key.casefold() == STATE:
            raise ValueError(f"{STATE!r} is where temaki keeps what belongs to the files beside it")
        return folder, key

    def join(self, bucket: str, key: str) -> str:
        """See :meth:`temaki.store.StoreOpener.join`."""
        return quote(os.path.join(bucket, key))

    def open(self, location: Location, *, client: Any = None) -> Store:  # noqa: ARG002 - it takes none
        """See :meth:`temaki.store.StoreOpener.open`."""
        from temaki.stores.directory import DirectoryStore

        return DirectoryStore(location.bucket)


def _check_port(authority: str) -> None:
    if ":" in authority:
        raise ValueError("it has credentials or a port in it: those belong to boto3's own configuration")
