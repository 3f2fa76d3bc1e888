"""Rows in CSV and JSON files, typed by the entity's attributes."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from typing import Any

from pony.orm.ormtypes import Array, Json

from temaki.orm.seed.failure import failure, nearest

Row = dict[str, Any]

_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def parse_csv(entity: Any, text: str, name: str) -> list[Row]:
    """Parse the rows of a comma-separated CSV file with a header line (RFC 4180).

    An empty cell is None, or "" for a string that may be empty. A boolean is true/false, yes/no or 1/0. Bytes are
    hexadecimal. Json, arrays, sets and composite keys are JSON.

    Raises:
        SeedError: The header names an unknown attribute, a line has too many or too few cells, or a cell does not
            have the type of its attribute.
    """
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[Row] = []
    try:
        header = next(reader, None)
        if header is None:
            raise failure(entity, f"the file {name} is empty. Its first line must name the attributes.", value=name)
        convert = _header(entity, header, name)
        for number, cells in enumerate(filter(None, reader), 1):
            if len(cells) != len(header):
                why = f"line {reader.line_num} of {name} has {len(cells)} cells; the header has {len(header)}."
                raise failure(entity, why, row=number, value=cells)
            rows.append(
                {
                    column: _cell(entity, number, column, cell, convert[column])
                    for column, cell in zip(header, cells, strict=True)
                }
            )
    except csv.Error as error:
        why = f"line {reader.line_num} of {name} is no CSV: {error}. Correct the line."
        raise failure(entity, why, row=len(rows) + 1) from error
    return rows


def _header(entity: Any, header: list[str], name: str) -> dict[str, Callable[[str], Any]]:
    attributes = entity._adict_
    for column in header:
        if column not in attributes:
            why = f"the header of {name} names it, but {entity.__name__} has no such attribute."
            raise failure(entity, why + nearest(column, list(attributes)), column=column)
        if header.count(column) > 1:
            raise failure(entity, f"the header of {name} names it twice. Remove one of the columns.", column=column)
    return {column: _from_text(attributes[column]) for column in header}


def _cell(entity: Any, number: int, column: str, cell: str, convert: Callable[[str], Any]) -> Any:
    try:
        return convert(cell)
    except ValueError as error:
        raise failure(entity, f"{error}.", row=number, column=column, value=cell) from error


def _from_text(attr: Any) -> Callable[[str], Any]:
    kind = attr.py_type
    if attr.reverse or (isinstance(kind, type) and issubclass(kind, Json | Array)):
        plural = attr.is_collection or not attr.reverse or len(attr.reverse.entity._pk_columns_) > 1
        return _json if plural else _or_none(str)
    if attr.is_string:
        return (lambda text: text or None) if attr.nullable else str
    return _or_none(_bool if kind is bool else bytes.fromhex if kind is bytes else str)


def _or_none(convert: Callable[[str], Any]) -> Callable[[str], Any]:
    return lambda text: convert(text) if text else None


def _json(text: str) -> Any:
    try:
        value = json.loads(text) if text else None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is no JSON: {error}") from error
    return value


def _bool(text: str) -> bool:
    try:
        return _BOOLEANS[text.lower()]
    except KeyError:
        raise ValueError(f"it is no boolean: one of {', '.join(_BOOLEANS)}") from None


def parse_json(entity: Any, text: str, name: str) -> list[Row]:
    """Parse the rows of a JSON file: a list of objects.

    Bytes are hexadecimal strings. Dates and times are ISO 8601 strings.

    Raises:
        SeedError: The file is not a list of objects.
    """
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        raise failure(entity, f"the file {name} is no JSON: {error}.", value=name) from error
    if not isinstance(rows, list):
        raise failure(entity, f"the file {name} must contain a list of objects.", value=name)
    hexadecimal = [attr.name for attr in entity._attrs_ if attr.py_type is bytes]
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise failure(
                entity, f"in {name} it is no object. A row is an object, attribute to value.", row=number, value=row
            )
        for column in hexadecimal:
            if isinstance(row.get(column), str):
                row[column] = _cell(entity, number, column, row[column], bytes.fromhex)
    return rows
