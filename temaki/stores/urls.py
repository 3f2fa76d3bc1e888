"""From a URL to a store and a key, or to a message that says what is wrong with it.

A URL's scheme is the name of an entry point of the group ``temaki.stores``: see :class:`temaki.store.StoreOpener`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from temaki.config.plugins import Group
from temaki.errors import ConfigurationError
from temaki.store import Location, StoreOpener

if TYPE_CHECKING:
    from temaki.store import Store

_SCHEMES: Final = Group(
    "temaki.stores",
    "scheme",
    StoreOpener,  # type: ignore[type-abstract]  # no instance is made of it
    # As registered. A deployment package that was stripped of all metadata can still be bound.
    without_metadata={
        "s3": "temaki.stores.schemes:S3Opener",
        "file": "temaki.stores.schemes:FileOpener",
        "memory": "temaki.stores.schemes:MemoryOpener",
    },
)
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")


def open_store(url: str, *, client: Any = None) -> tuple[Store, str]:
    """The store and the key that a URL names. Makes no request, and imports boto3 not even for S3.

    Args:
        url: ``s3://bucket/key``, ``file:///folder/key`` or ``memory://name/key``, or of a scheme that another
            distribution has registered. In a ``file`` URL, special characters are percent-encoded; in ``s3`` and
            ``memory``, all characters stand for themselves, as in the AWS CLI.
        client: A boto3 S3 client to use, for ``s3``; or what another scheme takes.

    Raises:
        ConfigurationError: The URL is malformed, nobody has registered its scheme, or the scheme takes no client.
    """
    opener, location = _parsed(url)
    if client is not None and not opener.takes_client:
        message = f"{location.url} takes no client: that is for s3:// URLs. Leave it out."
        raise ConfigurationError(message, url=location.url)
    return opener.open(location, client=client), location.key


def canonical_url(url: str) -> str:
    """The one way to write the URL: equal for URLs that name the same database.

    Raises:
        ConfigurationError: The URL is malformed, or nobody has registered its scheme.
    """
    return parse_url(url).url


def parse_url(url: str) -> Location:
    """Take a URL apart.

    Raises:
        ConfigurationError: It is malformed, or nobody has registered its scheme. The message has an example of a right
            one, and never a password.
    """
    return _parsed(url)[1]


def _parsed(url: str) -> tuple[StoreOpener, Location]:
    if not isinstance(url, str):
        raise _wrong(repr(type(url)), "it is not a string")
    if not url.strip():
        raise _wrong(repr(url), "it is empty")
    matched = _SCHEME.match(url)
    if matched is None or not url[matched.end() :].startswith("//"):
        raise _wrong(_shown(url), "it has no scheme")
    scheme, rest = matched.group(1).lower(), url[matched.end() + 2 :]
    found = _SCHEMES.find(scheme, origin=_shown(url))
    if found is None:
        raise _wrong(_shown(url), f"temaki does not know the scheme {scheme!r}", _SCHEMES.suggestion(scheme))
    opener = _made(found, scheme)
    try:
        _check_characters(url, rest)
        bucket, key = opener.split(rest)
    except ValueError as error:
        raise _wrong(_shown(url), str(error), example=_example(found, scheme)) from error
    return opener, Location(scheme, bucket, key, f"{scheme}://{opener.join(bucket, key)}")


def _made(opener: type[StoreOpener], scheme: str) -> StoreOpener:
    try:
        return opener()
    except TypeError as error:  # a method is missing, or __init__ wants arguments
        raise ConfigurationError(f"Scheme {scheme!r}: its opener cannot be made: {error}.") from error


def _check_characters(url: str, rest: str) -> None:
    """Refuse what no scheme may have in a URL, which is shown in messages and logs."""
    if "@" in rest.partition("/")[0]:
        raise ValueError("it has credentials in it: those belong to the store's own configuration (of s3, boto3's)")
    for character, name in (("?", "a query"), ("#", "a fragment")):
        if character in rest:
            raise ValueError(f"it has {name} ({character!r}): options are given by name")
    if any(not character.isprintable() for character in url) or url != url.strip():
        raise ValueError("it has control characters, or spaces at its ends")


def _shown(url: str) -> str:
    """The URL for a message, without what may be secret: credentials, query and fragment."""
    scheme, _, rest = url.partition("://") if "://" in url else ("", "", url)
    rest = re.split(r"[?#]", rest, maxsplit=1)[0] + ("…" if re.search(r"[?#]", rest) else "")
    before, at, after = rest.rpartition("@")
    if at and ("/" not in before or ":" in before):
        rest = "…@" + after
    return repr(f"{scheme}://{rest}" if scheme else rest)


def _wrong(shown: str, reason: str, hint: str = "", *, example: str | None = None) -> ConfigurationError:
    right = example or " or ".join(_examples())
    message = f"{shown} is no URL of a database: {reason}. {hint}{' ' if hint else ''}A right one: {right}"
    return ConfigurationError(message, url=shown)


def _examples() -> list[str]:
    """One of each scheme; temaki's own first."""
    schemes = [*_SCHEMES.without_metadata]
    schemes += [scheme for scheme in _SCHEMES.available() if scheme not in schemes]
    examples = []
    for scheme in schemes:
        try:
            found = _SCHEMES.find(scheme, origin="temaki.stores")
        except ConfigurationError:  # somebody's that cannot be imported is no example
            continue
        if found is not None:
            examples.append(_example(found, scheme))
    return examples


def _example(opener: type[StoreOpener], scheme: str) -> str:
    return getattr(opener, "example", f"{scheme}://bucket/key")
