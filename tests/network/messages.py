"""HTTP messages as bytes: the answers of a server, of S3, and of whatever stands in front of it."""

from __future__ import annotations

from collections.abc import Mapping

OF_ONE_HOP = frozenset({"connection", "expect", "keep-alive", "proxy-connection", "transfer-encoding"})
"""Headers that concern one connection, and are not passed on."""


def http(status: int, body: bytes = b"", *, length: int | None = None, **headers: str) -> bytes:
    """An answer that ends its connection; ``length`` announces another length than the body has."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return _last(status, named, body, len(body) if length is None else length)


def s3_error(status: int, code: str, *, headers: Mapping[str, str] | None = None, **details: str) -> bytes:
    """An error as S3 answers it; ``details`` are more elements of its XML."""
    more = "".join(f"<{name}>{value}</{name}>" for name, value in details.items())
    text = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>A message.</Message>{more}</Error>'
    return _last(status, {"Content-Type": "application/xml", **(headers or {})}, text.encode(), len(text))


def passed_on(method: str, status: int, reason: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """A server's answer to a request, as a proxy passes it on."""
    kept = {name: value for name, value in headers.items() if name.lower() not in OF_ONE_HOP}
    if method != "HEAD" and status not in {204, 304}:
        kept = {name: value for name, value in kept.items() if name.lower() != "content-length"}
        kept["Content-Length"] = str(len(body))
    return message(status, reason, kept, body)


def message(status: int, reason: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """An answer with exactly these headers."""
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def _last(status: int, headers: Mapping[str, str], body: bytes, length: int) -> bytes:
    return message(status, "Whatever", {"Content-Length": str(length), **headers, "Connection": "close"}, body)
