"""What fails before a request to S3 leaves is never in doubt, and names what failed.

botocore is the real one, and so are the services: servers on loopback, helper programs, files.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha1
from pathlib import Path

import boto3
import pytest
from botocore.config import Config
from botocore.credentials import RefreshableCredentials
from botocore.session import get_session
from botocore.utils import InstanceMetadataFetcher

from temaki.errors import AccessDeniedError, ConfigurationError, StoreError, StoreUnavailableError, TemakiError
from temaki.stores.s3 import client as s3_client
from temaki.stores.s3.store import S3Store
from tests.network.loopback import Loopback
from tests.network.messages import http
from tests.network.policies import Answer
from tests.network.wire import Listener, reset, silence

ETAG = "0123456789abcdef0123456789abcdef"
SECRET = "a-secret-that-nobody-may-see"
DENIED, DOWN, SETTING = AccessDeniedError, StoreUnavailableError, ConfigurationError

Ask = Callable[[S3Store], object]


def get(store: S3Store) -> object:
    """Read."""
    return store.get("key")


def head(store: S3Store) -> object:
    """Ask."""
    return store.head("key")


def put(store: S3Store) -> object:
    """Write."""
    return store.put("key", b"data", if_match=ETAG)


def delete(store: S3Store) -> None:
    """Remove."""
    store.delete("key")


ASKS: list[Ask] = [get, head, put, delete]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No credentials, no proxy, and no configuration of whoever runs the tests."""
    for name in list(os.environ):
        if name.startswith("AWS_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    for provider in ("credentials.SSOProvider", "tokens.SSOTokenProvider"):
        monkeypatch.setattr(f"botocore.{provider}._SSO_TOKEN_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    """A server that would accept anything, if it were asked."""
    with Loopback(http(200, ETag=f'"{ETAG}"')) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.endpoint)
        yield server


def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials that need nobody."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)


def failure(
    ask: Ask, kind: type[StoreError | ConfigurationError], *words: str, store: S3Store | None = None
) -> TemakiError:
    """The error; what each of them has to be is checked here."""
    with pytest.raises(TemakiError) as caught:
        ask(store or S3Store("bucket"))
    error = caught.value
    assert type(error) is kind, error
    for word in words:
        assert word in str(error)
    assert "s3://bucket" in str(error)
    assert "ListBucket" not in str(error)
    assert SECRET not in str(error)
    if isinstance(error, StoreUnavailableError):
        assert not error.ambiguous
    return error


# Helper programs.


def printed(expiration: str) -> str:
    """What a helper program prints."""
    given = {"AccessKeyId": "A", "SecretAccessKey": SECRET, "SessionToken": "C", "Expiration": expiration}
    return json.dumps({"Version": 1, **given})


PROGRAMS = {
    "missing": ("/no/such/program", "/no/such/program"),
    "no program": (f"{os.devnull}", "Permission denied"),
    "fails": ("sh -c 'echo the vault is sealed >&2; exit 3'", "the vault is sealed"),
    "killed": ("sh -c 'kill -9 $$'", "credential_process"),
    "prints nothing": ("true", "JSONDecodeError"),
    "prints rubbish": ("echo Please log in", "JSONDecodeError"),
    "prints bytes": (r"printf \\377", "UnicodeDecodeError"),
    "prints a list": ("echo [1]", "AttributeError"),
    "prints another version": ("echo '{\"Version\": 2}'", "Unsupported version"),
    "prints half": ('echo \'{"Version": 1, "AccessKeyId": "A"}\'', "SecretAccessKey"),
    "prints no date": (f"echo '{printed('soon')}'", "soon"),
    "prints an old date": (f"echo '{printed('2020-01-01T00:00:00Z')}'", "expired"),
}


@pytest.mark.parametrize("ask", ASKS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_credential_process_that_fails(tmp_path: Path, s3: Loopback, ask: Ask, name: str) -> None:
    """Whatever a helper program does, nothing was sent, and the error names the setting that calls it."""
    program, word = PROGRAMS[name]
    (tmp_path / "config").write_text(f"[default]\ncredential_process = {program}\n")
    error = failure(ask, DENIED, "credential_process", word)
    assert error.facts["service"] == "credential_process"
    assert s3.requests == []


# Services.


def sts_error(status: int, code: str) -> bytes:
    """A refusal by AWS STS."""
    text = f"<Error><Type>Sender</Type><Code>{code}</Code><Message>A message.</Message></Error>"
    return http(status, f"<ErrorResponse>{text}</ErrorResponse>".encode())


@pytest.mark.parametrize("ask", ASKS)
@pytest.mark.parametrize(
    ("answer", "kind", "word"),
    [
        (sts_error(400, "ExpiredTokenException"), DENIED, "expired"),
        (sts_error(403, "AccessDenied"), DENIED, "trust policy"),
        (sts_error(400, "InvalidIdentityToken"), DENIED, "not valid"),
        (sts_error(403, "SignatureDoesNotMatch"), DENIED, "secret key is wrong"),
        (sts_error(400, "Throttling"), DOWN, "busy"),
        (sts_error(400, "IDPCommunicationError"), DOWN, "busy"),
        (sts_error(503, "ServiceUnavailable"), DOWN, "busy"),
        (http(500), DOWN, "busy"),
        (http(200, b"<html>Please log in"), DOWN, "did not answer"),
        (reset, DOWN, "did not answer"),
        (b"", DOWN, "did not answer"),
        (b"HTTP/1.1 abc\r\n\r\n", DOWN, "did not answer"),
        (silence, DOWN, "did not answer"),
    ],
)
def test_sts_fails(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    s3: Loopback,
    ask: Ask,
    answer: Answer,
    kind: type[StoreError],
    word: str,
) -> None:
    """A role that cannot be assumed: final if STS refuses, retryable if it is busy or does not answer."""
    monkeypatch.setattr(s3_client, "READ_TIMEOUT", 0.1)
    (tmp_path / "token").write_text("eyJhbGciOiJub25lIn0.e30.")
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/app")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    with Loopback(answer) as sts:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", sts.endpoint)
        error = failure(ask, kind, "AWS STS", word)
        assert error.facts["service"] == "AWS STS"
        assert len(sts.requests) == 1
    failure(ask, DOWN, "AWS STS", sts.endpoint.removeprefix("http://"))
    assert s3.requests == []


@pytest.mark.parametrize("ask", ASKS)
def test_a_missing_web_identity_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, s3: Loopback, ask: Ask) -> None:
    """The error names the file that is missing."""
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/app")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "no-token"))
    failure(ask, DENIED, "no-token", "AWS_WEB_IDENTITY_TOKEN_FILE")
    assert s3.requests == []


@pytest.mark.parametrize("ask", ASKS)
@pytest.mark.parametrize("answer", [http(500), http(403), http(200, b"rubbish"), reset])
def test_the_containers_credentials_fail(
    monkeypatch: pytest.MonkeyPatch, s3: Loopback, ask: Ask, answer: Answer
) -> None:
    """The credential service of a task or pod that does not give any: retryable, and named."""
    monkeypatch.setattr("botocore.utils.ContainerMetadataFetcher.SLEEP_TIME", 0)
    with Loopback(answer) as service:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{service.endpoint}/credentials")
        failure(ask, DOWN, "the container's credential service")
    failure(ask, DOWN, "the container's credential service")
    assert s3.requests == []


@pytest.mark.parametrize("ask", ASKS)
def test_the_containers_address_is_not_allowed(monkeypatch: pytest.MonkeyPatch, s3: Loopback, ask: Ask) -> None:
    """An address that botocore refuses to ask is final."""
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://192.0.2.1/credentials")
    failure(ask, DENIED, "the container's credential service", "192.0.2.1")
    assert s3.requests == []


def refreshed_by(refresh: Callable[[], object], method: str) -> S3Store:
    """A store whose given client has credentials that are over. With retries of its own, as by default."""
    session = get_session()
    session._credentials = RefreshableCredentials(  # type: ignore[attr-defined]
        "A", SECRET, "C", datetime.now(UTC), refresh, method, lambda: datetime.now(UTC)
    )
    return S3Store("bucket", client=boto3.session.Session(botocore_session=session).client("s3"))


@pytest.mark.parametrize("ask", ASKS)
@pytest.mark.parametrize("answer", [http(503), silence, reset])
def test_the_metadata_service_stops_answering(s3: Loopback, ask: Ask, answer: Answer) -> None:
    """An instance's credentials are over, and the service that renews them is late: retryable, and named."""
    with Loopback(answer) as service:
        fetcher = InstanceMetadataFetcher(timeout=0.1, base_url=service.endpoint, env={})  # type: ignore[arg-type]
        failure(
            ask,
            DOWN,
            "the instance metadata service",
            store=refreshed_by(fetcher.retrieve_iam_role_credentials, "iam-role"),
        )
    assert s3.requests == []


@pytest.mark.parametrize("ask", [get, head])
@pytest.mark.parametrize("answer", [http(503), reset])
def test_the_metadata_service_is_late_at_the_start(
    monkeypatch: pytest.MonkeyPatch, s3: Loopback, ask: Ask, answer: Answer
) -> None:
    """The first request fails, and the next one asks again. The client would be without credentials for ever."""
    end = (datetime.now(UTC) + timedelta(hours=6)).strftime("%Y-%m-%dT%H:%M:%SZ")
    given = {"Code": "Success", "AccessKeyId": "A", "SecretAccessKey": "B", "Token": "C", "Expiration": end}
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    with Loopback(answer) as service:
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", service.endpoint)
        store = S3Store("bucket")
        failure(ask, DENIED, "found no credentials", store=store)
        service.answer(http(200, b"token"), http(200, b"role"), http(200, json.dumps(given).encode()))
        ask(store)
    assert len(s3.requests) == 1


def sso(tmp_path: Path, expires: str | None) -> None:
    """A profile that was signed in with ``aws sso login`` once, or never."""
    (tmp_path / "config").write_text(
        "[default]\nsso_session = corp\nsso_account_id = 123456789012\nsso_role_name = app\nregion = eu-central-1\n"
        "[sso-session corp]\nsso_region = eu-central-1\nsso_start_url = https://corp.example.com/start\n"
    )
    if expires is not None:
        name = sha1(b"corp", usedforsecurity=False).hexdigest()
        token = {"accessToken": SECRET, "expiresAt": expires, "region": "eu-central-1"}
        (tmp_path / f"{name}.json").write_text(json.dumps(token))


@pytest.mark.parametrize("ask", ASKS)
@pytest.mark.parametrize("expires", [None, "2020-01-01T00:00:00Z"])
def test_sso_is_over(tmp_path: Path, s3: Loopback, ask: Ask, expires: str | None) -> None:
    """A token of SSO that is missing or has expired: sign in again."""
    sso(tmp_path, expires)
    failure(ask, DENIED, "SSO", "aws sso login")
    assert s3.requests == []


@pytest.mark.parametrize("ask", ASKS)
@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (http(401, b'{"message": "Session token not found or invalid"}'), DENIED),
        (http(429, b'{"message": "slow"}'), DOWN),
        (reset, DOWN),
    ],
)
def test_sso_does_not_give_credentials(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, s3: Loopback, ask: Ask, answer: Answer, kind: type[StoreError]
) -> None:
    """SSO itself: final if it refuses, retryable if it is busy or does not answer."""
    sso(tmp_path, "2099-01-01T00:00:00Z")
    with Loopback(answer) as service:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SSO", service.endpoint)
        failure(ask, kind, "SSO")
    assert s3.requests == []


@pytest.mark.parametrize("ask", ASKS)
@pytest.mark.parametrize(
    ("config", "kind", "word"),
    [
        ("[default]\naws_access_key_id = A\n", DENIED, "aws_secret_access_key"),
        ("[default]\nrole_arn = arn:aws:iam::1:role/app\nsource_profile = other\n", SETTING, "other"),
        ("[default]\nrole_arn = arn:aws:iam::1:role/app\n", DENIED, "source_profile"),
        ("[default]\nrole_arn = arn:aws:iam::1:role/app\nsource_profile = default\n", SETTING, "default"),
        ("[default]\nrole_arn = arn:aws:iam::1:role/app\ncredential_source = Nobody\n", SETTING, "Nobody"),
        ("default]\n", SETTING, "config"),
        ("", DENIED, "found no credentials"),
    ],
)
def test_a_configuration_that_gives_no_credentials(
    tmp_path: Path, s3: Loopback, ask: Ask, config: str, kind: type[StoreError], word: str
) -> None:
    """Files that boto3 cannot use: never in doubt, and the message says what is wrong in them."""
    (tmp_path / "config").write_text(config)
    failure(ask, kind, word)
    assert s3.requests == []


@pytest.mark.parametrize("trouble", [ValueError("rubbish"), KeyError("token"), PermissionError(13, "no"), OSError("x")])
def test_a_refresh_of_ones_own(trouble: Exception, s3: Loopback) -> None:
    """A given client whose credentials are refreshed by the application, with any error: not in doubt."""

    def refresh() -> dict[str, str]:
        raise trouble

    store = refreshed_by(refresh, "mine")
    for ask in ASKS:
        error = failure(ask, DOWN if type(trouble) is OSError else DENIED, store=store)
        assert error.__cause__ is trouble
    assert s3.requests == []


def test_an_earlier_error_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that is made while a failed connection is being handled is judged by its own errors alone."""
    keys(monkeypatch)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    with pytest.raises(StoreUnavailableError) as earlier:
        put(S3Store("bucket"))
    with Loopback(reset) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.endpoint)
        try:
            raise earlier.value
        except StoreUnavailableError:
            with pytest.raises(StoreUnavailableError) as caught:
                put(S3Store("bucket"))
    assert (earlier.value.ambiguous, caught.value.ambiguous) == (False, True)


# Proxies.


def through(monkeypatch: pytest.MonkeyPatch, proxy: str, scheme: str = "http") -> None:
    """S3 is behind a proxy."""
    keys(monkeypatch)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"{scheme}://s3.example.com")
    monkeypatch.setenv(f"{scheme}_proxy", proxy)


@pytest.mark.parametrize("ask", ASKS)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_is_down(monkeypatch: pytest.MonkeyPatch, ask: Ask, scheme: str) -> None:
    """Nobody listens: not in doubt, and the proxy is named, without its password."""
    with Loopback(http(200)) as server:
        port = server.endpoint.rpartition(":")[2]
    through(monkeypatch, f"http://me:{SECRET}@127.0.0.1:{port}", scheme)
    error = failure(ask, DOWN, f"the proxy 127.0.0.1:{port}", "s3.example.com")
    assert error.facts["service"] == f"the proxy 127.0.0.1:{port}"


@pytest.mark.parametrize("ask", ASKS)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_without_an_address(monkeypatch: pytest.MonkeyPatch, ask: Ask, scheme: str) -> None:
    """A name that does not resolve is the proxy's, and named."""

    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    through(monkeypatch, "http://proxy.invalid:3128", scheme)
    failure(ask, DOWN, "the proxy proxy.invalid:3128")


@pytest.mark.parametrize("ask", ASKS)
@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1080", "http://[bad", "http://127.0.0.1:notaport"])
def test_a_proxy_that_is_no_proxy(monkeypatch: pytest.MonkeyPatch, ask: Ask, proxy: str) -> None:
    """A setting that cannot work is not in doubt."""
    through(monkeypatch, proxy)
    with pytest.raises(TemakiError) as caught:
        ask(S3Store("bucket"))
    assert not getattr(caught.value, "ambiguous", False)


@pytest.mark.parametrize("ask", ASKS)
@pytest.mark.parametrize(
    ("answer", "kind", "word"),
    [
        (http(407), DENIED, "asks for a name and a password"),
        (http(403), DENIED, "does not let requests to s3.example.com through"),
        (http(502), DOWN, "gave no connection to s3.example.com (502)"),
        (http(503), DOWN, "503"),
        (http(504), DOWN, "504"),
        (reset, DOWN, "no connection to s3.example.com"),
        (b"", DOWN, "no connection to s3.example.com"),
        (silence, DOWN, "no connection to s3.example.com"),
        (b"rubbish\r\n\r\n", DOWN, "no connection to s3.example.com"),
    ],
)
def test_a_proxy_that_opens_no_tunnel(
    monkeypatch: pytest.MonkeyPatch, ask: Ask, answer: Answer, kind: type[StoreError], word: str
) -> None:
    """Before the answer to CONNECT nothing of the request is sent, so that whatever happens there is certain."""
    monkeypatch.setattr(s3_client, "CONNECT_TIMEOUT", 0.1)
    with Loopback(answer) as proxy:
        through(monkeypatch, proxy.endpoint, "https")
        failure(ask, kind, f"the proxy {proxy.endpoint.removeprefix('http://')}", word)
        assert all(request.startswith("CONNECT s3.example.com:443") for request, _ in proxy.requests)


@pytest.mark.parametrize("ask", ASKS)
@pytest.mark.parametrize(("status", "word"), [(407, "name and a password"), (403, "does not let"), (401, "does not")])
def test_a_proxy_that_refuses(monkeypatch: pytest.MonkeyPatch, ask: Ask, status: int, word: str) -> None:
    """A plain proxy that refuses passes nothing on: final. The error names the proxy, and no permission of S3."""
    with Loopback(http(status, b"<html>Access Denied")) as proxy:
        through(monkeypatch, proxy.endpoint)
        failure(ask, DENIED, f"the proxy {proxy.endpoint.removeprefix('http://')}", word)


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_proxy_that_got_no_answer(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    """A plain proxy's 5xx page may come after it has passed the request on: in doubt. The error names both."""
    with Loopback(http(status, b"<html>Bad Gateway")) as proxy:
        through(monkeypatch, proxy.endpoint)
        with pytest.raises(StoreUnavailableError, match=proxy.endpoint.removeprefix("http://")) as caught:
            put(S3Store("bucket"))
    assert caught.value.ambiguous


@pytest.mark.parametrize("given", [False, True])
def test_a_given_clients_proxy(monkeypatch: pytest.MonkeyPatch, given: bool) -> None:
    """A proxy in the client's own configuration is named, and one that is left out is not."""
    keys(monkeypatch)
    with Loopback(http(407)) as proxy:
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
        config = Config(proxies={"http": proxy.endpoint} if given else {}, connect_timeout=1)
        endpoint = "http://s3.example.com" if given else proxy.endpoint
        client = boto3.session.Session().client("s3", endpoint_url=endpoint, config=config)
        error = failure(put, DENIED, "asks for a name", store=S3Store("bucket", client=client))
    assert ("127.0.0.1:9" in str(error)) is False
    assert (proxy.endpoint.removeprefix("http://") in str(error)) is given


# TLS.


def wait(connection: socket.socket) -> None:
    """Read all that comes, and answer nothing."""
    while connection.recv(65_536):
        pass


@contextmanager
def broken(talk: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server whose TLS does not come to be."""

    def handle(connection: socket.socket) -> None:
        connection.recv(1)
        talk(connection)

    with Listener(handle) as listener:
        yield f"https://{listener.address}"


@pytest.mark.parametrize("ask", ASKS)
@pytest.mark.parametrize("talk", [reset, wait, lambda _: None, lambda one: one.sendall(b"HTTP/1.1 400 Bad\r\n\r\n")])
def test_a_handshake_that_fails(
    monkeypatch: pytest.MonkeyPatch, ask: Ask, talk: Callable[[socket.socket], None]
) -> None:
    """The request is written after the handshake, so that a failed one is not in doubt."""
    keys(monkeypatch)
    monkeypatch.setattr(s3_client, "CONNECT_TIMEOUT", 0.1)
    with broken(talk) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
        failure(ask, DOWN, endpoint.removeprefix("https://"))


@pytest.mark.parametrize("ask", ASKS)
def test_trusted_certificates_that_are_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ask: Ask) -> None:
    """A file of certificates that is not there: the setting is named, and nothing was sent."""
    keys(monkeypatch)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "none.pem"))
    with broken(lambda _: None) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
        failure(ask, StoreError, "AWS_CA_BUNDLE")
