"""Finds out whether all objects of a version can be read, without reading them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from temaki.errors import AccessDeniedError, NotFoundError, ObjectArchivedError
from temaki.formats.pages.blame import blame
from temaki.formats.pages.names import key_of
from temaki.formats.pages.objects import DamagedObjectError, MissingObjectError

if TYPE_CHECKING:
    from temaki.formats.pages.head import Base, Head, Segment
    from temaki.remote.fetch import Source


def require_readable(source: Source, head: Head) -> int:
    """Ask for one byte of each object that a head names. A HEAD would not tell that an object is archived.

    Args:
        source: The head's object.
        head: The version.

    Returns:
        The number of objects.

    Raises:
        CorruptDatabaseError: An object is missing, or has another size.
        ObjectArchivedError, AccessDeniedError: An object cannot be read.
        StoreError: A request failed, also when repeated.
    """
    needed: list[Base | Segment] = [head.base, *head.segments]
    for one in needed:
        try:
            source.retrying.run(lambda one=one: _require(source, one))  # type: ignore[misc]
        except (MissingObjectError, DamagedObjectError, AccessDeniedError, ObjectArchivedError) as error:
            wrong = blame(source, head, error)
            if wrong is error:
                raise
            raise wrong from error
    return len(needed)


def _require(source: Source, one: Base | Segment) -> None:
    try:
        download = source.store.get(key_of(source.key, one.name), byte_range=(0, 1))
    except NotFoundError as error:
        raise MissingObjectError(one.name) from error
    assert download is not None, "only if_none_match has no body"
    with download:
        if download.info.size != one.size:
            raise DamagedObjectError(one.name, f"it has {download.info.size} bytes, and its head says {one.size}")
