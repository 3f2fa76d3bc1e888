"""One request to S3: what is asked, and how far the SDK got with it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from temaki.errors import StoreUnavailableError

if TYPE_CHECKING:
    from temaki.stores.s3.client import SharedClient

Verb = Literal["get", "head", "put", "delete", "list", "copy"]

WRITES: Final[frozenset[Verb]] = frozenset({"put", "delete", "copy"})
"""Those that may have been carried out although no answer came."""

_now = threading.local()


@dataclass(slots=True)
class Request:
    """What was asked, and what is known about its way.

    Attributes:
        verb: The method of the store.
        bucket: URL of the bucket.
        url: URL of the object, or of the bucket in a listing.
        endpoint: Host and port of the server, without credentials.
        source: URL of the object that is copied; empty for all other requests.
        if_match: Whether the request was for one version only.
        client: The SDK's client, once there is one.
        shared: The shared client that it is, or None. While the request is referred to, nobody closes it.
        is_given: Whether the client is the user's own.
        sdk_retries: Whether the SDK may send the request more than once.
        sent: How often the SDK turned to the network with this request. Before that it asks for credentials and signs.
        in_doubt: Whether one of the SDK's earlier attempts may have been carried out.
        earlier: The error that was being handled when this request began. Its story is not this request's.
    """

    verb: Verb
    bucket: str
    url: str
    endpoint: str = "its endpoint"
    source: str = ""
    if_match: bool = False
    client: Any = None
    shared: SharedClient | None = None
    is_given: bool = False
    sdk_retries: bool = False
    sent: int = 0
    in_doubt: bool = False
    earlier: BaseException | None = None

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Count the attempts that this thread's clients make meanwhile."""
        outer = current()
        _now.request = self
        try:
            yield
        finally:
            _now.request = outer


def current() -> Request | None:
    """The request that this thread is making."""
    found: Request | None = getattr(_now, "request", None)
    return found


def unavailable(
    request: Request,
    what: str,
    *,
    ambiguous: bool = True,
    status: int | None = None,
    code: str | None = None,
    service: str | None = None,
    advice: str = "",
) -> StoreUnavailableError:
    """The error for a request without a usable answer."""
    fate = ""
    if request.verb in WRITES:
        fate = " It may have been carried out all the same." if ambiguous else " Nothing was changed."
    message = f"{request.url}: {what}.{fate} Try again."
    facts = {"url": request.url, "status": status, "code": code, "ambiguous": ambiguous}
    if service is not None:
        facts |= {"service": service, "advice": advice}
        message += f" {advice}" if advice else ""
    return StoreUnavailableError(message, **facts)
