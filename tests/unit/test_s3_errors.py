"""What S3, proxies, botocore and the network can say, and what temaki makes of it.

Against a server on loopback that sends the bytes of each case; the SDK is the real one.
"""

from __future__ import annotations

import binascii
import io
import os
import socket
import struct
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import NoCredentialsError

from temaki.errors import (
    AccessDeniedError,
    BucketNotFoundError,
    ConfigurationError,
    NotFoundError,
    ObjectArchivedError,
    PreconditionFailedError,
    StoreError,
    StoreUnavailableError,
    TemakiError,
)
from temaki.store import Store
from temaki.stores.s3 import client as s3_client
from temaki.stores.s3.store import S3Store
from temaki.testing.stores import fetch, read_all
from temaki.testing.threads import in_parallel
from tests.network.loopback import Loopback
from tests.network.messages import http, s3_error
from tests.network.policies import Answer
from tests.network.wire import reset, silence

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

ETAG = "0123456789abcdef0123456789abcdef"
SECRET = "a-secret-that-nobody-may-see"
SESSION = boto3.session.Session("AKIATEST", SECRET, region_name="eu-central-1")
"""One for all: reading S3's description takes longer than most of these tests."""

PROXY_PAGE = b"<!DOCTYPE html><html><head><title>404</title></head><body>Not here</body></html>"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Credentials for nothing, and no configuration of whoever runs the tests."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-credentials"))


def store_at(
    endpoint: str, *, attempts: int = 1, read_timeout: float = 5.0, session: boto3.session.Session | None = None
) -> S3Store:
    """A store whose requests go there."""
    config = Config(
        retries={"total_max_attempts": attempts, "mode": "standard"},
        connect_timeout=1,
        read_timeout=read_timeout,
        s3={"addressing_style": "path"},
    )
    client = (session or SESSION).client("s3", endpoint_url=endpoint, config=config)
    return S3Store("bucket", client=client)


def own_client(store: S3Store) -> S3Client:
    """The client that temaki has made for the store."""
    assert store._shared is not None
    return store._shared.get()


def get(store: Store) -> object:
    """Read."""
    return store.get("key")


def get_if_match(store: Store) -> object:
    """Read one version."""
    return store.get("key", if_match=ETAG)


def head(store: Store) -> object:
    """Ask."""
    return store.head("key")


def put(store: Store) -> object:
    """Write."""
    return store.put("key", b"data")


def swap(store: Store) -> object:
    """Write over one version."""
    return store.put("key", b"data", if_match=ETAG)


def create(store: Store) -> object:
    """Write where nothing is."""
    return store.put("key", b"data", if_none_match=True)


def delete(store: Store) -> object:
    """Remove."""
    store.delete("key")
    return None


def listing(store: Store) -> object:
    """List."""
    return list(store.list())


ASKS = [get, get_if_match, head, put, swap, create, delete, listing]
WITH_BODY = [get, put, swap, create, delete, listing]  # HEAD gets no body

Ask = Callable[[Store], object]


def failure(ask: Ask, *answers: Answer, attempts: int = 1, read_timeout: float = 5.0) -> StoreError:
    """The error for these answers; what every error has to be is checked here."""
    with Loopback(*answers) as server, pytest.raises(TemakiError) as caught:
        ask(store_at(server.endpoint, attempts=attempts, read_timeout=read_timeout))
    error = caught.value
    assert isinstance(error, StoreError)
    assert "s3://bucket" in str(error)
    assert error.url.startswith("s3://bucket")
    assert SECRET not in str(error)
    return error


# Missing, or only said to be.


@pytest.mark.parametrize("ask", [get, head])
def test_no_such_key(ask: Ask) -> None:
    """S3's own 404 NoSuchKey is the definite "no such object"; a HEAD asks again with a GET, which says it."""
    error = failure(ask, *([http(404)] if ask is head else []), s3_error(404, "NoSuchKey", Key="key"))
    assert type(error) is NotFoundError
    assert (error.status, error.code, error.url) == (404, "NoSuchKey", "s3://bucket/key")


@pytest.mark.parametrize("ask", [*WITH_BODY, head])
def test_no_such_bucket(ask: Ask) -> None:
    """404 NoSuchBucket is never a missing object, also for a HEAD, which cannot say so itself."""
    error = failure(ask, *([http(404)] if ask is head else []), s3_error(404, "NoSuchBucket"))
    assert type(error) is BucketNotFoundError
    assert error.url == "s3://bucket"


@pytest.mark.parametrize("ask", ASKS)
@pytest.mark.parametrize(
    "answer",
    [
        http(404),
        http(404, PROXY_PAGE, Content_Type="text/html"),
        http(404, b"<html><Code>NoSuchKey</Code></html>"),
        http(404, b"404 page not found"),
        http(404, b'{"Code": "NoSuchKey"}', Content_Type="application/json"),
        s3_error(404, "NoSuchUpload"),
    ],
    ids=["empty", "html", "html with a code", "text", "json", "other code"],
)
def test_another_404_is_no_missing_object(ask: Ask, answer: bytes) -> None:
    """A 404 that is not S3's NoSuchKey (a proxy's page, a wrong path) says nothing about the object."""
    error = failure(ask, answer)
    assert type(error) is StoreError
    assert "proxies" in str(error)
    assert error.status == 404


def test_a_head_404_whose_get_finds_the_object() -> None:
    """An object that appears between HEAD and GET, or whose HEAD a proxy does not let through, is there."""
    found = http(206, b"x", ETag=f'"{ETAG}"', Content_Range="bytes 0-0/1234", x_amz_meta_A="B")
    with Loopback(http(404), found) as server:
        info = store_at(server.endpoint).head("key")
        assert (info.etag, info.size, dict(info.metadata)) == (ETAG, 1234, {"a": "B"})
        assert [request.split()[0] for request, _ in server.requests] == ["HEAD", "GET"]


def test_a_delete_of_what_is_missing() -> None:
    """Servers that answer 404 NoSuchKey to a DELETE say that all is well."""
    with Loopback(s3_error(404, "NoSuchKey")) as server:
        store_at(server.endpoint).delete("key")


# Conditions.


@pytest.mark.parametrize("ask", [swap, create, get_if_match])
def test_412_is_a_refused_condition(ask: Ask) -> None:
    """412 decides: the condition does not hold."""
    error = failure(ask, s3_error(412, "PreconditionFailed"))
    assert isinstance(error, PreconditionFailedError)
    assert not error.in_flight


@pytest.mark.parametrize("ask", [swap, get_if_match])
def test_if_match_on_a_missing_object(ask: Ask) -> None:
    """AWS answers 404 NoSuchKey where others answer 412: it is the same refusal."""
    error = failure(ask, s3_error(404, "NoSuchKey"))
    assert isinstance(error, PreconditionFailedError)
    assert not error.in_flight


@pytest.mark.parametrize("ask", [put, create])
def test_no_such_key_makes_no_sense_for_other_writes(ask: Ask) -> None:
    """A write without if_match cannot lack the object: such an answer is an error, and no refusal."""
    assert type(failure(ask, s3_error(404, "NoSuchKey"))) is StoreError


@pytest.mark.parametrize("ask", [swap, create])
def test_409_is_undecided(ask: Ask) -> None:
    """409 ConditionalRequestConflict: nothing was decided, the same request may be sent again."""
    error = failure(ask, s3_error(409, "ConditionalRequestConflict"))
    assert isinstance(error, PreconditionFailedError)
    assert error.in_flight


def test_another_409_is_a_failure() -> None:
    """409 OperationAborted has nothing to do with the condition."""
    error = failure(swap, s3_error(409, "OperationAborted"))
    assert isinstance(error, StoreUnavailableError)
    assert error.ambiguous


@pytest.mark.parametrize("answer", [http(304), http(200, b"data", ETag=f'"{ETAG}"')], ids=["304", "condition ignored"])
def test_unchanged(answer: bytes) -> None:
    """304 is None; so is the whole object under the same ETag, from a server that ignores the condition."""
    with Loopback(answer) as server:
        assert store_at(server.endpoint).get("key", if_none_match=ETAG) is None


def test_conditions_are_sent_without_quotes() -> None:
    """ETags go out as the servers that were tried all accept them, and come back without quotes."""
    with Loopback(http(200, ETag=f'"{ETAG}"')) as server:
        store = store_at(server.endpoint)
        assert store.put("key", b"data", if_match=ETAG) == ETAG
        assert store.put("key", b"data", if_none_match=True) == ETAG
        heads = [request for request, _ in server.requests]
    assert f"\r\nIf-Match: {ETAG}\r\n" in heads[0]
    assert "\r\nIf-None-Match: *\r\n" in heads[1]


# Access.


@pytest.mark.parametrize("ask", WITH_BODY)
@pytest.mark.parametrize(
    ("status", "code", "hint"),
    [
        (403, "AccessDenied", "s3:ListBucket"),
        (403, "SignatureDoesNotMatch", "secret key is wrong"),
        (403, "InvalidAccessKeyId", "access key is not known"),
        (400, "ExpiredToken", "expired"),
        (400, "InvalidToken", "not valid"),
        (403, "RequestTimeTooSkewed", "clock"),
        (401, "Unauthorized", "access is denied"),
        (403, "SomethingNew", "s3:ListBucket"),
    ],
)
def test_access_denied(ask: Ask, status: int, code: str, hint: str) -> None:
    """Each way to be denied is AccessDeniedError, never "missing", and says what to do about it."""
    error = failure(ask, s3_error(status, code))
    assert type(error) is AccessDeniedError
    assert hint in str(error)
    assert (error.status, error.code) == (status, code)


def test_a_denied_head() -> None:
    """403 to a HEAD has no body: it is denied, and the message says that a missing object can look like this."""
    error = failure(head, http(403))
    assert type(error) is AccessDeniedError
    assert "s3:ListBucket" in str(error)


def test_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any credentials each request is AccessDeniedError, and says where boto3 looks for some."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    store = store_at("http://127.0.0.1:9", session=boto3.session.Session())
    for ask in ASKS:
        with pytest.raises(AccessDeniedError, match="AWS_ACCESS_KEY_ID") as caught:
            ask(store)
        assert isinstance(caught.value.__cause__, NoCredentialsError)


def test_an_archived_object() -> None:
    """403 InvalidObjectState is no matter of permission."""
    error = failure(get, s3_error(403, "InvalidObjectState"))
    assert type(error) is ObjectArchivedError
    assert "archived" in str(error)


# No usable answer.


@pytest.mark.parametrize("ask", WITH_BODY)
@pytest.mark.parametrize(
    ("status", "code"),
    [
        (500, "InternalError"),
        (503, "SlowDown"),
        (503, "ServiceUnavailable"),
        (400, "RequestTimeout"),
        (429, "TooManyRequests"),
        (502, "BadGateway"),
        (400, "BadDigest"),
    ],
)
def test_the_store_is_busy(ask: Ask, status: int, code: str) -> None:
    """5xx, 429 and their like: try again, and a write may have landed."""
    error = failure(ask, s3_error(status, code))
    assert isinstance(error, StoreUnavailableError)
    assert error.ambiguous
    assert (error.status, error.code) == (status, code)


@pytest.mark.parametrize("ask", ASKS)
@pytest.mark.parametrize(
    "answer", [http(502, PROXY_PAGE), http(504), b"", reset, b"HTTP/1.1 abc\r\n\r\n", b"\0\1\2\r\n"]
)
def test_a_broken_answer(ask: Ask, answer: Answer) -> None:
    """A proxy's 5xx page, a closed or reset connection, nonsense: no usable answer, and a write may have landed."""
    error = failure(ask, answer)
    assert isinstance(error, StoreUnavailableError)
    assert error.ambiguous


@pytest.mark.parametrize("ask", ASKS)
def test_a_silent_server(ask: Ask) -> None:
    """A read timeout is ambiguous: the request was sent."""
    error = failure(ask, silence, read_timeout=0.05)
    assert isinstance(error, StoreUnavailableError)
    assert error.ambiguous
    assert error.code == "ReadTimeoutError"


@pytest.mark.parametrize("ask", ASKS)
def test_a_refused_connection(ask: Ask) -> None:
    """Where nobody listens, nothing was sent: not ambiguous."""
    with Loopback(http(200)) as server:
        endpoint = server.endpoint
    with pytest.raises(StoreUnavailableError, match="no connection to 127") as caught:
        ask(store_at(endpoint))
    assert not caught.value.ambiguous


def test_a_connection_that_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connect timeout comes before the first byte of the request: not ambiguous."""

    def slow(*_: object, **__: object) -> None:
        raise TimeoutError

    monkeypatch.setattr("urllib3.util.connection.create_connection", slow)
    with pytest.raises(StoreUnavailableError) as caught:
        put(store_at("http://127.0.0.1:9"))
    assert caught.value.code == "ConnectTimeoutError"
    assert not caught.value.ambiguous


def test_a_name_that_does_not_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an address nothing was sent."""

    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(StoreUnavailableError) as caught:
        put(store_at("http://does-not-exist.invalid"))
    assert not caught.value.ambiguous


def test_a_client_that_retries_may_have_sent_it_before() -> None:
    """With a given client that retries, a write is in doubt if any of its attempts may have been carried out."""
    with Loopback(reset) as server:
        store = store_at(server.endpoint, attempts=2)

        def close(**_: object) -> None:
            if server.requests:
                server.close()

        store._given.meta.events.register("before-send.s3", close)  # type: ignore[union-attr]
        with pytest.raises(StoreUnavailableError) as caught:
            put(store)
    assert caught.value.code == "EndpointConnectionError"
    assert caught.value.ambiguous


def test_a_client_that_retries_and_never_connects() -> None:
    """With a given client that retries, a write of which no attempt got a connection is not in doubt."""
    with Loopback(http(200)) as server:
        endpoint = server.endpoint
    with pytest.raises(StoreUnavailableError) as caught:
        put(store_at(endpoint, attempts=2))
    assert not caught.value.ambiguous


def test_a_clear_end_after_an_unclear_attempt() -> None:
    """A refusal of the SDK's last attempt says nothing of an earlier one that got no answer."""
    error = failure(put, reset, s3_error(403, "AccessDenied"), attempts=2)
    assert isinstance(error, StoreUnavailableError)
    assert error.ambiguous
    assert "AccessDenied" in str(error)


@pytest.mark.parametrize("ask", [get, head, put])
def test_a_page_that_is_not_s3s(ask: Ask) -> None:
    """200 with a login page: no ETag, so it is neither the object nor the acknowledgement of a write."""
    error = failure(ask, http(200, b"<html>Please log in</html>"))
    assert "proxies" in str(error)
    assert isinstance(error, StoreUnavailableError)
    assert error.ambiguous


@pytest.mark.parametrize("ask", [get, head, put])
def test_half_a_head(ask: Ask) -> None:
    """A connection that ends in good order before the head does is a failure of the network: worth another attempt."""
    error = failure(ask, b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nDate: Sun, 22 N")
    assert isinstance(error, StoreUnavailableError)
    assert "cut off" in str(error)


def test_a_listing_that_is_not_xml() -> None:
    """A listing that cannot be parsed is no empty one."""
    assert isinstance(failure(listing, http(200, b"<html>Please log in")), StoreUnavailableError)


# Other refusals.


@pytest.mark.parametrize("ask", WITH_BODY)
def test_the_wrong_region(ask: Ask) -> None:
    """A bucket elsewhere: the message names the region and the setting."""
    error = failure(ask, s3_error(400, "AuthorizationHeaderMalformed", Region="ap-south-1"))
    assert type(error) is StoreError
    assert "AWS_REGION=ap-south-1" in str(error)
    assert error.facts["region"] == "ap-south-1"


def test_a_redirect() -> None:
    """301 without a body, to a HEAD say, takes the region from the header."""
    error = failure(head, http(301, x_amz_bucket_region="ap-south-1"))
    assert type(error) is StoreError
    assert "ap-south-1" in str(error)


def test_what_is_not_implemented() -> None:
    """501 is permanent: the server has no conditional writes, perhaps."""
    error = failure(create, s3_error(501, "NotImplemented"))
    assert type(error) is StoreError
    assert "Conditional" in str(error)


def test_any_other_refusal_says_what_the_store_said() -> None:
    """Code and message of the store are passed on."""
    error = failure(put, s3_error(400, "EntityTooLarge"))
    assert type(error) is StoreError
    assert "EntityTooLarge: A message." in str(error)


def test_a_range_beyond_the_end() -> None:
    """416, and the empty 200 that some servers send for an empty object, are the same error."""
    for answer in (s3_error(416, "InvalidRange"), http(200, ETag=f'"{ETAG}"')):
        error = failure(lambda store: store.get("key", byte_range=(0, 10)), answer)
        assert type(error) is StoreError


@pytest.mark.parametrize(
    "answer", [http(200, b"0123456789", ETag=ETAG), http(206, b"0123", ETag=ETAG, Content_Range="bytes 0-3/10")]
)
def test_another_range_than_asked_for(answer: bytes) -> None:
    """A server that ignores the range, or sends another one, does not pass for the right bytes."""
    error = failure(lambda store: store.get("key", byte_range=(4, 8)), answer)
    assert error.code == "WrongRange"


# Configuration.


def test_a_bad_bucket_name() -> None:
    """What boto3 itself refuses is an error of configuration."""
    with pytest.raises(ConfigurationError, match="bucket"):
        S3Store("no/such name", client=boto3.client("s3")).get("key")


@pytest.mark.parametrize(("name", "value"), [("AWS_ENDPOINT_URL_S3", "not a url"), ("AWS_PROFILE", "no-such-profile")])
def test_a_client_that_cannot_be_made(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """A broken endpoint or profile is an error of configuration, when the first request is made."""
    monkeypatch.setenv(name, value)
    store = S3Store("bucket")
    for ask in (get, put, lambda store: store.honours_conditions):
        with pytest.raises(ConfigurationError):
            ask(store)


def test_what_is_not_the_sdks_passes() -> None:
    """An error in the caller's own code is not taken for the store's."""

    class Broken:
        def seek(self, *_: object) -> int:
            raise LookupError

        read = tell = seek

    with Loopback(http(200)) as server, pytest.raises(LookupError):
        store_at(server.endpoint).put("key", Broken())  # type: ignore[arg-type]


def test_the_endpoints_password_is_not_repeated() -> None:
    """Credentials in the endpoint's URL do not get into the message."""
    with pytest.raises(StoreUnavailableError) as caught:
        get(store_at("http://user:hunter2@127.0.0.1:9"))
    assert "hunter2" not in str(caught.value)
    assert "127.0.0.1:9" in str(caught.value)


# Bodies.


def _got(answer: Answer, **options: object) -> bytes:
    with Loopback(answer) as server:
        return fetch(store_at(server.endpoint), "key", **options)


@pytest.mark.parametrize("received", [0, 1, 99_999])
def test_a_truncated_body(received: int) -> None:
    """A body that ends before its announced length is an error, wherever it ends."""
    with pytest.raises(StoreUnavailableError, match="s3://bucket/key"):
        _got(http(200, b"x" * received, length=100_000, ETag=ETAG))


def test_a_reset_body() -> None:
    """A connection that is reset within the body is an error of temaki's."""

    def answer(connection: object) -> None:
        connection.sendall(http(200, b"x" * 10, length=100_000, ETag=ETAG))  # type: ignore[attr-defined]
        reset(connection)  # type: ignore[arg-type]

    with pytest.raises(StoreUnavailableError):
        _got(answer)


def test_a_body_that_stops() -> None:
    """A body that stops coming is an error after the read timeout."""

    def answer(connection: object) -> None:
        connection.sendall(http(200, b"x" * 10, length=100_000, ETag=ETAG))  # type: ignore[attr-defined]
        silence(connection)  # type: ignore[arg-type]

    with Loopback(answer) as server:
        download = store_at(server.endpoint, read_timeout=0.05).get("key")
        assert download is not None
        with download, pytest.raises(StoreUnavailableError):
            read_all(download.read)


def test_a_damaged_body() -> None:
    """A body that does not match S3's checksum is an error before its last bytes are handed out."""
    data = b"x" * 100_000
    good = b64encode(struct.pack(">I", binascii.crc32(data))).decode()
    assert _got(http(200, data, ETag=ETAG, x_amz_checksum_crc32=good)) == data
    with pytest.raises(StoreUnavailableError, match="damaged"):
        _got(http(200, data[:-1] + b"y", ETag=ETAG, x_amz_checksum_crc32=good))


# The client.


def test_aws_and_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS is known to honour conditions, whatever the region; nobody else is, whatever the name."""
    for region in ("eu-central-1", "us-east-1", "cn-north-1"):
        monkeypatch.setenv("AWS_DEFAULT_REGION", region)
        assert S3Store("bucket").honours_conditions
    monkeypatch.setenv("AWS_USE_DUALSTACK_ENDPOINT", "true")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    assert S3Store("bucket").honours_conditions
    for endpoint in ("http://127.0.0.1:9", "https://s3.example.com", "https://amazonaws.com.example.com"):
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
        assert not S3Store("bucket").honours_conditions
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "https://evilamazonaws.com")
    assert not S3Store("bucket").honours_conditions


def test_the_own_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """One attempt, short timeouts, temaki's name; for servers other than AWS no checksums that they may not know."""
    with Loopback(s3_error(503, "SlowDown"), http(200, ETag=ETAG)) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.endpoint)
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "5")
        store = S3Store("bucket")
        with pytest.raises(StoreUnavailableError):
            store.put("key", b"data")
        assert len(server.requests) == 1
        store.put("key", b"data")
        store.head("key")
        heads = "\n".join(request.lower() for request, _ in server.requests)
    assert server.requests[1][1] == b"data"
    assert "temaki/" in heads
    for word in ("x-amz-checksum", "x-amz-sdk-checksum", "x-amz-trailer", "aws-chunked"):
        assert word not in heads
    config = own_client(store).meta.config
    assert (config.connect_timeout, config.read_timeout, config.tcp_keepalive) == (3.0, 15.0, True)  # type: ignore[attr-defined]


def test_aws_gets_and_gives_checksums(monkeypatch: pytest.MonkeyPatch) -> None:
    """With AWS, uploads carry a checksum and downloads ask for one."""
    sent: list[str] = []

    def stop(request: object, **_: object) -> None:
        sent.append(str(request.headers).lower().replace("b'", "'"))  # type: ignore[attr-defined]
        raise ConnectionAbortedError

    store = S3Store("bucket")
    assert store.honours_conditions
    own_client(store).meta.events.register("before-send.s3", stop)
    for ask in (get, put):
        with pytest.raises(StoreUnavailableError):
            ask(store)
    assert "'x-amz-checksum-mode': 'enabled'" in sent[0]
    assert "crc32" in sent[1]


@pytest.mark.parametrize("size", [0, s3_client.UNANNOUNCED, s3_client.UNANNOUNCED + 1])
def test_only_a_large_body_waits_for_the_servers_word(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """A commit of a small database costs no round trip for ``100 Continue``, which botocore would wait for."""
    with Loopback(http(200, ETag=ETAG)) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.endpoint)
        store = S3Store("bucket")
        store.put("key", bytes(size))
        store.put("key", io.BytesIO(bytes(size)))
    for head, body in server.requests:
        assert ("expect: 100-continue" in head.lower()) is (size > s3_client.UNANNOUNCED)
        assert len(body) == size


def test_the_client_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that make the first request together share one client; nothing is made before that."""
    made: list[object] = []
    new_client = s3_client.new_client

    def count(place: s3_client.Place | None) -> object:
        made.append(1)
        return new_client(place)

    monkeypatch.setattr(s3_client, "new_client", count)
    store = S3Store("bucket")
    assert made == []
    in_parallel([lambda: store.honours_conditions] * 8)
    assert made == [1]


def test_a_child_has_connections_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a fork the child makes a client of its own; a given client loses its inherited connections first."""
    store = S3Store("bucket")
    assert store.honours_conditions
    mine = own_client(store)
    given = store_at("http://127.0.0.1:9")
    closed: list[int] = []
    monkeypatch.setattr(given._given, "close", lambda: closed.append(os.getpid()))
    with pytest.raises(StoreUnavailableError):
        get(given)
    assert closed == []
    child = os.fork()
    if child == 0:
        right = False
        try:
            assert store.honours_conditions
            for _ in range(2):
                with pytest.raises(StoreUnavailableError):
                    get(given)
            right = own_client(store) is not mine and closed == [os.getpid()]
        finally:
            os._exit(0 if right else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert own_client(store) is mine
