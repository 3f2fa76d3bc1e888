"""Where an entity's rows come from."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from temaki.errors import SeedError
from temaki.orm.seed import fingerprint
from temaki.orm.seed.failure import failure, nearest, one_line
from temaki.orm.seeding import MIRROR, Declaration

Row = dict[str, Any]


@dataclass(frozen=True)
class Source:
    """One entity's rows, at one start.

    Attributes:
        declaration: What the entity says.
        read: Gives the rows; for a file this is when it is parsed.
        fingerprint: Of the rows' content, and of how they are to be stored.
        origin: Of the code that brings them. Rows that are listed are their own origin; those that are computed can
            change while their origin stays the same.
        empty: Whether there are certainly none. Of a file that is not known before it is parsed.
        unavailable: Why the rows that are stored already have to do, for as long as they are not due anew.
    """

    declaration: Declaration
    read: Callable[[], list[Row]]
    fingerprint: str
    origin: str
    empty: bool = False
    unavailable: SeedError | None = None

    @property
    def entity(self) -> Any:
        """The entity."""
        return self.declaration.entity


def source_of(declaration: Declaration, *, allow_stale: bool = False) -> Source:
    """Find an entity's rows and take their fingerprint; calls ``get_rows``. The database must be mapped.

    Args:
        declaration: What the entity says.
        allow_stale: Whether the rows that were applied before will do where there are none to be had. An outage often
            looks like an empty answer, so it counts as none for the policy that would delete everything.

    Raises:
        SeedError: There are none, or they are no rows.
    """
    if not allow_stale:
        return _source_of(declaration)
    try:
        source = _source_of(declaration)
    except SeedError as error:
        return Source(declaration, partial(_raise, error), "", "", unavailable=error)
    if source.empty and declaration.policy == MIRROR:
        why = f"{declaration.source} gave none, and the policy is {MIRROR!r}."
        return replace(source, unavailable=failure(declaration.entity, why))
    return source


def _raise(error: SeedError) -> list[Row]:
    raise error


def _source_of(declaration: Declaration) -> Source:
    shape = _shape(declaration)
    if declaration.source == "rows_from":
        path = _path(declaration)
        content = _content(declaration, path)
        mark = fingerprint.digest(shape, path.suffix.encode(), content)
        return Source(declaration, partial(_parse, declaration, path, content), mark, mark)
    rows = _rows(declaration)
    mark = fingerprint.digest(shape, *fingerprint.of_rows(rows))
    origin = mark
    code = getattr(inspect.unwrap(declaration.value), "__code__", None) if callable(declaration.value) else None
    if code is not None:
        origin = fingerprint.digest(shape, b"computed", fingerprint.of_code(code))
    return Source(declaration, lambda: rows, mark, origin, empty=not rows)


def _rows(declaration: Declaration) -> list[Row]:
    try:
        return _checked(declaration, declaration.value() if callable(declaration.value) else declaration.value)
    except SeedError:
        raise
    except Exception as error:
        said = f"{type(error).__name__}: {one_line(error)}" if str(error) else type(error).__name__
        why = (
            f"{declaration.source} raised {said}. If the database has rows of an earlier start, allow_stale_seeds=True "
            "lets it start with those."
        )
        raise failure(declaration.entity, why) from error


def _shape(declaration: Declaration) -> bytes:
    """How the rows are to be stored: the columns, the policy and the key."""
    entity = declaration.entity
    columns = [(attr.name, type(attr).__name__, str(attr.py_type), list(attr.columns)) for attr in entity._attrs_]
    return fingerprint.of_values([repr(entity._table_), columns, declaration.policy, declaration.key])


def _checked(declaration: Declaration, value: Any) -> list[Row]:
    """A list of dicts, without a copy where it is one."""
    entity, source = declaration.entity, declaration.source
    if isinstance(value, str | bytes | Mapping) or not hasattr(value, "__iter__"):
        why = f"{source} gave {type(value).__name__}; it has to be a list of dicts."
        raise failure(entity, why, value=value)
    rows = value if isinstance(value, list) else list(value)
    if set(map(type, rows)) <= {dict}:
        return rows
    for number, row in enumerate(rows, 1):
        if not isinstance(row, Mapping):
            raise failure(
                entity, f"it is {type(row).__name__}; a row is a dict, attribute to value.", row=number, value=row
            )
    return [dict(row) for row in rows]


def _path(declaration: Declaration) -> Path:
    path = Path(declaration.value)
    if path.suffix.lower() not in {".csv", ".json"}:
        why = f"rows_from is {str(path)!r}. It can name a .csv or a .json file; for anything else, write get_rows()."
        raise failure(declaration.entity, why, value=str(path))
    module = sys.modules.get(declaration.entity.__module__)
    beside = getattr(module, "__file__", None)
    return Path(beside).parent / path if beside else path


def _content(declaration: Declaration, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        why = f"the file {path} cannot be read: {error.strerror}. rows_from is relative to the entity's module."
        raise failure(declaration.entity, why, value=str(path)) from error


def _parse(declaration: Declaration, path: Path, content: bytes) -> list[Row]:
    from temaki.orm.seed import files

    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise failure(declaration.entity, f"the file {path.name} is not UTF-8: {error}.", value=path.name) from error
    if path.suffix.lower() == ".csv":
        return files.parse_csv(declaration.entity, text, path.name)
    return files.parse_json(declaration.entity, text, path.name)


def check_names(entity: Any, rows: list[Row]) -> None:
    """Every column must be an attribute.

    Raises:
        SeedError: One is not.
    """
    known = entity._adict_
    names = {name for shape in {tuple(row) for row in rows} for name in shape}
    unknown = {name for name in names if name not in known}
    if not unknown:
        return
    for number, row in enumerate(rows, 1):
        for name, value in row.items():
            if name in unknown:
                why = f"{entity.__name__} has no such attribute.{nearest(str(name), list(known))}"
                raise failure(entity, why, row=number, column=str(name), value=value)
