"""Chooses the format of a stored object."""

from __future__ import annotations

from typing import TYPE_CHECKING

from temaki.formats.file import FORMAT

if TYPE_CHECKING:
    from temaki.formats.format import Format, Stored
    from temaki.remote.fetch import Source
    from temaki.store import Download, ObjectInfo


def format_of(_info: ObjectInfo) -> Format:
    """Get the format of a stored object. An object that another tool wrote counts as a SQLite file."""
    return FORMAT


def open_stored(source: Source, download: Download) -> Stored:
    """Open an answer of the store in its format: for :meth:`temaki.remote.remote.Remote.fetch`."""
    return format_of(download.info).open(source, download)
