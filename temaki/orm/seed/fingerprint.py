"""Fingerprints of rows: equal rows have equal fingerprints in every process, on every day.

Every start fingerprints all rows, which may be a hundred thousand. So this goes column by column, at the speed of C.
Version 2 of ``marshal`` writes equal values of the same types as the same bytes, in every process and version of
Python. In version 3 and later, and with ``pickle``, the bytes also depend on which objects happen to be shared.
"""

from __future__ import annotations

import hashlib
import marshal
from collections.abc import Iterable, Sequence
from operator import itemgetter
from types import CodeType
from typing import Any

_CANONICAL = 2


def digest(*parts: bytes) -> str:
    """Return one digest of several parts. The boundaries between the parts count."""
    sha256 = hashlib.sha256()
    for part in parts:
        sha256.update(b"%d:" % len(part))
        sha256.update(part)
    return sha256.hexdigest()


def of_rows(rows: Sequence[dict[str, Any]]) -> list[bytes]:
    """Return bytes that stand for the rows. The order of the rows counts, the order of a row's columns does not."""
    if not rows:
        return [b"no rows"]
    names = dict.fromkeys(rows[0])
    uniform = set(map(len, rows)) == {len(names)}
    try:
        columns = {name: list(map(itemgetter(name), rows)) for name in names} if uniform else {}
    except KeyError:
        uniform = False
    if not uniform:
        names = dict.fromkeys(name for row in rows for name in row)
        columns = {name: [row.get(name, ...) for row in rows] for name in names}
    return [
        b"%d" % len(rows),
        *(part for name in sorted(names, key=str) for part in (_plain(name), _plain(columns[name]))),
    ]


def of_values(values: Iterable[Any]) -> bytes:
    """Return bytes that stand for a few values."""
    return _plain(list(values))


def of_code(code: CodeType) -> bytes:
    """Return bytes that stand for what a function does, whatever file and line it is defined in."""
    constants = [of_code(each) if isinstance(each, CodeType) else repr(each).encode() for each in code.co_consts]
    return _plain([code.co_code, code.co_names, code.co_varnames, constants])


def _plain(value: Any) -> bytes:
    try:
        return marshal.dumps(value, _CANONICAL)
    except ValueError:
        return marshal.dumps(_described(value), _CANONICAL)


def _described(value: Any) -> Any:
    """Return a description of a value, made of types that ``marshal`` knows."""
    kind = type(value)
    if kind in {bool, int, float, str, bytes, type(None), type(...)}:
        return value
    if kind in {list, tuple}:
        return [kind.__name__, *map(_described, value)]
    if kind is dict:
        return ["dict", *((_described(key), _described(each)) for key, each in value.items())]
    if kind in {set, frozenset}:
        return ["set", *sorted(marshal.dumps(_described(each), _CANONICAL) for each in value)]
    name = f"{kind.__module__}.{kind.__qualname__}"
    wrapped = getattr(value, "wrapped", None)  # Pony's Json, whose repr is the repr of its content
    return [name, repr(value) if wrapped is None else _described(wrapped)]
