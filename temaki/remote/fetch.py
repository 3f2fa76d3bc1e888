"""Getting a version out of the store and into a local file, and believing nothing that has not been checked."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, Self

from temaki.errors import CorruptDatabaseError, PreconditionFailedError, StoreUnavailableError
from temaki.remote.retry import retry
from temaki.remote.transfer import Target, Transfer, ended_early
from temaki.replica.wal import DATABASE_HEADER, FormatError, read_header
from temaki.version import SEQUENCE_KEY, MetadataError, NewerFormatError, Version, read_version

if TYPE_CHECKING:
    import random
    from pathlib import Path

    from temaki.clock import Clock
    from temaki.remote.transfer import IsSlow
    from temaki.replica.wal import DatabaseHeader
    from temaki.store import Download, ObjectInfo, Store

_WAL_MODE: Final = b"\x02\x02"
_WAL_MODE_AT: Final = 18


class Source:
    """Where fetches go to: one object, with the patience and the parallelism that its remote has.

    Args:
        store: The bucket.
        key: The object's key.
        url: The database's URL, for messages.
        clock: Time.
        timeout: Seconds after which no new attempt is made.
        rng: For the jitter between attempts.
        parallel_threshold: What each of several parallel streams has to carry at least, in bytes.
        is_slow: Whether a stream is so slow that others are to help it; see :func:`temaki.remote.transfer.is_slow`.
    """

    def __init__(  # noqa: PLR0917 - one call, from Remote
        self,
        store: Store,
        key: str,
        url: str,
        clock: Clock,
        timeout: float,
        rng: random.Random,
        parallel_threshold: int,
        is_slow: IsSlow,
    ) -> None:
        self.store, self.key, self.url = store, key, url
        self.clock, self.timeout, self.rng = clock, timeout, rng
        self._parallel_threshold, self._is_slow = parallel_threshold, is_slow

    def open(self, etag: str | None) -> Fetched | None:
        """See :meth:`temaki.remote.remote.Remote.fetch`."""
        deadline = self.deadline()
        started = retry(lambda: self.start(etag), clock=self.clock, deadline=deadline, rng=self.rng)
        return None if started is None else Fetched(self, started)

    def deadline(self) -> float:
        """For what begins now."""
        return self.clock.monotonic() + self.timeout

    def start(self, etag: str | None = None) -> Started | None:
        """One GET, as far as the header of the database; None where the object still has that ETag."""
        download = self.store.get(self.key, if_none_match=etag)
        if download is None:
            return None
        try:
            return Started(download, self.url)
        except BaseException:
            download.__exit__(None, None, None)
            raise

    def transfer(self, started: Started, target: Target) -> Transfer:
        """What brings the rest of a download into its file."""
        return Transfer(
            self.store,
            started.download,
            started.first,
            target,
            self.url,
            self.clock,
            self.deadline(),
            self.rng,
            self._parallel_threshold,
            self._is_slow,
        )


class Started:
    """A download of which the first bytes have come, and have been found good.

    Attributes:
        download: The rest of it.
        first: The database's header.
        version: What it is.

    Raises:
        CorruptDatabaseError: It is no database, or not all of one.
        StoreUnavailableError: The body ended early.
    """

    def __init__(self, download: Download, url: str) -> None:
        self.download = download
        self.first = b""
        wanted = min(DATABASE_HEADER, download.info.size)
        while len(self.first) < wanted:
            data = download.read(wanted - len(self.first))
            if not data:
                raise ended_early(download, len(self.first))
            self.first += data
        self.version = _checked_version(download.info, self.first, url)


class Fetched:
    """A version that is on its way. Look at :attr:`version` first; :meth:`save` it, or leave it and drop the rest.

    Use it as a context manager.

    Attributes:
        version: What :meth:`save` will write, or has written: if the download has to begin again, it is what the
            store has by then.
    """

    def __init__(self, source: Source, started: Started) -> None:
        self._source = source
        self._started: Started | None = started
        self.version = started.version

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        started, self._started = self._started, None
        if started is not None:
            started.download.__exit__(*exc)

    def save(self, path: Path) -> None:
        """Write the version into a new file: the object's bytes, switched to WAL mode.

        (Bytes 18 and 19 of the header become 2, so that SQLite need not write in order to switch.) The file has mode
        0600. It is not flushed to the disk.

        Raises:
            CorruptDatabaseError: What the store has by now is no database.
            NotFoundError: It was deleted meanwhile.
            StoreError: The download failed, also when repeated.
            WorkingCopyError: The file exists, or cannot be written. In all cases, no new file is left.
        """
        source = self._source
        target = Target(path, source.url)
        try:
            # PreconditionFailedError: replaced between two ranges. Another GET gives what is there now.
            retry(
                lambda: self._save_once(target),
                clock=source.clock,
                deadline=source.deadline(),
                rng=source.rng,
                on=(StoreUnavailableError, PreconditionFailedError),
            )
            target.close()
        except BaseException:
            target.discard()
            raise

    def _save_once(self, target: Target) -> None:
        started, self._started = self._started, None
        if started is None:
            started = self._source.start()
            assert started is not None, "an unconditional GET has a body"
            self.version = started.version
        self._source.transfer(started, target).run()
        header = read_header(started.first)
        if header.size_is_valid:
            # Some writers leave more in the file. SQLite ignores it until its first commit in WAL mode, and would then
            # take it for pages of the database, which nothing refers to.
            target.cut(header.page_count * header.page_size)
        target.write(_WAL_MODE, _WAL_MODE_AT)


def _checked_version(info: ObjectInfo, first: bytes, url: str) -> Version:
    """The object's version, if its first bytes, its size and its metadata agree."""
    try:
        version = read_version(info)  # first: what a newer temaki stores need not begin with a SQLite header
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
            f"{url} is no database that temaki can use: {error}. (It has {info.size} bytes and the ETag {info.etag}.) "
            f"Nothing was changed, and temaki never overwrites such an object. {_EMPTY if not info.size else _STRANGE}",
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
            return  # what is beyond is no part of the database, and is cut off
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
