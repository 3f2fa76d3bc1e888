"""The test's side of a ledger that processes make entries in: do the books balance, whatever was done to them?"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from temaki.stores import open_store
from temaki.testing import Server
from tests.integration._children import PATIENCE, Child, Place
from tests.integration._worker import COMPACTS
from tests.stored import fetched, opened

PROGRAM = "_storm.py"
MORE = 10 if os.environ.get("SOAK") else 1
"""So many times as long as in the test command."""
NOT_ENTRIES = {"ballast", "last"}


@dataclass
class Ledger:
    """A database in one of the stores, a folder for the journals, and the processes that use both.

    Attributes:
        place: Where the processes are.
        url: The database's.
        env: What they find in their environment.
        server: Where the store is, if it is no folder.
    """

    place: Place
    url: str
    env: Mapping[str, str]
    server: Server | None = None

    @classmethod
    def on(cls, place: Place, server: Server | None) -> Ledger:
        """One in a new bucket of a server, or in the folder."""
        if server is None:
            return cls(place, place.url, {})
        return cls(place, f"s3://{server.bucket()}/app.sqlite", server.environment, server)

    def compacting(self) -> Ledger:
        """The same, whose processes maintain a database in pages all the time; see ``_compacting.py``."""
        return replace(self, env={**self.env, COMPACTS: "yes"})

    @contextmanager
    def compacted_beside(self) -> Iterator[None]:
        """Meanwhile, one more process does nothing but compact, as ``temaki compact`` does. It has something to do."""
        if not self.is_compacting:
            yield
            return
        stop = self.place.root / "stop-compacting"
        child = self.place.start(PROGRAM, "compact_until", self.url, str(stop), env=self.env)
        yield
        stop.touch()
        print(child.result())

    @property
    def is_compacting(self) -> bool:
        """Whether its processes do."""
        return COMPACTS in self.env

    def run(self, action: str, *arguments: Any) -> Any:
        """Run an action of ``_storm.py`` on the database to its end, and give what it returned."""
        return self.place.start(PROGRAM, action, self.url, *arguments, env=self.env).result(patience=PATIENCE * MORE)

    def run_with_journals(self, action: str, *arguments: Any, env: Mapping[str, str] | None = None) -> Any:
        """The same for one that makes entries, with journals in the place's folder."""
        return self.start(action, *arguments, env=env).result(patience=PATIENCE * MORE)

    def start(self, action: str, *arguments: Any, env: Mapping[str, str] | None = None) -> Child:
        """Start one that makes entries, with journals in the place's folder."""
        folder = str(self.place.root)
        return self.place.start(PROGRAM, action, self.url, folder, *arguments, env={**self.env, **(env or {})})

    def create(self, size: int = 0) -> None:
        """Create it; see ``_storm.py``."""
        self.run("create", size)

    def stop(self) -> None:
        """Have those that make entries make no more."""
        (self.place.root / "stop").touch()

    def acknowledged(self) -> int:
        """How many entries have been acknowledged so far."""
        return sum(line[0] == "acknowledged" for line in self._lines())

    def assert_balanced(self) -> Counter[str]:
        """Each entry is there exactly as often as its process was told, and nothing else is; how many of each fate.

        An acknowledged one is there once, under the number that it returned. A refused one is not there. One that is
        unknown, by the error or because its process was killed, is there at most once.
        """
        found = self.run("read")
        assert found["integrity"] == "ok"
        assert self.stored() == sorted(found["rows"]), "the store holds what a process reads"
        rows = {number: text.split()[0] for number, text in found["rows"]}
        assert sorted(rows) == list(range(1, found["value"] + 1)), "the counter and the rows belong together"
        times = Counter(token for token in rows.values() if token not in NOT_ENTRIES)
        fates = {words[1]: words for words in self._lines()}  # the last line about each
        assert set(times) <= set(fates), "something is there that nobody has entered"
        for token, (fate, _, *details) in fates.items():
            if fate == "acknowledged":
                assert rows.get(int(details[0])) == token, f"{token} was acknowledged as number {details[0]}"
            expected = {"acknowledged": {1}, "refused": {0}}.get(fate, {0, 1})
            assert times[token] in expected, f"{token} is {fate} {details}, and is there {times[token]} times"
        return Counter(words[0] for words in fates.values())

    def stored(self) -> list[list[Any]]:
        """The rows in the store, as far as ``read`` gives them, read without temaki."""
        client = None if self.server is None else self.server.client()
        store, key = open_store(self.url, client=client)
        with opened(fetched(store, key)) as connection:
            rows = connection.execute("SELECT id, substr(text, 1, 100) FROM Row ORDER BY id").fetchall()
        if client is not None:
            client.close()
        return [list(row) for row in rows]

    def _lines(self) -> Iterator[list[str]]:
        for journal in sorted(self.place.root.glob("journal-*")):
            yield from (line.split() for line in journal.read_text().splitlines())
