"""``compact``: fewer objects to pull for a database in pages, and none that nothing refers to."""

from __future__ import annotations

from typing import Annotated

import typer

from temaki.cli.local import scratch
from temaki.cli.options import AsJson, Url
from temaki.cli.progress import showing_progress
from temaki.cli.results import Compacted
from temaki.cli.target import Target, as_stored
from temaki.cli.terminal import Terminal, terminal
from temaki.version import PAGES_FORMAT


def compact(
    url: Url = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and change nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a full pull of a database in pages cheap again, and delete what nothing refers to any more.

    Safe at any time, beside any number of writers. What it replaces is deleted by a run that begins an hour later, or
    more. A database in one file needs none of this.

    Example: temaki compact s3://my-bucket/app.sqlite --dry-run
    """
    with terminal(as_json=as_json) as out:
        out.show(compacted(Target(url), out, dry_run=dry_run))


def compacted(target: Target, out: Terminal, *, dry_run: bool) -> Compacted:
    """Compact a database, as :func:`compact` does.

    Args:
        target: The database.
        out: The terminal, for the progress.
        dry_run: Whether to find out only what would be done.

    Raises:
        CorruptDatabaseError: What is stored is damaged.
        NotFoundError: There is no database.
        StoreError: A request failed. Nothing is lost.
    """
    version = target.current()
    if version.format == PAGES_FORMAT:
        from temaki.formats.pages.compact import compact as run

        if not dry_run:
            target.remote.probe_conditions()
            out.so_far = "The database is as it was. What was uploaded is deleted by another run."
        with scratch() as folder, showing_progress(target.store, out.notes) as store:
            done = run(target.remote_on(store).source, folder / "compacted.sqlite", dry_run=dry_run)
        if done is not None:
            collected = done.collected
            return Compacted(
                url=target.url,
                version=as_stored(version),
                format="pages",
                dry_run=dry_run,
                busy=done.busy,
                folded=done.folded,
                merged=done.merged,
                uploaded=done.sent,
                condemned=len(collected.condemned),
                deleted=len(collected.deleted),
                freed=collected.freed,
                waiting=collected.waiting,
                pull_before=done.before,
                pull_after=done.after,
            )
    return Compacted(
        url=target.url,
        version=as_stored(version),
        format="file",
        dry_run=dry_run,
        pull_before=version.size,
        pull_after=version.size,
    )
