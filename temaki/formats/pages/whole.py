"""A database file as the next version: everything in a new base, whatever it replaces.

It never names an object of an earlier version: those may be collected at any time. The objects of the head that it
replaces are condemned. Those of a head that was replaced by a plain file before are left to a collector.
"""

from __future__ import annotations

import io
import math
from dataclasses import replace
from typing import TYPE_CHECKING

from temaki.errors import AccessDeniedError, WorkingCopyError
from temaki.formats.format import Body
from temaki.formats.pages.blame import blame
from temaki.formats.pages.claim import current
from temaki.formats.pages.compose import Identity, first_head
from temaki.formats.pages.gone import condemning
from temaki.formats.pages.head import Head, Marked
from temaki.formats.pages.manifest import encode
from temaki.formats.pages.objects import Objects
from temaki.formats.pages.read import read_again
from temaki.remote.publish import conflict
from temaki.remote.swap import Rebuilt
from temaki.replica.header import FormatError
from temaki.version import PAGES_FORMAT

if TYPE_CHECKING:
    from temaki.formats.format import WholeTask
    from temaki.version import Version


class Whole:
    """One database file on its way into the store."""

    def __init__(self, task: WholeTask) -> None:
        self._task, self._source = task, task.source
        self._uploaded: tuple[int, Head] | None = None  # the collection number before the upload, and what was made

    def body(self) -> Body:
        """The head to send, after the upload of its base.

        Raises:
            ConflictError: The version that it should replace is no longer there.
            WorkingCopyError: The file cannot be read.
            StoreError: The base could not be uploaded.
        """
        base, source = self._task.base, self._source
        if base is None or base.format != PAGES_FORMAT:
            content = encode(self._new(0))
        else:
            found = read_again(source, base.etag) or self._maintained(base)
            if found is None:
                raise conflict(source.url, self._task.commit, "its head was replaced")
            content = self._instead_of(*found)
        return Body(io.BytesIO(content), self._task.image.size, rebuild=self._rebuild)

    def _maintained(self, base: Version) -> tuple[Head, float] | None:
        """The head of now and :func:`ahead_of`, if it is the base in other bytes: that is no conflict."""
        now = current(self._source)
        if now is None or now.head.commit != base.commit:
            return None
        return now.head, now.now - self._source.retrying.clock.time()

    def _rebuild(self, stored: Version) -> Rebuilt | None:
        found = read_again(self._source, stored.etag)
        return None if found is None else Rebuilt(self._instead_of(*found), stored.etag)

    def _instead_of(self, old: Head, ahead: float) -> bytes:
        new = self._new(old.collection)
        now = max(0, math.ceil(self._source.retrying.clock.time() + ahead))  # rather too late than too early
        names = [old.base.name, *(segment.name for segment in old.segments)]
        head, lists = condemning(
            replace(
                new,
                collection=old.collection,
                condemned=old.condemned,
                gone=old.gone,
                claim=old.claim,
                requires=old.requires,
                unknown=old.unknown,
            ),
            [Marked(name, now) for name in names],
        )
        for name, content in lists.items():
            Objects(self._source).put(name, content)
        return encode(head)

    def _new(self, collection: int) -> Head:
        """A head that names nothing but its new base. A base that a collector may condemn is uploaded again."""
        if self._uploaded is not None and self._uploaded[0] == collection:
            return self._uploaded[1]
        task = self._task
        identity = Identity(task.sequence, task.commit, self._source.retrying.clock.time())
        try:
            head = first_head(Objects(self._source), task.image, identity).head
        except (FormatError, OSError) as error:
            raise WorkingCopyError(
                f"The file for {self._source.url} cannot be read: {error}. Nothing was stored. Try again.",
                url=self._source.url,
                should_retry=True,
            ) from error
        except AccessDeniedError as error:
            wrong = blame(self._source, None, error)
            if wrong is error:
                raise
            raise wrong from error
        self._uploaded = (collection, head)
        return head
