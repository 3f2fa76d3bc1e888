"""The services and files that give credentials, and what it means that one of them failed.

botocore asks them when it makes a client and when it signs a request, before the first byte is sent.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

from botocore import exceptions as boto

from temaki.errors import AccessDeniedError, TemakiError
from temaki.stores.s3.causes import CERTIFICATE, LASTING, NETWORK, REFUSED_TUNNEL, detail, frames, said_by, texts, where
from temaki.stores.s3.denied import BUSY, why_denied
from temaki.stores.s3.request import Request, unavailable

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


def failed_service(error: BaseException, request: Request) -> str | None:
    """Who failed to give credentials; None if that is not what happened."""
    if isinstance(error, _CONFIGURATION):
        return None
    service = _BY_OPERATION.get(getattr(error, "operation_name", ""))
    if service is not None:
        return service
    found = None
    for frame in frames(error, request.earlier):
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


def no_credentials(error: Exception, request: Request, service: str) -> TemakiError:
    """The error for a request for which ``service`` gave no credentials."""
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
        return _service_down(f"{service} did not answer{where(error)} ({name}{detail(error)})", request, facts)
    said = f"{why} ({said_by(error)})" if why else said_by(error)
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
    tunnel = REFUSED_TUNNEL.search(texts(error))
    if tunnel is not None:
        return tunnel[1].startswith("5")
    if isinstance(error, OSError) and error.errno in LASTING:
        return False
    return isinstance(error, NETWORK) and CERTIFICATE not in str(error)
