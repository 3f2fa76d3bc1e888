"""``pull`` and ``push``: the database as a plain SQLite file, out of the bucket and into it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Final

import typer

from temaki.cli.options import URL_HELP, AsJson, Yes, apart
from temaki.cli.progress import showing_progress
from temaki.cli.results import Pulled, Pushed
from temaki.cli.tables import short
from temaki.cli.target import Target, as_stored, copy_at_rest, problems, scratch
from temaki.cli.terminal import Terminal, terminal
from temaki.errors import ConflictError, CorruptDatabaseError, WorkingCopyError
from temaki.remote import Version

SHORTEST: Final = 4
"""Characters by which a commit may be named."""

Arguments = Annotated[list[str] | None, typer.Argument(metavar="[URL] [PATH]", help=URL_HELP, show_default=False)]
PushArguments = Annotated[list[str], typer.Argument(metavar="[URL] PATH", help=URL_HELP, show_default=False)]


def pull(arguments: Arguments = None, *, yes: Yes = False, as_json: AsJson = False) -> None:
    """Write the current version into a plain SQLite file, after checking it.

    PATH is the object's own name in the working folder if it is not given. Asks before it replaces a file.

    Example: temaki pull s3://my-bucket/app.sqlite copy.sqlite
    """
    with terminal(as_json=as_json) as out:
        url, paths = apart(arguments, least=0, most=1, what="[URL] [PATH]")
        target = Target(url)
        path = Path(paths[0]) if paths else Path(target.key.rpartition("/")[2])
        if path.is_dir():
            path /= target.key.rpartition("/")[2]
        out.show(pull_into(path, target, out, yes=yes))


def pull_into(path: Path, target: Target, out: Terminal, *, yes: bool) -> Pulled:
    """What :func:`pull` does.

    Raises:
        CorruptDatabaseError: What is stored is no sound database. Nothing was written.
        WorkingCopyError: The file cannot be written.
    """
    if path.exists():
        out.confirm(f"{path} exists. Replace it?", yes=yes)
    with scratch() as folder:
        with showing_progress(target.store, out.notes) as store:
            copy = target.fetch(folder, remote=target.remote_on(store))
        found = problems(copy.path)
        if found:
            raise CorruptDatabaseError(
                f"{target.url} is not sound: {found[0]}. Nothing was written. temaki verify lists all problems; "
                "temaki restore brings back an earlier version.",
                url=target.url,
            )
        _put_in_place(copy.path, path, target.url)
        return Pulled(url=target.url, path=str(path), version=as_stored(copy.version))


def _put_in_place(source: Path, path: Path, url: str) -> None:
    """Copy to ``path``, all of it or nothing: through a file beside it, which is renamed."""
    beside = path.with_name(f".{path.name}.{os.urandom(6).hex()}")
    try:
        with open(source, "rb") as read, open(beside, "xb") as written:
            while data := read.read(1 << 20):
                written.write(data)
            written.flush()
            os.fsync(written.fileno())
        os.replace(beside, path)
    except OSError as error:
        raise WorkingCopyError(
            f"{path} cannot be written: {error.strerror}. Choose another PATH.", url=url, path=str(path)
        ) from error
    finally:
        with suppress(FileNotFoundError):
            beside.unlink()


def push(
    arguments: PushArguments,
    *,
    expect: Annotated[
        str | None,
        typer.Option(help="Store only if this is the current version: its commit (or how that begins), or 'none'."),
    ] = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Store a SQLite file as the next version, unless somebody else stores one meanwhile.

    Refuses what is no sound SQLite database. Asks before it replaces a version, unless --expect names it.

    Example: temaki push s3://my-bucket/app.sqlite app.sqlite --expect 4f2a91c0
    """
    with terminal(as_json=as_json) as out:
        url, paths = apart(arguments, least=1, most=1, what="[URL] PATH")
        out.show(push_from(Path(paths[0]), Target(url), out, expect=expect, yes=yes))


def push_from(path: Path, target: Target, out: Terminal, *, expect: str | None, yes: bool) -> Pushed:
    """What :func:`push` does.

    Raises:
        CorruptDatabaseError: The file is no sound database.
        ConflictError: The current version is not the expected one, or no longer.
        SyncError, StoreError: It could not be stored; see :meth:`temaki.remote.Remote.publish`.
    """
    with scratch() as folder:
        copy = copy_at_rest(path, folder)
        found = problems(copy)
        if found:
            raise CorruptDatabaseError(f"{path} is not sound: {found[0]}. Nothing was stored.", url=target.url)
        base = target.current_or_none()
        if expect is not None:
            require(base, expect, target.url)
        elif base is not None:
            out.confirm(
                f"{target.url} has version {base.sequence} (commit {short(base.commit)}, {base.size} bytes). Replace "
                f"it with {path} ({copy.stat().st_size} bytes)?",
                yes=yes,
            )
        with showing_progress(target.store, out.notes) as store:
            published = target.publish(copy, base, store=store)
        return Pushed(
            url=target.url,
            version=as_stored(published.version, current=not published.superseded),
            replaced=None if base is None else as_stored(base, current=False),
        )


def require(base: Version | None, expected: str, url: str) -> None:
    """Make sure that a version is the expected one.

    Raises:
        ConflictError: It is not.
    """
    if base is None:
        met, there = expected == "none", "there is no database"
    else:
        met = expected == base.commit or (len(expected) >= SHORTEST and base.commit.startswith(expected))
        there = f"the current version is {base.sequence}, commit {base.commit}"
    if not met:
        raise ConflictError(
            f"{url}: expected {expected}, but {there}. Nothing was stored. Look at what has changed "
            "before you replace it.",
            url=url,
        )
