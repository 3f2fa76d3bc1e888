"""The objects beside a head: read as often as it takes, and written once under a new name each."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
import threading
from functools import partial
from typing import IO, TYPE_CHECKING, Final, TypeVar

from temaki.errors import CorruptDatabaseError, NotFoundError, PreconditionFailedError
from temaki.formats.pages.names import key_of
from temaki.formats.pages.segment import SegmentReader, index_size
from temaki.remote.transfer import Parts, ended_early, read_exactly
from temaki.replica.header import DATABASE_HEADER, FormatError, read_header

if TYPE_CHECKING:
    from array import array
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from temaki.formats.pages.head import Base, Head, Segment
    from temaki.remote.fetch import Source
    from temaki.remote.transfer import Target
    from temaki.store import Download, ReadableBody

T = TypeVar("T")

_STREAMS: Final = 4
_CHUNK: Final = 1 << 20  # bytes that each stream holds in memory
_IN_MEMORY: Final = 256 << 10
"""Bytes of a segment that are kept in memory. A larger one is kept in a file without a name."""


class MissingObjectError(Exception):
    """An object that a head names is not there: the head is an old one by now, or somebody removed the object.

    Attributes:
        name: The object's.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class DamagedObjectError(Exception):
    """An object that a head names is not what the head says.

    Attributes:
        name: The object's.
    """

    def __init__(self, name: str, reason: object) -> None:
        super().__init__(str(reason))
        self.name = name


def corrupt(source: Source, head: Head, name: str | None, reason: object) -> CorruptDatabaseError:
    """The error for a version that cannot be read because of one of its objects; ``name`` is None for the head."""
    what = source.url if name is None else f"{key_of(source.url, name)}, which {source.url} refers to,"
    return CorruptDatabaseError(
        f"Version {head.sequence} ({head.commit}) cannot be read: {what} is damaged or was replaced: {reason}. Nothing "
        f"was changed. Restore an earlier version with `temaki restore {source.url}`, or the object itself if the "
        "bucket keeps versions.",
        url=source.url,
        reason=str(reason),
        commit=head.commit,
        sequence=head.sequence,
        object=name,
    )


class Objects:
    """The objects beside one head.

    Args:
        source: The head's object, with the patience that its remote has.
        folder: Where large segments are kept while they are read or written; None for the system's place.
    """

    def __init__(self, source: Source, folder: Path | None = None) -> None:
        self._source, self._folder = source, folder

    def temporary(self) -> IO[bytes]:
        """A file without a name, which is in memory while it is small."""
        return tempfile.SpooledTemporaryFile(
            max_size=_IN_MEMORY, dir=None if self._folder is None else str(self._folder)
        )

    def put(self, name: str, content: bytes | ReadableBody) -> None:
        """Write an object under a new name. To send it twice does no harm: the bytes are the same.

        Raises:
            StoreError: The store refused, or could not be reached.
        """
        source, key = self._source, key_of(self._source.key, name)
        source.retrying.run(lambda: source.store.put(key, content))

    def begin_put(self, name: str, content: ReadableBody) -> Callable[[], object]:
        """As :meth:`put`, in a thread of its own. What is returned waits for its end, and raises what it raised.

        Without a thread, because the system gives none, it is the waiting that uploads.
        """
        errors: list[BaseException] = []

        def put() -> None:
            try:
                self.put(name, content)
            except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
                errors.append(error)

        thread = threading.Thread(target=put, name="temaki-put", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            return partial(self.put, name, content)

        def end() -> None:
            thread.join()
            if errors:
                raise errors[0]

        return end

    def put_all(self, contents: Mapping[str, ReadableBody]) -> None:
        """As :meth:`put`, for several objects in parallel."""
        items = list(contents.items())

        def put(start: int, stop: int) -> None:
            for name, content in items[start:stop]:
                self.put(name, content)

        in_parallel(len(items), put)

    @contextlib.contextmanager
    def segments(self, wanted: Sequence[Segment], page_size: int) -> Iterator[list[SegmentReader]]:
        """Several segments, fetched in parallel; in the order in which they were asked for.

        Raises:
            MissingObjectError: One of them is not there.
            DamagedObjectError: One of them is not what the head says.
            StoreError: A request failed, also when repeated.
        """
        with contextlib.ExitStack() as files:
            fetched = [files.enter_context(self.temporary()) for _ in wanted]

            def fetch(start: int, stop: int) -> None:
                for index in range(start, stop):
                    self._fetch(wanted[index], fetched[index])

            in_parallel(len(wanted), fetch)
            yield [self._reader(one, file, page_size) for one, file in zip(wanted, fetched, strict=True)]

    def numbers(self, segment: Segment, page_size: int) -> array[int]:
        """Which pages a segment has: a request for its first bytes. Raises what :meth:`segments` does."""

        def attempt() -> array[int]:
            with self._get(segment.name, (0, index_size(segment.pages))) as download:
                read = partial(read_exactly, download)
                try:
                    return SegmentReader(read, segment, download.info.size, page_size).numbers
                except FormatError as error:
                    raise DamagedObjectError(segment.name, error) from error

        return self._source.retrying.run(attempt)

    def base(self, base: Base, page_size: int, target: Target) -> None:
        """Write a base into a file. Raises what :meth:`segments` does, and ``WorkingCopyError``."""

        def attempt() -> None:
            download = self._get(base.name)
            try:
                first = _checked_base(download, base, page_size)
            except BaseException:
                download.__exit__(None, None, None)
                raise
            try:
                self._source.transfer(download, first, target).run()
            except NotFoundError as error:  # it was removed between two ranges
                raise MissingObjectError(base.name) from error
            except PreconditionFailedError as error:
                raise DamagedObjectError(base.name, "it was replaced while it was read") from error

        self._source.retrying.run(attempt)

    def _fetch(self, segment: Segment, file: IO[bytes]) -> None:
        def attempt() -> None:
            file.seek(0)
            file.truncate()
            with self._get(segment.name) as download:
                if download.info.size != segment.size:
                    raise DamagedObjectError(
                        segment.name, f"it has {download.info.size} bytes, and its head says {segment.size}"
                    )
                left = segment.size
                while left:
                    data = download.read(min(_CHUNK, left))
                    if not data:
                        raise ended_early(download, segment.size - left)
                    file.write(data)
                    left -= len(data)

        self._source.retrying.run(attempt)
        file.seek(0)

    def _reader(self, segment: Segment, file: IO[bytes], page_size: int) -> SegmentReader:
        try:
            return SegmentReader(file.read, segment, segment.size, page_size)
        except FormatError as error:
            raise DamagedObjectError(segment.name, error) from error

    def _get(self, name: str, byte_range: tuple[int, int] | None = None) -> Download:
        try:
            download = self._source.store.get(key_of(self._source.key, name), byte_range=byte_range)
        except NotFoundError as error:
            raise MissingObjectError(name) from error
        assert download is not None, "only if_none_match has no body"
        return download


def _checked_base(download: Download, base: Base, page_size: int) -> bytes:
    """The first bytes of a base that is what its head says."""
    if download.info.size != base.size:
        raise DamagedObjectError(base.name, f"it has {download.info.size} bytes, and its head says {base.size}")
    first = read_exactly(download, DATABASE_HEADER)
    try:
        found = read_header(first).page_size
    except FormatError as error:
        raise DamagedObjectError(base.name, error) from error
    if found != page_size:
        raise DamagedObjectError(base.name, f"its pages have {found} bytes, and its head says {page_size}")
    return first


def in_parallel(count: int, fetch: Callable[[int, int], None]) -> None:
    """Fetch or write objects 0 to ``count``, in up to four threads, of which this one is the first."""
    streams = min(_STREAMS, count)
    if not streams:
        return
    cuts = [count * stream // streams for stream in range(streams + 1)]
    first, *others = itertools.pairwise(cuts)
    Parts(list(others), fetch, threading.Event()).run(lambda: fetch(*first))
