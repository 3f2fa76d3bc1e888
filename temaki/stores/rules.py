"""What every store checks on its own side, so that each of them refuses the same things in the same words."""

from __future__ import annotations

import re
from collections.abc import Mapping

from temaki.errors import ConfigurationError, StoreError
from temaki.store import ReadableBody, Store

MAX_METADATA = 2048
"""S3's limit for user metadata: the sum of all names and values in bytes ("User-defined object metadata")."""

MAX_KEY = 1024
"""S3's limit for a key in bytes of UTF-8 ("Object key naming guidelines")."""

_NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")
_VALUE = re.compile(r"(?:[!-~](?:[ -~]*[!-~])?)?")


def checked_key(key: str, url: str) -> str:
    """The key, once it is known to be one that S3 would take.

    Raises:
        StoreError: Empty, too long, or not encodable.
    """
    try:
        length = len(key.encode())
    except UnicodeEncodeError as error:
        message = f"{url} cannot have an object named {key!r}: a key is a string that UTF-8 can encode."
        raise StoreError(message, url=url, status=None, code="InvalidKey") from error
    if not 0 < length <= MAX_KEY:
        message = f"{url} cannot have an object named {key!r}: a key has 1 to {MAX_KEY} bytes of UTF-8, not {length}."
        raise StoreError(message, url=url, status=None, code="InvalidKey")
    return key


def checked_metadata(metadata: Mapping[str, str] | None, url: str) -> dict[str, str]:
    """The metadata as S3 keeps it, with names in lower case.

    Metadata travel as HTTP headers. What a header would change on the way (spaces at the ends, line breaks, anything
    that is not ASCII) is refused here, in every store, and not found out on the first day with a real one.

    Raises:
        StoreError: Not ASCII, no valid header, or more than 2 KB in all.
    """
    checked: dict[str, str] = {}
    for given, value in (metadata or {}).items():
        name = given.lower()
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            message = (
                f"{url}: the metadata {given!r}: {value!r} cannot be stored. Names are HTTP header names, values are "
                f"printable ASCII without spaces at their ends."
            )
            raise StoreError(message, url=url, status=None, code="InvalidMetadata")
        checked[name] = value
    size = sum(len(name) + len(value) for name, value in checked.items())
    if size > MAX_METADATA:
        message = f"{url}: {size} bytes of metadata cannot be stored. S3 takes {MAX_METADATA} in all."
        raise StoreError(message, url=url, status=400, code="MetadataTooLarge")
    return checked


def check_conditions(if_match: str | None, if_none_match: object, url: str) -> None:
    """Refuse two conditions at once: no store defines what they mean together.

    Raises:
        ConfigurationError: Both were given.
    """
    if if_match is not None and if_none_match:
        message = f"{url}: if_match and if_none_match exclude each other. Give one of them."
        raise ConfigurationError(message, url=url)


def check_range(byte_range: tuple[int, int] | None, url: str) -> None:
    """Refuse a range that no HTTP header can say.

    Raises:
        ConfigurationError: The range is negative, empty or backwards.
    """
    if byte_range is not None and not 0 <= byte_range[0] < byte_range[1]:
        message = f"{url}: {byte_range} is no range of bytes. Give (first, one after the last), for example (0, 100)."
        raise ConfigurationError(message, url=url)


def range_beyond_end(byte_range: tuple[int, int], url: str) -> StoreError:
    """The error for a range that starts at or beyond the end of the object: HTTP's 416."""
    message = f"{url} has no byte {byte_range[0]}: the range {byte_range} starts at or beyond its end."
    return StoreError(message, url=url, status=416, code="InvalidRange")


def cut_range(byte_range: tuple[int, int] | None, size: int, url: str) -> tuple[int, int]:
    """First byte and the byte after the last one of a range within ``size`` bytes.

    Raises:
        StoreError: The range starts at or beyond the end.
    """
    if byte_range is None:
        return 0, size
    start, stop = byte_range
    if start >= size:
        raise range_beyond_end(byte_range, url)
    return start, min(stop, size)


def no_copy(url: str, source: Store) -> ConfigurationError:
    """The error for a copy from a store that this one cannot read by itself."""
    message = f"{url} cannot copy from {source.url} by itself. Ask can_copy() first, and send the bytes with put()."
    return ConfigurationError(message, url=url)


def read_body(body: bytes | ReadableBody) -> bytes:
    """All bytes of a body, from its start, wherever it was left."""
    if isinstance(body, (bytes, bytearray, memoryview)):
        return bytes(body)
    body.seek(0)
    return body.read()


def body_size(body: bytes | ReadableBody) -> int:
    """How many bytes a body has, without reading them; a file is left at its start."""
    if isinstance(body, (bytes, bytearray, memoryview)):
        return len(body)
    size = body.seek(0, 2)
    body.seek(0)
    return size
