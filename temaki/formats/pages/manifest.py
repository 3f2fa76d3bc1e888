"""The bytes of a head.

They are, in this order:

* the line ``temaki pages 1``;
* a line that tells a human how to get a SQLite file out of it;
* one line of JSON, the manifest;
* the images of the tail's pages, one after the other, as the manifest's index says.

Reading a head is on every cold start, so it takes the standard library's ``json`` and no schema. Nothing in a head is
believed before it was checked: every count and length has a bound, and the facts have to agree with each other.

New fields go to the top level of the JSON. A temaki that does not know a field keeps it when it writes the next head. A
field that a reader must know is named in ``requires``.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any, Final

from temaki.formats.pages.head import (
    MOST_CONDEMNED,
    MOST_GONE,
    MOST_SEGMENTS,
    Base,
    Head,
    Marked,
    Segment,
    TailPage,
)
from temaki.formats.pages.names import is_name
from temaki.replica.header import LARGEST_PAGE, FormatError, is_page_size, lock_page

LARGEST_HEAD: Final = 2 << 20
"""Bytes of a head that a reader accepts. Writers stay under 64 KiB with pages of 4 KiB."""
_FIRST_LINE: Final = b"temaki pages 1\n"
_ANY_FIRST_LINE: Final = re.compile(rb"temaki pages ([0-9]{1,9})\n")
_HINT: Final = (
    b"This is the head of a database that temaki keeps in pages. "
    b"`temaki pull s3://BUCKET/KEY FILE` writes it as an ordinary SQLite file.\n"
)
_MOST_TAIL_PAGES: Final = 8192
_MOST_REQUIRED: Final = 64
_LARGEST_JSON: Final = 1 << 20  # bytes
_LONGEST_HINT: Final = 1024  # bytes
_MOST_PAGES: Final = (1 << 32) - 2  # "Database file size", limits.html
_LARGEST: Final = (1 << 63) - 1
_KNOWN_FEATURES: Final[frozenset[str]] = frozenset()
_COMMIT: Final = re.compile(r"[0-9a-z-]{8,64}")
_CHECKSUM: Final = re.compile(r"[0-9a-f]{16}")
_FEATURE: Final = re.compile(r"[0-9a-z-]{1,64}")


class NewerHeadError(FormatError):
    """The head was written by a temaki that this one does not understand."""


def encode(head: Head) -> bytes:
    """The bytes of a head's object.

    Raises:
        FormatError: :func:`decode` would refuse it.
    """
    index, offset = [], 0
    for page in head.tail:
        index.append([page.number, page.sequence, offset, len(page.image)])
        offset += len(page.image)
    fields = {
        **head.unknown,
        "page_size": head.page_size,
        "page_count": head.page_count,
        "sequence": head.sequence,
        "commit": head.commit,
        "checksum": f"{head.checksum:016x}",
        "base": [head.base.name, head.base.size, head.base.sequence],
        "segments": [[one.name, one.last, one.pages, one.size] for one in head.segments],
        "since": head.since,
        "tail": index,
        "gc": head.collection,
        "condemned": [[one.name, one.since] for one in head.condemned],
        "gone": list(head.gone),
        "fold": None if head.claim is None else [head.claim.name, head.claim.since],
        "edition": head.edition,
        "requires": list(head.requires),
    }
    text = json.dumps(fields, separators=(",", ":"), allow_nan=False)
    raw = b"".join([_FIRST_LINE, _HINT, text.encode(), b"\n", *(page.image for page in head.tail)])
    decode(raw)
    return raw


def decode(raw: bytes) -> Head:
    """What a head's object says.

    Args:
        raw: All of its bytes.

    Raises:
        NewerHeadError: A newer temaki wrote it.
        FormatError: It is no head.
    """
    text, start = _json_of(raw)
    facts = _Facts(_parsed(text))
    requires = tuple(facts.list_of("requires", _MOST_REQUIRED, _feature))
    unknown_features = sorted(set(requires) - _KNOWN_FEATURES)
    if unknown_features:
        raise NewerHeadError(f"its head was written by a newer temaki, which requires {', '.join(unknown_features)}")
    head = Head(
        page_size=facts.item("page_size", _page_size),
        page_count=facts.number("page_count", least=1, most=_MOST_PAGES),
        sequence=facts.number("sequence"),
        commit=facts.text("commit", _COMMIT),
        base=facts.item("base", _base),
        segments=tuple(facts.list_of("segments", MOST_SEGMENTS, _segment)),
        since=facts.number("since"),
        tail=(),
        checksum=int(facts.text("checksum", _CHECKSUM), 16),
        collection=facts.number("gc"),
        condemned=tuple(facts.list_of("condemned", MOST_CONDEMNED, _condemned)),
        gone=tuple(facts.list_of("gone", MOST_GONE, _gone)),
        claim=facts.item("fold", _claim),
        edition=facts.number("edition"),
        requires=requires,
    )
    index = list(facts.list_of("tail", _MOST_TAIL_PAGES, _indexed))
    head = replace(head, unknown=facts.rest(), tail=_tail(head, index, raw, start))
    _require_consistent(head)
    return head


def _json_of(raw: bytes) -> tuple[bytes, int]:
    """The line of JSON, and where the tail's images begin."""
    if len(raw) > LARGEST_HEAD:
        raise FormatError(f"its head has {len(raw)} bytes, and no head has more than {LARGEST_HEAD}")
    if not raw.startswith(_FIRST_LINE):
        match = _ANY_FIRST_LINE.match(raw)
        if match is not None:
            raise NewerHeadError(f"its head was written by a newer temaki, in version {match[1].decode()} of pages")
        raise FormatError(f"its head is none: it starts with {raw[:16]!r}")
    hint = raw.find(b"\n", len(_FIRST_LINE), len(_FIRST_LINE) + _LONGEST_HINT)
    end = raw.find(b"\n", hint + 1, hint + 1 + _LARGEST_JSON) if hint >= 0 else -1
    if end < 0:
        raise FormatError("its head is truncated: the manifest does not end")
    return raw[hint + 1 : end], end + 1


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(text, parse_constant=_no_constant)
        json.dumps(fields, allow_nan=False)  # what is kept as it is has to be written again: 1e999 cannot be
    except (ValueError, RecursionError) as error:
        raise FormatError(f"its head has a manifest that is no JSON: {error}") from error
    if not isinstance(fields, dict):
        raise FormatError("its head has a manifest that is no JSON object")
    return fields


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number")


class _Facts:
    """The manifest's fields, each of which is taken once."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self._fields = fields

    def rest(self) -> dict[str, Any]:
        """The fields that nobody has taken."""
        return self._fields

    def number(self, name: str, *, least: int = 0, most: int = _LARGEST) -> int:
        return _number(self._take(name), name, least=least, most=most)

    def text(self, name: str, pattern: re.Pattern[str]) -> str:
        return _text(self._take(name), name, pattern)

    def item(self, name: str, read: Any) -> Any:
        return read(self._take(name))

    def list_of(self, name: str, most: int, read: Any) -> list[Any]:
        found = self._take(name)
        if not isinstance(found, list) or len(found) > most:
            raise FormatError(f"its head has {name} that are no list of at most {most}")
        return [read(one) for one in found]

    def _take(self, name: str) -> Any:
        try:
            return self._fields.pop(name)
        except KeyError:
            raise FormatError(f"its head has no {name}") from None


def _number(value: Any, name: str, *, least: int = 0, most: int = _LARGEST) -> int:
    if type(value) is not int or not least <= value <= most:
        raise FormatError(f"its head has a {name} that is no number from {least} to {most}")
    return value


def _text(value: Any, name: str, pattern: re.Pattern[str]) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise FormatError(f"its head has a {name} that is none")
    return value


def _row(value: Any, what: str, length: int) -> list[Any]:
    if not isinstance(value, list) or len(value) != length:
        raise FormatError(f"its head has a {what} that is none")
    return value


def _page_size(value: Any) -> int:
    size = _number(value, "page size", most=LARGEST_PAGE)
    if not is_page_size(size):
        raise FormatError(f"its head has a bad page size: {size}")
    return size


def _base(value: Any) -> Base:
    name, size, sequence = _row(value, "base", 3)
    if not is_name(name, "base"):
        raise FormatError("its head has a base without a name")
    return Base(name, _number(size, "base's size", least=1), _number(sequence, "base's sequence"))


def _segment(value: Any) -> Segment:
    name, last, pages, size = _row(value, "segment", 4)
    if not is_name(name, "seg"):
        raise FormatError("its head has a segment without a name")
    return Segment(
        name,
        _number(last, "segment's sequence"),
        _number(pages, "segment's count of pages", least=1, most=_MOST_PAGES),
        _number(size, "segment's size", least=1),
    )


def _condemned(value: Any) -> Marked:
    name, since = _row(value, "condemned object", 2)
    if not is_name(name, "base", "seg", "gone"):
        raise FormatError("its head has a condemned object without a name")
    return Marked(name, _number(since, "time"))


def _gone(value: Any) -> str:
    if not is_name(value, "gone"):
        raise FormatError("its head has a list of condemned objects without a name")
    return str(value)


def _claim(value: Any) -> Marked | None:
    if value is None:
        return None
    name, since = _row(value, "fold", 2)
    if not is_name(name, "base"):
        raise FormatError("its head has a fold without a name")
    return Marked(name, _number(since, "time"))


def _feature(value: Any) -> str:
    return _text(value, "required feature", _FEATURE)


def _indexed(value: Any) -> tuple[int, int, int, int]:
    number, sequence, offset, length = _row(value, "page in its tail", 4)
    return (
        _number(number, "page number", least=1, most=_MOST_PAGES),
        _number(sequence, "page's sequence"),
        _number(offset, "page's offset"),
        _number(length, "page's length", least=1, most=LARGEST_PAGE),
    )


def _tail(head: Head, index: list[tuple[int, int, int, int]], raw: bytes, start: int) -> tuple[TailPage, ...]:
    at, before, pages = start, 0, []
    for number, sequence, offset, length in index:
        if not before < number <= head.page_count or number == lock_page(head.page_size):
            raise FormatError(f"its head has page {number} of {head.page_count} in its tail, after page {before}")
        if sequence > head.sequence or offset != at - start or length > head.page_size:
            raise FormatError(f"its head has an impossible entry for page {number} in its tail")
        pages.append(TailPage(number, sequence, raw[at : at + length]))
        at, before = at + length, number
    if at != len(raw):
        raise FormatError(f"its head is truncated or changed: it should have {at} bytes, and has {len(raw)}")
    return tuple(pages)


def _require_consistent(head: Head) -> None:
    if head.base.size % head.page_size:
        raise FormatError(f"its head has a base of {head.base.size} bytes, which are no pages of {head.page_size}")
    lasts = [segment.last for segment in head.segments]
    if lasts != sorted(lasts):
        raise FormatError("its head has segments that are out of order")
    if not head.since <= head.base.sequence <= head.sequence or any(last > head.sequence for last in lasts):
        raise FormatError("its head has sequences that contradict each other")
    listed = [head.base.name, *(one.name for one in head.segments), *head.gone, *(one.name for one in head.condemned)]
    if head.claim is not None:
        listed.append(head.claim.name)
    if len(set(listed)) != len(listed):
        raise FormatError("its head names one object twice")
