"""The format ``pages``: the stored object is a head, which names a base and segments beside it.

See :mod:`temaki.formats.pages.head` for the bytes, :mod:`temaki.formats.pages.compose` for a commit, and
:mod:`temaki.formats.pages.pull` for a pull.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final

from temaki.errors import AccessDeniedError, ConflictError, ObjectArchivedError
from temaki.formats.format import Body, Format, Layout, Received, Stored, Task, Uploaded, WholeTask
from temaki.formats.pages.blame import BLAMED, blame
from temaki.formats.pages.compose import Identity, Known, Uploads, first_head, next_head
from temaki.formats.pages.duplicate import duplicate
from temaki.formats.pages.knowledge import PagesKnowledge, local_pages
from temaki.formats.pages.layout import catch_up_size, full_size, layout_of, uploaded
from temaki.formats.pages.manifest import encode
from temaki.formats.pages.objects import DamagedObjectError, MissingObjectError, Objects
from temaki.formats.pages.pull import MismatchError, can_catch_up, collect, prove, save
from temaki.formats.pages.read import ahead_of, read_again, read_stored
from temaki.formats.pages.readable import require_readable
from temaki.formats.pages.upkeep import Upkeep, due
from temaki.formats.pages.whole import Whole
from temaki.remote.publish import conflict
from temaki.remote.swap import Rebuilt
from temaki.remote.transfer import Target
from temaki.replica.header import FormatError
from temaki.replica.replica import CaughtUp, Step
from temaki.version import COMMIT_KEY, FORMAT_KEY, PAGES_FORMAT

if TYPE_CHECKING:
    from pathlib import Path

    from temaki.formats.format import Copied, CopyTask, Maintained
    from temaki.formats.pages.head import Head
    from temaki.remote.fetch import Source
    from temaki.replica.generation import Extent, Generation, Knowledge
    from temaki.replica.replica import Replica
    from temaki.store import Download
    from temaki.version import Version

_MOST_PLANS: Final = 8
"""How often a pull reads the head again because objects that it named have been removed meanwhile."""


class _Pages(Format):
    """See the module."""

    number = PAGES_FORMAT

    def open(self, source: Source, download: Download) -> Stored:
        """Read the whole head: kilobytes."""
        return StoredPages(source, *read_stored(download, source.url), ahead_of(source, download), download.info.size)

    def layout(self, generation: Generation) -> Layout | None:
        """From the head that is known."""
        known = PagesKnowledge.of(generation)
        return None if known is None else layout_of(known.head, len(encode(known.head)))

    def extent(self, generation: Generation) -> Extent | None:
        """What the head says."""
        known = PagesKnowledge.of(generation)
        return None if known is None else (known.head.page_count, known.head.page_size, known.head.sequence)

    def store(self, task: Task) -> Body:
        """The next head. Its segments, or its base, are uploaded here."""
        return _Commit(task).body()

    def store_whole(self, task: WholeTask) -> Body:
        """A head whose new base is the whole database. The base is uploaded here."""
        return Whole(task).body()

    def is_due(self, generation: Generation, *, now: float, idle: float) -> int | None:
        """Folds, merges that are too large for a commit, and collections."""
        found = generation.knowledge
        return due(found.known, now, idle) if isinstance(found, PagesKnowledge) else None

    def maintain(self, source: Source, replica: Replica, *, idle: float) -> Maintained:
        """Each of them that is due."""
        return Upkeep(source, replica, idle).run()


FORMAT: Final = _Pages()


class StoredPages(Stored):
    """A version in this format: its head is here, the rest is in the store.

    Args:
        source: The head's object.
        version: The version.
        head: Its head.
        ahead: By how many seconds the store's clock is ahead of this machine's.
        size: Size of the head's object, in bytes.

    Attributes:
        head: As above.
    """

    def __init__(self, source: Source, version: Version, head: Head, ahead: float, size: int) -> None:
        self._source, self._ahead, self._size = source, ahead, size
        self.version, self.head = version, head
        self._received = Received(size)

    @property
    def received(self) -> Received:
        """Head, base and segments, or what of them was fetched."""
        return self._received

    def layout(self) -> Layout:
        """What the head says."""
        return layout_of(self.head, self._size)

    def check(self) -> int:
        """Base and segments: one byte of each."""
        return require_readable(self._source, self.head)

    def copy(self, task: CopyTask) -> Copied:
        """Copy base and segments under new names, and make a head that names them."""
        return duplicate(self._source, self.version, self.head, task)

    def _receive(self, size: int, *, is_catch_up: bool = False) -> None:
        self._received = Received(self._received.size + size, is_catch_up)

    def close(self) -> None:
        """Nothing is left to come."""

    def knowledge(self) -> Knowledge | None:
        """The head, and with it all that a commit needs."""
        return PagesKnowledge(Known(self.head, ahead=self._ahead))

    def save(self, path: Path) -> None:
        """Base, segments and tail, and the checksum of it all."""
        target = Target(path, self._source.url)
        try:
            for plan in range(_MOST_PLANS):
                try:
                    save(Objects(self._source, path.parent), self.head, target)
                    self._receive(full_size(self.head))
                    break
                except (MissingObjectError, AccessDeniedError) as error:
                    self._plan_again(error, is_last=plan == _MOST_PLANS - 1)
                except (DamagedObjectError, ObjectArchivedError) as error:
                    raise blame(self._source, self.head, error) from error
            target.close()
        except BaseException:
            target.discard()
            raise

    def _plan_again(self, error: MissingObjectError | AccessDeniedError, *, is_last: bool) -> None:
        """An object was collected since the head was read, or somebody removed it: the head of now tells which.

        S3 denies access to a missing object where the credentials may not list the bucket.
        """
        wrong = blame(self._source, self.head, error)
        if wrong is error:
            raise error
        if is_last:
            raise wrong from error
        download = self._source.retrying.run(self._source.get)
        assert download is not None, "an unconditional GET has a body"
        if download.info.etag == self.version.etag or download.info.metadata.get(FORMAT_KEY) != PAGES_FORMAT:
            download.__exit__(None, None, None)
            raise wrong from error
        self.version, self.head = read_stored(download, self._source.url)
        self._size = download.info.size
        self._receive(self._size)

    def arrive(self, replica: Replica, *, instead_of: Generation | None, at: Version | None) -> bool:
        """What has changed, into the live generation, where that is possible; else all of it, into a new one."""
        if instead_of is None or at is None:
            return super().arrive(replica, instead_of=instead_of, at=at)
        if at.commit == self.version.commit:
            with replica.state:
                before = PagesKnowledge.of(instead_of)
                numbers = {} if before is None else before.numbers
                return replica.adopt(
                    instead_of,
                    at=at,
                    version=self.version,
                    knowledge=PagesKnowledge(Known(self.head, numbers, self._ahead)),
                )
        with replica.state:
            known = PagesKnowledge.of(instead_of)
        if known is not None and known.head.commit == at.commit and can_catch_up(self.head, known.head):
            done = self._catch_up(replica, instead_of, at, known)
            if done is not CaughtUp.IMPOSSIBLE:
                return done is CaughtUp.DONE
        return super().arrive(replica, instead_of=instead_of, at=at)

    def _catch_up(self, replica: Replica, generation: Generation, at: Version, known: Known) -> CaughtUp:
        head = self.head
        try:
            newer = collect(Objects(self._source, generation.path.parent), head, known.head)
            self._receive(catch_up_size(head, known.head.sequence), is_catch_up=True)
        except (MissingObjectError, AccessDeniedError, ObjectArchivedError):
            return CaughtUp.IMPOSSIBLE  # a full pull does without it, or finds out why
        except DamagedObjectError as error:
            raise blame(self._source, head, error) from error

        def step() -> Step:
            pages = prove(newer, known.head, local_pages(generation, known.head))
            return Step(pages, head.page_count, head.page_size, self.version)

        try:
            numbers = {one.name: known.numbers[one.name] for one in head.segments if one.name in known.numbers}
            knowledge = PagesKnowledge(Known(head, numbers, self._ahead))
            return replica.catch_up(generation, at=at, step=step, knowledge=knowledge)
        except MismatchError:
            return CaughtUp.IMPOSSIBLE


class _Commit:
    """One commit's head, and those that are built anew where maintenance comes in between."""

    def __init__(self, task: Task) -> None:
        self._task, self._source = task, task.source
        self._objects = Objects(task.source, task.generation.path.parent)
        self._known: Known | None = None
        self._before: Head | None = None
        self._heads = 0  # bytes
        self._sent: dict[str, int] = {}  # sizes in bytes, by name
        self._uploads = Uploads()

    def body(self) -> Body:
        """The head to send."""
        task = self._task
        base = task.generation.version
        if base is None:
            known = self._composed(None)
        else:
            before = PagesKnowledge.of(task.generation)
            if before is None:  # a commit that was found by a look; a pull would have brought it
                before = self._read_again(base.etag)
                if before is None:
                    raise self._lost()
            known = self._composed(before)
        self._known = known
        return Body(
            io.BytesIO(self._encoded(known.head)),
            known.head.size,
            rebuild=self._rebuild,
            knowledge=self._knowledge,
            uploaded=self._uploaded,
        )

    def _encoded(self, head: Head) -> bytes:
        """The head's bytes, counted with what was uploaded for it."""
        content = encode(head)
        self._heads += len(content)
        self._sent |= uploaded(self._before, head)
        return content

    def _uploaded(self) -> Uploaded:
        return Uploaded(self._heads + sum(self._sent.values()), len(self._sent))

    def _knowledge(self) -> Knowledge | None:
        return None if self._known is None else PagesKnowledge(self._known)

    def _rebuild(self, current: Version) -> Rebuilt | None:
        """On the base in other bytes: everything again. What a collector may have condemned gets a new name."""
        before = self._read_again(current.etag)
        if before is None:
            return None
        self._known = self._composed(before)
        return Rebuilt(self._encoded(self._known.head), current.etag)

    def _read_again(self, etag: str) -> Known | None:
        """The head with that ETag; None if it has been replaced."""
        found = read_again(self._source, etag)
        if found is None:
            return None
        head, ahead = found
        before = PagesKnowledge.of(self._task.generation)
        return Known(head, {} if before is None else before.numbers, ahead)

    def _composed(self, before: Known | None) -> Known:
        task = self._task
        self._before = None if before is None else before.head
        identity = Identity(task.sequence, task.commit, self._source.retrying.clock.time())
        try:
            if before is None:
                return first_head(self._objects, task.image, identity)
            local = local_pages(task.generation, before.head)
            return next_head(
                self._objects,
                task.image,
                local,
                before,
                identity,
                uploads=self._uploads,
                before_large=lambda: self._require_unlost(before),
            )
        except (FormatError, OSError) as error:
            raise task.generation.damaged(error) from error
        except BLAMED as error:
            wrong = blame(self._source, None if before is None else before.head, error)
            if wrong is error:
                raise
            raise wrong from error

    def _require_unlost(self, before: Known) -> None:
        """Before megabytes are uploaded: is the commit that this one is built on still the current one?"""
        source, base = self._source, self._task.generation.version
        assert base is not None

        def attempt() -> str | None:
            download = source.get(base.etag)
            if download is None:
                return before.head.commit
            with download:
                return download.info.metadata.get(COMMIT_KEY)

        if source.retrying.run(attempt) != before.head.commit:
            raise self._lost()

    def _lost(self) -> ConflictError:
        return conflict(self._source.url, self._task.commit, "its head was replaced")
