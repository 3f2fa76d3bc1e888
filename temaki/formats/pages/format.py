"""The format ``pages``: the stored object is a head, which names a base and segments beside it.

See :mod:`temaki.formats.pages.head` for the bytes, :mod:`temaki.formats.pages.compose` for a commit, and
:mod:`temaki.formats.pages.pull` for a pull.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final

from temaki.errors import ConflictError
from temaki.formats.format import Body, Format, Stored, Task, WholeTask
from temaki.formats.pages.compose import Identity, Known, Uploads, first_head, next_head
from temaki.formats.pages.head import encode
from temaki.formats.pages.knowledge import PagesKnowledge, local_pages
from temaki.formats.pages.objects import DamagedObjectError, MissingObjectError, Objects, corrupt
from temaki.formats.pages.pull import MismatchError, can_catch_up, collect, prove, save
from temaki.formats.pages.read import ahead_of, read_again, read_stored
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

    from temaki.formats.format import Maintained
    from temaki.formats.pages.head import Head
    from temaki.remote.fetch import Source
    from temaki.replica.generation import Generation, Knowledge
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
        return StoredPages(source, *read_stored(download, source.url), ahead_of(source, download))

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

    Attributes:
        head: As above.
    """

    def __init__(self, source: Source, version: Version, head: Head, ahead: float) -> None:
        self._source, self._ahead = source, ahead
        self.version, self.head = version, head

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
                    break
                except MissingObjectError as error:
                    self._plan_again(error, is_last=plan == _MOST_PLANS - 1)
                except DamagedObjectError as error:
                    raise corrupt(self._source, self.head, error.name or None, error) from error
            target.close()
        except BaseException:
            target.discard()
            raise

    def _plan_again(self, error: MissingObjectError, *, is_last: bool) -> None:
        """An object was collected since the head was read, or somebody removed it: the head of now tells which."""
        missing = corrupt(self._source, self.head, error.name, "the object is missing")
        if is_last:
            raise missing from error
        download = self._source.retrying.run(self._source.get)
        assert download is not None, "an unconditional GET has a body"
        if download.info.etag == self.version.etag or download.info.metadata.get(FORMAT_KEY) != PAGES_FORMAT:
            download.__exit__(None, None, None)
            raise missing from error
        self.version, self.head = read_stored(download, self._source.url)

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
        except MissingObjectError:
            return CaughtUp.IMPOSSIBLE  # a full pull finds out why
        except DamagedObjectError as error:
            raise corrupt(self._source, head, error.name or None, error) from error

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
        content = encode(known.head)
        return Body(io.BytesIO(content), known.head.size, rebuild=self._rebuild, knowledge=self._knowledge)

    def _knowledge(self) -> Knowledge | None:
        return None if self._known is None else PagesKnowledge(self._known)

    def _rebuild(self, current: Version) -> Rebuilt | None:
        """On the base in other bytes: everything again. What a collector may have condemned gets a new name."""
        before = self._read_again(current.etag)
        if before is None:
            return None
        self._known = self._composed(before)
        return Rebuilt(encode(self._known.head), current.etag)

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
        except MissingObjectError as error:
            assert before is not None
            raise corrupt(self._source, before.head, error.name, "the object is missing") from error
        except DamagedObjectError as error:
            assert before is not None
            raise corrupt(self._source, before.head, error.name or None, error) from error

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
