"""The process's S3 clients: shared by stores, and asked for anew after an error of credentials."""

from __future__ import annotations

import gc
import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest

from temaki.errors import AccessDeniedError, ConfigurationError, StoreError
from temaki.stores.s3 import client as s3_client
from temaki.stores.s3.store import S3Store
from temaki.testing.threads import in_parallel
from tests.network.loopback import Loopback
from tests.network.messages import http, s3_error
from tests.network.policies import Answer

ETAG = "0123456789abcdef0123456789abcdef"
FOUND = http(200, ETag=f'"{ETAG}"')

Ask = Callable[[S3Store], object]


def get(store: S3Store) -> object:
    """Read."""
    return store.get("key")


def head(store: S3Store) -> object:
    """Ask."""
    return store.head("key")


def put(store: S3Store) -> object:
    """Write."""
    return store.put("key", b"data")


def listing(store: S3Store) -> object:
    """List."""
    return list(store.list())


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keys in a file, and no configuration of whoever runs the tests."""
    for name in list(os.environ):
        if name.startswith("AWS_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    write_keys(tmp_path, "AKIAOLD")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    """Where the configuration says that S3 is."""
    with Loopback(FOUND) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", running.endpoint)
        yield running


def write_keys(folder: Path, key: str) -> None:
    """What a helper does that rotates keys: the file is replaced."""
    new = folder / "new"
    new.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = secret\n")
    new.replace(folder / "credentials")


def keys_used(server: Loopback) -> list[str]:
    """The access key of each request."""
    return [re.findall(r"Credential=(\w+)/", request)[0] for request, _ in server.requests]


def made(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Gets an element for each client that is made."""
    found: list[object] = []
    new_client = s3_client.new_client

    def count(place: s3_client.Place | None) -> object:
        found.append(place)
        return new_client(place)

    monkeypatch.setattr(s3_client, "new_client", count)
    return found


# Sharing.


def test_stores_share_a_client(monkeypatch: pytest.MonkeyPatch, server: Loopback) -> None:
    """One client serves all stores of a process whose configuration is the same, of one bucket and of others."""
    clients = made(monkeypatch)
    stores = [S3Store(f"bucket-{number % 3}") for number in range(12)]
    in_parallel([lambda store=store: put(store) for store in stores])  # type: ignore[misc]
    assert len(clients) == 1
    assert len(server.requests) == 12


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_DEFAULT_REGION", "ap-south-1"),
        ("AWS_MAX_ATTEMPTS", "3"),
        ("AWS_PROFILE", "default"),
        ("AWS_CA_BUNDLE", "/nonexistent"),
        ("no_proxy", "example.com"),
        ("HTTPS_PROXY", "http://127.0.0.1:9"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9"),
    ],
)
def test_another_configuration_has_a_client_of_its_own(
    monkeypatch: pytest.MonkeyPatch, server: Loopback, name: str, value: str
) -> None:
    """A store that begins when the environment says something else does not get a client of the old environment."""
    clients = made(monkeypatch)
    first = S3Store("bucket")
    put(first)
    monkeypatch.setenv(name, value)
    second = S3Store("bucket")
    put(second)
    put(first)
    assert len(clients) == 2
    assert len(server.requests) == 3


@pytest.mark.parametrize("name", ["config", "credentials"])
def test_changed_files_are_another_configuration(server: Loopback, tmp_path: Path, name: str) -> None:
    """A store that begins after the file was changed uses what it says now, and not what another store has read."""
    first = S3Store("bucket")
    put(first)
    (tmp_path / name).write_text("[default]\naws_access_key_id = AKIANEW\naws_secret_access_key = secret\n")
    if name == "config":
        (tmp_path / "credentials").unlink()
    second = S3Store("bucket")
    put(second)
    put(first)
    assert keys_used(server) == ["AKIAOLD", "AKIANEW", "AKIAOLD"]


def test_many_stores_leave_nothing_behind(server: Loopback) -> None:
    """Stores that come and go leave neither a connection nor a thread; those that are there share one connection."""
    kept = [S3Store(f"bucket-{number}") for number in range(20)]
    put(kept[0])
    before, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    for store in kept[1:]:
        put(store)
    assert len(os.listdir("/proc/self/fd")) <= before + 1
    assert threading.active_count() <= threads + 1  # the server's
    kept.clear()
    store = S3Store("bucket")
    for _ in range(20):
        store = S3Store("bucket")
        put(store)
    del store
    gc.collect()
    assert len(s3_client._shared._clients) == 1  # the last one stays for the next store
    assert len(os.listdir("/proc/self/fd")) <= before + 1
    assert server.requests


def test_a_given_client_stays_its_owners(server: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    """A given client serves the stores that it was given to, is never replaced, and never closed."""
    clients = made(monkeypatch)
    given = boto3.client("s3", endpoint_url=server.endpoint)
    closed: list[object] = []
    monkeypatch.setattr(given, "close", lambda: closed.append(1))
    store, other = S3Store("bucket", client=given), S3Store("bucket")
    server.answer(s3_error(403, "InvalidAccessKeyId"))
    for _ in range(2):
        with pytest.raises(AccessDeniedError, match="was given its client"):
            put(store)
    server.answer(FOUND)
    put(store)
    put(other)
    assert clients == [None]
    del store, other
    gc.collect()
    assert closed == []


# Credentials that fail.


DENIALS = {
    "expired": (s3_error(400, "ExpiredToken"),),
    "unknown key": (s3_error(403, "InvalidAccessKeyId"),),
    "wrong secret": (s3_error(403, "SignatureDoesNotMatch"),),
    "invalid token": (s3_error(400, "InvalidToken"),),
    "no permission": (s3_error(403, "AccessDenied"),),
    "unauthorized": (s3_error(401, "Unauthorized"),),
    "without a body": (http(403),),
}


@pytest.mark.parametrize("ask", [get, head, put])
@pytest.mark.parametrize("name", DENIALS)
def test_rotated_keys_are_picked_up(server: Loopback, tmp_path: Path, ask: Ask, name: str) -> None:
    """After a refusal the next request uses what the file of credentials says by then; until then, the old keys."""
    store = S3Store("bucket")
    put(store)
    server.answer(*DENIALS[name])
    write_keys(tmp_path, "AKIANEW")
    with pytest.raises(AccessDeniedError):
        ask(store)
    refused = len(server.requests)
    server.answer(FOUND)
    ask(store)
    put(store)
    assert set(keys_used(server)[:refused]) == {"AKIAOLD"}
    assert keys_used(server)[refused:] == ["AKIANEW"] * 2


def test_a_head_that_is_refused_says_why(server: Loopback) -> None:
    """A HEAD's answer has no body, and so no reason: a GET of one byte is asked for it."""
    store = S3Store("bucket")
    for status in (400, 401, 403):
        server.answer(http(status), s3_error(403, "RequestTimeTooSkewed"))
        with pytest.raises(AccessDeniedError, match="clock") as caught:
            head(store)
        assert not caught.value.lacks_permission
        assert "ListBucket" not in str(caught.value)


@pytest.mark.parametrize("ask", [get, put, listing])
def test_credentials_that_come_later(server: Loopback, tmp_path: Path, ask: Ask) -> None:
    """A process that starts before its credentials are there works as soon as they are."""
    (tmp_path / "credentials").unlink()
    store = S3Store("bucket")
    with pytest.raises(AccessDeniedError):
        ask(store)
    assert server.requests == []
    write_keys(tmp_path, "AKIANEW")
    server.answer(http(200, b"<ListBucketResult/>", ETag=ETAG))
    ask(store)
    assert keys_used(server) == ["AKIANEW"]


def test_a_profile_that_comes_later(server: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A configuration that could not be used is looked at again by the next request."""
    monkeypatch.setenv("AWS_PROFILE", "app")
    store = S3Store("bucket")
    with pytest.raises(ConfigurationError, match="app"):
        put(store)
    (tmp_path / "config").write_text("[profile app]\naws_access_key_id = AKIAAPP\naws_secret_access_key = secret\n")
    put(store)
    assert keys_used(server) == ["AKIAAPP"]


def test_all_stores_get_the_new_client(monkeypatch: pytest.MonkeyPatch, server: Loopback, tmp_path: Path) -> None:
    """What one store learns about its credentials the others need not learn again."""
    clients = made(monkeypatch)
    stores = [S3Store("bucket") for _ in range(4)]
    for store in stores:
        put(store)
    write_keys(tmp_path, "AKIANEW")
    server.answer(s3_error(400, "ExpiredToken"))
    with pytest.raises(AccessDeniedError):
        put(stores[0])
    server.answer(FOUND)
    for store in stores:
        put(store)
    assert keys_used(server)[5:] == ["AKIANEW"] * 4
    assert len(clients) == 2


def test_other_errors_keep_the_client(monkeypatch: pytest.MonkeyPatch, server: Loopback) -> None:
    """A busy store, a conflict or a missing object is no reason to ask for credentials again."""
    clients = made(monkeypatch)
    store = S3Store("bucket")
    for answer in (s3_error(503, "SlowDown"), s3_error(412, "PreconditionFailed"), s3_error(404, "NoSuchKey")):
        server.answer(answer)
        with pytest.raises(StoreError):
            get(store)
    assert len(clients) == 1


def test_a_database_stays_where_it_is(server: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    """New credentials are taken from the configuration of the day; the server and the region are not."""
    store = S3Store("bucket")
    put(store)
    server.answer(s3_error(400, "ExpiredToken"))
    with pytest.raises(AccessDeniedError):
        put(store)
    server.answer(FOUND)
    with Loopback(FOUND) as another:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", another.endpoint)
        monkeypatch.setenv("AWS_DEFAULT_REGION", "ap-south-1")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIANEW")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        put(store)
        assert another.requests == []
        put(S3Store("bucket"))
        assert len(another.requests) == 1
    assert keys_used(server) == ["AKIAOLD", "AKIAOLD", "AKIANEW"]
    assert "/eu-central-1/" in server.requests[-1][0]


# Threads and forks.


def test_a_download_outlives_its_client(server: Loopback) -> None:
    """A client that is given up is closed when its last download has ended, and not before."""
    store = S3Store("bucket")
    data = b"x" * 300_000
    server.answer(http(200, data, ETag=ETAG))
    download = store.get("key")
    assert download is not None
    old = store._shared
    assert old is not None
    closed: list[int] = []
    client = old.get()
    real = client.close
    client.close = lambda: (closed.append(1), real())  # type: ignore[method-assign, assignment, func-returns-value]
    # What closes the client was made before it had the new method.
    server.answer(s3_error(400, "ExpiredToken"))
    with pytest.raises(AccessDeniedError):
        put(store)
    server.answer(FOUND)
    put(store)
    assert store._shared is not old
    del old
    with download:
        received = b""
        while piece := download.read(65_536):
            assert closed == []
            received += piece
    assert received == data
    del download
    gc.collect()
    assert closed == [1]


def test_threads_while_credentials_fail(server: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that use a client while another one gives it up get an answer or a refusal, and nothing else."""
    clients = made(monkeypatch)
    answers: list[Answer] = [FOUND, FOUND, FOUND, s3_error(400, "ExpiredToken")] * 16
    server.answer(*answers, FOUND)
    store = S3Store("bucket")
    refused: list[int] = []

    def work() -> None:
        for _ in range(8):
            try:
                put(store)
            except AccessDeniedError:
                refused.append(1)

    in_parallel([work] * 8)
    assert len(server.requests) == 64
    assert len(refused) == 16
    assert 2 <= len(clients) <= 17


def test_a_child_shares_no_client(server: Loopback) -> None:
    """A forked child makes one client for all of its stores, also if a thread held the lock at the fork."""
    stores = [S3Store("bucket") for _ in range(3)]
    for store in stores:
        put(store)
    mine = stores[0]._shared
    assert mine is not None
    with s3_client._shared._lock(), mine._lock:
        child = os.fork()
    if child == 0:
        right = False
        try:
            for store in stores:
                put(store)
            theirs = {store._shared for store in stores}
            right = len(theirs) == 1 and mine not in theirs
        finally:
            os._exit(0 if right else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert {store._shared for store in stores} == {mine}
    put(stores[0])
