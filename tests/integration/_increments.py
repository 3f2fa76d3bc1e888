"""Processes that increment a counter, start at once, and share a cache folder. See ``test_processes.py``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pony.orm import db_session

from temaki import Database
from temaki.stores import open_store
from temaki.testing import CountingStore, Fault, FaultyStore
from temaki.testing.threads import in_parallel
from tests.integration._worker import Application, create, hear, main, say


def increment(url: str, threads: int, times: int, journal: str, seed: int | None) -> int:
    """In each thread so many increments; each one is noted after its call has returned. The value at the end.

    With a seed, one reply to an upload in three is lost on its way.
    """
    store = (
        None if seed is None else FaultyStore(open_store(url)[0], seed=seed, rates={"put": {Fault.LOST_REPLY: 1 / 3}})
    )
    app = Application(url, store=store)
    lines = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def work() -> None:
        for _ in range(times):
            os.write(lines, b"%d\n" % app.increment())

    say("ready")
    hear()
    in_parallel([work] * threads)
    return app.value()


def value(url: str) -> int:
    """The counter, in a process that has just started."""
    return Application(url).value()


def start_first(url: str) -> dict[str, Any]:
    """Bind, wait for the others, and create what is missing."""
    store, key = open_store(url)
    counting = CountingStore(store)
    db = Database()

    class Counter(db.Entity):  # type: ignore[name-defined]
        pass

    class Row(db.Entity):  # type: ignore[name-defined]
        pass

    db.bind_s3(url, store=counting)
    say("ready")
    hear()
    db.generate_mapping(create_tables=True)
    with db_session:
        rows = Counter.select().count() + Row.select().count()
    return {
        "uploads": counting.count("put", "ok", key=key),
        "rows": rows,
        "sequence": store.head(key).metadata["temaki-seq"],
    }


def share_cache(url: str, cache_dir: str) -> list[str]:
    """Increment when told to, with the value that was seen before; at the end the names of the cache's folders."""
    app = Application(url, cache_dir=cache_dir)
    say(app.value())
    while hear() != "end":
        app.increment()
        say(app.value())
    assert app.check() == "ok"
    return sorted(entry.name for entry in Path(cache_dir).iterdir())


def take_turns(url: str) -> dict[str, int]:
    """Increment when told to go; when told to stay, keep the transaction open for a word more.

    Returns:
        How many increments were made, and how many runs of the function that took.
    """
    app = Application(url)
    app.value()
    say("ready")
    increments = 0
    stays = False

    def then() -> None:
        nonlocal stays
        if stays:
            stays = False  # not when it is run again
            say("changed")
            hear()

    while (word := hear()) != "end":
        stays = word == "stay"
        say(app.increment(then=then))
        increments += 1
    return {"increments": increments, "runs": app.runs}


if __name__ == "__main__":
    main(create, increment, value, start_first, share_cache, take_turns)
