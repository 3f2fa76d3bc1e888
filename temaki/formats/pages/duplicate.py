"""A version as a new database: the store copies its objects, and a new head names the copies.

The copies have new names: a name is never used twice, so nothing that a collector knows of an earlier database under
the new key is about them. What is copied is what a full pull needs: the base, and the segments above it. Nobody has an
earlier version of the new database, so nobody misses more.

The objects are written once, so only a collection or somebody else can take one away meanwhile. Then the head has been
replaced, and the one of now says what to copy instead.
"""

from __future__ import annotations

import io
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

from temaki.errors import AccessDeniedError, NotFoundError, ObjectArchivedError, PreconditionFailedError
from temaki.formats.format import Copied, SourceChangedError
from temaki.formats.pages.blame import blame
from temaki.formats.pages.head import Base, Segment
from temaki.formats.pages.manifest import encode
from temaki.formats.pages.names import key_of, new_name
from temaki.formats.pages.objects import DamagedObjectError, MissingObjectError, in_parallel
from temaki.formats.pages.read import read_again
from temaki.store import CopyingStore
from temaki.version import PAGES_FORMAT

if TYPE_CHECKING:
    from temaki.formats.format import CopyTask
    from temaki.formats.pages.head import Head
    from temaki.remote.fetch import Source
    from temaki.version import Version


def duplicate(source: Source, version: Version, head: Head, task: CopyTask) -> Copied:
    """Make a new database of a version; see :meth:`temaki.formats.format.Stored.copy`.

    Args:
        source: The head's object.
        version: The version.
        head: Its head.
        task: Where to, and what was copied already.
    """
    remote = task.remote_on(task.store)
    needed: list[Base | Segment] = [head.base, *head.live]
    objects = _Objects(source, remote.source, task)

    def copy(start: int, stop: int) -> None:
        for one in needed[start:stop]:
            objects.copy(one)

    try:
        in_parallel(len(needed), copy)
    except (MissingObjectError, AccessDeniedError) as error:
        if read_again(source, version.etag) is None:
            raise SourceChangedError(str(error)) from error
        _raise_blamed(source, head, error)
    except (DamagedObjectError, ObjectArchivedError) as error:
        _raise_blamed(source, head, error)
    new = replace(
        head,
        commit=task.commit,
        base=replace(head.base, name=task.done[head.base.name]),
        segments=tuple(replace(one, name=task.done[one.name]) for one in head.live),
        since=head.base.sequence,
        collection=0,
        condemned=(),
        gone=(),
        claim=None,
        edition=0,
    )
    published = remote.publish(
        io.BytesIO(encode(new)),
        new.size,
        None,
        sequence=new.sequence,
        commit_id=task.commit,
        written_as=PAGES_FORMAT,
    )
    return Copied(published, version, len(needed), sum(one.size for one in needed))


class _Objects:
    """The objects of one head, on their way under the key of another."""

    def __init__(self, source: Source, target: Source, task: CopyTask) -> None:
        self._source, self._target, self._done = source, target, task.done

    def copy(self, one: Base | Segment) -> None:
        """Copy an object, if it was not copied before."""
        if one.name in self._done:
            return
        source, target = self._source, self._target
        store = target.store
        assert isinstance(store, CopyingStore), "see CopyTask"
        name = new_name("base" if isinstance(one, Base) else "seg")
        try:
            info = source.retrying.run(lambda: source.store.head(key_of(source.key, one.name)))
            if info.size != one.size:
                raise DamagedObjectError(one.name, f"it has {info.size} bytes, and its head says {one.size}")
            try:
                target.retrying.run(lambda: store.copy(source.store, info, key_of(target.key, name)))
            except AccessDeniedError as error:
                raise blame(target, None, error) from error  # the HEAD was allowed, so it is about the copy
        except NotFoundError as error:
            raise MissingObjectError(one.name) from error
        except PreconditionFailedError as error:
            raise DamagedObjectError(one.name, "it was replaced while it was copied") from error
        self._done[one.name] = name


def _raise_blamed(
    source: Source,
    head: Head,
    error: MissingObjectError | DamagedObjectError | AccessDeniedError | ObjectArchivedError,
) -> NoReturn:
    is_blamed = isinstance(error, AccessDeniedError) and "object" in error.facts
    wrong = error if is_blamed else blame(source, head, error)
    if wrong is error:
        raise error
    raise wrong from error
