"""Reads a head from an answer of the store, and makes sure that it is what its metadata say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from temaki.errors import CorruptDatabaseError, NotFoundError, PreconditionFailedError
from temaki.formats.pages.manifest import LARGEST_HEAD, NewerHeadError, decode
from temaki.remote.transfer import read_exactly
from temaki.replica.header import FormatError
from temaki.version import COMMIT_KEY, SEQUENCE_KEY, MetadataError, read_version

if TYPE_CHECKING:
    from temaki.formats.pages.head import Head
    from temaki.remote.fetch import Source
    from temaki.store import Download, ObjectInfo
    from temaki.version import Version


def read_stored(download: Download, url: str) -> tuple[Version, Head]:
    """What a head's object says, if its bytes and its metadata agree."""
    with download:
        info = download.info
        try:
            version = read_version(info)
            if info.size > LARGEST_HEAD:
                raise FormatError(f"its head has {info.size} bytes, and no head has more than {LARGEST_HEAD}")  # noqa: TRY301
            head = decode(read_exactly(download, info.size))
            if (head.commit, head.sequence) != (version.commit, version.sequence):
                raise MetadataError(  # noqa: TRY301
                    f"its metadata say commit {version.commit}, number {version.sequence}, its head {head.commit}, "
                    f"number {head.sequence}"
                )
            if version.size != head.size:
                raise MetadataError(f"its metadata say {version.size} bytes, its head {head.size}")  # noqa: TRY301
        except NewerHeadError as error:
            raise _unreadable(info, url, error, "Upgrade temaki here. Nothing was changed.") from error
        except (FormatError, MetadataError) as error:
            advice = (
                "Nothing was changed, and temaki never overwrites such an object. Restore an earlier version of it, as "
                f"with `temaki restore {url}`."
            )
            raise _unreadable(info, url, error, advice) from error
    return version, head


def read_again(source: Source, etag: str) -> tuple[Head, float] | None:
    """The head with that ETag, and :func:`ahead_of`; None if it has been replaced.

    Raises:
        CorruptDatabaseError: It is no head.
        StoreError: The request failed, also when repeated.
    """

    def attempt() -> tuple[Head, float] | None:
        try:
            download = source.store.get(source.key, if_match=etag)
        except (PreconditionFailedError, NotFoundError):
            return None
        assert download is not None, "only if_none_match has no body"
        if download.info.etag != etag:  # a server that ignores the condition
            download.__exit__(None, None, None)
            return None
        _, head = read_stored(download, source.url)
        return head, ahead_of(source, download)

    return source.retrying.run(attempt)


def ahead_of(source: Source, download: Download) -> float:
    """By how many seconds the store's clock is ahead of ours, where it tells its time."""
    date = download.info.date
    return 0.0 if date is None else date.timestamp() - source.retrying.clock.time()


def _unreadable(info: ObjectInfo, url: str, reason: Exception, advice: str) -> CorruptDatabaseError:
    sequence, commit = info.metadata.get(SEQUENCE_KEY, "?"), info.metadata.get(COMMIT_KEY, "?")
    return CorruptDatabaseError(
        f"{url} cannot be read: {reason}. (It has {info.size} bytes and the ETag {info.etag}. Its metadata say that it "
        f"is version {sequence}, {commit}.) {advice}",
        url=url,
        reason=str(reason),
        size=info.size,
        etag=info.etag,
        commit=commit,
        sequence=sequence,
    )
