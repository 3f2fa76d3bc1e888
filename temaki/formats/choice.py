"""Chooses the format of a stored object, and of the version that replaces it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from temaki.formats.file import FORMAT as FILE
from temaki.version import FILE_FORMAT, FORMAT_KEY, PAGES_FORMAT

if TYPE_CHECKING:
    from temaki.formats.format import Format, Stored
    from temaki.remote.fetch import Source
    from temaki.store import Download, ObjectInfo
    from temaki.version import Version

NAMES: Final = {"file": FILE_FORMAT, "pages": PAGES_FORMAT}
"""The formats by the names that users give."""


def by_number(number: str) -> Format:
    """The format with that number. One that no temaki wrote is taken for a SQLite file."""
    if number != PAGES_FORMAT:
        return FILE
    from temaki.formats.pages.format import FORMAT  # not at the top: most databases need it not

    return FORMAT


def format_for(base: Version | None, preferred: str) -> Format:
    """The format of the version that replaces ``base``: the stored database decides.

    Args:
        base: What is stored; None where there is nothing yet.
        preferred: The name of the format that a new database gets.
    """
    return by_number(NAMES[preferred] if base is None else base.format)


def format_of(info: ObjectInfo) -> Format:
    """The format of a stored object."""
    return by_number(info.metadata.get(FORMAT_KEY, FILE_FORMAT))


def open_stored(source: Source, download: Download) -> Stored:
    """Open an answer of the store in its format: for :meth:`temaki.remote.remote.Remote.fetch`."""
    return format_of(download.info).open(source, download)
