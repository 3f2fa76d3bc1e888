"""``pull`` and ``push``: copy the database out of the bucket and into it, as a plain SQLite file."""

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
from temaki.cli.target import SHORTEST, LocalCopy, Target, as_stored
from temaki.cli.terminal import Terminal, terminal
from temaki.cli.versions import NAMES, KeptVersions
from temaki.errors import ConfigurationError, ConflictError, CorruptDatabaseError, WorkingCopyError
from temaki.version import Version

STANDARD: Final = "-"
"""The PATH that means stdin or stdout. A file of that name is ``./-``."""

_PIECE: Final = 1 << 20  # bytes

Arguments = Annotated[list[str] | None, typer.Argument(metavar="[URL] [PATH]", help=URL_HELP, show_default=False)]
PushArguments = Annotated[list[str], typer.Argument(metavar="[URL] PATH", help=URL_HELP, show_default=False)]


def pull(
    arguments: Arguments = None,
    *,
    version: Annotated[
        str | None,
        typer.Option(metavar="VERSION", help=f"An older version that the bucket keeps. {NAMES}"),
    ] = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Check a version, the current one by default, and write it into a plain SQLite file.

    PATH defaults to the object's own name in the working folder; - means stdout. Asks before it replaces a file.

    Example: temaki pull s3://my-bucket/app.sqlite copy.sqlite
    """
    with terminal(as_json=as_json) as out:
        url, paths = apart(arguments, least=0, most=1, what="[URL] [PATH]")
        target = Target(url)
        if paths == [STANDARD]:
            pull_through(target, out, version=version)
            return
        path = Path(paths[0]) if paths else Path(target.key.rpartition("/")[2])
        if path.is_dir():
            path /= target.key.rpartition("/")[2]
        out.show(pull_into(path, target, out, version=version, yes=yes))


def pull_through(target: Target, out: Terminal, *, version: str | None = None) -> None:
    """Write the database's bytes to stdout, and its version to stderr; see :func:`pull_into`.

    Raises:
        CorruptDatabaseError: The stored version is no sound database. Nothing was written.
        OutputError: stdout did not take all bytes.
    """
    stdout = out.bytes_out()
    with _checked(target, out, version) as copy:
        try:
            with open(copy.path, "rb") as read:
                shutil.copyfileobj(read, stdout, _PIECE)
            stdout.flush()
        except OSError as error:  # also if the reader has gone away: half a database is useless
            raise out.broken_off(error) from error
        out.note(f"{target.url}: version {copy.version.sequence}, commit {short(copy.version.commit)}")


def pull_into(path: Path, target: Target, out: Terminal, *, version: str | None = None, yes: bool) -> Pulled:
    """Write a version into a file, as :func:`pull` does.

    Args:
        path: The file.
        target: The database.
        out: The terminal, for the question.
        version: The name of an older version; None for the current one.
        yes: Whether to replace a file without asking.

    Raises:
        CorruptDatabaseError: The stored version is no sound database. Nothing was written.
        WorkingCopyError: The file cannot be written.
    """
    if path.exists():
        if path.is_file():
            _require_at_rest(path, target.url)
        out.confirm(f"{path} exists. Replace it?", yes=yes)
    out.so_far = f"Nothing was written to {path}."
    with _checked(target, out, version) as copy:
        _put_in_place(copy.path, path, target.url)
        out.so_far = f"{path} was written."
        current = version is None or copy.version == target.current_or_none()
        return Pulled(url=target.url, path=str(path), version=as_stored(copy.version, current=current))


@contextmanager
def _checked(target: Target, out: Terminal, name: str | None) -> Iterator[LocalCopy]:
    with scratch() as folder:
        if name is not None:
            versions = KeptVersions(target)
            copy = versions.fetch(versions.named(name), folder, "copy.sqlite", out.notes)
        else:
            with showing_progress(target.store, out.notes) as store:
                copy = target.fetch(folder, remote=target.remote_on(store))
        defects = problems(copy.path)
        if defects:
            raise CorruptDatabaseError(
                f"{target.url} is not sound: {defects[0]}. Nothing was written. temaki verify lists all problems; "
                "temaki restore brings back an earlier version.",
                url=target.url,
            )
        yield copy


def _require_at_rest(path: Path, url: str) -> None:
    """Check that no WAL and no journal is beside a file that will be replaced.

    SQLite would replay them into the new file, because it has the same name.
    """
    for suffix in ("-wal", "-journal"):
        with suppress(OSError):
            if os.stat(f"{path}{suffix}").st_size:
                raise WorkingCopyError(
                    f"{path} is in use, or was left by a program that died: {path}{suffix} is beside it, and SQLite "
                    "would replay it into the new file. Close the program, move both files away, or choose another "
                    "PATH.",
                    url=url,
                    path=str(path),
                )


def _put_in_place(source: Path, path: Path, url: str) -> None:
    """Copy a file to ``path``, all of it or nothing: the copy is made beside it and then renamed.

    A symbolic link stays a link. A device or a named pipe, such as ``/dev/stdout``, is written to directly.
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
            help="Store only if this is the current version: its commit (or the beginning of it), or 'none'.",
        ),
    ] = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Store a SQLite file as the next version, unless another writer stores one meanwhile.

    PATH - means stdin. Refuses a file that is no sound SQLite database. Asks before it replaces a version, unless
    --expect names that version.

    Example: temaki push s3://my-bucket/app.sqlite app.sqlite --expect 4f2a91c0
    """
    with terminal(as_json=as_json) as out:
        url, paths = apart(arguments, least=1, most=1, what="[URL] PATH")
        out.show(push_from(Path(paths[0]), Target(url), out, expect=expect, yes=yes))


def push_from(path: Path, target: Target, out: Terminal, *, expect: str | None, yes: bool) -> Pushed:
    """Store a file as the next version, as :func:`push` does.

    Args:
        path: The file.
        target: The database.
        out: The terminal, for the question.
        expect: The commit of the version that may be replaced, or its beginning; ``none``; None to ask.
        yes: Whether to replace a version without asking.

    Raises:
        CorruptDatabaseError: The file is no sound database.
        ConflictError: The current version is not, or no longer, the expected one.
        SyncError, StoreError: The file could not be stored; see :meth:`temaki.remote.remote.Remote.publish`.
    """
    out.so_far = "Nothing was stored."
    with scratch() as folder:
        is_piped = str(path) == STANDARD
        copy = copy_at_rest(_received(folder) if is_piped else path, folder, "stdin" if is_piped else None)
        defects = problems(copy)
        if defects:
            raise CorruptDatabaseError(f"{path} is not sound: {defects[0]}. Nothing was stored.", url=target.url)
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
    """Write the bytes from stdin into a file.

    Raises:
        ConfigurationError: stdin is a terminal.
    """
    if sys.stdin.isatty():
        raise ConfigurationError("PATH - reads the database from stdin, which is a terminal here. Name a file.")
    path = folder / "stdin.sqlite"
    with open(path, "xb") as written:
        shutil.copyfileobj(sys.stdin.buffer, written, _PIECE)
    return path


def require(base: Version | None, expected: str, url: str) -> None:
    """Check that the current version is the expected one.

    Args:
        base: The current version; None if there is no database.
        expected: The expected commit, or its beginning; ``none`` if no database is expected.
        url: The database's URL, for messages.

    Raises:
        ConflictError: The current version is another one.
    """
    if base is None:
        is_expected, actual = expected == "none", "there is no database"
    else:
        is_expected = expected == base.commit or (len(expected) >= SHORTEST and base.commit.startswith(expected))
        actual = f"the current version is {base.sequence}, commit {base.commit}"
    if not is_expected:
        raise ConflictError(
            f"{url}: expected {expected}, but {actual}. Nothing was stored. Look at what has changed "
            "before you replace it.",
            url=url,
        )
