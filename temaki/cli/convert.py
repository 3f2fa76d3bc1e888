"""``convert``: the same database in the other format."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

import typer

from temaki.cli.local import problems, scratch
from temaki.cli.options import AsJson, Url, Yes
from temaki.cli.progress import showing_progress
from temaki.cli.results import Converted
from temaki.cli.tables import short
from temaki.cli.target import Target, as_stored
from temaki.cli.terminal import Terminal, terminal
from temaki.errors import CorruptDatabaseError
from temaki.formats.choice import NAMES, by_number


class FormatName(StrEnum):
    """A format, by the name that users give it."""

    file = "file"
    pages = "pages"


def convert(
    url: Url = None,
    *,
    to: Annotated[FormatName, typer.Option("--to", help="The format.", show_default=False)],
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Store the current version in the other format, as the next version, unless another writer stores one meanwhile.

    Processes that use the database go on in the new format with their next session. They need a temaki that knows it.

    Example: temaki convert s3://my-bucket/app.sqlite --to pages
    """
    with terminal(as_json=as_json) as out:
        out.show(converted(Target(url), "pages" if to is FormatName.pages else "file", out, yes=yes))


def converted(target: Target, to: Literal["file", "pages"], out: Terminal, *, yes: bool) -> Converted:
    """Convert a database, as :func:`convert` does.

    Args:
        target: The database.
        to: The name of the format.
        out: The terminal, for the question.
        yes: Whether to go on without asking.

    Raises:
        ConflictError: Another writer stored a version meanwhile. Nothing was stored.
        CorruptDatabaseError: The stored version is not sound. Nothing was stored.
        SyncError, StoreError: It could not be stored; see :meth:`temaki.remote.remote.Remote.publish`.
    """
    out.so_far = "Nothing was stored."
    form = by_number(NAMES[to])
    current = target.current()
    if current.format == form.number:
        return Converted(url=target.url, version=as_stored(current), format=to)
    out.confirm(
        f"Store version {current.sequence} of {target.url} (commit {short(current.commit)}, {current.size} bytes) in "
        f"the format {to}, as the next version?",
        yes=yes,
    )
    with scratch() as folder:
        with showing_progress(target.store, out.notes) as store:
            copy = target.fetch(folder, remote=target.remote_on(store))
        defects = problems(copy.path)
        if defects:
            raise CorruptDatabaseError(
                f"{target.url} is not sound: {defects[0]}. Nothing was stored. temaki verify lists all problems; "
                "temaki restore brings back an earlier version.",
                url=target.url,
            )
        with showing_progress(target.store, out.notes) as store:
            published = target.publish(copy.path, copy.version, store=store, form=form)
    out.so_far = f"Version {published.version.sequence} was stored."
    return Converted(
        url=target.url,
        version=as_stored(published.version, current=not published.superseded),
        replaced=as_stored(copy.version, current=False),
        format=to,
    )
