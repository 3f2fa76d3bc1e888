"""The source of an entity's rows: a list, a function or a file."""

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
    """The rows of one entity at one start.

    Attributes:
        declaration: The entity's declaration.
        read: A function that returns the rows. It parses a file only when it is called.
        fingerprint: The fingerprint of the rows' content and of how they are stored.
        origin: The fingerprint of the code that computes the rows, or of the rows themselves if they are listed.
            Computed rows can change while their origin stays the same.
        empty: Whether there are certainly no rows. Always False for a file, which is parsed later.
        unavailable: The reason why the rows cannot be had, so that stored rows are kept; None if they can be had.
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
    """Find an entity's rows, call ``get_rows`` if needed, and take their fingerprint. The database must be mapped.

    Args:
        declaration: The entity's declaration.
        allow_stale: Whether rows that were applied before may be kept if rows cannot be had. An outage often looks
            like an empty list. So an empty list counts as an outage if the policy is ``"mirror"``, which would delete
            everything.

    Raises:
        SeedError: The rows cannot be had, or the source gives something else than rows.
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
        cause = f"{type(error).__name__}: {one_line(error)}" if str(error) else type(error).__name__
        why = (
            f"{declaration.source} raised {cause}. If the database has rows of an earlier start, "
            "allow_stale_seeds=True lets it start with those."
        )
        raise failure(declaration.entity, why) from error


def _shape(declaration: Declaration) -> bytes:
    """Return bytes that stand for how the rows are stored: the columns, the policy and the key."""
    entity = declaration.entity
    columns = [(attr.name, type(attr).__name__, str(attr.py_type), list(attr.columns)) for attr in entity._attrs_]
    return fingerprint.of_values([repr(entity._table_), columns, declaration.policy, declaration.key])


def _checked(declaration: Declaration, value: Any) -> list[Row]:
    """Return the rows as a list of dicts: the value itself, if it is one."""
    entity, source = declaration.entity, declaration.source
    if isinstance(value, str | bytes | Mapping) or not hasattr(value, "__iter__"):
        why = f"{source} gave {type(value).__name__}; it must be a list of dicts."
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
        why = f"the file {path.name} is not UTF-8: {error}. Save it as UTF-8."
        raise failure(declaration.entity, why, value=path.name) from error
    if path.suffix.lower() == ".csv":
        return files.parse_csv(declaration.entity, text, path.name)
    return files.parse_json(declaration.entity, text, path.name)


def check_names(entity: Any, rows: list[Row]) -> None:
    """Check that every column is an attribute.

    Raises:
        SeedError: A row names an unknown attribute.
    """
    attributes = entity._adict_
    names = {name for shape in {tuple(row) for row in rows} for name in shape}
    unknown = {name for name in names if name not in attributes}
    if not unknown:
        return
    for number, row in enumerate(rows, 1):
        for name, value in row.items():
            if name in unknown:
                why = f"{entity.__name__} has no such attribute.{nearest(str(name), list(attributes))}"
                raise failure(entity, why, row=number, column=str(name), value=value)
