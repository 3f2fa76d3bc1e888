"""``pull`` and ``push``: the database as a plain SQLite file, out of the bucket and into it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Final

import typer

from temaki.cli.local import copy_at_rest, problems, scratch
from temaki.cli.options import URL_HELP, AsJson, Yes, apart
from temaki.cli.progress import showing_progress
from temaki.cli.results import Pulled, Pushed
from temaki.cli.streams import undisturbed
from temaki.cli.tables import short
from temaki.cli.target import LocalCopy, Target, as_stored
from temaki.cli.terminal import Terminal, terminal
from temaki.errors import ConfigurationError, ConflictError, CorruptDatabaseError, WorkingCopyError
from temaki.version import Version

SHORTEST: Final = 4
"""Characters by which a commit may be named."""

STANDARD: Final = "-"
"""The PATH that means stdin or stdout. A file of that name is ``./-``."""

_PIECE: Final = 1 << 20  # bytes

Arguments = Annotated[list[str] | None, typer.Argument(metavar="[URL] [PATH]", help=URL_HELP, show_default=False)]
PushArguments = Annotated[list[str], typer.Argument(metavar="[URL] PATH", help=URL_HELP, show_default=False)]


def pull(arguments: Arguments = None, *, yes: Yes = False, as_json: AsJson = False) -> None:
    """Write the current version into a plain SQLite file, after checking it.

    PATH is the object's own name in the working folder if it is not given; - is stdout. Asks before it replaces a file.

    Example: temaki pull s3://my-bucket/app.sqlite copy.sqlite
    """
    with terminal(as_json=as_json) as out:
        url, paths = apart(arguments, least=0, most=1, what="[URL] [PATH]")
        target = Target(url)
        if paths == [STANDARD]:
            pull_through(target, out)
            return
        path = Path(paths[0]) if paths else Path(target.key.rpartition("/")[2])
        if path.is_dir():
            path /= target.key.rpartition("/")[2]
        out.show(pull_into(path, target, out, yes=yes))


def pull_through(target: Target, out: Terminal) -> None:
    """Write the database's bytes to stdout, and what they are to stderr.

    Raises:
        CorruptDatabaseError: What is stored is no sound database. Nothing was written.
        OutputError: stdout did not take all of it.
    """
    stdout = out.bytes_out()
    with _checked(target, out) as copy:
        try:
            with open(copy.path, "rb") as read:
                shutil.copyfileobj(read, stdout, _PIECE)
            stdout.flush()
        except OSError as error:  # also a reader that has gone away: half a database is none
            raise out.broken_off(error) from error
        out.note(f"{target.url}: version {copy.version.sequence}, commit {short(copy.version.commit)}")


def pull_into(path: Path, target: Target, out: Terminal, *, yes: bool) -> Pulled:
    """What :func:`pull` does.

    Raises:
        CorruptDatabaseError: What is stored is no sound database. Nothing was written.
        WorkingCopyError: The file cannot be written.
    """
    if path.exists():
        if path.is_file():
            _require_at_rest(path, target.url)
        out.confirm(f"{path} exists. Replace it?", yes=yes)
    out.so_far = f"Nothing was written to {path}."
    with _checked(target, out) as copy:
        _put_in_place(copy.path, path, target.url)
        out.so_far = f"{path} was written."
        return Pulled(url=target.url, path=str(path), version=as_stored(copy.version))


@contextmanager
def _checked(target: Target, out: Terminal) -> Iterator[LocalCopy]:
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
        yield copy


def _require_at_rest(path: Path, url: str) -> None:
    """Make sure that nothing beside a file would be taken for a part of what is put in its place.

    SQLite replays a WAL or a journal into whatever has the name that it belongs to.
    """
    for suffix in ("-wal", "-journal"):
        with suppress(OSError):
            if os.stat(f"{path}{suffix}").st_size:
                raise WorkingCopyError(
                    f"{path} is in use, or was left by a program that died: {path}{suffix} is beside it, and would be "
                    "replayed into what replaces it. Close the program, move both files away, or choose another PATH.",
                    url=url,
                    path=str(path),
                )


def _put_in_place(source: Path, path: Path, url: str) -> None:
    """Copy to ``path``, all of it or nothing: through a file beside it, which is renamed.

    A link stays one. What is no file (``/dev/stdout``, a named pipe) is written to.
    """
    if path.exists() and not path.is_file():
        try:
            with open(source, "rb") as read, open(path, "wb") as written:
                shutil.copyfileobj(read, written, _PIECE)
        except OSError as error:
            raise _not_written(path, url, error) from error
        return
    path = Path(os.path.realpath(path)) if path.is_symlink() else path
    beside = path.with_name(f".{path.name}.{os.urandom(6).hex()}")
    try:
        with open(source, "rb") as read, open(beside, "xb") as written:
            shutil.copyfileobj(read, written, _PIECE)
            written.flush()
            os.fsync(written.fileno())
        os.replace(beside, path)
    except OSError as error:
        raise _not_written(path, url, error) from error
    finally:
        with suppress(FileNotFoundError, NotADirectoryError), undisturbed():
            beside.unlink()


def _not_written(path: Path, url: str, error: OSError) -> WorkingCopyError:
    return WorkingCopyError(
        f"{path} cannot be written: {error.strerror}. Choose another PATH.", url=url, path=str(path)
    )


def push(
    arguments: PushArguments,
    *,
    expect: Annotated[
        str | None,
        typer.Option(
            metavar="COMMIT",
            help="Store only if this is the current version: its commit (or how that begins), or 'none'.",
        ),
    ] = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Store a SQLite file as the next version, unless somebody else stores one meanwhile.

    PATH - is stdin. Refuses what is no sound SQLite database. Asks before it replaces a version, unless --expect names
    it.

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
        SyncError, StoreError: It could not be stored; see :meth:`temaki.remote.remote.Remote.publish`.
    """
    out.so_far = "Nothing was stored."
    with scratch() as folder:
        is_piped = str(path) == STANDARD
        copy = copy_at_rest(_received(folder) if is_piped else path, folder, "stdin" if is_piped else None)
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
        out.so_far = f"Version {published.version.sequence} was stored."
        return Pushed(
            url=target.url,
            version=as_stored(published.version, current=not published.superseded),
            replaced=None if base is None else as_stored(base, current=False),
        )


def _received(folder: Path) -> Path:
    """What comes through stdin, as a file.

    Raises:
        ConfigurationError: Nothing can come.
    """
    if sys.stdin.isatty():
        raise ConfigurationError("PATH - reads the database from stdin, which is a terminal here. Name a file.")
    path = folder / "stdin.sqlite"
    with open(path, "xb") as written:
        shutil.copyfileobj(sys.stdin.buffer, written, _PIECE)
    return path


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
