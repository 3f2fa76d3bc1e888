"""``shell``: run SQL on a copy of the current version, and with ``--write`` store the copy at the end."""

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
.tables          list the tables
.schema [TABLE]  show the statements that created them
.quit            leave (end of file leaves, too)
.help            show this text
Anything else is SQL, and ends with a semicolon."""
_LEAVE: Final = (".quit", ".exit")


def shell(
    url: Url = None,
    *,
    write: Annotated[bool, typer.Option("--write", help="Store the changes at the end, after asking.")] = False,
    command: Annotated[
        list[str] | None, typer.Option("--command", "-c", metavar="SQL", help="Run this instead of prompting.")
    ] = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Open an SQL prompt on a read-only copy of the current version.

    With --write you can change the copy. At the end it is stored as the next version, unless another writer has stored
    one meanwhile. The command asks first; where nobody can answer, it needs --yes. Statements come from --command, from
    a pipe, or from the prompt.

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
    """Run the statements and publish their changes. A statement that fails ends a script.

    Returns:
        The result, and whether a statement of a script failed.
    """
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
    """Return the text that comes from stdin."""
    try:
        return sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"The statements on stdin are not UTF-8: {error}. Nothing was run. Convert them to UTF-8."
        ) from error


def _connected(path: Path, *, write: bool) -> sqlite3.Connection:
    if write:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("PRAGMA foreign_keys = ON").close()
    else:
        connection = read_only(path)
    # Other programs may store texts that are not UTF-8. The shell must be able to show them.
    connection.text_factory = lambda data: data.decode(errors="backslashreplace")
    return connection


def _welcome(out: Terminal, target: Target, copy: LocalCopy, *, write: bool) -> None:
    with suppress(ImportError):
        import readline  # noqa: F401 - the import gives input() a history and editing
    mode = "changes are stored at the end, after asking" if write else "read-only"
    out.note(f"{target.url}, version {copy.version.sequence}: {mode}. .help lists the commands besides SQL.")


def _publish(copy: LocalCopy, target: Target, out: Terminal, *, yes: bool) -> StoredVersion:
    defects = problems(copy.path)
    if defects:
        raise CorruptDatabaseError(
            f"The changes were not stored, because they make the database unsound: {defects[0]}. {target.url} is "
            "unchanged. Correct the statements.",
            url=target.url,
        )
    out.confirm(f"Store the changes as version {copy.version.sequence + 1} of {target.url}?", yes=yes)
    with showing_progress(target.store, out.notes) as store:
        published = target.publish(copy.path, copy.version, store=store)
    out.so_far = f"The changes were stored, as version {published.version.sequence}."
    return as_stored(published.version, current=not published.superseded)


def _change_counter(path: Path) -> tuple[int, int]:
    """Return the change counter and the size: each transaction that changes a file in rollback mode moves one."""
    with open(path, "rb") as file:
        header = read_header(file.read(DATABASE_HEADER))
    return header.change_counter, path.stat().st_size


@dataclass
class Prompt:
    """Runs statements, one after the other.

    Attributes:
        connection: The connection to the local copy.
        out: The terminal, for results and notes.
        interactive: Whether a person types the statements.
        results: The results, with ``--json`` only. Without it, they are printed as they come.
        failed: Whether a statement of a script failed. No statement after it was run.
    """

    connection: sqlite3.Connection
    out: Terminal
    interactive: bool = False
    results: list[StatementResult] = field(default_factory=list)
    failed: bool = False

    def converse(self) -> None:
        """Read and run statements until the user leaves. Ctrl-C drops the line; at an empty prompt it leaves."""
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
        """Run a statement. Ctrl-C ends the statement, and the prompt comes back."""
        open_before = self.connection.in_transaction
        try:
            self._execute(statement)
        except KeyboardInterrupt:
            # If SQLite has to interrupt a statement that writes, it rolls its transaction back.
            lost = open_before and not self.connection.in_transaction
            what = "the transaction was rolled back" if lost else "this statement has changed nothing"
            self.out.note(f"\nInterrupted: {what}.")

    def run(self, scripts: Iterable[str]) -> None:
        """Run scripts, with dot-commands on lines of their own. The first statement that fails ends all of them."""
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
        except (sqlite3.Error, sqlite3.Warning, ValueError) as error:  # ValueError: SQLite does not accept a letter
            hint = " (--write allows changes.)" if "readonly" in str(error) else ""
            self.out.note(f"{error}.{hint}")
            return False
        self._show(StatementResult(sql=statement, columns=columns, rows=rows))
        return True

    def _show(self, result: StatementResult) -> None:
        if self.out.as_json:
            self.results.append(result)
        elif result.columns:
            self.out.print(rows_table(result))

    def _dot(self, statement: str) -> bool:
        name, *words = _words(statement)
        if name == ".tables":
            tables = [[table] for table in table_names(self.connection)]
            result = StatementResult(sql=statement, columns=["name"], rows=tables)
        elif name == ".schema":
            condition = " AND tbl_name = ? COLLATE NOCASE" if words else ""
            text = f"SELECT sql FROM sqlite_master WHERE sql IS NOT NULL{condition} ORDER BY tbl_name, type DESC"
            definitions = [[f"{sql};"] for (sql,) in self.connection.execute(text, words[:1])]
            result = StatementResult(sql=statement, columns=["sql"], rows=definitions)
        else:
            self.out.note(_HELP if name == ".help" else f"There is no command {name}. The commands are:\n{_HELP}")
            return name == ".help"
        if self.out.as_json:
            self.results.append(result)
        elif result.rows:
            self.out.print(Text("\n".join(row[0] for row in result.rows)))
        return True


def _is_dot(text: str) -> bool:
    return text.lstrip().startswith(".")


def _words(text: str) -> list[str]:
    """Return the words of a dot-command, without a semicolon at its end and quotes around names, which users add."""
    return [word.strip("\"'`") for word in text.strip().rstrip(";").split()] or ["."]


def _pieces(script: str) -> Iterator[str]:
    """Yield the statements of a script and the dot-commands between them. The last statement needs no semicolon."""
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
    """Yield the statements of a text, split where SQLite says that a statement is complete."""
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
