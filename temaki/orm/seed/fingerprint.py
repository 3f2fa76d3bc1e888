"""Fingerprints: what makes rows the same rows in another process, on another day.

A list of a hundred thousand rows is fingerprinted at every start, so this goes column by column, at the speed of C.
``marshal`` in version 2 writes equal values of the same types as the same bytes, in every process and version of
Python; from version 3 on, and with ``pickle``, the bytes also depend on which objects happen to be shared.
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
    """One digest of several parts; where one ends and the next begins counts."""
    made = hashlib.sha256()
    for part in parts:
        made.update(b"%d:" % len(part))
        made.update(part)
    return made.hexdigest()


def of_rows(rows: Sequence[dict[str, Any]]) -> list[bytes]:
    """The bytes that stand for the rows. The order of a row's columns does not count, that of the rows does."""
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
    """The bytes that stand for a few values."""
    return _plain(list(values))


def of_code(code: CodeType) -> bytes:
    """The bytes that stand for what a function does, wherever its file and its lines are."""
    constants = [of_code(each) if isinstance(each, CodeType) else repr(each).encode() for each in code.co_consts]
    return _plain([code.co_code, code.co_names, code.co_varnames, constants])


def _plain(value: Any) -> bytes:
    try:
        return marshal.dumps(value, _CANONICAL)
    except ValueError:
        return marshal.dumps(_described(value), _CANONICAL)


def _described(value: Any) -> Any:
    """The same value, made of types that ``marshal`` knows."""
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
    wrapped = getattr(value, "wrapped", None)  # Pony's Json, whose repr is that of its content
    return [name, repr(value) if wrapped is None else _described(wrapped)]
