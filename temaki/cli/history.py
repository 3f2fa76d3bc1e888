"""``history``, ``diff`` and ``restore``: the versions that a bucket with versioning keeps."""

from __future__ import annotations

from typing import Annotated

import typer

from temaki.cli.compare import compare
from temaki.cli.local import problems, scratch
from temaki.cli.options import URL_HELP, AsJson, Url, Yes, apart
from temaki.cli.progress import showing_progress
from temaki.cli.results import Difference, History, Pushed
from temaki.cli.tables import moment, short
from temaki.cli.target import Target, as_stored
from temaki.cli.terminal import Terminal, terminal
from temaki.cli.versions import NAMES, KeptVersions, base_for_restore
from temaki.errors import CorruptDatabaseError

DiffArguments = Annotated[
    list[str], typer.Argument(metavar="[URL] OLD [NEW]", help=f"{URL_HELP} {NAMES}", show_default=False)
]
RestoreArguments = Annotated[
    list[str], typer.Argument(metavar="[URL] VERSION", help=f"{URL_HELP} {NAMES}", show_default=False)
]


def history(
    url: Url = None,
    *,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="How many versions to show: one request each.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List the versions that the bucket keeps, newest first.

    Example: temaki history s3://my-bucket/app.sqlite --limit 5
    """
    with terminal(as_json=as_json) as out:
        out.show(listed(Target(url), limit))


def listed(target: Target, limit: int) -> History:
    """Return what :func:`history` shows.

    Args:
        target: The database.
        limit: How many versions to list, at most.

    Raises:
        CorruptDatabaseError: None of the versions is a database.
    """
    versions = KeptVersions(target)
    newest = versions.newest(limit)
    if all(kept.version is None for kept in newest):
        more = len(versions.versions) > limit
        raise CorruptDatabaseError(
            f"{target.url} is no database that temaki can use: none of the {len(newest)} newest versions that the "
            f"bucket keeps is one ({', '.join(kept.listed.version_id for kept in newest)}). "
            + (f"It keeps older ones: look further back with --limit {limit * 10}." if more else "Check the URL."),
            url=target.url,
        )
    return History(
        url=target.url,
        versions=[kept.stored() for kept in newest if kept.version is not None],
        truncated=len(versions.versions) > limit,
        deleted=versions.deleted,
        unreadable=[kept.listed.version_id for kept in newest if kept.version is None],
    )


def diff(arguments: DiffArguments, *, as_json: AsJson = False) -> None:
    """Count the rows that were added, changed and removed between two versions, table by table.

    NEW defaults to the current version. Rows are identified by primary key, or by rowid if a table has none.

    Example: temaki diff s3://my-bucket/app.sqlite 41 42
    """
    with terminal(as_json=as_json) as out:
        url, names = apart(arguments, least=1, most=2, what="[URL] OLD [NEW]")
        out.show(difference(Target(url), names[0], names[1] if names[1:] else "current", out))


def difference(target: Target, old: str, new: str, out: Terminal) -> Difference:
    """Return what :func:`diff` shows: the tables that differ between the versions named ``old`` and ``new``."""
    versions = KeptVersions(target)
    older, newer = versions.named(old), versions.named(new)
    with scratch() as folder:
        # One after the other: two downloads at once would only share the bandwidth.
        left, right = (
            versions.fetch(older, folder, "old.sqlite", out.notes),
            versions.fetch(newer, folder, "new.sqlite", out.notes),
        )
        tables = compare(left.path, right.path)
    return Difference(url=target.url, old=older.stored(), new=newer.stored(), tables=tables)


def restore(arguments: RestoreArguments, *, yes: Yes = False, as_json: AsJson = False) -> None:
    """Store an old version again, as a new version. The bucket also keeps the version that it replaces.

    Example: temaki restore s3://my-bucket/app.sqlite 41
    """
    with terminal(as_json=as_json) as out:
        url, names = apart(arguments, least=1, most=1, what="[URL] VERSION")
        out.show(bring_back(Target(url), names[0], out, yes=yes))


def bring_back(target: Target, name: str, out: Terminal, *, yes: bool) -> Pushed:
    """Store an old version again, as :func:`restore` does.

    Args:
        target: The database.
        name: The name of the old version.
        out: The terminal, for the question.
        yes: Whether to go on without asking.

    Raises:
        ConflictError: Another writer stored a version meanwhile.
        CorruptDatabaseError: The old version is not sound.
        NotFoundError: There is no such version.
    """
    out.so_far = "Nothing was stored."
    versions = KeptVersions(target)
    chosen = versions.named(name)
    old = chosen.stored()
    with scratch() as folder:
        copy = versions.fetch(chosen, folder, "restored.sqlite", out.notes)
        defects = problems(copy.path)
        if defects:
            raise CorruptDatabaseError(
                f"Version {old.sequence} of {target.url} is not sound: {defects[0]}. Nothing was changed. Restore "
                "another version.",
                url=target.url,
            )
        base, sequence = base_for_restore(target, versions)
        instead = (
            "which is deleted now"
            if base is None
            else f"in place of version {base.sequence} (commit {short(base.commit)})"
        )
        out.confirm(
            f"Store version {old.sequence} of {target.url} (commit {short(old.commit)}, of {moment(old.modified)} UTC) "
            f"again, as version {sequence}, {instead}?",
            yes=yes,
        )
        with showing_progress(target.store, out.notes) as store:
            published = target.publish(copy.path, base, sequence=sequence, store=store)
        out.so_far = f"Version {published.version.sequence} was stored."
    return Pushed(
        url=target.url,
        version=as_stored(published.version, current=not published.superseded),
        replaced=None if base is None else as_stored(base, current=False),
    )
