"""What fails before a request to S3 leaves: credentials, the services that give them, the way to the endpoint.

None of it is S3's answer. So the errors name what failed instead, and say that nothing was changed.

Two proofs that a request was not sent:

* The traceback passes botocore's code for credentials. botocore asks for them when it makes a client and when it signs,
  both before the first byte is sent. That covers errors of any type: botocore lets those of a helper program, a
  parser or the file system through as they are.
* The traceback passes the code that chooses or opens a connection: proxy, name resolution, connect, CONNECT, TLS
  handshake. The request is written after that.

What has neither proof may have been sent.
"""

from __future__ import annotations

import errno
import http.client
import re
import sys
from collections.abc import Iterator
from http import HTTPStatus
from traceback import walk_tb
from types import FrameType
from typing import Any, Final
from urllib.parse import urlsplit

from botocore import exceptions as boto
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError as Urllib3Error
from urllib3.exceptions import LocationValueError, ProxySchemeUnknown

from temaki.errors import AccessDeniedError, ConfigurationError, StoreError, StoreUnavailableError, TemakiError
from temaki.stores.s3.denied import BUSY, why_denied
from temaki.stores.s3.request import Request

_ANYONE: Final = "boto3's search for credentials"
_STS: Final = "AWS STS"
_METADATA: Final = "the instance metadata service"
_CONTAINER: Final = "the container's credential service"
_PROCESS: Final = "credential_process"
_SSO: Final = "IAM Identity Center (SSO)"
_LOGIN: Final = "the login session ('aws login')"
_WEB_IDENTITY: Final = "the file of the web identity token"
_EXPRESS: Final = "CreateSession of S3 Express"

_BY_CODE: Final = (  # how the qualified names of botocore's functions begin
    ("FileWebIdentityTokenLoader", _WEB_IDENTITY),
    ("S3Express", _EXPRESS),
    ("AssumeRole", _STS),
    ("BaseAssumeRole", _STS),
    ("create_assume_role_refresher", _STS),
    ("create_mfa_serial_refresher", _STS),
    ("InstanceMetadata", _METADATA),
    ("IMDS", _METADATA),
    ("Container", _CONTAINER),
    ("ProcessProvider", _PROCESS),
    ("SSO", _SSO),
    ("Login", _LOGIN),
)
_BY_METHOD: Final = {  # what botocore calls its providers in its messages
    "assume-role": _STS,
    "assume-role-with-web-identity": _STS,
    "sts-assume-role": _STS,
    "iam-role": _METADATA,
    "container-role": _CONTAINER,
    "custom-process": _PROCESS,
    "sso": _SSO,
    "login": _LOGIN,
}
_BY_OPERATION: Final = {
    "AssumeRole": _STS,
    "AssumeRoleWithWebIdentity": _STS,
    "AssumeRoleWithSAML": _STS,
    "GetSessionToken": _STS,
    "GetRoleCredentials": _SSO,
    "CreateToken": _SSO,
    "CreateOAuth2Token": _LOGIN,
    "CreateSession": _EXPRESS,
}
_ADVICE: Final = {
    _STS: "Check the role, its trust policy, and the credentials or the token with which it is assumed.",
    _METADATA: "Check that the instance has a role, and that the service can be reached from here.",
    _CONTAINER: "Check the task's or the pod's role, and AWS_CONTAINER_CREDENTIALS_FULL_URI or _RELATIVE_URI.",
    _PROCESS: "Run the command of the AWS profile's credential_process by hand, and see what it prints.",
    _SSO: "Sign in again: aws sso login.",
    _LOGIN: "Sign in again: aws login.",
    _WEB_IDENTITY: "Check AWS_WEB_IDENTITY_TOKEN_FILE.",
    _EXPRESS: "Grant s3express:CreateSession for the bucket.",
    _ANYONE: (
        "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or a role: see boto3's page 'Credentials'."
    ),
}
_MODULES: Final = ("botocore.credentials", "botocore.tokens")
_CREDENTIALS: Final = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.TokenRetrievalError,
    boto.NoAuthTokenError,
    boto.SSOError,
    boto.MetadataRetrievalError,
    boto.RefreshWithMFAUnsupportedError,
    *(kind for name in ("LoginError",) if (kind := getattr(boto, name, None)) is not None),  # newer than some botocores
)
_CONFIGURATION: Final = (
    boto.ProfileNotFound,
    boto.ConfigNotFound,
    boto.ConfigParseError,
    boto.InvalidConfigError,
    boto.UnknownCredentialError,
    boto.MissingDependencyException,
    boto.NoRegionError,
)
_NETWORK: Final = (
    boto.HTTPClientError,
    boto.ConnectionError,
    ResponseParserError,
    Urllib3Error,
    http.client.HTTPException,
    OSError,
)
_LASTING: Final = {  # errors of the system that waiting does not mend
    errno.ENOENT,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENOEXEC,
    errno.ELOOP,
}
_BEFORE_SENDING: Final = {  # functions that end before a request is written
    ("botocore.httpsession", "proxy_url_for"),
    ("botocore.httpsession", "_get_connection_manager"),
    ("botocore.httpsession", "_setup_ssl_cert"),
    ("urllib3.poolmanager", "connection_from_url"),
    ("urllib3.connection", "connect"),
}
_REFUSED_TUNNEL: Final = re.compile(r"Tunnel connection failed: (\d{3})")
_CERTIFICATE: Final = "CERTIFICATE_VERIFY_FAILED"
_LONGEST: Final = 300  # characters of another program's message that are repeated


def unsent(error: Exception, request: Request) -> TemakiError | None:
    """The error for a request that certainly never left; None where that is not certain, or not the SDK's doing."""
    service = failed_service(error, request)
    if service is not None:
        return _no_credentials(error, request, service)
    if isinstance(error, _NETWORK) and never_left(error, request.earlier):
        return _no_connection(error, request)
    if request.sent or not _is_botocores(error):
        return None
    if isinstance(error, _NETWORK) and not (isinstance(error, OSError) and error.errno in _LASTING):
        return unavailable(request, f"boto3 could not begin it ({_said(error)})", ambiguous=False)
    what = "make an S3 client" if request.client is None else "send this request"
    message = (
        f"{request.url}: boto3 cannot {what}: {_said(error)}. Check AWS_ENDPOINT_URL_S3, the AWS profile, and the "
        f"bucket's name."
    )
    return ConfigurationError(message, url=request.url, status=None, code=type(error).__name__)


def failed_service(error: BaseException, request: Request) -> str | None:
    """Who failed to give credentials; None if that is not what happened."""
    if isinstance(error, _CONFIGURATION):
        return None
    service = _BY_OPERATION.get(getattr(error, "operation_name", ""))
    if service is not None:
        return service
    found = None
    for frame in _frames(error, request.earlier):
        if frame.f_globals.get("__name__") in _MODULES:
            method = getattr(frame.f_locals.get("self"), "method", None)
            found = found or _BY_METHOD.get(str(method), _ANYONE)
        if str(frame.f_globals.get("__name__")).startswith("botocore."):
            name = frame.f_code.co_qualname
            found = next((text for start, text in _BY_CODE if name.startswith(start)), found)
    if found is None and not isinstance(error, _CREDENTIALS):
        return None
    if found in {None, _ANYONE}:
        found = _BY_METHOD.get(str(getattr(error, "kwargs", {}).get("provider")), found)
    return found or _ANYONE


def never_left(error: BaseException, earlier: BaseException | None = None) -> bool:
    """Whether the connection was not there yet when this went wrong."""
    if isinstance(error, (boto.EndpointConnectionError, boto.ConnectTimeoutError, boto.ProxyConnectionError)):
        return True
    inner = getattr(error, "kwargs", {}).get("error")
    if isinstance(inner, (LocationValueError, ProxySchemeUnknown, boto.InvalidProxiesConfigError)):
        return True
    return any(
        (frame.f_globals.get("__name__"), frame.f_code.co_name) in _BEFORE_SENDING for frame in _frames(error, earlier)
    )


def proxy_of(request: Request) -> str | None:
    """Host and port of the proxy that is configured for the endpoint, by botocore's rules."""
    if request.client is None:
        return None
    from botocore.utils import get_environ_proxies

    url = request.client.meta.endpoint_url
    proxies = getattr(request.client.meta.config, "proxies", None)
    if proxies is None:
        proxies = get_environ_proxies(url)
    return _host(proxies.get(urlsplit(url).scheme))


def refused_by_proxy(status: int, proxy: str, request: Request, facts: dict[str, Any]) -> TemakiError:
    """A proxy's own refusal, which is certain: it has passed nothing on."""
    if status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        what = f"the proxy {proxy} asks for a name and a password ({status})"
        advice = "Put them into HTTPS_PROXY or HTTP_PROXY: http://name:password@host:port."
    else:
        what = f"the proxy {proxy} does not let requests to {request.endpoint} through ({status})"
        advice = f"Allow {request.endpoint} there, or list it in NO_PROXY."
    message = f"{request.url} cannot be accessed: {what}. {advice}"
    return AccessDeniedError(message, advice=advice, lacks_permission=False, service=f"the proxy {proxy}", **facts)


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
    if request.verb in {"put", "delete"}:
        fate = " It may have been carried out all the same." if ambiguous else " Nothing was changed."
    message = f"{request.url}: {what}.{fate} Try again."
    facts = {"url": request.url, "status": status, "code": code, "ambiguous": ambiguous}
    if service is not None:
        facts |= {"service": service, "advice": advice}
        message += f" {advice}" if advice else ""
    return StoreUnavailableError(message, **facts)


# -- credentials --------------------------------------------------------------------------------------------------


def _no_credentials(error: Exception, request: Request, service: str) -> TemakiError:
    name = type(error).__name__
    facts: dict[str, Any] = {"url": request.url, "status": None, "code": name, "service": service}
    why, advice = "", _ADVICE[service]
    if isinstance(error, boto.ClientError):
        facts["code"] = code = str(error.response.get("Error", {}).get("Code") or name)
        facts["status"] = status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if code in BUSY or (status or 0) >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS:
            return _service_down(f"{service} is busy ({status} {code})", request, facts)
        why, better = why_denied(code)
        advice = better or advice
    elif _is_passing(error, service):
        return _service_down(f"{service} did not answer{_where(error)} ({name}{_detail(error)})", request, facts)
    said = f"{why} ({_said(error)})" if why else _said(error)
    if isinstance(error, boto.NoCredentialsError):
        what = "boto3 found no credentials: none are configured, and no metadata service gave any"
    else:
        what = f"{service} gave no credentials: {said}"
    message = f"{request.url} cannot be accessed: {what}. {advice}"
    return AccessDeniedError(message, advice=advice, lacks_permission=False, **facts)


def _service_down(what: str, request: Request, facts: dict[str, Any]) -> TemakiError:
    rest = {name: value for name, value in facts.items() if name != "url"}
    advice = f"If it lasts, check {facts['service']}."
    return unavailable(request, f"no credentials: {what}", ambiguous=request.in_doubt, advice=advice, **rest)


def _is_passing(error: Exception, service: str) -> bool:
    """Whether the next attempt may work without anybody doing something."""
    if isinstance(error, (boto.MetadataRetrievalError, boto.CredentialRetrievalError)):
        return service in {_METADATA, _CONTAINER}
    tunnel = _REFUSED_TUNNEL.search(_texts(error))
    if tunnel is not None:
        return tunnel[1].startswith("5")
    if isinstance(error, OSError) and error.errno in _LASTING:
        return False
    return isinstance(error, _NETWORK) and _CERTIFICATE not in str(error)


# -- the way to the endpoint --------------------------------------------------------------------------------------


def _no_connection(error: Exception, request: Request) -> TemakiError:
    name = type(error).__name__
    facts: dict[str, Any] = {"url": request.url, "status": None, "code": name}
    in_doubt = request.in_doubt if request.sent else request.sdk_retries
    proxy = _host(getattr(error, "kwargs", {}).get("proxy_url")) or proxy_of(request)
    tunnel = _REFUSED_TUNNEL.search(_texts(error))
    if isinstance(error, boto.SSLError):
        if _CERTIFICATE in str(error):
            advice = "If it is your own, set AWS_CA_BUNDLE."
            message = f"{request.url}: the certificate of {request.endpoint} is not trusted. Nothing was sent. {advice}"
            return StoreError(message, advice=advice, **facts)
        if any(isinstance(one, FileNotFoundError) for one in _chain(error, request.earlier)):
            advice = "Correct AWS_CA_BUNDLE, or ca_bundle of the AWS profile."
            message = f"{request.url}: the file of trusted certificates cannot be read. Nothing was sent. {advice}"
            return StoreError(message, advice=advice, **facts)
    if proxy is not None:
        service = f"the proxy {proxy}"
        advice = "Check HTTPS_PROXY, HTTP_PROXY and NO_PROXY."
        if tunnel is not None:
            status = int(tunnel[1])
            if status < HTTPStatus.INTERNAL_SERVER_ERROR and status != HTTPStatus.TOO_MANY_REQUESTS:
                return refused_by_proxy(status, proxy, request, {**facts, "status": status})
            what = f"the proxy {proxy} gave no connection to {request.endpoint} ({status})"
            return unavailable(
                request, what, ambiguous=in_doubt, status=status, code=name, service=service, advice=advice
            )
        what = f"no connection to {request.endpoint} through the proxy {proxy} ({name})"
        return unavailable(request, what, ambiguous=in_doubt, code=name, service=service, advice=advice)
    what = f"no connection to {request.endpoint} ({name}). Check the network and the endpoint's URL"
    return unavailable(request, what, ambiguous=in_doubt, code=name)


# -- looking into errors ------------------------------------------------------------------------------------------


def _chain(error: BaseException | None, earlier: BaseException | None) -> Iterator[BaseException]:
    """The error and those that it came from, as far as they belong to this request."""
    left, seen = [error], {id(earlier)}
    while left:
        one = left.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        left += [one.__context__, one.__cause__]


def _frames(error: BaseException, earlier: BaseException | None) -> Iterator[FrameType]:
    for one in _chain(error, earlier):
        for frame, _ in walk_tb(one.__traceback__):
            yield frame


def _is_botocores(error: BaseException) -> bool:
    """Whether it was raised by botocore, or by what botocore called, and not by code of ours or of the caller's."""
    modules = [str(frame.f_globals.get("__name__")) for frame, _ in walk_tb(error.__traceback__)]
    names = [module.partition(".")[0] for module in modules]
    if "botocore" not in names or "botocore.httpsession" in modules:  # the latter is where requests leave
        return False
    deepest = names[len(names) - names[::-1].index("botocore") :]
    known = sys.stdlib_module_names | {"urllib3", "dateutil", "jmespath", "awscrt"}
    return all(name in known for name in deepest)


def _host(url: str | None) -> str | None:
    """Host and port of a URL, which may lack its scheme, without credentials."""
    if not url:
        return None
    try:
        return urlsplit(url if "://" in url else f"//{url}").netloc.rpartition("@")[2] or None
    except ValueError:  # a URL that is none, which may be what went wrong
        return None


def _where(error: BaseException) -> str:
    facts = getattr(error, "kwargs", {})
    endpoint, proxy = _host(facts.get("endpoint_url")), _host(facts.get("proxy_url"))
    found = f" at {endpoint}" if endpoint else ""
    return found + (f" through the proxy {proxy}" if proxy else "")


def _detail(error: BaseException) -> str:
    """More than the error's class, where it has no address."""
    return "" if _where(error) else f": {_said(error)}"


def _said(error: BaseException) -> str:
    """What another program or service said, in one line that ends without a full stop."""
    text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    if not isinstance(error, (boto.BotoCoreError, boto.ClientError, OSError)):
        text = f"{type(error).__name__}: {text}"
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


def _texts(error: BaseException) -> str:
    return " ".join(str(one) for one in _chain(error, None))
