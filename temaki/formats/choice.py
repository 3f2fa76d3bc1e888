"""Which format a stored object has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from temaki.formats.file import FORMAT

if TYPE_CHECKING:
    from temaki.formats.format import Format, Stored
    from temaki.remote.fetch import Source
    from temaki.store import Download, ObjectInfo


def format_of(_info: ObjectInfo) -> Format:
    """The format of a stored object. One that no temaki wrote is taken for a SQLite file."""
    return FORMAT


def open_stored(source: Source, download: Download) -> Stored:
    """Open an answer of the store in the format that it has: for :meth:`temaki.remote.remote.Remote.fetch`."""
    return format_of(download.info).open(source, download)
