"""What a session costs beyond its requests: one that reads an unchanged database, and one that commits one row.

The database has 1 MB. It is in memory, behind a latency of 0 and of 20 ms; in a folder; and with ``--server moto`` or
``--server seaweedfs`` on an S3 server on loopback. "Requests alone" are the same requests with bodies of the same size,
without a database.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from pony.orm import Database as PlainDatabase
from pony.orm import Required, db_session

from benchmarks._common import SlowStore, Targets, in_turns, make_database, median, ms, s3_server, table
from temaki import Database
from temaki.store import Store
from temaki.stores import open_store
from temaki.stores.directory import DirectoryStore
from temaki.stores.memory import MemoryStore
from temaki.stores.wrapper import Verb
from temaki.testing import CountingStore

KEY = "app.sqlite"
SIZE = 1_000_000
READ_TARGET = 0.002
COMMIT_TARGET = 0.005
VERBS: tuple[Verb, ...] = ("get", "head", "put", "delete", "list")
HEAD = ("store: session", "requests alone", "session", "beyond", "ratio", "plain Pony", "requests", "bytes up", "down")


class Application:
    """A mapped database with sessions that can be timed."""

    def __init__(self, db: PlainDatabase, bind: Callable[[], object]) -> None:
        class Person(db.Entity):
            name = Required(str)

        bind()
        db.generate_mapping()
        self._Person = Person
        self._names = map("renamed {}".format, itertools.count())

    def read(self) -> str:
        """One row, by primary key."""
        with db_session:
            name: str = self._Person.get(id=1).name
            return name

    def commit(self) -> None:
        """Change one row."""
        with db_session:
            self._Person.get(id=1).name = next(self._names)


def raw_requests(store: Store, data: bytes) -> tuple[Callable[[], object], Callable[[], object]]:
    """What the sessions ask of the store, without a database: an unchanged GET; that and a PUT in its place."""
    key = "raw"
    etag = store.put(key, data)
    bodies = itertools.cycle((data[:-1] + b"a", data[:-1] + b"b"))

    def get() -> None:
        assert store.get(key, if_none_match=etag) is None

    def get_and_put() -> None:
        nonlocal etag
        get()
        etag = store.put(key, next(bodies), if_match=etag)

    return get, get_and_put


def measure(name: str, store: Store, file: Path, rounds: int, targets: Targets) -> list[list[str]]:
    """Two rows of the table."""
    data = file.read_bytes()
    store.put(KEY, data)
    counting = CountingStore(store)
    db = Database()
    slug = "".join(character if character.isalnum() else "-" for character in name)
    application = Application(db, lambda: db.bind_s3(f"memory://{slug}/{KEY}", store=counting))
    plain_db = PlainDatabase()
    with tempfile.NamedTemporaryFile(suffix=".sqlite") as plain_file:
        plain_file.write(data)
        plain_file.flush()
        plain = Application(plain_db, lambda: plain_db.bind("sqlite", plain_file.name))
        get, get_and_put = raw_requests(store, data)
        application.commit()  # pulls, and makes the version one of temaki's
        counting.reset()
        rows = []
        for what, raw, call, alone, target in (
            ("read", get, application.read, plain.read, READ_TARGET),
            ("commit", get_and_put, application.commit, plain.commit, COMMIT_TARGET),
        ):
            counting.reset()
            on_plain, requests, session = (median(column) for column in in_turns(rounds, alone, raw, call))
            beyond = session - requests
            calls = rounds + 1
            counts = {verb: counting.count(verb) for verb in VERBS if counting.count(verb)}
            asked = " + ".join(f"{count / calls:g} {verb}" for verb, count in counts.items())
            rows.append(
                [
                    f"{name}: {what}",
                    ms(requests),
                    ms(session),
                    ms(beyond),
                    f"{session / requests:.2f}",
                    ms(on_plain),
                    asked,
                    f"{counting.bytes_up / calls:,.0f}",
                    f"{counting.bytes_down / calls:,.0f}",
                ]
            )
            targets.add(f"{name}: {what}, beyond its requests", ms(target), ms(beyond), met=beyond <= target)
            puts = calls if what == "commit" else 0
            exact = (counting.count(), counting.count("get", "not_modified"), counting.count("put", "ok"))
            most = "1 GET (304), 1 PUT" if puts else "1 GET (304)"
            targets.add(f"{name}: {what}, requests", most, asked, met=exact == (calls + puts, calls, puts))
        plain_db.disconnect()
        db.disconnect()
    return rows


def main() -> None:
    """Measure all stores in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", choices=("moto", "seaweedfs"), help="measure on such an S3 server, too")
    parser.add_argument("--rounds", type=int, default=100)
    arguments = parser.parse_args()
    targets = Targets()
    rows = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="temaki-bench-")))
        file = folder / "one-megabyte.sqlite"
        make_database(file, SIZE)
        stores: list[tuple[str, Store]] = [
            ("memory", MemoryStore()),
            ("memory + 20 ms", SlowStore(MemoryStore(), 0.020)),
            ("folder", DirectoryStore(folder)),
        ]
        if arguments.server:
            bucket = stack.enter_context(s3_server(arguments.server))
            stores.append((arguments.server, open_store(f"s3://{bucket}/{KEY}")[0]))
        for name, store in stores:
            rows += measure(name, store, file, arguments.rounds, targets)
        size = file.stat().st_size
    print(f"  Database of {size:,} bytes; medians of {arguments.rounds} rounds, measured in turns.\n")
    table(HEAD, rows)
    targets.show()


if __name__ == "__main__":
    main()
