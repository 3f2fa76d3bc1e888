"""What it means that access is denied, and what to do about it: the one place for these words.

S3 and the services that give credentials use the same codes. Source: Amazon S3 API Reference, "Error responses"; AWS
STS API Reference, "Common errors".
"""

from __future__ import annotations

from typing import Final

GRANT: Final = (
    "A missing object looks the same to credentials without s3:ListBucket: grant that for the bucket, and "
    "s3:GetObject, s3:PutObject and s3:DeleteObject for its objects."
)

_SIGN_IN: Final = "Sign in again, or refresh it"
_CLOCK: Final = ("this machine's clock is too far from the store's", "Set this machine's clock (NTP).")
_KEY: Final = ("the access key is not known there", "Correct AWS_ACCESS_KEY_ID, the AWS profile or the endpoint.")
_TOKEN: Final = ("the session's token is not valid", f"{_SIGN_IN}.")
_EXPIRED: Final = ("the session's token has expired", f"{_SIGN_IN}.")

REFUSED_CREDENTIALS: Final = {
    "SignatureDoesNotMatch": (
        "the secret key is wrong",
        "Correct AWS_SECRET_ACCESS_KEY, or aws_secret_access_key of the AWS profile.",
    ),
    "InvalidAccessKeyId": _KEY,
    "InvalidClientTokenId": _KEY,
    "UnrecognizedClientException": _KEY,
    "InvalidSecurity": ("the credentials are not valid", "Use others (AWS_PROFILE, a role)."),
    "AuthFailure": ("the credentials are not valid", "Use others (AWS_PROFILE, a role)."),
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "TokenRefreshRequired": ("the session's token must be refreshed", f"{_SIGN_IN}."),
    "InvalidToken": _TOKEN,
    "InvalidIdentityToken": _TOKEN,
    "IDPRejectedClaim": _TOKEN,
    "RequestTimeTooSkewed": _CLOCK,
    "RequestExpired": _CLOCK,
}
"""Codes that speak of the credentials, or of how the request was signed with them. No grant helps."""

_OTHERS: Final = {
    "AccessDenied": ("the credentials lack a permission, or the bucket is another account's", GRANT),
    "AllAccessDisabled": ("all access to it is disabled", "Ask the bucket's owner."),
    "AccountProblem": ("there is a problem with the AWS account", "Ask AWS's support."),
    "NotSignedUp": ("the AWS account has no S3", "Sign up for it, or use another account's credentials."),
}

S3_CODES: Final = REFUSED_CREDENTIALS.keys() | _OTHERS.keys()
"""They are sent with various statuses, and decide before the status does."""

BUSY: Final = {
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "RequestThrottled",
    "RequestThrottledException",
    "RequestLimitExceeded",
    "TooManyRequestsException",
    "BandwidthLimitExceeded",
    "ServiceUnavailable",
    "InternalError",
    "InternalFailure",
    "RequestTimeout",
    "RequestTimeoutException",
    "OperationAborted",
    "IDPCommunicationError",
}
"""Codes with which a service asks to be asked again."""


def denial(code: str) -> tuple[str, str]:
    """Why S3 denies access, and what to do."""
    return (REFUSED_CREDENTIALS | _OTHERS).get(code, ("access is denied", GRANT))


def why_denied(code: str) -> tuple[str, str]:
    """Why a service that gives credentials refuses, and what to do; empty where the code does not say."""
    return REFUSED_CREDENTIALS.get(code, ("", ""))
