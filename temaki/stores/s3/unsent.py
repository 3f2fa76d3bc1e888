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

from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

from botocore import exceptions as boto
from urllib3.exceptions import LocationValueError, ProxySchemeUnknown

from temaki.errors import AccessDeniedError, ConfigurationError, StoreError, TemakiError
from temaki.stores.s3.causes import (
    CERTIFICATE,
    LASTING,
    NETWORK,
    REFUSED_TUNNEL,
    chain,
    frames,
    host_of,
    is_botocores,
    said_by,
    texts,
)
from temaki.stores.s3.credentials import failed_service, no_credentials
from temaki.stores.s3.request import Request, unavailable

_BEFORE_SENDING: Final = {  # functions that end before a request is written
    ("botocore.httpsession", "proxy_url_for"),
    ("botocore.httpsession", "_get_connection_manager"),
    ("botocore.httpsession", "_setup_ssl_cert"),
    ("urllib3.poolmanager", "connection_from_url"),
    ("urllib3.connection", "connect"),
}


def unsent(error: Exception, request: Request) -> TemakiError | None:
    """The error for a request that certainly never left; None where that is not certain, or not the SDK's doing."""
    service = failed_service(error, request)
    if service is not None:
        return no_credentials(error, request, service)
    if isinstance(error, NETWORK) and never_left(error, request.earlier):
        return _no_connection(error, request)
    if request.sent or not is_botocores(error):
        return None
    if isinstance(error, NETWORK) and not (isinstance(error, OSError) and error.errno in LASTING):
        return unavailable(request, f"boto3 could not begin it ({said_by(error)})", ambiguous=False)
    what = "make an S3 client" if request.client is None else "send this request"
    message = (
        f"{request.url}: boto3 cannot {what}: {said_by(error)}. Check AWS_ENDPOINT_URL_S3, the AWS profile, and the "
        f"bucket's name."
    )
    return ConfigurationError(message, url=request.url, status=None, code=type(error).__name__)


def never_left(error: BaseException, earlier: BaseException | None = None) -> bool:
    """Whether the connection was not there yet when this went wrong."""
    if isinstance(error, (boto.EndpointConnectionError, boto.ConnectTimeoutError, boto.ProxyConnectionError)):
        return True
    inner = getattr(error, "kwargs", {}).get("error")
    if isinstance(inner, (LocationValueError, ProxySchemeUnknown, boto.InvalidProxiesConfigError)):
        return True
    return any(
        (frame.f_globals.get("__name__"), frame.f_code.co_name) in _BEFORE_SENDING for frame in frames(error, earlier)
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
    return host_of(proxies.get(urlsplit(url).scheme))


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


# -- the way to the endpoint --------------------------------------------------------------------------------------


def _no_connection(error: Exception, request: Request) -> TemakiError:
    name = type(error).__name__
    facts: dict[str, Any] = {"url": request.url, "status": None, "code": name}
    in_doubt = request.in_doubt if request.sent else request.sdk_retries
    proxy = host_of(getattr(error, "kwargs", {}).get("proxy_url")) or proxy_of(request)
    tunnel = REFUSED_TUNNEL.search(texts(error))
    if isinstance(error, boto.SSLError):
        if CERTIFICATE in str(error):
            advice = "If it is your own, set AWS_CA_BUNDLE."
            message = f"{request.url}: the certificate of {request.endpoint} is not trusted. Nothing was sent. {advice}"
            return StoreError(message, advice=advice, **facts)
        if any(isinstance(one, FileNotFoundError) for one in chain(error, request.earlier)):
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
