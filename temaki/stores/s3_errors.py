"""What S3, botocore and the network say, in temaki's words.

The distinctions that matter most: a definite "no such key" against every other 404; a refused condition against an
undecided one; a request that certainly never left against one whose fate is unknown.

Codes and their statuses: Amazon S3 API Reference, "Error responses"; conditional writes: User Guide, "How to prevent
object overwrites with conditional writes".
"""

from __future__ import annotations

import http.client
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Literal

from botocore import exceptions as boto
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError as Urllib3Error

from temaki.errors import (
    AccessDeniedError,
    BucketNotFoundError,
    ConfigurationError,
    NotFoundError,
    PreconditionFailedError,
    StoreError,
    StoreUnavailableError,
    TemakiError,
)

_CREDENTIALS = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.TokenRetrievalError,
    boto.NoAuthTokenError,
    boto.SSOError,
    boto.MetadataRetrievalError,
    boto.RefreshWithMFAUnsupportedError,
)
_BODY = (boto.IncompleteReadError, boto.FlexibleChecksumError, boto.ChecksumError)
_NEVER_SENT = (boto.EndpointConnectionError, boto.ConnectTimeoutError)

# Codes that S3 and its imitators send with various statuses; they decide before the status does.
_REGION = {
    "PermanentRedirect",
    "TemporaryRedirect",
    "Redirect",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
}
_DENIED = {
    "AccessDenied": "the credentials lack a permission, or the bucket is another account's",
    "AllAccessDisabled": "all access to it is disabled",
    "AccountProblem": "there is a problem with the AWS account",
    "SignatureDoesNotMatch": "the secret key is wrong",
    "InvalidAccessKeyId": "the access key is not known there",
    "InvalidSecurity": "the credentials are not valid",
    "ExpiredToken": "the session's token has expired. Sign in again, or refresh it",
    "TokenRefreshRequired": "the session's token must be refreshed",
    "InvalidToken": "the session's token is not valid",
    "RequestTimeTooSkewed": "this machine's clock is too far from the store's. Set it",
    "RequestExpired": "this machine's clock is too far from the store's. Set it",
}
_BUSY = {
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "RequestLimitExceeded",
    "BandwidthLimitExceeded",
    "ServiceUnavailable",
    "InternalError",
    "RequestTimeout",
    "RequestTimeoutException",
    "OperationAborted",
}
_DAMAGED_ON_THE_WAY = {"BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch", "IncompleteBody"}

_LIST_BUCKET = (
    "A missing object looks the same to credentials without s3:ListBucket: grant that for the bucket, and "
    "s3:GetObject, s3:PutObject and s3:DeleteObject for its objects."
)


@dataclass(slots=True)
class Request:
    """What was asked, for the message.

    Attributes:
        verb: The method of the store.
        bucket: URL of the bucket.
        url: URL of the object, or of the bucket in a listing.
        endpoint: Host and port of the server, without credentials.
        if_match: Whether the request was for one version only.
        sdk_retries: Whether the SDK may have sent it more than once, so that the last failure is not the whole story.
    """

    verb: Literal["get", "head", "put", "delete", "list"]
    bucket: str
    url: str
    endpoint: str = "its endpoint"
    if_match: bool = False
    sdk_retries: bool = False


def dressed(error: Exception, request: Request) -> TemakiError | None:
    """One of temaki's errors for one that the SDK raised; None for what is not the SDK's."""
    if isinstance(error, boto.ClientError):
        return _answered(error, request)
    if isinstance(error, (boto.BotoCoreError, ResponseParserError, Urllib3Error, http.client.HTTPException, OSError)):
        return _unanswered(error, request)
    return None


def unavailable(
    request: Request, what: str, *, ambiguous: bool = True, status: int | None = None, code: str | None = None
) -> StoreUnavailableError:
    """The error for a request without a usable answer."""
    fate = ""
    if request.verb in {"put", "delete"}:
        fate = " It may have been carried out all the same." if ambiguous else " Nothing was changed."
    message = f"{request.url}: {what}.{fate} Try again."
    return StoreUnavailableError(message, url=request.url, status=status, code=code, ambiguous=ambiguous)


def _unanswered(error: Exception, request: Request) -> TemakiError:
    name = type(error).__name__
    facts: dict[str, Any] = {"url": request.url, "status": None, "code": name}
    if isinstance(error, _CREDENTIALS):
        message = (
            f"{request.url} cannot be accessed: boto3 has no usable credentials ({error}). Set AWS_ACCESS_KEY_ID and "
            f"AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or a role: see boto3's page 'Credentials'."
        )
        return AccessDeniedError(message, **facts)
    if isinstance(error, _NEVER_SENT):
        # botocore raises both before the first byte of the request is written, when it has no connection yet. With
        # retries of its own it may have sent the request before.
        what = f"no connection to {request.endpoint} ({name}). Check the network and the endpoint's URL"
        return unavailable(request, what, ambiguous=request.sdk_retries, code=name)
    if isinstance(error, boto.SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
        message = (
            f"{request.url}: the certificate of {request.endpoint} is not trusted. Nothing was sent. If it is your "
            f"own, set AWS_CA_BUNDLE."
        )
        return StoreError(message, **facts)
    if isinstance(error, _BODY):
        return unavailable(request, f"the body ended early or was damaged on its way ({name})", code=name)
    if isinstance(error, (boto.HTTPClientError, boto.ConnectionError)) or not isinstance(error, boto.BotoCoreError):
        what = f"no usable answer from {request.endpoint} ({name})"
        return unavailable(request, what, code=name)
    message = f"{request.url}: boto3 cannot send this request: {error}. Check its configuration, and the bucket's name."
    return ConfigurationError(message, **facts)


def _answered(error: boto.ClientError, request: Request) -> TemakiError:  # noqa: C901, PLR0911 - a table
    details: dict[str, Any] = dict(error.response.get("Error", {}))
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code = str(details.get("Code") or status)
    facts: dict[str, Any] = {"url": request.url, "status": status, "code": code}
    if code == "NoSuchBucket":
        message = f"The bucket of {request.url} does not exist at {request.endpoint}. Create it, or correct its name."
        return BucketNotFoundError(message, **{**facts, "url": request.bucket})
    if code in _REGION or status in {301, 302, 307, 308}:
        return _wrong_region(error, request, facts)
    if code in _DENIED or status in {401, 403}:
        return _denied(request, facts)
    if status == HTTPStatus.NOT_FOUND:
        return _not_found(request, facts)
    if status == HTTPStatus.PRECONDITION_FAILED:
        message = f"The condition for {request.url} does not hold: the object is another version, or exists already."
        return PreconditionFailedError(message, in_flight=False, **facts)
    if code == "ConditionalRequestConflict":
        message = (
            f"{request.url}: a conflicting request was under way, and this one was not carried out. Send it again."
        )
        return PreconditionFailedError(message, in_flight=True, **facts)
    if status == HTTPStatus.NOT_IMPLEMENTED:
        message = (
            f"{request.url}: {request.endpoint} does not implement this request ({code}). Conditional writes may be "
            f"what it lacks: temaki cannot do without them."
        )
        return StoreError(message, **facts)
    if code in _BUSY or status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in {408, 409, 425, 429}:
        return unavailable(request, f"{request.endpoint} answered {status} {code}", status=status, code=code)
    if code in _DAMAGED_ON_THE_WAY:
        return unavailable(request, f"the body was damaged on its way ({code})", status=status, code=code)
    if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        return StoreError(f"{request.url}: the range starts at or beyond the object's end.", **facts)
    return _other(request, details, facts)


def _not_found(request: Request, facts: dict[str, Any]) -> TemakiError:
    if facts["code"] == "NoSuchVersion":
        return NotFoundError(f"{request.url} has no such version (any more).", **facts)
    if facts["code"] == "NoSuchKey":
        if request.if_match:
            message = f"The condition for {request.url} does not hold: the object does not exist."
            return PreconditionFailedError(message, in_flight=False, **facts)
        if request.verb in {"get", "head"}:
            return NotFoundError(f"{request.url} does not exist.", **facts)
    message = (
        f"{request.url}: {request.endpoint} answered 404, but not as S3 does for a missing object ({facts['code']}). "
        f"That is no sign that the object does not exist. Check the endpoint's URL, and proxies on the way."
    )
    return StoreError(message, **facts)


def _denied(request: Request, facts: dict[str, Any]) -> TemakiError:
    code = facts["code"]
    if code == "InvalidObjectState":
        message = (
            f"{request.url} is archived, so that it cannot be read. Restore it, or keep it out of archive classes."
        )
        return StoreError(message, **facts)
    why = _DENIED.get(code, "access is denied")
    hint = "" if code in _DENIED and code != "AccessDenied" else f" {_LIST_BUCKET}"
    message = f"{request.url} cannot be accessed: {why} ({facts['status']} {code} from {request.endpoint}).{hint}"
    return AccessDeniedError(message, **facts)


def _wrong_region(error: boto.ClientError, request: Request, facts: dict[str, Any]) -> TemakiError:
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    details: dict[str, Any] = dict(error.response.get("Error", {}))
    region = headers.get("x-amz-bucket-region") or details.get("Region") or details.get("Endpoint")
    where = f"in {region!r}" if region else "in another region, or at another endpoint"
    setting = f"AWS_REGION={region}" if region else "AWS_REGION (or AWS_ENDPOINT_URL_S3)"
    message = (
        f"{request.url}: the bucket is {where} ({facts['status']} {facts['code']} from {request.endpoint}). "
        f"Set {setting}, or region in the AWS profile."
    )
    return StoreError(message, region=region, **facts)


def _other(request: Request, details: dict[str, Any], facts: dict[str, Any]) -> TemakiError:
    said = f": {details['Message']}" if details.get("Message") else ""
    hint = ""
    if request.verb == "head" and facts["status"] == HTTPStatus.BAD_REQUEST:
        hint = " An answer to HEAD says no more: an expired token or a wrong region look like this."
    message = f"{request.url}: {request.endpoint} refused it with {facts['status']} {facts['code']}{said}.{hint}"
    return StoreError(message, **facts)
