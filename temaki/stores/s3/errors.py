"""What S3, botocore and the network say, in temaki's words.

The distinctions that matter most: a definite "no such key" against every other 404; a refused condition against an
undecided one; a request that certainly never left against one whose fate is unknown.

Codes and their statuses: Amazon S3 API Reference, "Error responses"; conditional writes: User Guide, "How to prevent
object overwrites with conditional writes".
"""

from __future__ import annotations

import http.client
from http import HTTPStatus
from typing import Any

from botocore import exceptions as boto
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError as Urllib3Error

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
from temaki.stores.s3.denied import BUSY, REFUSED_CREDENTIALS, S3_CODES, denial
from temaki.stores.s3.request import WRITES, Request, unavailable
from temaki.stores.s3.unsent import proxy_of, refused_by_proxy, unsent

_OPERATIONS = {
    "GetObject",
    "HeadObject",
    "PutObject",
    "DeleteObject",
    "ListObjectsV2",
    "ListObjectVersions",
    "GetBucketVersioning",
    "GetBucketLifecycleConfiguration",
    "CopyObject",
    "CreateMultipartUpload",
    "UploadPart",
    "UploadPartCopy",
    "CompleteMultipartUpload",
    "AbortMultipartUpload",
}
"""What the store asks S3 for. An answer to anything else is that of another service, which botocore asked before."""

_BODY = (boto.IncompleteReadError, boto.FlexibleChecksumError, boto.ChecksumError)
# Codes that S3 and its imitators send with various statuses; they decide before the status does.
_REGION = {
    "PermanentRedirect",
    "TemporaryRedirect",
    "Redirect",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
}
_DAMAGED_ON_THE_WAY = {"BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch", "IncompleteBody"}


def translated(error: Exception, request: Request) -> TemakiError | None:
    """One of temaki's errors for one that the SDK raised; None for what is not the SDK's."""
    if isinstance(error, TemakiError):
        return None
    found = _translated(error, request)
    if found is None or not request.in_doubt or request.verb not in WRITES:
        return found
    if isinstance(found, (StoreUnavailableError, PreconditionFailedError)):
        return found
    # The last of the SDK's attempts has a clear end, and an earlier one has not.
    return unavailable(request, f"an earlier attempt got no answer, and the last one failed ({found})")


def _translated(error: Exception, request: Request) -> TemakiError | None:
    if isinstance(error, boto.ClientError) and error.operation_name in _OPERATIONS:
        return _answered(error, request)
    found = unsent(error, request)
    if found is not None:
        return found
    if isinstance(error, boto.ClientError):
        return _answered(error, request)
    if isinstance(error, (boto.BotoCoreError, ResponseParserError, Urllib3Error, http.client.HTTPException, OSError)):
        return _unanswered(error, request)
    return None


def _unanswered(error: Exception, request: Request) -> TemakiError:
    name = type(error).__name__
    facts: dict[str, Any] = {"url": request.url, "status": None, "code": name}
    if isinstance(error, _BODY):
        return unavailable(request, f"the body ended early or was damaged on its way ({name})", code=name)
    if isinstance(error, (boto.HTTPClientError, boto.ConnectionError)) or not isinstance(error, boto.BotoCoreError):
        what = f"no usable answer from {_at(request)} ({name})"
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
    if status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        return refused_by_proxy(status, proxy_of(request) or "on the way", request, facts)
    if code in S3_CODES or status in {401, 403}:
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
    if code in BUSY or status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in {408, 409, 425, 429}:
        return unavailable(request, f"{_at(request)} answered {status} {code}", status=status, code=code)
    if code in _DAMAGED_ON_THE_WAY:
        return unavailable(request, f"the body was damaged on its way ({code})", status=status, code=code)
    if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        return StoreError(f"{request.url}: the range starts at or beyond the object's end.", **facts)
    return _other(request, details, facts)


def _not_found(request: Request, facts: dict[str, Any]) -> TemakiError:
    if facts["code"] == "NoSuchVersion":
        return NotFoundError(f"{request.url} has no such version (any more).", **facts)
    if facts["code"] == "NoSuchKey":
        if request.source:
            return NotFoundError(f"{request.source} does not exist.", **{**facts, "url": request.source})
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
        url = request.source or request.url
        message = (
            f"{url} is archived, so that it cannot be read. Restore it from the archive (aws s3api "
            "restore-object), and exempt it from the lifecycle rule that archived it."
        )
        return ObjectArchivedError(message, **{**facts, "url": url})
    proxy = proxy_of(request)
    if code == str(facts["status"]) and proxy is not None:  # S3 has a code of its own for each refusal
        return refused_by_proxy(facts["status"], proxy, request, facts)
    why, advice = denial(code)
    is_refused = code in REFUSED_CREDENTIALS
    if is_refused and request.is_given:
        advice += " temaki was given its client, which keeps its credentials: give it one that renews them."
    what = f"{request.url} cannot be accessed"
    if request.source:
        what = f"{request.source} cannot be copied to {request.url}"
    message = f"{what}: {why} ({facts['status']} {code} from {request.endpoint}). {advice}"
    return AccessDeniedError(message, advice=advice, lacks_permission=not is_refused, **facts)


def _at(request: Request) -> str:
    """Who answered, or did not: with a proxy on the way that cannot be told."""
    proxy = proxy_of(request)
    return request.endpoint if proxy is None else f"{request.endpoint}, or the proxy {proxy} on the way,"


def _wrong_region(error: boto.ClientError, request: Request, facts: dict[str, Any]) -> TemakiError:
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    details: dict[str, Any] = dict(error.response.get("Error", {}))
    region = headers.get("x-amz-bucket-region") or details.get("Region") or details.get("Endpoint")
    where = f"in {region!r}" if region else "in another region, or at another endpoint"
    if region:
        # Many expect boto3 to read AWS_REGION, as other SDKs do.
        setting = f"AWS_DEFAULT_REGION={region} (boto3 does not read AWS_REGION={region})"
    else:
        setting = "AWS_DEFAULT_REGION (or AWS_ENDPOINT_URL_S3)"
    advice = f"Set {setting}, or region in the AWS profile."
    message = (
        f"{request.url}: the bucket is {where} ({facts['status']} {facts['code']} from {request.endpoint}). {advice}"
    )
    return StoreError(message, region=region, advice=advice, **facts)


def _other(request: Request, details: dict[str, Any], facts: dict[str, Any]) -> TemakiError:
    said = f": {details['Message']}" if details.get("Message") else ""
    hint = ""
    if request.verb == "head" and facts["status"] == HTTPStatus.BAD_REQUEST:
        hint = " An answer to HEAD says no more: an expired token or a wrong region look like this."
    message = f"{request.url}: {request.endpoint} refused it with {facts['status']} {facts['code']}{said}.{hint}"
    return StoreError(message, **facts)
