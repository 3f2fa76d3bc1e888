"""What a database's URL says, and what is wrong with one that says nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast
from urllib.parse import quote, unquote_to_bytes

from temaki.errors import ConfigurationError

if TYPE_CHECKING:
    from temaki.store import Store

EXAMPLES: Mapping[str, str] = {
    "s3": "s3://my-bucket/app.sqlite",
    "file": "file:///srv/data/app.sqlite",
    "memory": "memory://tests/app.sqlite",
}

_OLD_BUCKET = re.compile(r"[A-Za-z0-9._-]{3,255}")
_IP = re.compile(r"\d+\.\d+\.\d+\.\d+")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")


@dataclass(frozen=True, slots=True)
class Location:
    """Where a database is.

    Attributes:
        scheme: The kind of store.
        bucket: The bucket's name; for ``file`` the folder's absolute path.
        key: The object's name in it.
    """

    scheme: Literal["s3", "file", "memory"]
    bucket: str
    key: str

    @property
    def url(self) -> str:
        """The one way to write this location: equal for equal databases."""
        if self.scheme == "file":
            return "file://" + quote(os.path.join(self.bucket, self.key))
        return f"{self.scheme}://{self.bucket}/{self.key}"


def open_store(url: str, *, client: Any = None) -> tuple[Store, str]:
    """The store and the key that a URL names. Makes no request, and imports boto3 not even for S3.

    Args:
        url: ``s3://bucket/key``, ``file:///folder/key`` or ``memory://name/key``. In a ``file`` URL, special characters
            are percent-encoded; in the others, all characters stand for themselves, as in the AWS CLI.
        client: A boto3 S3 client to use, for ``s3`` only.

    Raises:
        ConfigurationError: The URL is malformed, or a client was given for another kind of store.
    """
    location = parse_url(url)
    # Each kind of store is imported by those who use it: binding is part of every cold start.
    if location.scheme == "s3":
        from temaki.stores.s3.store import S3Store

        return S3Store(location.bucket, client=client), location.key
    if client is not None:
        message = f"{location.url} takes no client: that is for s3:// URLs. Leave it out."
        raise ConfigurationError(message, url=location.url)
    if location.scheme == "file":
        from temaki.stores.directory import DirectoryStore

        return DirectoryStore(location.bucket), location.key
    from temaki.stores.memory import MemoryStore

    return MemoryStore.named(location.bucket), location.key


def canonical_url(url: str) -> str:
    """The one way to write the URL: equal for URLs that name the same database.

    Raises:
        ConfigurationError: The URL is malformed.
    """
    return parse_url(url).url


def parse_url(url: str) -> Location:
    """Take a URL apart.

    Raises:
        ConfigurationError: It is malformed. The message has an example of a right one, and never a password.
    """
    if not isinstance(url, str):
        raise _wrong(repr(type(url)), "it is not a string")
    if not url.strip():
        raise _wrong(repr(url), "it is empty")
    matched = _SCHEME.match(url)
    if matched is None or not url[matched.end() :].startswith("//"):
        raise _wrong(_shown(url), "it has no scheme")
    scheme = matched.group(1).lower()
    if scheme not in EXAMPLES:
        raise _wrong(_shown(url), f"temaki does not know the scheme {scheme!r}")
    rest = url[matched.end() + 2 :]
    authority, slash, path = rest.partition("/")
    _check_characters(url, scheme, authority, path)
    if scheme == "file":
        return _file(url, authority, path)
    _check_bucket(url, scheme, authority)
    if not path:
        missing = "it has no key after the bucket" if slash else "it has no '/' and no key after the bucket"
        raise _wrong(_shown(url), missing, scheme)
    if path.endswith("/"):
        raise _wrong(_shown(url), "its key ends in '/', so that it names a folder and no object", scheme)
    return Location(cast("Literal['s3', 'memory']", scheme), authority, path)


def _check_characters(url: str, scheme: str, authority: str, path: str) -> None:
    if "@" in authority or ":" in authority:
        raise _wrong(
            _shown(url), "it has credentials or a port in it: those belong to boto3's own configuration", scheme
        )
    for character, name in (("?", "a query"), ("#", "a fragment")):
        if character in authority + path:
            raise _wrong(_shown(url), f"it has {name} ({character!r}): options are given by name", scheme)
    if any(not character.isprintable() for character in url) or url != url.strip():
        raise _wrong(_shown(url), "it has control characters, or spaces at its ends", scheme)


def _check_bucket(url: str, scheme: str, bucket: str) -> None:
    if not bucket:
        raise _wrong(_shown(url), "it has no bucket", scheme)
    if scheme == "memory":
        return
    if not _OLD_BUCKET.fullmatch(bucket) or ".." in bucket or _IP.fullmatch(bucket):
        reason = (
            f"{bucket!r} is no name of a bucket: 3 to 63 lower-case letters, digits, hyphens and dots, starting "
            f"and ending with a letter or digit"
        )
        raise _wrong(_shown(url), reason, scheme)


def _file(url: str, authority: str, path: str) -> Location:
    if authority not in {"", "localhost"}:
        raise _wrong(_shown(url), f"its path is not absolute: three slashes after 'file:', not {authority!r}", "file")
    try:
        decoded = unquote_to_bytes("/" + path).decode()
    except UnicodeDecodeError as error:
        raise _wrong(_shown(url), "its percent-encoding is not UTF-8", "file") from error
    if "\0" in decoded:
        raise _wrong(_shown(url), "it has a NUL character in it", "file")
    if decoded.endswith(("/", "/.", "/..")):
        raise _wrong(_shown(url), "its path ends in a folder, so that it has no key", "file")
    # Two slashes at the start survive abspath(): POSIX lets them mean something, Linux and macOS do not.
    folder, key = os.path.split(os.path.abspath("/" + decoded.lstrip("/")))
    from temaki.stores.sidecar import STATE

    if STATE in {part.casefold() for part in folder.split("/")} or key.casefold() == STATE:
        raise _wrong(_shown(url), f"{STATE!r} is where temaki keeps what belongs to the files beside it", "file")
    return Location("file", folder, key)


def _shown(url: str) -> str:
    """The URL for a message, without what may be secret: credentials, query and fragment."""
    scheme, _, rest = url.partition("://") if "://" in url else ("", "", url)
    rest = re.split(r"[?#]", rest, maxsplit=1)[0] + ("…" if re.search(r"[?#]", rest) else "")
    before, at, after = rest.rpartition("@")
    if at and ("/" not in before or ":" in before):
        rest = "…@" + after
    return repr(f"{scheme}://{rest}" if scheme else rest)


def _wrong(shown: str, reason: str, scheme: str | None = None) -> ConfigurationError:
    examples = [EXAMPLES[scheme]] if scheme else list(EXAMPLES.values())
    message = f"{shown} is no URL of a database: {reason}. A right one: {' or '.join(examples)}"
    return ConfigurationError(message, url=shown)
