"""``copy``: a new database with the contents of another one, as for staging or for the preview of a pull request."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Final

import typer

from temaki.cli.local import problems, scratch
from temaki.cli.options import AsJson
from temaki.cli.progress import showing_progress
from temaki.cli.results import Copied
from temaki.cli.target import Target, as_stored
from temaki.cli.terminal import Terminal, terminal
from temaki.errors import (
    ConfigurationError,
    ConflictError,
    CorruptDatabaseError,
    NotFoundError,
    StoreError,
    StoreUnavailableError,
)
from temaki.formats.choice import by_number
from temaki.formats.format import CopyTask, SourceChangedError
from temaki.observe.metering import Meter, MeteredStore
from temaki.remote.remote import new_commit
from temaki.version import PAGES_FORMAT

if TYPE_CHECKING:
    from temaki.formats import format as formats
    from temaki.store import Store
    from temaki.version import Published, Version

_MOST_READS: Final = 8
"""How often a source is read again because it was replaced while it was copied."""


def copy(
    source: Annotated[str, typer.Argument(metavar="SRC", help="URL of the database to copy.", show_default=False)],
    destination: Annotated[str, typer.Argument(metavar="DST", help="URL of the new database.", show_default=False)],
    *,
    as_json: AsJson = False,
) -> None:
    """Copy the current version of a database to another URL, as a new database of its own.

    If both are in one store, the store copies by itself, and no bytes pass through this machine. SRC is only read.
    There must be nothing at DST.

    Example: temaki copy s3://my-bucket/app.sqlite s3://my-bucket/staging/app.sqlite
    """
    with terminal(as_json=as_json) as out:
        out.show(copied(Target(source), Target(destination), out))


def copied(origin: Target, target: Target, out: Terminal) -> Copied:
    """Copy a database, as :func:`copy` does.

    Args:
        origin: The database to copy.
        target: The new database.
        out: The terminal, for the progress.

    Raises:
        ConfigurationError: Both are the same.
        ConflictError: There is something at the target. Nothing was stored.
        NotFoundError: There is no database to copy.
        CorruptDatabaseError: The stored version is damaged. Nothing was stored.
        SyncError, StoreError: It could not be stored; see :meth:`temaki.remote.remote.Remote.publish`.
    """
    out.so_far = f"Nothing was stored at {target.url}."
    if origin.url == target.url:
        raise ConfigurationError(f"{origin.url} cannot be copied to itself. Choose another DST.")
    meter = Meter()
    read, written = MeteredStore(origin.store, meter), MeteredStore(target.store, meter)
    _require_absent(target, written)
    try:
        done = _within(origin, target, read, written, out)
        if done is not None:
            published, original, within = done.published, done.original, True
            objects, size = done.objects, done.size
        else:
            published, original = _through(origin, target, read, written, out)
            within, objects, size = False, 1, original.size
    except ConflictError as error:
        raise _taken(target, "Another one was stored there meanwhile.") from error
    out.so_far = f"Version {published.version.sequence} was stored at {target.url}."
    traffic = meter.traffic()
    return Copied(
        url=target.url,
        version=as_stored(published.version, current=not published.superseded),
        source=origin.url,
        original=as_stored(original),
        format="pages" if original.format == PAGES_FORMAT else "file",
        within_store=within,
        objects=objects,
        copied=size,
        requests=traffic.count(),
        bytes_up=traffic.bytes_up,
        bytes_down=traffic.bytes_down,
    )


def _within(
    origin: Target, target: Target, read: MeteredStore, written: MeteredStore, out: Terminal
) -> formats.Copied | None:
    """Have the store copy by itself; None if it cannot."""
    if not written.can_copy(read):
        return None
    target.remote_on(written).probe_conditions()
    with showing_progress(written, out.notes) as store:
        task = CopyTask(store, target.remote_on, new_commit())
        for _ in range(_MOST_READS):
            with origin.opened(origin.remote_on(read)) as stored:
                try:
                    return stored.copy(task)
                except SourceChangedError:
                    continue
                except StoreError as error:
                    if error.status == HTTPStatus.NOT_IMPLEMENTED:
                        return None
                    raise
    raise StoreUnavailableError(
        f"{origin.url} was replaced {_MOST_READS} times while it was copied. Nothing was stored at {target.url}. Try "
        "again when fewer writers are at work.",
        url=origin.url,
        ambiguous=False,
    )


def _through(origin: Target, target: Target, read: Store, written: Store, out: Terminal) -> tuple[Published, Version]:
    """Fetch the version into a file, check it, and store it, in the same format."""
    with scratch() as folder:
        with showing_progress(read, out.notes) as store:
            local = origin.fetch(folder, remote=origin.remote_on(store))
        defects = problems(local.path)
        if defects:
            raise CorruptDatabaseError(
                f"{origin.url} is not sound: {defects[0]}. Nothing was stored. temaki verify lists all problems; "
                "temaki restore brings back an earlier version.",
                url=origin.url,
            )
        original = local.version
        with showing_progress(written, out.notes) as store:
            published = target.publish(
                local.path, None, sequence=original.sequence, store=store, form=by_number(original.format)
            )
    return published, original


def _require_absent(target: Target, store: Store) -> None:
    """Check that there is nothing at the target, before anything is copied. The write checks it again."""
    try:
        found = target.repeat(lambda: store.head(target.key))
    except NotFoundError:
        return
    raise _taken(target, f"It has {found.size} bytes.")


def _taken(target: Target, what: str) -> ConflictError:
    return ConflictError(
        f"There is something at {target.url} already. {what} Nothing was stored: temaki copy only makes new databases. "
        f"Choose another DST, or remove what is there; to replace its contents and keep its history, use temaki pull "
        f"and temaki push {target.url}.",
        url=target.url,
    )
