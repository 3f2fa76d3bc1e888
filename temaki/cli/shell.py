"""``shell``: SQL on a copy of the current version; with ``--write`` the copy is stored at the end."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.text import Text

from temaki.cli.local import interruptible, problems, read_only, scratch
from temaki.cli.look import table_names
from temaki.cli.options import AsJson, Url, Yes
from temaki.cli.progress import showing_progress
from temaki.cli.results import ShellResult, StatementResult, StoredVersion
from temaki.cli.tables import rows_table
from temaki.cli.target import LocalCopy, Target, as_stored
from temaki.cli.terminal import FOUND, Terminal, terminal
from temaki.errors import ConfigurationError, CorruptDatabaseError
from temaki.replica.header import DATABASE_HEADER, read_header

_HELP: Final = """\
.tables          the tables
.schema [TABLE]  how they were made
.quit            leave (so does end of file)
.help            this
Anything else is SQL, and ends with a semicolon."""
_LEAVE: Final = (".quit", ".exit")


def shell(
    url: Url = None,
    *,
    write: Annotated[bool, typer.Option("--write", help="Store what was changed, at the end, after asking.")] = False,
    command: Annotated[
        list[str] | None, typer.Option("--command", "-c", metavar="SQL", help="Run this instead of prompting.")
    ] = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """An SQL prompt on a read-only copy of the current version.

    With --write the copy can be changed, and is stored at the end as the next version, unless somebody else has stored
    one meanwhile; it asks first, and wants --yes where nobody can answer. Statements come from --command, from a pipe,
    or from you.

    Example: temaki shell s3://my-bucket/app.sqlite -c 'SELECT count(*) FROM User'
    """
    with terminal(as_json=as_json) as out:
        target = Target(url)
        out.so_far = "Nothing was stored."
        with scratch() as folder:
            with showing_progress(target.store, out.notes) as store:
                copy = target.fetch(folder, remote=target.remote_on(store))
            result, failed = _run(copy, target, out, command or [], write=write, yes=yes)
        if as_json or result.published is not None:
            out.show(
                result
                if as_json
                else ShellResult(url=result.url, version=result.version, statements=[], published=result.published)
            )
        if failed:
            raise typer.Exit(FOUND)


def _run(
    copy: LocalCopy, target: Target, out: Terminal, commands: list[str], *, write: bool, yes: bool
) -> tuple[ShellResult, bool]:
    """The statements, and the publication of what they changed. A statement that fails is the last one, in a script."""
    before = _change_counter(copy.path)
    interactive = not commands and sys.stdin.isatty()
    with closing(_connected(copy.path, write=write)) as connection:
        prompt = Prompt(connection, out, interactive=interactive)
        if interactive:
            _welcome(out, target, copy, write=write)
            prompt.converse()
        else:
            prompt.run(commands or [_piped()])
        if connection.in_transaction:
            out.note("A transaction was left open; it is rolled back.")
            connection.rollback()
    published = None
    if write and not prompt.failed and _change_counter(copy.path) != before:
        published = _publish(copy, target, out, yes=yes)
    return ShellResult(
        url=target.url, version=as_stored(copy.version), statements=prompt.results, published=published
    ), prompt.failed


def _piped() -> str:
    """What comes through stdin."""
    try:
        return sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"The statements on stdin are not UTF-8: {error}. Nothing was run.") from error


def _connected(path: Path, *, write: bool) -> sqlite3.Connection:
    if write:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("PRAGMA foreign_keys = ON").close()
    else:
        connection = read_only(path)
    # Other programs store texts that are not UTF-8; somebody who looks for them must be able to see them.
    connection.text_factory = lambda data: data.decode(errors="backslashreplace")
    return connection


def _welcome(out: Terminal, target: Target, copy: LocalCopy, *, write: bool) -> None:
    with suppress(ImportError):
        import readline  # noqa: F401 - gives input() a history and editing
    mode = "changes are stored at the end, after asking" if write else "read-only"
    out.note(f"{target.url}, version {copy.version.sequence}: {mode}. .help shows what there is beside SQL.")


def _publish(copy: LocalCopy, target: Target, out: Terminal, *, yes: bool) -> StoredVersion:
    found = problems(copy.path)
    if found:
        raise CorruptDatabaseError(
            f"Not stored: after these changes, {found[0]}. {target.url} is as it was.", url=target.url
        )
    out.confirm(f"Store the changes as version {copy.version.sequence + 1} of {target.url}?", yes=yes)
    with showing_progress(target.store, out.notes) as store:
        published = target.publish(copy.path, copy.version, store=store)
    out.so_far = f"The changes were stored, as version {published.version.sequence}."
    return as_stored(published.version, current=not published.superseded)


def _change_counter(path: Path) -> tuple[int, int]:
    """What SQLite moves with every transaction that changes a file in rollback mode."""
    with open(path, "rb") as file:
        header = read_header(file.read(DATABASE_HEADER))
    return header.change_counter, path.stat().st_size


@dataclass
class Prompt:
    """Statements, one after the other.

    Attributes:
        results: With rows, for ``--json`` alone; a prompt prints them as they come.
        failed: Whether a statement of a script failed; none after it was run.
    """

    connection: sqlite3.Connection
    out: Terminal
    interactive: bool = False
    results: list[StatementResult] = field(default_factory=list)
    failed: bool = False

    def converse(self) -> None:
        """Ask until the user leaves. Ctrl-C drops the line; at an empty prompt it leaves, too."""
        pending = ""
        while True:
            try:
                line = input("   ...> " if pending else "temaki> ")
            except EOFError:
                sys.stderr.write("\n")
                return
            except KeyboardInterrupt:
                if not pending:
                    raise
                sys.stderr.write("\n")
                pending = ""
                continue
            if not pending and _is_dot(line):
                if _words(line)[0] in _LEAVE:
                    return
                self._run_interruptibly(line.strip())
                continue
            pending += line + "\n"
            if sqlite3.complete_statement(pending):
                for statement in _statements(pending):
                    self._run_interruptibly(statement)
                pending = ""

    def _run_interruptibly(self, statement: str) -> None:
        """Ctrl-C ends the statement, and not the conversation."""
        open_before = self.connection.in_transaction
        try:
            self._execute(statement)
        except KeyboardInterrupt:
            # SQLite rolls a transaction back in which it had to give up a statement that writes.
            lost = open_before and not self.connection.in_transaction
            what = "the transaction was rolled back" if lost else "this statement has changed nothing"
            self.out.note(f"\nInterrupted: {what}.")

    def run(self, scripts: Iterable[str]) -> None:
        """Scripts, one after the other, with dot-commands on lines of their own. The first thing that fails ends it."""
        for script in scripts:
            for statement in _pieces(script):
                if _is_dot(statement) and _words(statement)[0] in _LEAVE:
                    return
                if not self._execute(statement):
                    self.failed = True
                    return

    def _execute(self, statement: str) -> bool:
        try:
            with interruptible(self.connection):
                if _is_dot(statement):
                    return self._dot(statement)
                cursor = self.connection.execute(statement)
                columns = [column[0] for column in cursor.description or ()]
                rows = [list(row) for row in cursor.fetchall()]
        except (sqlite3.Error, sqlite3.Warning, ValueError) as error:  # ValueError: letters that SQLite does not take
            hint = " (--write allows changes.)" if "readonly" in str(error) else ""
            self.out.note(f"{error}.{hint}")
            return False
        self._found(StatementResult(sql=statement, columns=columns, rows=rows))
        return True

    def _found(self, result: StatementResult) -> None:
        if self.out.as_json:
            self.results.append(result)
        elif result.columns:
            self.out.print(rows_table(result))

    def _dot(self, statement: str) -> bool:
        name, *words = _words(statement)
        if name == ".tables":
            found = [[table] for table in table_names(self.connection)]
            result = StatementResult(sql=statement, columns=["name"], rows=found)
        elif name == ".schema":
            condition = " AND tbl_name = ? COLLATE NOCASE" if words else ""
            text = f"SELECT sql FROM sqlite_master WHERE sql IS NOT NULL{condition} ORDER BY tbl_name, type DESC"
            found = [[f"{sql};"] for (sql,) in self.connection.execute(text, words[:1])]
            result = StatementResult(sql=statement, columns=["sql"], rows=found)
        else:
            self.out.note(_HELP if name == ".help" else f"There is no command {name}. These are:\n{_HELP}")
            return name == ".help"
        if self.out.as_json:
            self.results.append(result)
        elif result.rows:
            self.out.print(Text("\n".join(row[0] for row in result.rows)))
        return True


def _is_dot(text: str) -> bool:
    return text.lstrip().startswith(".")


def _words(text: str) -> list[str]:
    """Of a dot-command. A semicolon at its end, and quotes around a name, are habit."""
    return [word.strip("\"'`") for word in text.strip().rstrip(";").split()] or ["."]


def _pieces(script: str) -> Iterator[str]:
    """The statements of a script, and the dot-commands between them. Its last statement needs no semicolon."""
    pending = ""
    for line in script.splitlines():
        if not pending.strip() and _is_dot(line):
            yield line.strip()
            pending = ""
            continue
        pending += line + "\n"
        if sqlite3.complete_statement(pending):
            yield from _statements(pending)
            pending = ""
    yield from _statements(pending)


def _statements(text: str) -> Iterator[str]:
    """One after the other: a line may have several. Splits where SQLite says that a statement is complete."""
    pending = ""
    for piece in text.split(";"):
        pending += piece + ";"
        if sqlite3.complete_statement(pending):
            if pending.strip(" \t\r\n;"):
                yield pending.strip()
            pending = ""
    rest = pending.strip().removesuffix(";").strip()
    if rest:
        yield rest
