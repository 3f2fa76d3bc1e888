"""An application of temaki: two entities, one function that changes them, and a process that calls it.

``demo.py`` runs several of these at once. Only what the demo has to know about a process, the counting and the
journal, is not what anybody would write.
"""

from __future__ import annotations

import json
import os
import sys
import threading

from pony.orm import CommitException, PrimaryKey, Required, Set

from temaki import CommitUnknownError, Database, TemakiError, cause_of, db_session
from temaki.stores import open_store
from temaki.testing import CountingStore

db = Database()


class Role(db.Entity):  # type: ignore[name-defined]  # Pony has no types
    """What a person does. ``headcount`` is one value that all processes change: lost updates would show in it."""

    id = PrimaryKey(int)
    label = Required(str, unique=True)
    headcount = Required(int, default=0)
    people = Set("Person")


class Person(db.Entity):  # type: ignore[name-defined]
    """Somebody who was hired."""

    name = Required(str)
    role = Required(Role)


@db_session(retry=1000)
def hire(name: str) -> None:
    """One transaction. Where another process was faster, Pony runs it again on the version of that process."""
    role = Role.get(label="user")
    role.headcount += 1
    Person(name=name, role=role)


@db_session
def create_roles() -> None:
    """What the database starts with."""
    for number, label in enumerate(["admin", "manager", "user"], start=1):
        Role(id=number, label=label)


class Journal:
    """Tells the demo what this process knows: one line for each event, in a file that survives the process."""

    def __init__(self, path: str, store: CountingStore, key: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._store, self._key = store, key

    def write(self, event: str, name: str = "") -> None:
        """Write a line, with what the store has been asked so far."""
        store = self._store
        line = {
            "event": event,
            "name": name,
            "conflicts": store.count("put", "refused", key=self._key),
            "requests": store.count(),
            "up": store.bytes_up,
            "down": store.bytes_down,
        }
        # One write() without a buffer: once it returns, no signal can take the line back.
        os.write(self._file, json.dumps(line).encode() + b"\n")


def end_with_the_demo() -> None:
    """Standard input is a pipe from the demo, which ends with it, even if that was killed."""
    os.read(sys.stdin.fileno(), 1)  # not sys.stdin.read(): its lock would be in the way of the interpreter's end
    os._exit(1)


def hire_many(process: int, hires: int, journal: Journal) -> None:
    """Hire so many people, one transaction each, and note every commit that was acknowledged."""
    journal.write("ready")
    if not sys.stdin.readline():  # the demo has ended before all processes were ready
        return
    threading.Thread(target=end_with_the_demo, daemon=True).start()
    for number in range(1, hires + 1):
        name = f"Employee {process}-{number}"
        try:
            hire(name)
        except (TemakiError, CommitException) as error:
            if not isinstance(cause_of(error), CommitUnknownError):
                raise
            journal.write("unknown", name)  # a network can lose the answer; temaki says so, and does not guess
        else:
            journal.write("acknowledged", name)
    journal.write("done")


def main(url: str, role: str, *arguments: str) -> None:
    """Create the database, or hire: ``application.py URL create|hire PROCESS HIRES JOURNAL``."""
    store, key = open_store(url)
    counting = CountingStore(store)
    db.bind_s3(url, strategy="etag-cached", store=counting)
    db.generate_mapping(create_tables=role == "create")
    if role == "create":
        create_roles()
    else:
        process, hires, journal = arguments
        hire_many(int(process), int(hires), Journal(journal, counting, key))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (TemakiError, CommitException) as error:
        sys.exit(f"{type(cause_of(error)).__name__}: {cause_of(error)}")
