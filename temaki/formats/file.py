"""The format ``file``: a version is an ordinary SQLite file.

The object's bytes are the database in rollback mode, so any SQLite tool can open it. The object's metadata name the
commit. The file's change counter is the version's number, so that no two versions of one lineage have equal bytes.
"""

from __future__ import annotations

import io
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from temaki.errors import (
    CorruptDatabaseError,
    NotFoundError,
    PreconditionFailedError,
    StoreError,
    StoreUnavailableError,
)
from temaki.formats.format import Body, Copied, Format, Received, SourceChangedError, Stored, Task, WholeTask
from temaki.remote.swap import Rebuilt
from temaki.remote.transfer import Target, read_exactly
from temaki.replica.header import DATABASE_HEADER, MODES_AT, ROLLBACK_MODE, WAL_MODE, FormatError, read_header
from temaki.store import CopyingStore
from temaki.stores.wrapper import StoreWrapper
from temaki.version import FILE_FORMAT, SEQUENCE_KEY, MetadataError, NewerFormatError, Version, read_version

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from temaki.formats.format import CopyTask
    from temaki.remote.fetch import Source
    from temaki.replica.header import DatabaseHeader
    from temaki.store import Download, ObjectInfo, ReadableBody, Store


class _File(Format):
    """The format ``file``; see the module."""

    def open(self, source: Source, download: Download) -> Stored:
        """Read the database's header."""
        return StoredFile(source, _Begun(download, source.url))

    def store(self, task: Task) -> Body:
        """The whole database."""
        return Body(task.image, task.image.size)

    def store_whole(self, task: WholeTask) -> Body:
        """The whole database. It is the same one on a version in pages that was maintained meanwhile."""
        is_maintained = task.base is not None and task.base.format != FILE_FORMAT
        rebuild = (lambda stored: Rebuilt(task.image, stored.etag)) if is_maintained else None
        return Body(task.image, task.image.size, rebuild=rebuild)


FORMAT: Final = _File()


class _Begun:
    """A download that has begun with the header of a database.

    Attributes:
        download: The rest of the download. It is closed if the header is not that of a database.
        first: The database's header, in bytes.
        version: The version that the object is.
    """

    def __init__(self, download: Download, url: str) -> None:
        self.download = download
        try:
            self.first = read_exactly(download, min(DATABASE_HEADER, download.info.size))
            self.version = _checked_version(download.info, self.first, url)
        except BaseException:
            download.__exit__(None, None, None)
            raise


class StoredFile(Stored):
    """A version in this format that the store has begun to send.

    Args:
        source: The object, for further requests.
        begun: The download.
    """

    def __init__(self, source: Source, begun: _Begun) -> None:
        self._source = source
        self._begun: _Begun | None = begun
        self.version = begun.version

    @property
    def received(self) -> Received:
        """The whole object."""
        return Received(self.version.size)

    def close(self) -> None:
        """Drop the rest of the download."""
        begun, self._begun = self._begun, None
        if begun is not None:
            begun.download.__exit__(None, None, None)

    def save(self, path: Path) -> None:
        """Write the object's bytes, switched to WAL mode, so that SQLite need not write in order to switch."""
        source = self._source
        target = Target(path, source.url)
        try:
            # PreconditionFailedError: the object was replaced between two ranges. Another GET gives the current one.
            source.retrying.begin().run(
                lambda: self._save_once(target), on=(StoreUnavailableError, PreconditionFailedError)
            )
            target.close()
        except BaseException:
            target.discard()
            raise

    def copy(self, task: CopyTask) -> Copied | None:
        """Copy the object, with metadata of its own: the bytes, and so the number in them, stay.

        The object is the one that is created only if there is none. So the store has to keep the conditions of a copy.
        And a file of another tool need not be what temaki would write.
        """
        begun = self._begun
        assert begun is not None, "a version is copied before anything else is done with it"
        self.close()
        version, info = self.version, begun.download.info
        header = read_header(begun.first)
        is_own = header.size_is_valid and info.size == header.page_count * header.page_size
        if not is_own or begun.first[MODES_AT : MODES_AT + len(ROLLBACK_MODE)] != ROLLBACK_MODE:
            return None
        if not task.remote_on(task.store).honours_copy_conditions():
            return None
        remote = task.remote_on(_Copying(task.store, self._source.store, info))
        try:
            published = remote.publish(
                io.BytesIO(), version.size, None, sequence=version.sequence, commit_id=task.commit
            )
        except _ReplacedError as error:
            raise SourceChangedError(str(error)) from error
        return Copied(published, version, 1, info.size)

    def _save_once(self, target: Target) -> None:
        begun, self._begun = self._begun, None
        if begun is None:
            download = self._source.get()
            assert download is not None, "an unconditional GET has a body"
            begun = _Begun(download, self._source.url)
            self.version = begun.version
        self._source.transfer(begun.download, begun.first, target).run()
        header = read_header(begun.first)
        if header.size_is_valid:
            # Some writers leave bytes behind the last page of the database. SQLite ignores them until its first commit
            # in WAL mode. Then it would take them for pages of the database that nothing refers to.
            target.cut(header.page_count * header.page_size)
        target.write(WAL_MODE, MODES_AT)


class _ReplacedError(StoreError):
    """The object that should be copied is another one by now, or is gone. It was not copied."""


class _Copying(StoreWrapper):
    """Writes a copy of one object, whatever body it is given: so a copy is published exactly once, as a commit is.

    Args:
        store: Where the copy goes.
        source: Where the object is.
        info: The object.
    """

    copies = True

    def __init__(self, store: Store, source: Store, info: ObjectInfo) -> None:
        super().__init__(store)
        self._source, self._info = source, info

    def put(
        self,
        key: str,
        body: bytes | ReadableBody,  # noqa: ARG002 - the protocol's
        *,
        metadata: Mapping[str, str] | None = None,
        if_match: str | None = None,
        if_none_match: bool = False,
    ) -> str:
        """Copy the object. See :meth:`temaki.store.Store.put`."""
        assert if_match is None, "a copy creates"
        store, source, info = self.wrapped, self._source, self._info
        assert isinstance(store, CopyingStore), "see CopyTask"
        try:
            return store.copy(source, info, key, metadata=metadata, if_none_match=if_none_match)
        except NotFoundError as error:
            raise _ReplacedError(str(error), **error.facts) from error
        except PreconditionFailedError as refusal:
            if not refusal.in_flight and not self._is_unchanged():
                raise _ReplacedError(str(refusal), url=refusal.url) from refusal
            raise

    def _is_unchanged(self) -> bool:
        try:
            return self._source.head(self._info.key).etag == self._info.etag
        except NotFoundError:
            return False


def _checked_version(info: ObjectInfo, first: bytes, url: str) -> Version:
    """Read the object's version, and make sure that its first bytes, its size and its metadata agree."""
    try:
        version = read_version(info)  # first, because a newer temaki's object may not begin with a SQLite header
        header = read_header(first)
        if version.is_adopted:
            version = replace(version, sequence=header.change_counter)
        _check_size(header, version)
    except NewerFormatError as error:
        raise CorruptDatabaseError(
            f"{url} cannot be read: {error}. Upgrade temaki here. Nothing was changed.",
            url=url,
            reason=str(error),
            size=info.size,
            etag=info.etag,
        ) from error
    except (FormatError, MetadataError) as error:
        raise CorruptDatabaseError(
            f"{url} is no database that temaki can use: {error}. (The object has {info.size} bytes and the ETag "
            f"{info.etag}.) Nothing was changed, and temaki never overwrites such an object. "
            f"{_STRANGE if info.size else _EMPTY}",
            url=url,
            reason=str(error),
            size=info.size,
            etag=info.etag,
        ) from error
    return version


_STRANGE: Final = "Restore an earlier version of it; or move it away, if it is something else; or use another key."
_EMPTY: Final = (
    "Something has made it and written nothing to it, as tempfile.mkstemp(), NamedTemporaryFile() and touch do; or a "
    "write to it has broken off. To plain SQLite an empty file is a new database; here it might be one that was lost. "
    "If nothing of yours was in it, remove it, or use a name at which there is nothing yet, such as one in "
    "tempfile.mkdtemp(). Otherwise restore an earlier version of it."
)


def _check_size(header: DatabaseHeader, version: Version) -> None:
    expected = header.page_count * header.page_size
    if version.is_adopted:
        if header.size_is_valid and version.size >= expected:
            return  # bytes beyond that are no part of the database, and are cut off
        if version.size % header.page_size or version.size < header.page_size:
            raise FormatError(f"truncated: its pages have {header.page_size} bytes, and it ends within one")
        if header.size_is_valid and version.size < expected:
            raise FormatError(f"truncated: its header says that it has {expected} bytes")
        return
    if not header.size_is_valid or version.size != expected:
        raise FormatError(f"truncated or changed: its header says that it has {expected} bytes")
    if header.change_counter != version.sequence % (1 << 32):
        raise MetadataError(
            f"its metadata say {SEQUENCE_KEY} {version.sequence}, its header {header.change_counter}: another tool "
            "changed it and kept the metadata (upload it without them, to have it adopted)"
        )
