"""The process's S3 clients: one for each configuration, shared by all stores, and asked for anew when it fails.

A client is a pool of connections and takes some 100 ms to make, so that stores with the same configuration share one.
botocore asks for credentials when it makes a client. If it finds none, or finds static ones, the client keeps that for
ever. So a client whose credentials fail is given up, and the next request makes another one.

A client that is given up is closed when its last request or download has ended: other threads may be in the middle of
theirs.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from temaki._version import __version__
from temaki.process.fork import ProcessLock, never_close_in_child, process, reset_in_child
from temaki.stores.rules import body_size
from temaki.stores.s3.request import current

if TYPE_CHECKING:
    from botocore.loaders import Loader
    from mypy_boto3_s3 import S3Client

CONNECT_TIMEOUT: Final = 3.0
READ_TIMEOUT: Final = 15.0
MAX_CONNECTIONS: Final = 50
UNANNOUNCED: Final = 8 << 20
"""Bytes of a body up to which it is sent with its head, without a round trip in which the server is asked for it."""

_AWS: Final = (".amazonaws.com", ".amazonaws.com.cn", ".amazonaws.eu", ".api.aws")
_SERVER_ERROR: Final = 500  # HTTP status
_VARIABLES: Final = {
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HOME",
}
"""Environment variables beside boto3's own that decide where a client goes, and how."""


class Place(NamedTuple):
    """Where a client sends requests. A store that has begun with one place stays there."""

    region: str | None
    endpoint: str


class SharedClient:
    """A client that is made when it is first needed.

    Args:
        place: Where it has to go; None for wherever the configuration says.

    Attributes:
        is_given_up: Whether its credentials failed. Whoever needs a client asks :func:`shared_client` again.
    """

    def __init__(self, place: Place | None) -> None:
        self.is_given_up = False
        self._place = place
        self._lock = threading.Lock()
        self._client: S3Client | None = None

    def get(self) -> S3Client:
        """The client. Makes it, but makes no request to S3. Raises whatever botocore raises."""
        with self._lock:
            if self._client is None:
                try:
                    self._client = new_client(self._place)
                except BaseException:
                    # The configuration may be another one by now: whoever comes next looks at it again.
                    self.is_given_up = True
                    raise
                finalizer = weakref.finalize(self, _close, self._client, process())
                finalizer.atexit = False
                # A child keeps the parent's client untouched and makes one of its own.
                never_close_in_child(self)
            return self._client


class _Shared:
    """All clients of this process that somebody uses, and the one that was asked for last.

    The last one stays for whoever comes next: a test suite that binds and drops one database after the other would
    otherwise make a client for each of them.
    """

    def __init__(self) -> None:
        self._lock = ProcessLock()
        self.reset_after_fork()
        reset_in_child(self)

    def reset_after_fork(self) -> None:
        """Share no connection with the parent: two processes on one TLS stream garble it."""
        self._clients: weakref.WeakValueDictionary[object, SharedClient] = weakref.WeakValueDictionary()
        self._last: SharedClient | None = None

    def get(self, place: Place | None) -> SharedClient:
        key = (place, _configuration())
        with self._lock():
            found = self._clients.get(key)
            if found is None or found.is_given_up:
                found = self._clients[key] = SharedClient(place)
            before, self._last = self._last, found
        del before  # outside of the lock: closing a client takes a moment
        return found


_shared: Final = _Shared()
_descriptions: dict[str | None, Loader] = {}
"""What botocore has read of its descriptions of AWS, by AWS_DATA_PATH. Reading it takes most of a client's making."""


def shared_client(place: Place | None = None) -> SharedClient:
    """The client for the present configuration.

    Args:
        place: Where requests have to go, whatever the configuration says now.
    """
    return _shared.get(place)


def place_of(client: S3Client) -> Place:
    """Where the client sends its requests."""
    return Place(client.meta.region_name, client.meta.endpoint_url)


def is_aws(client: S3Client) -> bool:
    """Whether the client talks to Amazon's S3."""
    return _is_aws(client.meta.endpoint_url)


def watch(client: S3Client) -> None:
    """Have the client's attempts counted in the request that makes them. Once for each client, however often called."""
    events = client.meta.events
    events.register_first("before-send.s3", _note_sending, unique_id="temaki-sending")
    events.register_first("response-received.s3", _note_answer, unique_id="temaki-answer")


def new_client(place: Place | None = None) -> S3Client:
    """A client from boto3's usual configuration.

    It is what ``boto3.session.Session().client("s3")`` asks botocore for. boto3 adds ``upload_file`` and resources to
    it, which nobody uses here, and which take 30 ms of a cold start.
    """
    from botocore.config import Config  # only who makes a request pays for it
    from botocore.session import get_session

    once: Any = {"total_max_attempts": 1, "mode": "standard"}
    session = get_session()
    path = os.environ.get("AWS_DATA_PATH")
    if path in _descriptions:
        session.register_component("data_loader", _descriptions[path])
    # For the services that give credentials: their defaults are five attempts of a minute each, which no deadline ends.
    session.set_default_client_config(Config(retries=once, connect_timeout=CONNECT_TIMEOUT, read_timeout=READ_TIMEOUT))
    config = Config(
        retries=once,
        connect_timeout=CONNECT_TIMEOUT,
        read_timeout=READ_TIMEOUT,
        tcp_keepalive=True,
        max_pool_connections=MAX_CONNECTIONS,
        user_agent_extra=f"temaki/{__version__}",
    )
    pinned: dict[str, Any] = {}
    if place is not None:
        pinned = {"region_name": place.region}
        if not _is_aws(place.endpoint):  # of AWS's own, the region says it all
            pinned["endpoint_url"] = place.endpoint
    client = cast("S3Client", session.create_client("s3", config=config, **pinned))
    _descriptions[path] = session.get_component("data_loader")
    if not is_aws(client):
        # Where a client goes is known only when it is there. botocore reads both settings anew for each request.
        settings: Any = client.meta.config
        settings.request_checksum_calculation = "when_required"
        settings.response_checksum_validation = "when_required"
    client.meta.events.register_last("before-call.s3", _send_at_once)
    watch(client)
    return client


def _configuration() -> object:
    """What a client is made from: equal for equal configurations. Two files are looked at, and none is read."""
    environment = frozenset(
        (name, value)
        for name, value in os.environ.items()
        if name.startswith(("AWS_", "BOTO")) or name.upper() in _VARIABLES
    )
    files = (
        os.environ.get("AWS_CONFIG_FILE", "~/.aws/config"),
        os.environ.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"),
    )
    return environment, tuple(map(_state, files))


def _state(path: str) -> object:
    try:
        found = os.stat(os.path.expanduser(path))
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _is_aws(endpoint: str) -> bool:
    from urllib.parse import urlsplit

    return ("." + (urlsplit(endpoint).hostname or "")).endswith(_AWS)


def _close(client: S3Client, owner: int) -> None:
    if process() == owner:  # a child does not touch its parent's connections
        client.close()


def _note_sending(event_name: str, **_: Any) -> None:
    request = current()
    # S3 Express opens a session with the same client, before the request itself.
    if request is not None and not event_name.endswith(".CreateSession"):
        request.sent += 1


def _note_answer(event_name: str, response_dict: Any = None, exception: BaseException | None = None, **_: Any) -> None:
    """Of an attempt that the SDK may repeat: whether it may have been carried out."""
    request = current()
    if request is None or not request.sdk_retries or event_name.endswith(".CreateSession"):
        return
    if exception is not None:
        from temaki.stores.s3.unsent import never_left

        request.in_doubt |= not never_left(exception, request.earlier)
    else:
        request.in_doubt |= (response_dict or {}).get("status_code", _SERVER_ERROR) >= _SERVER_ERROR


def _send_at_once(params: Any, **_: Any) -> None:
    """Take back botocore's ``Expect: 100-continue``, with which it waits for the server's word before every body.

    That word takes a round trip. It is worth it where it may save a transfer: for large bodies, that the server refuses
    by their head alone.
    """
    if "Expect" in params["headers"] and body_size(params["body"]) <= UNANNOUNCED:
        del params["headers"]["Expect"]
