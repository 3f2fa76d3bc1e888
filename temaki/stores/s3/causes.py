"""What an error of the SDK came from: the errors behind it, their tracebacks, and what they say."""

from __future__ import annotations

import errno
import http.client
import re
import sys
from collections.abc import Iterator
from traceback import walk_tb
from types import FrameType
from typing import Final
from urllib.parse import urlsplit

from botocore import exceptions as boto
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError as Urllib3Error

NETWORK: Final = (
    boto.HTTPClientError,
    boto.ConnectionError,
    ResponseParserError,
    Urllib3Error,
    http.client.HTTPException,
    OSError,
)
LASTING: Final = {  # errors of the system that waiting does not mend
    errno.ENOENT,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENOEXEC,
    errno.ELOOP,
}
REFUSED_TUNNEL: Final = re.compile(r"Tunnel connection failed: (\d{3})")
CERTIFICATE: Final = "CERTIFICATE_VERIFY_FAILED"
_LONGEST: Final = 300  # characters of another program's message that are repeated


def chain(error: BaseException | None, earlier: BaseException | None) -> Iterator[BaseException]:
    """The error and those that it came from, as far as they belong to this request."""
    left, seen = [error], {id(earlier)}
    while left:
        one = left.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        left += [one.__context__, one.__cause__]


def frames(error: BaseException, earlier: BaseException | None) -> Iterator[FrameType]:
    """The frames of their tracebacks."""
    for one in chain(error, earlier):
        for frame, _ in walk_tb(one.__traceback__):
            yield frame


def is_botocores(error: BaseException) -> bool:
    """Whether it was raised by botocore, or by what botocore called, and not by code of ours or of the caller's."""
    modules = [str(frame.f_globals.get("__name__")) for frame, _ in walk_tb(error.__traceback__)]
    names = [module.partition(".")[0] for module in modules]
    if "botocore" not in names or "botocore.httpsession" in modules:  # the latter is where requests leave
        return False
    deepest = names[len(names) - names[::-1].index("botocore") :]
    known = sys.stdlib_module_names | {"urllib3", "dateutil", "jmespath", "awscrt"}
    return all(name in known for name in deepest)


def host_of(url: str | None) -> str | None:
    """Host and port of a URL, which may lack its scheme, without credentials."""
    if not url:
        return None
    try:
        return urlsplit(url if "://" in url else f"//{url}").netloc.rpartition("@")[2] or None
    except ValueError:  # a URL that is none, which may be what went wrong
        return None


def where(error: BaseException) -> str:
    """Where the request went that failed, as part of a sentence; empty where that is not known."""
    facts = getattr(error, "kwargs", {})
    endpoint, proxy = host_of(facts.get("endpoint_url")), host_of(facts.get("proxy_url"))
    found = f" at {endpoint}" if endpoint else ""
    return found + (f" through the proxy {proxy}" if proxy else "")


def detail(error: BaseException) -> str:
    """More than the error's class, where it has no address."""
    return "" if where(error) else f": {said_by(error)}"


def said_by(error: BaseException) -> str:
    """What another program or service said, in one line that ends without a full stop."""
    text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    if not isinstance(error, (boto.BotoCoreError, boto.ClientError, OSError)):
        text = f"{type(error).__name__}: {text}"
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


def texts(error: BaseException) -> str:
    """All their messages."""
    return " ".join(str(one) for one in chain(error, None))
