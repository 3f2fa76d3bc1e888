"""The removal of objects that no head names any more: it never fails, and it waits for a folder that is whole.

A refused deletion harms nothing. The object is in no head, so the next collection finds it by listing, condemns it
again, and tries again after the time of grace.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from temaki.errors import StoreError, StoreUnavailableError
from temaki.formats.pages.blame import blame
from temaki.formats.pages.names import folder, key_of
from temaki.formats.pages.objects import MissingObjectError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from temaki.formats.pages.head import Head
    from temaki.remote.fetch import Source

_log = logging.getLogger(__name__)


def remove(source: Source, names: Iterable[str]) -> tuple[str, ...]:
    """Delete objects. Those that the store does not delete are logged, and left.

    Returns:
        The names of those that were deleted.
    """
    deleted: list[str] = []
    refused: list[str] = []
    why: StoreError | None = None
    for name in names:
        if isinstance(why, StoreUnavailableError):  # the others would wait as long
            refused.append(name)
            continue
        try:
            source.retrying.run(lambda name=name: source.store.delete(key_of(source.key, name)))  # type: ignore[misc]
            deleted.append(name)
        except StoreError as error:
            refused.append(name)
            why = error
    if why is not None:
        _log.warning(
            "%d of %d objects in %s, which no version needs any more, could not be deleted, %s among them: %s They "
            "harm nothing but the bill. A later collection tries again. If the bucket keeps objects on purpose (a "
            "policy, Object Lock), remove them with a lifecycle rule, or set compact to 'manual'.",
            len(refused),
            len(refused) + len(deleted),
            folder(source.url),
            refused[0],
            why,
        )
    return tuple(deleted)


class Presence:
    """Makes sure that the objects which a head names are in its folder, before anything there is called garbage.

    Somebody may have put another database's head in the place of this one's. Then all objects here would look like
    garbage, although the head that names them may come back.

    Args:
        source: The head's object.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._doubtful: str | None = None

    def is_whole(self, head: Head, etag: str, listed: Collection[str]) -> bool:
        """Whether a listing has all objects that a head needs.

        Args:
            head: The head, which was read after the listing.
            etag: Its ETag.
            listed: Names of what is in the folder.

        Returns:
            False if an object is not listed. It may be younger than the listing: list again, and read the head again.

        Raises:
            CorruptDatabaseError: The second listing under the same head does not have it either.
        """
        needed = [head.base.name, *(segment.name for segment in head.segments)]
        missing = next((name for name in needed if name not in listed), None)
        if missing is None:
            return True
        if self._doubtful == etag:
            raise blame(self._source, head, MissingObjectError(missing))
        self._doubtful = etag
        return False
